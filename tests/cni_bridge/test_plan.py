"""From configuration and IPAM result to what the kernel should hold: tables."""

import json
from typing import Any

import pytest

from cni_bridge.config import BridgeConfig, parse_config
from cni_bridge.plan import (
    LAYER_2,
    gateway_interface,
    list_vlans,
    make_plan,
    make_result,
    program_routes,
)
from cni_kernel.values import MAIN_TABLE, SCOPE_LINK, SCOPE_UNIVERSE, PortVlan
from cni_kernel.values import Route as KernelRoute
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from cni_protocol.errors import CNIError
from cni_protocol.result import DNS, Interface, IPConfig, Result, Route
from tests.cni_bridge import make_request


def config_of(**keys: Any) -> BridgeConfig:
    return parse_config(make_request(ipam={"type": "host-local"}, **keys))


def ip(address: str, gateway: str = "") -> IPConfig:
    return IPConfig(parse_cidr(address), parse_ip(gateway) if gateway else None)


def route(dst: str, gw: str = "", **numbers: int) -> Route:
    return Route(parse_cidr(dst), parse_ip(gw) if gw else None, **numbers)


def programmed_route(dst: str, gw: str = "", **numbers: int) -> KernelRoute:
    return KernelRoute(parse_cidr(dst), parse_ip(gw) if gw else None, **numbers)


def texts(cidrs: tuple[CIDR, ...]) -> list[str]:
    return [str(cidr) for cidr in cidrs]


def gateways_of(ips: tuple[IPConfig, ...]) -> list[IP | None]:
    return [entry.gateway for entry in ips]


@pytest.mark.parametrize("keys", [{}, {"isGateway": True}], ids=["plain", "gateway"])
def test_a_result_without_addresses_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(CNIError) as caught:
        make_plan(config_of(**keys), Result())
    assert caught.value.code == 104
    assert "host-local" in caught.value.msg


@pytest.mark.parametrize(
    ("keys", "entries", "problem"),
    [
        ({"isGateway": True}, [ip("10.1.0.1/24")], "10.1.0.1/24, which is the gateway"),
        ({"isGateway": True}, [ip("10.1.0.1/31")], "10.1.0.1/31, which is the gateway"),
        ({"isGateway": True}, [ip("fd00:1::1/64")], "fd00:1::1/64, which is the gateway"),
        ({"isDefaultGateway": True}, [ip("10.1.0.9/24", "10.1.0.9")], "10.1.0.9/24, which is the gateway"),
        (
            {"isGateway": True},
            [ip("10.1.0.5/24", "10.1.0.6"), ip("10.1.0.6/24", "10.1.0.7")],
            "10.1.0.6/24, which is the gateway",
        ),
        ({}, [ip("10.1.0.5/24"), ip("10.1.0.255/24")], "10.1.0.255/24, which is not the address of a single host"),
        ({}, [ip("255.255.255.255/32")], "255.255.255.255/32, which is not the address of a single host"),
        ({}, [ip("224.0.0.5/24")], "224.0.0.5/24, which is not the address of a single host"),
        ({}, [ip("239.255.255.254/31")], "239.255.255.254/31, which is not the address of a single host"),
        ({}, [ip("0.0.0.0/24")], "0.0.0.0/24, which is not the address of a single host"),
        ({}, [ip("::/64")], "::/64, which is not the address of a single host"),
        ({}, [ip("ff02::1:5/64")], "ff02::1:5/64, which is not the address of a single host"),
    ],
)
def test_an_address_that_no_container_can_have_is_refused(
    keys: dict[str, Any], entries: list[IPConfig], problem: str
) -> None:
    with pytest.raises(CNIError) as caught:
        make_plan(config_of(**keys), Result(ips=tuple(entries)))
    assert caught.value.code == 104
    assert f"host-local ADD gave {problem}" in caught.value.msg


