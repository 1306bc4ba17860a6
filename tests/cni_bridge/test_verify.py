"""CHECK's comparison: a table of what the kernel might hold, each producing exactly its difference."""

from typing import Any

import pytest

from cni_bridge.config import parse_config
from cni_bridge.verify import Expected, Observed, find_differences, make_expected
from cni_kernel.values import Link, PortVlan
from cni_kernel.values import Route as KernelRoute
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.result import Interface, IPConfig, Result, Route
from tests.cni_bridge import make_request

ATTACHMENT = Attachment("mynet", "c1", "eth0")
NETNS = "/run/netns/c1"
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
CONFIG = {"isGateway": True, "ipMasq": True, "mtu": 1400, "ipam": {"type": "host-local"}}


def link(ifindex: int, name: str, kind: str, **changes: Any) -> Link:
    healthy = Link(
        ifindex=ifindex,
        name=name,
        kind=kind,
        mac="0a:58:0a:f4:00:02",
        mtu=1400,
        up=True,
        running=True,
        promisc=False,
        master=0,
        peer=0,
        alias="",
        hairpin=False,
        isolated=False,
        forwarding=True,
        vlan_filtering=False,
    )
    return healthy._replace(**changes)


BRIDGE = link(5, "cni0", "bridge")
HOST = link(6, "veth1", "veth", master=5, peer=2)
CONTAINER = link(2, "eth0", "veth", peer=6)
ON_LINK = KernelRoute(parse_cidr("10.1.0.0/16"), None, table=254, scope=253, priority=0)
DEFAULT = KernelRoute(parse_cidr("0.0.0.0/0"), parse_ip("10.1.0.1"), table=254, scope=0, priority=0)
DEFAULT6 = KernelRoute(parse_cidr("::/0"), parse_ip("fd00:1::1"), table=254, scope=0, priority=1024)
HEALTHY = Observed(
    bridge=BRIDGE,
    host=HOST,
    container=CONTAINER,
    addresses=[parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")],
    routes=[ON_LINK, DEFAULT, DEFAULT6],
    gateways=[parse_cidr("10.1.0.1/16"), parse_cidr("fd00:1::1/64")],
    gateway=BRIDGE,
    gateway_port=None,
    vlans={},
    missing_rules=[],
)
IN_5 = PortVlan(5, True, True)
FILTERING = BRIDGE._replace(vlan_filtering=True)
GATEWAY, GATEWAY_PORT = link(20, "cni0.5", "veth", peer=21), link(21, "veth2", "veth", peer=20, master=5)
IN_VLAN: dict[str, Any] = {
    "bridge": FILTERING,
    "gateway": GATEWAY,
    "gateway_port": GATEWAY_PORT,
    "vlans": {6: (IN_5,), 21: (IN_5,)},
}
PREVIOUS = Result(
    interfaces=(Interface("cni0"), Interface("veth1"), Interface("eth0", "0a:58:0a:f4:00:02", 1400, NETNS)),
    ips=(
        IPConfig(parse_cidr("10.1.0.5/16"), parse_ip("10.1.0.1"), 2),
        IPConfig(parse_cidr("fd00:1::5/64"), parse_ip("fd00:1::1"), 2),
    ),
    routes=(Route(parse_cidr("0.0.0.0/0")), Route(parse_cidr("::/0"), parse_ip("fd00:1::1"))),
)


def differences(
    keys: dict[str, Any] | None = None, observed: Observed = HEALTHY, previous: Result = PREVIOUS
) -> list[str]:
    config = parse_config(make_request("CHECK", **{**CONFIG, **(keys or {})}))
    return find_differences(config, ATTACHMENT, make_expected(previous, "eth0", [NETNS]), observed)


@pytest.mark.parametrize(
    ("keys", "changes"),
    [
        ({}, {}),
        ({"mtu": 0}, {"container": CONTAINER._replace(mtu=9000)}),
        ({}, {"container": CONTAINER._replace(mtu=1300)}),
        ({}, {"container": CONTAINER._replace(mac="02:00:00:00:00:01")}),
        ({}, {"addresses": [*HEALTHY.addresses, parse_cidr("10.9.0.1/32"), parse_cidr("fe80::1/64")]}),
        ({}, {"routes": [*HEALTHY.routes, DEFAULT._replace(priority=900), DEFAULT._replace(table=100)]}),
        ({}, {"gateways": [*HEALTHY.gateways, parse_cidr("192.168.0.1/24")]}),
        ({}, {"bridge": BRIDGE._replace(promisc=True, mtu=1500, mac="02:00:00:00:00:02")}),
        ({}, {"host": HOST._replace(mac="02:00:00:00:00:03", alias="")}),
        ({"promiscMode": True}, {"bridge": BRIDGE._replace(promisc=True)}),
        ({"hairpinMode": True}, {"host": HOST._replace(hairpin=True)}),
        ({"isGateway": False}, {"gateways": []}),
        ({"portIsolation": True}, {"host": HOST._replace(isolated=True)}),
        ({"runtimeConfig": PORTS}, {"host": HOST._replace(hairpin=True)}),
        (
            {"runtimeConfig": PORTS, "promiscMode": True},
            {"bridge": BRIDGE._replace(promisc=True), "host": HOST._replace(hairpin=True)},
        ),
        ({"vlan": 5}, IN_VLAN),
        ({"vlan": 5}, {**IN_VLAN, "vlans": {6: (IN_5,), 21: (PortVlan(1, untagged=True), IN_5)}}),
        ({"vlan": 5}, {**IN_VLAN, "gateway": link(20, "cni0.5", "vlan"), "gateway_port": None}),
        ({"vlanTrunk": [{"id": 7}]}, {"bridge": FILTERING, "vlans": {6: (PortVlan(1, True, True), PortVlan(7))}}),
        ({}, {"vlans": {6: (PortVlan(1, True, True),)}}),
    ],
    ids=[
        "as ADD left it",
        "mtu of the kernel's choice",
        "an mtu that a later plugin has lowered",
        "another MAC in the container",
        "further addresses",
        "further routes",
        "further bridge addresses",
        "a promiscuous bridge with its own mtu",
        "a host end of another name",
        "promiscMode",
        "hairpinMode",
        "no gateway",
        "portIsolation",
        "port mappings",
        "port mappings on a promiscuous bridge",
        "vlan",
        "vlan, and its gateway in another one too",
        "vlan, and its gateway an 802.1Q interface of somebody's",
        "vlanTrunk",
        "VLANs of a bridge that filters for others",
    ],
)
def test_a_healthy_attachment_has_no_difference(keys: dict[str, Any], changes: dict[str, Any]) -> None:
    assert differences(keys, HEALTHY._replace(**changes)) == []


@pytest.mark.parametrize(
    ("keys", "changes", "expected"),
    [
        ({}, {"bridge": None}, "bridge cni0 is missing"),
        (
            {},
            {"bridge": BRIDGE._replace(name="longer"), "host": HOST},
            "cni0 is another name of longer; set bridge to longer",
        ),
        ({}, {"bridge": BRIDGE._replace(kind="vxlan")}, "cni0 is of kind vxlan, not a bridge"),
        ({}, {"bridge": BRIDGE._replace(kind="")}, "cni0 is of kind physical, not a bridge"),
        ({}, {"bridge": BRIDGE._replace(up=False)}, "bridge cni0 is down (`ip link set cni0 up`)"),
        ({"promiscMode": True}, {}, "bridge cni0 is not promiscuous, and promiscMode is on"),
        ({}, {"container": None}, "interface eth0 is missing in the container"),
        ({}, {"container": CONTAINER._replace(up=False)}, "interface eth0 is down in the container"),
        ({}, {"container": CONTAINER._replace(mtu=1500)}, "mtu of eth0 is 1500, more than 1400"),
        ({}, {"host": None}, "the host's end of eth0 is missing"),
        ({}, {"host": HOST._replace(peer=9)}, "the host's end of eth0 is missing"),
        ({}, {"host": HOST._replace(kind="bridge")}, "the host's end of eth0 is missing"),
        ({}, {"host": HOST._replace(up=False)}, "veth1, the host's end of eth0, is down"),
        ({}, {"host": HOST._replace(mtu=1500)}, "mtu of veth1 is 1500, not 1400"),
        ({}, {"host": HOST._replace(master=0)}, "veth1 is not a port of bridge cni0"),
        ({}, {"host": HOST._replace(master=77, hairpin=True)}, "veth1 is not a port of bridge cni0"),
        ({"hairpinMode": True}, {}, "port veth1: hairpin is off, not on"),
        ({}, {"host": HOST._replace(hairpin=True)}, "port veth1: hairpin is on, not off"),
        ({"runtimeConfig": PORTS}, {}, "port veth1: hairpin is off, not on"),
        ({"portIsolation": True}, {}, "port veth1: isolation is off, portIsolation on"),
        ({}, {"host": HOST._replace(isolated=True)}, "port veth1: isolation is on, portIsolation off"),
        ({"vlan": 5}, {**IN_VLAN, "vlans": {21: (IN_5,)}}, "VLANs of port veth1 are none, not 5 pvid untagged"),
        (
            {"vlan": 5},
            {**IN_VLAN, "vlans": {6: (PortVlan(1, untagged=True), IN_5), 21: (IN_5,)}},
            "VLANs of port veth1 are 1 untagged, 5 pvid untagged, not 5 pvid untagged",
        ),
        (
            {"vlan": 5, "vlanTrunk": [{"minID": 7, "maxID": 9}]},
            IN_VLAN,
            "VLANs of port veth1 are 5 pvid untagged, not 5 pvid untagged, 7-9",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "vlans": {6: (PortVlan(5, False, True),), 21: (IN_5,)}},
            "VLANs of port veth1 are 5 untagged, not 5 pvid untagged",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "bridge": BRIDGE},
            "bridge cni0 does not filter VLANs (`ip link set cni0 type bridge vlan_filtering 1`)",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "vlans": {6: (IN_5,), 21: (PortVlan(1, True, True),)}},
            "VLANs of port veth2 are 1 pvid untagged, not 5 pvid untagged",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "gateway": GATEWAY._replace(up=False)},
            "cni0.5 is down (`ip link set cni0.5 up`)",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "gateway_port": None},
            "cni0.5 does not lead to a port of bridge cni0",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "gateway_port": GATEWAY_PORT._replace(master=77)},
            "cni0.5 does not lead to a port of bridge cni0",
        ),
        (
            {"vlan": 5},
            {**IN_VLAN, "gateways": [parse_cidr("fd00:1::1/64")]},
            "gateway address 10.1.0.1/16 is missing on cni0.5",
        ),
        (
            {},
            {"addresses": [parse_cidr("10.1.0.5/16")]},
            "address fd00:1::5/64 of prevResult is missing on eth0",
        ),
        (
            {},
            {"addresses": [parse_cidr("10.1.0.5/24"), parse_cidr("fd00:1::5/64")]},
            "address 10.1.0.5/16 of prevResult is missing on eth0",
        ),
        (
            {},
            {"routes": [ON_LINK, DEFAULT6]},
            "route 0.0.0.0/0 via 10.1.0.1 of prevResult is missing in the container",
        ),
        (
            {},
            {"routes": [ON_LINK, DEFAULT6, DEFAULT._replace(gw=parse_ip("10.1.0.9"))]},
            "route 0.0.0.0/0 via 10.1.0.1 of prevResult is missing in the container",
        ),
        (
            {},
            {"routes": [ON_LINK, DEFAULT6, DEFAULT._replace(dst=parse_cidr("0.0.0.0/1"))]},
            "route 0.0.0.0/0 via 10.1.0.1 of prevResult is missing in the container",
        ),
        (
            {},
            {"gateways": [parse_cidr("fd00:1::1/64")]},
            "gateway address 10.1.0.1/16 is missing on cni0",
        ),
        ({}, {"missing_rules": ["10.1.0.5 is not in map masquerade4"]}, "10.1.0.5 is not in map masquerade4"),
    ],
)
def test_each_breakage_is_one_difference(keys: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    assert differences(keys, HEALTHY._replace(**changes)) == [expected]


@pytest.mark.parametrize(
    ("numbers", "there", "same"),
    [
        ({}, {}, True),
        ({}, {"priority": 0, "mtu": 1300}, True),
        ({"priority": 50}, {"priority": 50}, True),
        ({"priority": 50}, {"priority": 51}, False),
        ({"priority": 0}, {"priority": None}, True),
        ({"mtu": 1300}, {"mtu": 1300}, True),
        ({"mtu": 1300}, {}, False),
        ({"advmss": 1260}, {"advmss": 1260}, True),
        ({"advmss": 1260}, {"advmss": 1261}, False),
        ({"table": 100}, {"table": 100}, True),
        ({"table": 100}, {"table": 254}, False),
        ({}, {"table": 100}, True),
        ({"mtu": 1300}, {"table": 100, "mtu": 1300}, True),
        ({"mtu": 1300}, {"table": 100}, False),
        ({"scope": 253}, {"scope": 253, "gw": None}, True),
        ({"scope": 253}, {"scope": 0, "gw": None}, False),
    ],
)
def test_a_route_is_compared_by_what_it_asks_for(numbers: dict[str, int], there: dict[str, Any], same: bool) -> None:
    dst = parse_cidr("10.9.0.0/16")
    previous = PREVIOUS._replace(routes=(Route(dst, None, **numbers),))
    kernel = KernelRoute(dst, parse_ip("10.1.0.1"), table=254, scope=0)._replace(**there)
    observed = HEALTHY._replace(routes=[kernel])
    assert (differences(observed=observed, previous=previous) == []) is same


def test_an_ipv6_route_has_no_scope_to_compare() -> None:
    route = Route(parse_cidr("fd00:9::/64"), None, scope=253)
    previous = PREVIOUS._replace(routes=(route,))
    observed = HEALTHY._replace(routes=[KernelRoute(route.dst, None, table=254, scope=0, priority=1024)])
    assert differences(observed=observed, previous=previous) == []


def test_an_interface_that_is_to_stay_down_may_be_down() -> None:
    keys = {"ipam": {}, "isGateway": False, "ipMasq": False, "disableContainerInterface": True}
    observed = HEALTHY._replace(container=CONTAINER._replace(up=False))
    previous = PREVIOUS._replace(ips=(), routes=())
    assert differences(keys, observed, previous) == []
    assert differences({**keys, "disableContainerInterface": False}, observed, previous) == [
        "interface eth0 is down in the container"
    ]


ELSEWHERE = IPConfig(parse_cidr("10.3.0.5/16"), parse_ip("10.3.0.1"), 1)


@pytest.mark.parametrize(
    ("route", "ours"),
    [
        (Route(parse_cidr("10.9.0.0/16"), parse_ip("10.1.0.1")), True),
        (Route(parse_cidr("10.9.0.0/16"), parse_ip("10.3.0.1")), False),
        (Route(parse_cidr("10.9.0.0/16")), False),
        (Route(parse_cidr("fd00:9::/64")), True),
    ],
    ids=["through our subnet", "through another interface's", "perhaps over another interface", "another family"],
)
def test_a_route_of_another_plugin_of_the_chain_is_not_expected(route: Route, ours: bool) -> None:
    previous = PREVIOUS._replace(ips=(*PREVIOUS.ips, ELSEWHERE), routes=(route,))
    assert [entry.dst for entry in make_expected(previous, "eth0", [NETNS]).routes] == ([route.dst] if ours else [])


def test_all_differences_are_reported_at_once() -> None:
    observed = HEALTHY._replace(
        bridge=BRIDGE._replace(up=False),
        container=CONTAINER._replace(up=False),
        addresses=[],
        routes=[],
        gateways=[],
        missing_rules=["rule"],
    )
    assert len(differences(observed=observed)) == 2 + 2 + 2 + 2 + 1


@pytest.mark.parametrize(
    ("interfaces", "index"),
    [
        ((Interface("eth0", sandbox=NETNS),), 0),
        ((Interface("eth0"), Interface("eth0", sandbox=NETNS)), 1),
        ((Interface("eth1", sandbox=NETNS), Interface("eth0", sandbox=NETNS)), 1),
    ],
    ids=["alone", "a host interface of that name", "another one before"],
)
def test_the_expectation_is_what_is_on_our_interface(interfaces: tuple[Interface, ...], index: int) -> None:
    mine, unbound = IPConfig(parse_cidr("10.1.0.5/16"), None, index), IPConfig(parse_cidr("10.2.0.5/16"))
    foreign = IPConfig(parse_cidr("10.3.0.5/16"), None, index + 7)
    expected = make_expected(Result(interfaces, (mine, foreign, unbound)), "eth0", [NETNS])
    outside = frozenset(entry.name for entry in interfaces if not entry.sandbox)
    assert expected == Expected(interfaces[index], (mine, unbound), (), outside)


def test_the_namespace_may_have_several_names() -> None:
    sandboxes = ["/proc/7/ns/net", "/var/run/netns/c1"]
    for path in (NETNS, *sandboxes):
        interface = Interface("eth0", sandbox=path)
        expected = make_expected(Result((interface,)), "eth0", sandboxes)
        assert expected.container == (interface if path in sandboxes else None)


@pytest.mark.parametrize(
    ("interfaces", "words"),
    [
        ([(0, "other0")], ["prevResult does not list cni0, the bridge"]),
        ([(1, "veth2")], ["prevResult does not list veth1, the host's end"]),
        (
            [(0, "other0"), (1, "veth2")],
            ["prevResult does not list cni0, the bridge", "prevResult does not list veth1, the host's end"],
        ),
        ([(0, "veth1"), (1, "cni0")], []),
    ],
    ids=["bridge", "host's end", "both", "another order"],
)
def test_a_prev_result_that_names_others_is_a_difference(interfaces: list[tuple[int, str]], words: list[str]) -> None:
    listed = list(PREVIOUS.interfaces)
    for index, name in interfaces:
        listed[index] = Interface(name)
    assert differences(previous=PREVIOUS._replace(interfaces=tuple(listed))) == words


@pytest.mark.parametrize("mac", ["zz", "0a:58:0a:f4:00", "0a580af40002", "0a:58:0a:f4:00:0g"])
def test_what_is_no_mac_is_a_difference(mac: str) -> None:
    listed = (*PREVIOUS.interfaces[:2], PREVIOUS.interfaces[2]._replace(mac=mac))
    assert differences(previous=PREVIOUS._replace(interfaces=listed)) == [
        f"mac of eth0 in prevResult is no MAC address: {mac!r}"
    ]


def test_a_prev_result_may_leave_the_host_out() -> None:
    listed = tuple(entry._replace(interface=0) for entry in PREVIOUS.ips)
    assert differences(previous=PREVIOUS._replace(interfaces=PREVIOUS.interfaces[2:], ips=listed)) == []


def test_the_bridge_in_the_container_s_namespace_is_not_the_host_s() -> None:
    listed = (PREVIOUS.interfaces[0]._replace(sandbox=NETNS), *PREVIOUS.interfaces[1:])
    previous = PREVIOUS._replace(interfaces=listed)
    assert differences(previous=previous) == ["prevResult does not list cni0, the bridge"]


# ip_metrics_convert in net/ipv4/metrics.c, IP6_RT_PRIO_USER in include/uapi/linux/ipv6_route.h
@pytest.mark.parametrize(
    ("wanted", "there", "same"),
    [
        ({"dst": "fd00:9::/64", "priority": 0}, {"priority": 1024}, True),
        ({"dst": "fd00:9::/64", "priority": 1024}, {"priority": 1024}, True),
        ({"dst": "fd00:9::/64", "priority": 0}, {"priority": 1}, False),
        ({"dst": "fd00:9::/64", "priority": 1}, {"priority": 1024}, False),
        ({"dst": "10.9.0.0/16", "priority": 0}, {"priority": None}, True),
        ({"dst": "10.9.0.0/16", "priority": 0}, {"priority": 0}, True),
        ({"dst": "10.9.0.0/16", "priority": 0}, {"priority": 1024}, False),
        ({"dst": "10.9.0.0/16", "mtu": 65535}, {"mtu": 65520}, True),
        ({"dst": "10.9.0.0/16", "mtu": 65535}, {"mtu": 65535}, False),
        ({"dst": "10.9.0.0/16", "mtu": 0}, {"mtu": None}, True),
        ({"dst": "fd00:9::/64", "advmss": 70000}, {"advmss": 65495, "priority": 1024}, True),
        ({"dst": "10.9.0.0/16", "advmss": 1000}, {"advmss": 1001}, False),
    ],
)
def test_the_numbers_of_a_route_are_as_the_kernel_keeps_them(
    wanted: dict[str, Any], there: dict[str, Any], same: bool
) -> None:
    route = Route(**{**wanted, "dst": parse_cidr(wanted["dst"])}, scope=253)
    kept = {"priority": 1024 if ":" in wanted["dst"] else None, **there}
    observed = HEALTHY._replace(routes=[KernelRoute(route.dst, None, table=254, scope=253, **kept)])
    assert (differences(observed=observed, previous=PREVIOUS._replace(routes=(route,))) == []) is same


@pytest.mark.parametrize(
    "interface", [Interface("eth0"), Interface("eth1", sandbox=NETNS), Interface("eth0", sandbox="/run/netns/c2")]
)
def test_a_prev_result_without_our_interface_is_a_difference(interface: Interface) -> None:
    previous = Result((*PREVIOUS.interfaces[:2], interface), (IPConfig(parse_cidr("10.1.0.9/16"), None, 2),))
    assert differences(previous=previous) == ["prevResult lists no interface eth0 in this namespace"]
