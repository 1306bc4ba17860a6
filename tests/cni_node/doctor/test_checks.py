"""The checks on facts that are made up: a healthy node shows nothing, and each fault shows as itself alone."""

from typing import Any

import pytest

from cni_node.doctor.checks import diagnose
from cni_node.doctor.facts import Address, Chain, Facts, Link, Neighbour, Network, Pod, Reservation, Room, Route, Rule
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.attachment import Attachment

ETH, BRIDGE, VXLAN, PORT = 1, 2, 3, 4
OWN, OTHER = Attachment("mynet", "c1", "eth0"), Attachment("mynet", "c2", "eth0")
SUBNET, PEER, GATEWAY = parse_cidr("10.1.0.0/24"), parse_cidr("10.1.1.0/24"), parse_cidr("10.1.0.1/24")
ANY, HOP = parse_cidr("0.0.0.0/0"), parse_ip("10.1.1.0")
PEER_MAC = "02:00:00:00:00:09"
LINKS = {
    "eth": Link(ETH, "eth0"),
    "bridge": Link(BRIDGE, "cni0", "bridge", mtu=1450),
    "vxlan": Link(VXLAN, "vxlan.1", "vxlan", "02:00:00:00:00:01", 1450, lower=ETH, alias="pycni,"),
    "port": Link(PORT, OWN.host_name, "veth", mtu=1450, master=BRIDGE, alias=OWN.owner, state=3),
}
NETWORK = Network(
    "mynet",
    "cni0",
    (GATEWAY,),
    (SUBNET,),
    (((parse_ip("10.1.0.1"), parse_ip("10.1.0.254")),),),
    is_gateway=True,
    agent="/run/pycni/agent.sock",
    store="/var/lib/cni/networks",
)
POD = Pod(OWN, (parse_ip("10.1.0.2"),), "02:00:00:00:00:02", "/run/netns/c1")
RESERVATION = Reservation("mynet", parse_ip("10.1.0.2"), "c1", "eth0", "/var/lib/cni/networks/mynet/10.1.0.2")
SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "bridge/bridge-nf-call-iptables": "1",
    "bridge/bridge-nf-call-ip6tables": "1",
    "netfilter/nf_conntrack_count": "10",
    "netfilter/nf_conntrack_max": "100",
    "ipv4/neigh/default/gc_thresh3": "10",
}
REPORT: dict[str, Any] = {
    "ready": True,
    "source": "kubernetes https://api",
    "routes": 1,
    "addresses": ["192.168.1.11"],
    "policies": {"ready": True, "isolated": 1},
}
NODE = Address(ETH, parse_cidr("192.168.1.11/24"))
ROUTES = (
    Route(ANY, ETH, parse_ip("192.168.1.1"), 3, 0, 254),
    Route(SUBNET, BRIDGE, None, 2, 0, 254),
    Route(PEER, VXLAN, HOP, 80, 0, 254),
)
NEIGHBOURS = (
    Neighbour(VXLAN, HOP, PEER_MAC, permanent=True),
    Neighbour(VXLAN, parse_ip("192.168.1.12"), PEER_MAC, permanent=True, forwarding=True),
)
HEALTHY = Facts(
    links=tuple(LINKS.values()),
    addresses=(NODE, Address(BRIDGE, GATEWAY), Address(VXLAN, parse_cidr("10.1.0.0/32"))),
    routes=ROUTES,
    neighbours=NEIGHBOURS,
    tables=frozenset({("ip", "kube-proxy"), ("inet", "pycni_policy")}),
    sysctls=SYSCTLS,
    networks=(NETWORK,),
    reservations=(RESERVATION,),
    pods=(POD,),
    rooms=(Room("/var/lib/cni"), Room("/opt/cni/bin")),
    report=REPORT,
)


def with_link(name: str, **changes: Any) -> dict[str, Any]:
    return {"links": tuple({**LINKS, name: LINKS[name]._replace(**changes)}.values())}


def with_sysctl(name: str, value: object) -> dict[str, Any]:
    return {"sysctls": {**SYSCTLS, name: str(value)}}


def with_report(**changes: Any) -> dict[str, Any]:
    return {"report": {**REPORT, **changes}}


def rule(verdict: str, target: str = "", *, chain: str = "FORWARD", data: bytes = b"", opaque: bool = False) -> Rule:
    return Rule(chain, verdict, target, matches=bool(data), opaque=opaque, data=data)