@pytest.mark.parametrize(
    ("keys", "entry"),
    [
        ({}, ip("10.1.0.5/24", "10.1.0.5")),  # the bridge has no address
        ({"isGateway": True}, ip("10.1.0.0/31", "10.1.0.1")),
        ({"isGateway": True}, ip("10.1.0.1/31", "10.1.0.0")),
        ({"isGateway": True}, ip("10.1.0.5/32", "169.254.1.1")),
        ({"isGateway": True}, ip("10.1.0.0/24")),
        ({"isGateway": True}, ip("240.0.0.5/24")),
        ({"isGateway": True}, ip("223.255.255.254/24")),
        ({"isGateway": True}, ip("fd00:1::/64")),  # the anycast address of its routers
        ({"isGateway": True}, ip("fd00:1::ffff:ffff:ffff:ffff/64")),
    ],
)
def test_an_unusual_address_is_taken(keys: dict[str, Any], entry: IPConfig) -> None:
    assert make_plan(config_of(**keys), Result(ips=(entry,))).ips[0].address == entry.address


@pytest.mark.parametrize(
    ("keys", "entry", "gateway", "on_bridge"),
    [
        ({}, ip("10.1.0.5/16"), None, []),
        ({}, ip("10.1.0.5/16", "10.1.0.1"), "10.1.0.1", []),
        ({"isGateway": True}, ip("10.1.0.5/16"), "10.1.0.1", ["10.1.0.1/16"]),
        ({"isGateway": True}, ip("10.1.9.5/24"), "10.1.9.1", ["10.1.9.1/24"]),
        ({"isGateway": True}, ip("10.1.0.5/16", "10.1.255.254"), "10.1.255.254", ["10.1.255.254/16"]),
        ({"isGateway": True}, ip("fd00:1::5/64"), "fd00:1::1", ["fd00:1::1/64"]),
        ({"isDefaultGateway": True}, ip("fd00:1::5/64"), "fd00:1::1", ["fd00:1::1/64"]),
    ],
    ids=["none", "IPAM's stays", "network + 1", "own prefix", "IPAM's", "IPv6", "default gateway"],
)
def test_the_gateway_defaults_to_the_first_address(
    keys: dict[str, Any], entry: IPConfig, gateway: str | None, on_bridge: list[str]
) -> None:
    plan = make_plan(config_of(**keys), Result(ips=(entry,)))
    assert plan.ips == (IPConfig(entry.address, parse_ip(gateway) if gateway else None, 2),)
    assert texts(plan.gateways) == on_bridge


def test_several_addresses_of_a_family_each_have_their_gateway_once() -> None:
    ips = (ip("10.1.0.5/16"), ip("10.1.0.6/16"), ip("10.2.0.5/16"), ip("fd00:1::5/64"), ip("fd00:2::5/64"))
    plan = make_plan(config_of(isGateway=True), Result(ips=ips))
    assert texts(plan.gateways) == ["10.1.0.1/16", "10.2.0.1/16", "fd00:1::1/64", "fd00:2::1/64"]
    assert [entry.interface for entry in plan.ips] == [2] * 5
    assert plan.routes == ()


V4, V6 = ip("10.1.0.5/16"), ip("fd00:1::5/64")


