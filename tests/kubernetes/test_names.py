"""Names of services and pods, by the cluster's DNS server, through the resolv.conf that the kubelet writes."""

import pytest

from tests.kit.kubernetes.control_plane import API, NAMES
from tests.kubernetes.conftest import Record
from tests.kubernetes.probes import Prober
from tests.kubernetes.test_services import cluster_ip

pytestmark = pytest.mark.kernel

ZONE = "svc.cluster.local"
RESOLV_CONF = {f"nameserver {NAMES}", f"search default.{ZONE} {ZONE} cluster.local", "options ndots:5"}


def addresses(prober: Prober, app: str) -> list[str]:
    return sorted(pod.address for pod in prober.kubectl.pods(f"app={app}"))


def any_client(prober: Prober) -> str:
    return prober.client(next(iter(prober.cluster.nodes))).name


def test_the_kubelet_writes_where_names_are_asked_for(prober: Prober) -> None:
    for node in prober.cluster.nodes:
        assert (
            set(prober.kubectl.execute(prober.client(node).name, "cat", "/etc/resolv.conf").splitlines()) == RESOLV_CONF
        )


def test_a_service_is_found_by_every_form_of_its_name_on_every_node(prober: Prober, record: Record) -> None:
    web = cluster_ip(prober.cluster, "web")
    names = ["web", "web.default", "web.default.svc", f"web.default.{ZONE}", f"web.default.{ZONE}."]
    for node in prober.cluster.nodes:
        questions = [["name", name, 4] for name in names]
        found = prober.from_pod(
            prober.client(node).name, *questions, ["name", "kubernetes", 4], ["http", "http://web:8080/"]
        )
        record("names", f"pod on {node}", "web", str(found[0][0]))
        assert found[:-1] == [[web]] * len(names) + [[API]]
        assert found[-1]["host"] == "web:8080"


def test_a_headless_service_is_its_pods_and_each_has_a_name(prober: Prober) -> None:
    pods = prober.kubectl.pods("app=member")
    questions = [["name", f"{pod.name}.member", 4] for pod in pods]
    whole, *each = prober.from_pod(any_client(prober), ["name", "member", 4], *questions)
    assert len(pods) == 2
    assert whole == sorted(pod.address for pod in pods)
    assert each == [[pod.address] for pod in pods]


def test_an_external_name_leads_where_it_says(prober: Prober) -> None:
    """An alias, and what is behind it: it is of our zone here, so that something answers."""
    name, target = f"elsewhere.default.{ZONE}", f"web.default.{ZONE}"
    web = cluster_ip(prober.cluster, "web")
    alias, whole, resolved, reached = prober.from_pod(
        any_client(prober),
        ["dns", NAMES, name, "CNAME"],
        ["dns", NAMES, name, "A"],
        ["name", "elsewhere", 4],
        ["http", "http://elsewhere:8080/"],
    )
    assert alias == {"rcode": 0, "answers": [[name, "CNAME", target]]}
    assert whole == {"rcode": 0, "answers": [[name, "CNAME", target], [target, "A", web]]}
    assert resolved == [web]
    assert reached["host"] == "elsewhere:8080"


def test_a_pod_is_found_by_its_address(prober: Prober) -> None:
    (pod, *_) = addresses(prober, "web")
    dashed = pod.replace(".", "-")
    (found,) = prober.from_pod(any_client(prober), ["name", f"{dashed}.default.pod.cluster.local", 4])
    assert found == [pod]


def test_ports_have_names_and_addresses_too(prober: Prober) -> None:
    """SRV and PTR, of a service with an address and of one that is its pods."""
    web = cluster_ip(prober.cluster, "web")
    pods = prober.kubectl.pods("app=member")
    backwards = [f"{'.'.join(reversed(address.split('.')))}.in-addr.arpa" for address in (web, pods[0].address)]
    found = prober.from_pod(
        any_client(prober),
        ["dns", NAMES, f"_http._tcp.web.default.{ZONE}", "SRV"],
        ["dns", NAMES, f"_http._tcp.member.default.{ZONE}", "SRV"],
        *(["dns", NAMES, name, "PTR"] for name in backwards),
    )
    values = [sorted(value for _, _, value in answer["answers"]) for answer in found]
    assert values == [
        [[8080, f"web.default.{ZONE}"]],
        sorted([80, f"{pod.name}.member.default.{ZONE}"] for pod in pods),
        [f"web.default.{ZONE}"],
        [f"{pods[0].name}.member.default.{ZONE}"],
    ]


def test_what_is_not_there_is_said_to_be_not_there(prober: Prober) -> None:
    """No such name, and no such address of a name that there is: a client stops asking in both cases."""
    found = prober.from_pod(
        any_client(prober),
        ["dns", NAMES, f"nobody.default.{ZONE}", "A"],
        ["dns", NAMES, f"web.default.{ZONE}", "AAAA"],
        ["name", "nobody", 4],
    )
    assert found[:2] == [{"rcode": 3, "answers": []}, {"rcode": 0, "answers": []}]
    assert "gaierror" in found[2]["error"]
