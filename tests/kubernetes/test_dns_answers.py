"""The DNS server of the kit by itself: which records a name has, and how they are written. Pure."""

import struct
from typing import Any

import pytest

from tests.kit.kubernetes.pods import ask, dns
from tests.kit.kubernetes.pods.dns import Names, Record

ZONE = "svc.cluster.local"


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name}, "spec": {"type": "ClusterIP", **spec}}


@pytest.fixture(scope="module")
def names() -> Names:
    """A service with an address, one of each family, a headless one with two pods, and an alias."""
    made = Names()
    port = {"name": "http", "port": 80, "protocol": "TCP"}
    many = [{"ip": f"10.244.1.{number}"} for number in range(40)]
    made.replace(
        "services",
        [
            service("web", clusterIP="10.96.1.1", ports=[port]),
            service("six", clusterIP="fd00::1", ports=[port]),
            service("member", clusterIP="None"),
            service("many", clusterIP="None"),
            service("alias", type="ExternalName", externalName=f"web.shop.{ZONE}"),
        ],
    )
    two = [{"ip": "10.244.0.2", "hostname": "member-0"}, {"ip": "10.244.0.3"}]
    for name, addresses in (("member", two), ("many", many)):
        made.change("endpoints", "ADDED", {**service(name), "subsets": [{"addresses": addresses, "ports": [port]}]})
    return made


def find(names: Names, name: str) -> list[Record] | None:
    return names.find(tuple(reversed(name.split("."))))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(f"web.shop.{ZONE}", [Record("A", "10.96.1.1")], id="an address"),
        pytest.param(f"six.shop.{ZONE}", [Record("AAAA", "fd00::1")], id="an IPv6 address"),
        pytest.param(f"member.shop.{ZONE}", [Record("A", "10.244.0.2"), Record("A", "10.244.0.3")], id="headless"),
        pytest.param(f"member-0.member.shop.{ZONE}", [Record("A", "10.244.0.2")], id="a pod with a name"),
        pytest.param(f"10-244-0-3.member.shop.{ZONE}", [Record("A", "10.244.0.3")], id="a pod without"),
        pytest.param(f"alias.shop.{ZONE}", [Record("CNAME", f"web.shop.{ZONE}")], id="an alias"),
        pytest.param(f"_http._tcp.web.shop.{ZONE}", [Record("SRV", (80, f"web.shop.{ZONE}"))], id="a port"),
        pytest.param(
            f"_http._tcp.member.shop.{ZONE}",
            [Record("SRV", (80, f"{pod}.member.shop.{ZONE}")) for pod in ("member-0", "10-244-0-3")],
            id="a port of each pod",
        ),
        pytest.param("1.1.96.10.in-addr.arpa", [Record("PTR", f"web.shop.{ZONE}")], id="backwards"),
        pytest.param("2.0.244.10.in-addr.arpa", [Record("PTR", f"member-0.member.shop.{ZONE}")], id="a pod backwards"),
        pytest.param("10-244-0-9.shop.pod.cluster.local", [Record("A", "10.244.0.9")], id="a pod by its address"),
        pytest.param(f"shop.{ZONE}", [], id="a namespace"),
        pytest.param(ZONE, [], id="all services"),
        pytest.param("cluster.local", [], id="the zone"),
        pytest.param(f"_tcp.web.shop.{ZONE}", [], id="all ports"),
        pytest.param(f"nobody.shop.{ZONE}", None, id="no service"),
        pytest.param(f"web.nowhere.{ZONE}", None, id="no namespace"),
        pytest.param(f"nowhere.{ZONE}", None, id="no namespace by itself"),
        pytest.param(f"pod.web.shop.{ZONE}", None, id="below one that is not headless"),
        pytest.param(f"_dns._tcp.web.shop.{ZONE}", None, id="no port"),
        pytest.param("10-244-0-999.shop.pod.cluster.local", None, id="no address"),
        pytest.param("9.9.9.9.in-addr.arpa", None, id="nobody backwards"),
        pytest.param("example.com", None, id="elsewhere"),
    ],
)
def test_a_name_has_the_records_of_the_specification(names: Names, name: str, expected: list[Record] | None) -> None:
    assert find(names, name) == expected


def query(name: str, kind: str, *, room: int = 0) -> bytes:
    """A message with one question, and with EDNS where there is more room than 512 bytes."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 1 if room else 0)
    extra = b"\0" + struct.pack("!HHIH", dns.TYPES["OPT"], room, 0, 0) if room else b""
    return head + labels + struct.pack("!BHH", 0, dns.TYPES[kind], 1) + extra


def asked(names: Names, name: str, kind: str) -> Any:
    """The answer, as the client of the kit reads it."""
    return ask.read_answer(dns.answer(names, query(name, kind), None))


def test_an_alias_is_answered_with_what_is_behind_it(names: Names) -> None:
    alias, target = f"alias.shop.{ZONE}", f"web.shop.{ZONE}"
    assert asked(names, alias, "A") == {"rcode": 0, "answers": [[alias, "CNAME", target], [target, "A", "10.96.1.1"]]}
    assert asked(names, alias, "CNAME") == {"rcode": 0, "answers": [[alias, "CNAME", target]]}


def test_another_type_of_a_name_that_is_there_is_no_error(names: Names) -> None:
    assert asked(names, f"web.shop.{ZONE}", "AAAA") == {"rcode": 0, "answers": []}
    assert asked(names, f"nobody.shop.{ZONE}", "A") == {"rcode": 3, "answers": []}


def test_names_are_the_same_in_any_case(names: Names) -> None:
    assert asked(names, f"WEB.Shop.{ZONE}", "A")["answers"][0][2] == "10.96.1.1"


@pytest.mark.parametrize(
    ("room", "limit", "count", "cut"),
    [(0, 512, 0, True), (4096, 512, 40, False), (0, None, 40, False)],
    ids=["cut off by UDP", "EDNS has room", "TCP has room"],
)
def test_what_is_too_long_is_cut_off_and_says_so(
    names: Names, room: int, limit: int | None, count: int, cut: bool
) -> None:
    said = dns.answer(names, query(f"many.shop.{ZONE}", "A", room=room), limit)
    flags, answers = struct.unpack_from("!2xH2xH", said)
    assert (answers, bool(flags & 0x0200)) == (count, cut)


def test_what_changes_is_known_at_once() -> None:
    names = Names()
    web = service("web", clusterIP="10.96.1.1")
    names.change("services", "ADDED", web)
    names.change("services", "MODIFIED", service("web", clusterIP="10.96.1.2"))
    assert find(names, f"web.shop.{ZONE}") == [Record("A", "10.96.1.2")]
    names.change("services", "DELETED", web)
    assert find(names, f"web.shop.{ZONE}") is None