def chain(*rules: Rule, drops: bool = True, table: str = "ip filter") -> dict[str, Any]:
    return {"chains": (Chain(table, "FORWARD", drops, rules),)}


OURS, DOCKERS = b"\1cni0\0", b"\1docker0\0"
MANY = tuple(Neighbour(ETH, parse_ip(f"192.168.1.{number}"), PEER_MAC) for number in range(20, 30))
SECOND = POD._replace(attachment=OTHER)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as it is"),
        pytest.param(chain(drops=False), id="a chain that accepts"),
        pytest.param(
            chain(rule("accept", data=DOCKERS), rule("accept", data=OURS)), id="docker that lets pods through"
        ),
        pytest.param(chain(rule("jump", "KUBE"), rule("accept", chain="KUBE", data=OURS)), id="accepted in a chain"),
        pytest.param(chain(rule("jump", "USER"), rule("accept", chain="USER")), id="accepts everything elsewhere"),
        pytest.param(chain(rule("accept", data=b"set\0", opaque=True)), id="a rule that cannot be followed"),
        pytest.param(chain(table="ip6 filter"), id="of a family without pods"),
        pytest.param(chain(rule("drop", data=DOCKERS), drops=False), id="drops what is docker's"),
        pytest.param({"tables": HEALTHY.tables | {("ip", "nat"), ("ip", "filter")}}, id="iptables-nft alone"),
        pytest.param({"legacy_tables": ("nat",)}, id="iptables-legacy alone"),
        pytest.param({"listening": frozenset({("tcp", 80)})}, id="a process at a port of nobody"),
        pytest.param({"counters": {"Udp:InCsumErrors": 0}}, id="right checksums"),
        pytest.param(
            with_link("vxlan", derived="02:00:00:00:00:01", sent=9999, received=1), id="an overlay that works"
        ),
        pytest.param(with_sysctl("netfilter/nf_conntrack_count", 89), id="room for connections"),
        pytest.param({"neighbours": (*NEIGHBOURS, *MANY[:8])}, id="room for neighbours"),
    ],
)
def test_a_healthy_node_shows_nothing(changes: dict[str, Any]) -> None:
    assert diagnose(HEALTHY._replace(**changes)) == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("forward-drop", chain(rule("accept", data=DOCKERS))),
        ("forward-drop", chain(rule("accept", data=b"ct\0", opaque=True), rule("reject"), drops=False)),
        ("forward-drop", chain(table="inet firewalld")),
        ("rules-missing", {"pods": (POD._replace(missing=("masquerade",)),)}),
        ("iptables-mixed", {"legacy_tables": ("nat",), "tables": HEALTHY.tables | {("ip", "filter")}}),
        ("no-service-proxy", {"tables": frozenset({("inet", "pycni_policy")})}),
        ("host-port-taken", {"pods": (POD._replace(ports=(("tcp", 80),)),), "listening": frozenset({("tcp", 80)})}),
        ("connections-full", with_sysctl("netfilter/nf_conntrack_count", 90)),
        ("udp-checksums", {"counters": {"Udp:InCsumErrors": 5}}),
        ("bridge-missing", {"links": (LINKS["eth"], LINKS["vxlan"], LINKS["port"]), "routes": (ROUTES[0], ROUTES[2])}),
        ("bridge-name-taken", with_link("bridge", kind="dummy")),
        ("overlay-mac", with_link("vxlan", derived="02:00:00:00:00:77")),
        ("overlay-silent", with_link("vxlan", sent=10_000)),
        ("mtu-overlay", with_link("eth", mtu=1499)),
        ("address-conflict", {"addresses": (*HEALTHY.addresses, NODE._replace(duplicate=True))}),
        ("reverse-path", with_sysctl("ipv4/conf/vxlan.1/rp_filter", 1)),
        ("peer-entry-missing", {"neighbours": NEIGHBOURS[:1]}),
        ("peer-entry-missing", {"neighbours": NEIGHBOURS[1:]}),
        ("neighbours-full", {"neighbours": (*NEIGHBOURS, *MANY[:9])}),
        ("pool-full", {"networks": (NETWORK._replace(pools=(((parse_ip("10.1.0.2"), parse_ip("10.1.0.2")),),)),)}),
        ("namespace-gone", {"pods": (POD._replace(netns_gone=True),)}),
        ("disk-full", {"rooms": (Room("/var/lib/cni", bytes_free=0.001),)}),
        ("disk-full", {"rooms": (Room("/var/lib/cni", inodes_free=0.001),)}),
        ("noexec", {"rooms": (Room("/opt/cni/bin", no_exec=True),)}),
        ("agent-away", {"report": None, "tables": frozenset({("inet", "pycni_policy")})}),
        ("agent-problem", with_report(problems=["node2 has our range"])),
        ("agent-not-ready", with_report(ready=False)),
        ("routes-missing", with_report(routes=2)),
        ("node-address", with_report(addresses=["192.168.1.99"])),
        ("policies-missing", {"tables": frozenset({("ip", "kube-proxy")})}),
    ],
)
def test_a_fault_shows_as_itself(kind: str, changes: dict[str, Any]) -> None:
    assert [finding.kind for finding in diagnose(HEALTHY._replace(**changes))] == [kind]