@pytest.mark.parametrize(
    ("ips", "routes", "expected"),
    [
        ((V4,), (), [route("0.0.0.0/0", "10.1.0.1")]),
        ((V6,), (), [route("::/0", "fd00:1::1")]),
        ((V4, V6), (), [route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd00:1::1")]),
        ((V4, V6), (route("0.0.0.0/0"),), [route("0.0.0.0/0"), route("::/0", "fd00:1::1")]),
        ((V4,), (route("0.0.0.0/0"),), [route("0.0.0.0/0")]),
        ((V4,), (route("0.0.0.0/0", "10.1.0.9"),), [route("0.0.0.0/0", "10.1.0.9")]),
        ((V4,), (route("10.9.0.0/16"),), [route("10.9.0.0/16"), route("0.0.0.0/0", "10.1.0.1")]),
        (
            (V4,),
            (route("0.0.0.0/0", table=7),),
            [route("0.0.0.0/0", table=7), route("0.0.0.0/0", "10.1.0.1")],
        ),
        ((V4, ip("10.2.0.5/16")), (), [route("0.0.0.0/0", "10.1.0.1")]),
    ],
    ids=[
        "IPv4",
        "IPv6",
        "dual stack",
        "dual stack, one given",
        "IPAM default without gw",
        "IPAM default with gw",
        "another route",
        "default of another table",
        "two subnets",
    ],
)
def test_a_default_gateway_adds_a_default_route_for_a_family_without_one(
    ips: tuple[IPConfig, ...], routes: tuple[Route, ...], expected: list[Route]
) -> None:
    plan = make_plan(config_of(isDefaultGateway=True), Result(ips=ips, routes=routes))
    assert list(plan.routes) == expected


def test_a_mere_gateway_adds_no_route() -> None:
    assert make_plan(config_of(isGateway=True), Result(ips=(V4,))).routes == ()


def test_a_default_route_of_ipam_without_gw_is_programmed_once_through_the_gateway() -> None:
    plan = make_plan(config_of(isDefaultGateway=True), Result(ips=(V4,), routes=(route("0.0.0.0/0"),)))
    assert plan.programmed == (programmed_route("0.0.0.0/0", "10.1.0.1", scope=SCOPE_UNIVERSE, table=MAIN_TABLE),)


@pytest.mark.parametrize(
    ("wanted", "gw", "scope", "table"),
    [
        (route("10.9.0.0/16"), "10.1.0.1", SCOPE_UNIVERSE, MAIN_TABLE),
        (route("10.9.0.0/16", "10.1.0.7"), "10.1.0.7", SCOPE_UNIVERSE, MAIN_TABLE),
        (route("10.9.0.0/16", scope=SCOPE_LINK), None, SCOPE_LINK, MAIN_TABLE),
        (route("10.9.0.0/16", scope=0), "10.1.0.1", SCOPE_UNIVERSE, MAIN_TABLE),
        (route("10.9.0.0/16", scope=200), "10.1.0.1", 200, MAIN_TABLE),
        (route("fd00:9::/64"), "fd00:1::1", SCOPE_UNIVERSE, MAIN_TABLE),
        (route("fd00:9::/64", scope=SCOPE_LINK), None, SCOPE_LINK, MAIN_TABLE),
        (route("10.9.0.0/16", table=100), "10.1.0.1", SCOPE_UNIVERSE, 100),
        (route("10.9.0.0/16", table=0), "10.1.0.1", SCOPE_UNIVERSE, MAIN_TABLE),
    ],
    ids=["default gw", "own gw", "on link", "universe", "site", "IPv6", "IPv6 on link", "table", "table 0"],
)
def test_a_route_gets_the_gateway_of_its_family_a_scope_and_a_table(
    wanted: Route, gw: str | None, scope: int, table: int
) -> None:
    ips = (ip("10.1.0.5/16", "10.1.0.1"), ip("10.2.0.5/16", "10.2.0.1"), ip("fd00:1::5/64", "fd00:1::1"))
    [programmed] = program_routes(ips, (wanted,))
    assert programmed == KernelRoute(wanted.dst, parse_ip(gw) if gw else None, scope=scope, table=table)


@pytest.mark.parametrize(
    ("dst", "scope"), [("10.9.0.0/16", SCOPE_LINK), ("fd00:9::/64", SCOPE_UNIVERSE)], ids=["IPv4", "IPv6"]
)
def test_a_route_without_any_gateway_is_on_the_link(dst: str, scope: int) -> None:
    [programmed] = program_routes((V4, V6), (route(dst),))
    assert (programmed.gw, programmed.scope) == (None, scope)


def test_the_numbers_of_a_route_are_kept_and_equal_routes_are_programmed_once() -> None:
    routes = (route("10.9.0.0/16", "10.1.0.1", mtu=1400, advmss=1360, priority=50), route("10.9.0.0/16"))
    twice = (*routes, routes[0], route("10.9.0.0/16", "10.1.0.1"))
    programmed = program_routes((ip("10.1.0.5/16", "10.1.0.1"),), twice)
    assert programmed == (
        programmed_route("10.9.0.0/16", "10.1.0.1", mtu=1400, advmss=1360, priority=50, scope=0, table=MAIN_TABLE),
        programmed_route("10.9.0.0/16", "10.1.0.1", scope=0, table=MAIN_TABLE),
    )


@pytest.mark.parametrize(
    ("mtu", "addresses", "refused"),
    [
        (1279, ("fd00:1::5/64",), True),
        (1279, ("10.1.0.5/16", "fd00:1::5/64"), True),
        (1280, ("fd00:1::5/64",), False),
        (0, ("fd00:1::5/64",), False),
        (68, ("10.1.0.5/16",), False),
    ],
    ids=["too small for IPv6", "for one of two", "least of IPv6", "the kernel's choice", "least of IPv4"],
)
def test_ipv6_needs_its_least_mtu(mtu: int, addresses: tuple[str, ...], refused: bool) -> None:
    config, ipam = config_of(mtu=mtu), Result(ips=tuple(ip(text) for text in addresses))
    if not refused:
        make_plan(config, ipam)
        return
    with pytest.raises(CNIError, match="mtu: 1279 is less than 1280") as caught:
        make_plan(config, ipam)
    assert caught.value.code == 7


NATIVE_5 = PortVlan(5, pvid=True, untagged=True)
NATIVE_1 = PortVlan(1, pvid=True, untagged=True)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ()),
        ({"vlan": 0}, ()),
        ({"vlan": 5}, (NATIVE_5,)),
        ({"vlan": 1}, (NATIVE_1,)),
        ({"vlan": 5, "preserveDefaultVlan": True}, (PortVlan(1, untagged=True), NATIVE_5)),
        ({"vlan": 1, "preserveDefaultVlan": True}, (NATIVE_1,)),
        ({"preserveDefaultVlan": True}, ()),
        ({"vlanTrunk": [{"id": 7}]}, (NATIVE_1, PortVlan(7))),
        ({"vlanTrunk": [{"id": 1}]}, (NATIVE_1,)),
        ({"vlanTrunk": [{"id": 7}], "preserveDefaultVlan": True}, (NATIVE_1, PortVlan(7))),
        ({"vlan": 5, "vlanTrunk": [{"minID": 4, "maxID": 6}]}, (PortVlan(4), NATIVE_5, PortVlan(6))),
        (
            {"vlan": 5, "vlanTrunk": [{"id": 1}, {"id": 9}], "preserveDefaultVlan": True},
            (PortVlan(1), NATIVE_5, PortVlan(9)),
        ),
        (
            {"vlan": 5, "vlanTrunk": [{"id": 9}], "preserveDefaultVlan": True},
            (PortVlan(1, untagged=True), NATIVE_5, PortVlan(9)),
        ),
        ({"vlanTrunk": [{"id": 4094}, {"id": 2}, {"id": 4094}]}, (NATIVE_1, PortVlan(2), PortVlan(4094))),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_the_vlans_of_a_port(keys: dict[str, Any], expected: tuple[PortVlan, ...]) -> None:
    assert list_vlans(config_of(**keys)) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "cni0"),
        ({"bridge": "br7"}, "br7"),
        ({"bridge": "br7", "vlan": 42, "isGateway": True}, "br7.42"),
        ({"vlanTrunk": [{"id": 7}]}, "cni0"),
    ],
    ids=["default", "named", "in a VLAN", "trunk only"],
)
def test_the_interface_of_the_gateway(keys: dict[str, Any], expected: str) -> None:
    assert gateway_interface(config_of(**keys)) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, []), ({"ipMasq": True}, ["10.1.0.5/16", "fd00:1::5/64"])],
    ids=["off", "on"],
)
def test_every_address_is_masqueraded_when_asked_for(keys: dict[str, Any], expected: list[str]) -> None:
    assert texts(make_plan(config_of(**keys), Result(ips=(V4, V6))).masqueraded) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, DNS(("10.0.0.53",), "ipam")),
        ({"dns": {"domain": "own"}}, DNS((), "own")),
        ({"dns": {}}, DNS(("10.0.0.53",), "ipam")),
    ],
    ids=["IPAM's", "the configuration's", "empty"],
)
def test_a_dns_object_replaces_that_of_the_ipam_plugin(keys: dict[str, Any], expected: DNS) -> None:
    assert make_plan(config_of(**keys), Result(ips=(V4,), dns=DNS(("10.0.0.53",), "ipam"))).dns == expected


def test_the_result_lists_bridge_host_and_container_with_the_addresses_on_the_last() -> None:
    plan = make_plan(config_of(isDefaultGateway=True), Result(ips=(V4,)))
    interfaces = (Interface("cni0"), Interface("veth1"), Interface("eth0", sandbox="/run/netns/c1"))
    result = make_result(plan, interfaces)
    assert result.interfaces == interfaces
    assert result.interfaces[result.ips[0].interface or 0].name == "eth0"
    assert gateways_of(result.ips) == [parse_ip("10.1.0.1")]
    assert result.routes == (route("0.0.0.0/0", "10.1.0.1"),)
    assert make_result(LAYER_2, interfaces) == Result(interfaces)
