"""An Ingress over the pod network, by Traefik: by path, by host, for nobody, by TLS, and through a host port."""

from collections.abc import Iterator

import pytest

from tests.kit.kubernetes.command import await_value
from tests.kit.kubernetes.pki import Authority
from tests.kubernetes import ingress
from tests.kubernetes.conftest import Record
from tests.kubernetes.ingress import HOST_PORT, NODE_PORT, SECURE, SHOP, TLS_NODE_PORT
from tests.kubernetes.probes import Prober, Question

pytestmark = pytest.mark.kernel

SOON = 90.0  # seconds


@pytest.fixture(scope="module")
def shop(prober: Prober, traefik: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """The controller and what is behind it, serving. Yields the certificate of the secure host."""
    made = tmp_path_factory.mktemp("ingress")
    node = next(iter(prober.cluster.nodes))
    authority = Authority(made, "")
    authority.issue("secure", f"/CN={SECURE}", [f"DNS:{SECURE}"])
    certificate = (made / "secure.crt").read_bytes()
    objects = [*ingress.controller(node), *ingress.shops(certificate, (made / "secure.key").read_bytes())]
    prober.kubectl.apply(*objects)
    prober.kubectl.roll_out(f"deployment/{ingress.CLASS}", namespace=ingress.NAMESPACE)
    prober.kubectl.roll_out("deployment/wear", "deployment/watch")
    await_value("all rules are in force", lambda: is_served(prober), SOON)
    yield certificate
    prober.kubectl.delete(f"namespace/{ingress.NAMESPACE}")
    kinds = {"deployment": ("wear", "watch"), "service": ("wear", "watch"), "ingress": ("paths", "hosts", "secure")}
    prober.kubectl.delete(*(f"{kind}/{name}" for kind, names in kinds.items() for name in names))


def is_served(prober: Prober) -> bool:
    """Whether every rule leads somewhere already."""
    node = any_node(prober)
    paths = ((SHOP, "/wear"), (SHOP, "/watch"), ("wear.example.com", "/"), ("watch.example.com", "/"))
    *plain, secure = prober.from_outside(*(get(node, *path) for path in paths), ["https", node, SECURE, TLS_NODE_PORT])
    return all("by" in answer for answer in plain) and secure.get("status") == 200


def any_node(prober: Prober) -> str:
    return next(iter(prober.cluster.nodes.values())).address


def get(address: str, host: str, path: str, port: int = NODE_PORT) -> Question:
    return ["http", f"http://{address}:{port}{path}", {"Host": host}]


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        pytest.param(SHOP, "/wear", "wear", id="by path"),
        pytest.param(SHOP, "/watch/now?x=1", "watch", id="below a path"),
        pytest.param("wear.example.com", "/any", "wear", id="by host"),
        pytest.param("watch.example.com", "/", "watch", id="by another host"),
    ],
)
def test_a_request_goes_where_the_rules_say_through_every_node(
    prober: Prober, shop: bytes, record: Record, host: str, path: str, expected: str
) -> None:
    for name, node in prober.cluster.nodes.items():
        (answer,) = prober.from_outside(get(node.address, host, path))
        record("an Ingress", f"outside, by {name}", f"{host}{path}", str(answer.get("by", answer)))
        assert answer["by"].startswith(f"{expected}-"), answer
        assert (answer["host"], answer["path"]) == (host, path)


@pytest.mark.parametrize(("host", "path"), [(SHOP, "/other"), ("other.example.com", "/")], ids=["path", "host"])
def test_what_no_rule_is_for_is_not_found(prober: Prober, shop: bytes, host: str, path: str) -> None:
    assert prober.from_outside(get(any_node(prober), host, path)) == [{"status": 404}]


def test_by_tls_the_certificate_is_that_of_the_host(prober: Prober, shop: bytes) -> None:
    for node in prober.cluster.nodes.values():
        (answer,) = prober.from_outside(["https", node.address, SECURE, TLS_NODE_PORT])
        assert answer["certificate"].encode().split() == shop.split()
        assert (answer["status"], SECURE in answer["text"]) == (200, True)


def test_the_controllers_host_port_is_reached_from_everywhere(prober: Prober, shop: bytes) -> None:
    """pycni's own mapping of ports: from outside, from every node and its pods, and on the node itself by 127.0.0.1."""
    (pod,) = prober.kubectl.pods(f"app={ingress.CLASS}", namespace=ingress.NAMESPACE)
    question = get(prober.cluster.nodes[pod.node].address, SHOP, "/wear", HOST_PORT)
    answers = prober.from_outside(question)
    for node in prober.cluster.nodes:
        answers += prober.from_node(node, question)
        answers += prober.from_pod(prober.client(node).name, question)
    answers += prober.from_node(pod.node, get("127.0.0.1", SHOP, "/wear", HOST_PORT))
    assert len(answers) == 2 + 2 * len(prober.cluster.nodes)
    assert all(answer.get("by", "").startswith("wear-") for answer in answers), answers