NETWORK6 = NETWORK._replace(gateways=(GATEWAY, parse_cidr("fd00:1::1/64")), subnets=(SUBNET, parse_cidr("fd00:1::/64")))
BOTH: dict[str, Any] = {
    "networks": (NETWORK6,),
    "routes": (*ROUTES, Route(parse_cidr("fd00:1::/64"), BRIDGE, None, 2, 0, 254)),
    "addresses": (*HEALTHY.addresses, Address(BRIDGE, parse_cidr("fd00:1::1/64"))),
}
OVERLAPPING = Route(parse_cidr("10.1.0.128/25"), ETH, HOP, 3, 0, 254)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        pytest.param(BOTH, [], id="both families"),
        pytest.param({**BOTH, **with_sysctl("ipv6/conf/cni0/disable_ipv6", 1)}, ["ipv6-disabled"], id="IPv6 off"),
        pytest.param(with_sysctl("ipv6/conf/cni0/disable_ipv6", 1), [], id="IPv6 off for pods of IPv4"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING)}, ["subnet-overlap"], id="a route into the subnet"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING._replace(ifindex=BRIDGE))}, [], id="through the bridge"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING._replace(table=7))}, [], id="of another table"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING._replace(protocol=2))}, [], id="an address's own"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING._replace(dst=parse_cidr("10.0.0.0/8")))}, [], id="a wider one"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING._replace(dst=parse_cidr("10.9.0.0/24")))}, [], id="beside it"),
        pytest.param({"routes": (*ROUTES, OVERLAPPING._replace(protocol=80))}, ["range-shared"], id="of another node"),
        pytest.param(
            {"routes": (*ROUTES, OVERLAPPING._replace(refuses=True))},
            ["route-refuses"],
            id="one that refuses is told once",
        ),
        pytest.param({"addresses": HEALTHY.addresses[:1]}, ["gateway-missing"], id="no gateway"),
        pytest.param(
            {"addresses": HEALTHY.addresses[:1], "links": (LINKS["eth"], LINKS["bridge"], LINKS["vxlan"]), "pods": ()},
            ["reservation-leaked"],
            id="no gateway where no port is",
        ),
        *(
            pytest.param({"rooms": (Room(path, bytes_free=0.001),)}, kinds, id=f"full: {path}")
            for path, kinds in (("/var/lib/cni", ["disk-full"]), ("/run", ["disk-full"]), ("/etc/cni/net.d", []))
        ),
        *(
            pytest.param({"rooms": (Room(path, no_exec=True),)}, kinds, id=f"noexec: {path}")
            for path, kinds in (("/opt/cni/bin", ["noexec"]), ("/var/lib/cni", []))
        ),
        pytest.param({"reservations": (RESERVATION,) * 253}, ["pool-full"], id="no address left"),
        pytest.param({"reservations": (RESERVATION,) * 248}, ["pool-full"], id="two of a hundred are left"),
        pytest.param({"reservations": (RESERVATION,) * 247}, [], id="a few more are left"),
        pytest.param(
            {"networks": (NETWORK._replace(gateways=()),), "reservations": (RESERVATION,) * 248}, [], id="no gateway"
        ),
    ],
)
def test_where_a_fault_begins(changes: dict[str, Any], kinds: list[str]) -> None:
    assert [finding.kind for finding in diagnose(HEALTHY._replace(**changes))] == kinds


