"""The policy backend-netpol of docs/kubernetes.md, word for word: who reaches a backend, and whom that reaches."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT
from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.control_plane import API, NAMES
from tests.kit.kubernetes.kubectl import Pod, names_of
from tests.kubernetes import shop
from tests.kubernetes.conftest import Record
from tests.kubernetes.probes import Prober, Question, http, serving
from tests.kubernetes.shop import BACKEND, DATABASE, FRONTEND, IMPOSTOR, NAMESPACE, OTHER, SPEAKS

pytestmark = pytest.mark.kernel

SOON = 90.0  # seconds
PATH = "the policy backend-netpol"
FAR = 8001  # the port of a server outside
POLICY = re.compile(r"^```yaml\n(.*?^  name: backend-netpol\n.*?)^```", re.MULTILINE | re.DOTALL)
ZONE = "svc.cluster.local"


@pytest.fixture(scope="module")
def open_shop(prober: Prober) -> Iterator[Prober]:
    """The shop, before it has a policy."""
    prober.kubectl.apply(*shop.objects())
    parts = (f"daemonset/{FRONTEND}", f"deployment/{BACKEND}", f"deployment/{DATABASE}")
    prober.kubectl.roll_out(*parts, namespace=NAMESPACE)
    prober.kubectl.await_ready(IMPOSTOR)
    yield prober
    prober.kubectl.delete(f"namespace/{NAMESPACE}", f"pod/{IMPOSTOR}")


@pytest.fixture(scope="module")
def policed(open_shop: Prober) -> Prober:
    """The shop with the policy in force."""
    (text,) = POLICY.findall((ROOT / "docs/kubernetes.md").read_text("utf-8"))
    open_shop.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", input=text)
    await_value("the policy is in force", lambda: is_in_force(open_shop), SOON)
    return open_shop


def is_in_force(prober: Prober) -> bool:
    """Whether no backend is reached any more at a port that the policy does not name."""
    client, backends = pods(prober, FRONTEND)[0], pods(prober, BACKEND)
    return not any(ask(prober, client, [http(pod.address, OTHER) for pod in backends]))


def pods(prober: Prober, app: str) -> list[Pod]:
    return prober.kubectl.pods(f"app={app}", namespace=NAMESPACE)


def clients(prober: Prober) -> dict[str, list[Pod]]:
    """Who asks: the shop's own, and strangers of another namespace, one of which has a frontend's label."""
    strangers = [prober.client(node) for node in prober.cluster.nodes]
    impostors = prober.kubectl.pods(f"app={FRONTEND}")
    return {**{app: pods(prober, app) for app in SPEAKS}, "stranger": strangers, IMPOSTOR: impostors}


def ask(prober: Prober, pod: Pod, questions: Sequence[Question]) -> list[bool]:
    """Which of them were answered."""
    return ["by" in answer for answer in prober.from_pod(pod.name, *questions, namespace=pod.namespace)]


def who_reaches_what(prober: Prober) -> dict[tuple[str, str, int], set[bool]]:
    """By client, tier and port: each client asks each pod by its address and by the name of the service."""
    places = {app: [f"{app}.{NAMESPACE}", *(pod.address for pod in pods(prober, app))] for app in SPEAKS}
    targets = [(app, port, place) for app in places for port in (SPEAKS[app], OTHER) for place in places[app]]
    asking = [(kind, pod) for kind, each in clients(prober).items() for pod in each]
    reached: dict[tuple[str, str, int], set[bool]] = {}

    def note(each: tuple[str, Pod]) -> None:
        kind, pod = each
        # a pod reaches itself, whatever policies say, and by its service's name it may meet itself
        questions = [(app, port, http(place, port)) for app, port, place in targets if app != kind]
        answers = ask(prober, pod, [question for _, _, question in questions])
        for (app, port, _), answered in zip(questions, answers, strict=True):
            reached.setdefault((kind, app, port), set()).add(answered)

    with ThreadPoolExecutor(len(asking)) as pool:
        list(pool.map(note, asking))
    return reached


def test_without_a_policy_everybody_reaches_all(open_shop: Prober) -> None:
    all_is_reached = lambda: set().union(*who_reaches_what(open_shop).values()) == {True}  # noqa: E731
    await_value("everybody reaches all", all_is_reached, SOON)


def test_a_backend_is_reached_by_frontends_alone_and_reaches_the_database_alone(
    policed: Prober, record: Record
) -> None:
    """Each at the one port that the policy names; what does not concern a backend stays as it was."""
    reached = who_reaches_what(policed)
    for (client, app, port), answers in sorted(reached.items()):
        named = (client, app, port) in {(FRONTEND, BACKEND, 8080), (BACKEND, DATABASE, 3306)}
        expected = named or BACKEND not in (client, app)
        record(PATH, client, f"{app}:{port}", " and ".join("reached" if each else "denied" for each in sorted(answers)))
        assert answers == {expected}, (client, app, port)


def test_a_backend_asks_for_names_and_nothing_else_of_the_cluster_or_the_world(policed: Prober, record: Record) -> None:
    outside, asking = policed.cluster.outside, [*pods(policed, BACKEND), pods(policed, FRONTEND)[0]]
    name = f"{DATABASE}.{NAMESPACE}.{ZONE}"
    service = policed.kubectl.get("service", DATABASE, namespace=NAMESPACE)["spec"]["clusterIP"]
    questions: list[Question] = [["dns", NAMES, name, "A"], ["https", API, "kubernetes", 443]]
    questions.append(http(outside.address(4), FAR))
    with serving(FAR, outside.netns), ThreadPoolExecutor(len(asking)) as pool:
        answers = list(pool.map(lambda pod: policed.from_pod(pod.name, *questions, namespace=NAMESPACE), asking))
    for pod, (found, *others) in zip(asking, answers, strict=True):
        assert found == {"rcode": 0, "answers": [[name, "A", service]]}
        kind = BACKEND if pod.name.startswith(BACKEND) else FRONTEND
        for place, answer in zip(("API server", "outside"), others, strict=True):
            denied = "timed out" in answer.get("error", "")
            record(PATH, kind, place, "denied" if denied else "reached")
            assert denied == (kind == BACKEND), answer


def test_nodes_reach_their_own_pods_whatever_policies_say(policed: Prober) -> None:
    """So probes go on; here the port is one that the policy does not name."""
    backends, nodes = pods(policed, BACKEND), list(policed.cluster.nodes)
    questions = [http(pod.address, OTHER) for pod in backends]
    with ThreadPoolExecutor(len(nodes)) as pool:
        answers = list(pool.map(lambda node: policed.from_node(node, *questions), nodes))
    for node, each in zip(nodes, answers, strict=True):
        assert ["by" in answer for answer in each] == [pod.node == node for pod in backends]


def test_a_new_backend_is_isolated_and_works(policed: Prober) -> None:
    before = names_of(pods(policed, BACKEND))
    policed.kubectl("scale", f"deployment/{BACKEND}", "--replicas=3", f"--namespace={NAMESPACE}")
    policed.kubectl.roll_out(f"deployment/{BACKEND}", namespace=NAMESPACE)
    (new,) = [pod for pod in pods(policed, BACKEND) if pod.name not in before]
    question = [http(new.address, SPEAKS[BACKEND])]
    outgoing = [http(f"{DATABASE}.{NAMESPACE}", port) for port in (SPEAKS[DATABASE], OTHER)]
    asked = ((pods(policed, FRONTEND)[0], question), (policed.client(new.node), question), (new, outgoing))
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda each: ask(policed, *each), asked))
    assert answers == [[True], [False], [True, False]]


def test_without_its_policy_everybody_reaches_the_backend_again(policed: Prober) -> None:
    policed.kubectl("delete", "networkpolicy", "backend-netpol", f"--namespace={NAMESPACE}")
    stranger, backends = policed.client(next(iter(policed.cluster.nodes))), pods(policed, BACKEND)
    questions = [http(pod.address, port) for pod in backends for port in (SPEAKS[BACKEND], OTHER)]
    await_value("all are reached", lambda: all(ask(policed, stranger, questions)), SOON)