@pytest.mark.parametrize(
    ("changes", "subject", "problem"),
    [
        (with_report(addresses=["192.168.1.99"]), "agent", "the other nodes know this one by 192.168.1.99, which it "),
        (with_report(routes=2), "agent", "1 of 2 routes to other nodes are missing: another program removes them"),
        (
            {"report": None, "tables": frozenset({("inet", "pycni_policy")})},
            "/run/pycni/agent.sock",
            "the agent does not ",
        ),
        ({"reservations": (RESERVATION,) * 253}, "network mynet", "253 of 253 addresses are taken: no pod can start"),
        ({"reservations": (RESERVATION,) * 250}, "network mynet", "250 of 253 addresses are taken"),
        ({"routes": (*ROUTES, OVERLAPPING)}, "10.1.0.0/24", "a route leads 10.1.0.128/25 to eth0"),
        ({"rooms": (Room("/var/lib/cni", bytes_free=0.01),)}, "/var/lib/cni", "1% of its space is free"),
        ({"rooms": (Room("/var/lib/cni", inodes_free=0.01),)}, "/var/lib/cni", "1% of its inodes is free"),
        ({"rooms": (Room("/run", read_only=True),)}, "/run", "it is read-only: no pod can start"),
        ({"plugins": {"cni-ipam": "it is gone"}}, "plugin cni-ipam", "no pod can start: it is gone"),
        ({"stub_resolver": "/etc/resolv.conf"}, "/etc/resolv.conf", "it names a resolver on the loopback, which "),
        (
            with_sysctl("ipv4/ip_forward", 0),
            "net.ipv4.ip_forward",
            "forwarding of IPv4 is off: pods reach nothing but ",
        ),
        ({"foreign_routes_removed": True}, "systemd-networkd", "when it is restarted it removes the routes to other "),
    ],
)
def test_what_is_said(changes: dict[str, Any], subject: str, problem: str) -> None:
    [finding] = diagnose(HEALTHY._replace(**changes))
    assert finding.subject == subject
    assert finding.problem.startswith(problem)
    assert problem.endswith(" ") or finding.problem == problem


def test_two_pods_with_one_address_mac_and_host_port_are_named() -> None:
    pods = tuple(pod._replace(ports=(("tcp", 80),)) for pod in (POD, SECOND))
    kinds = {finding.kind for finding in diagnose(HEALTHY._replace(pods=pods))}
    assert kinds == {"duplicate-address", "duplicate-mac", "host-port-twice"}


def test_an_overlay_that_is_down_takes_its_peers_along() -> None:
    kinds = [finding.kind for finding in diagnose(HEALTHY._replace(**with_link("vxlan", up=False)))]
    assert kinds == ["overlay-down", "peer-unreachable"]


def test_pods_that_send_larger_packets_than_the_way_out_takes_are_told() -> None:
    links = with_link("port", mtu=9000)["links"]
    kinds = {finding.kind for finding in diagnose(HEALTHY._replace(links=links))}
    assert kinds == {"mtu-pods", "mtu-port"}


@pytest.mark.parametrize(
    ("version", "below", "most"),
    [(4, 1500, None), (4, 1499, 1449), (6, 1520, None), (6, 1519, 1449), (6, 1500, 1430)],
)
def test_an_overlay_leaves_room_for_its_headers(version: int, below: int, most: int | None) -> None:
    """50 bytes over IPv4 and 70 over IPv6: rfc7348 section 5, and 40 instead of 20 bytes of the outer IP header."""
    overlay, under = LINKS["vxlan"]._replace(underlay_version=version), LINKS["eth"]._replace(mtu=below)
    found = diagnose(HEALTHY._replace(links=(under, LINKS["bridge"], overlay, LINKS["port"])))
    remedies = [f"ip link set vxlan.1 mtu {most}; give the agent no larger --mtu"] if most else []
    assert [finding.remedy for finding in found] == remedies


def test_what_is_full_is_worse_than_what_nearly_is() -> None:
    [nearly] = diagnose(HEALTHY._replace(**with_sysctl("netfilter/nf_conntrack_count", 99)))
    [full] = diagnose(HEALTHY._replace(**with_sysctl("netfilter/nf_conntrack_count", 100)))
    assert full.harm < nearly.harm


def test_forwarding_of_ipv6_is_asked_for_pods_of_ipv6_alone() -> None:
    off = with_sysctl("ipv6/conf/all/forwarding", 0)
    assert diagnose(HEALTHY._replace(**off)) == []
    network = NETWORK._replace(subnets=(SUBNET, parse_cidr("fd00:1::/64")))
    assert "forwarding-off" in {finding.kind for finding in diagnose(HEALTHY._replace(**off, networks=(network,)))}
