"""What is asked of the kernel for interfaces and addresses, and for which of them the overlay and the bridge ask."""

import errno
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pytest_mock import MockerFixture

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_node.host import links
from cni_node.host.bridge import ensure_gateways
from cni_node.host.links import Device, Links, Local
from cni_node.host.overlay import (
    Overlay,
    Underlay,
    delete_former,
    ensure_overlay,
    ensure_sources,
    find_mtu,
    find_own_addresses,
    find_underlay,
)
from cni_node.host.peer_routes import mac_of
from cni_protocol.address import parse_cidr, parse_ip

UPLINK = Device(2, "uplink", "", "02:00:00:00:00:01", 1500, up=True, alias="", master=0, data={})
BRIDGE = UPLINK._replace(ifindex=3, name="cni0", kind="bridge")


@pytest.fixture
def ipr(mocker: MockerFixture) -> Any:
    """What pyroute2 is asked for."""
    return mocker.patch.object(links, "IPRoute").return_value


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("10.1.0.1/24", {"broadcast": "10.1.0.255"}),
        ("10.1.0.0/31", {}),
        ("10.1.0.1/32", {}),
        ("fd00:1::1/64", {"flags": 2}),
        ("fd00:1::1/16", {"flags": 2}),
    ],
)
def test_addresses_are_given(ipr: Any, address: str, options: dict[str, Any]) -> None:
    cidr = parse_cidr(address)
    Links().add_address(BRIDGE, cidr)
    ipr.addr.assert_called_once_with("add", index=3, address=str(cidr.ip), prefixlen=cidr.prefix, **options)


REFUSALS = {
    "add_address": {errno.EEXIST},
    "delete_address": {errno.EADDRNOTAVAIL, errno.ENODEV, errno.ESRCH},
    "delete": {errno.EADDRNOTAVAIL, errno.ENODEV, errno.ESRCH},
}


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ESRCH, errno.EPERM])
@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_done_already_is_fine_and_the_rest_is_told(ipr: Any, name: str, number: int) -> None:
    ipr.addr.side_effect = ipr.link.side_effect = NetlinkError(number)
    arguments = [BRIDGE] if name == "delete" else [BRIDGE, parse_cidr("10.1.0.1/24")]
    if number in REFUSALS[name]:
        getattr(Links(), name)(*arguments)
        return
    with pytest.raises(KernelError, match="cni0") as caught:
        getattr(Links(), name)(*arguments)
    assert caught.value.errno == number


def test_failures_of_the_socket_are_refusals_too(ipr: Any) -> None:
    ipr.link.side_effect = OSError(errno.ENOBUFS, "No buffer space available")
    with pytest.raises(KernelError, match="interfaces cannot be read: No buffer space available") as caught:
        Links().list_all()
    assert caught.value.errno == errno.ENOBUFS


VXLAN = {"IFLA_VXLAN_ID": 42, "IFLA_VXLAN_PORT": 4789, "IFLA_VXLAN_LINK": 2, "IFLA_VXLAN_LEARNING": 0}
MESSAGE = {
    "index": 7,
    "flags": 1,
    "ifname": "vxlan.42",
    "address": "02:00:00:00:00:09",
    "mtu": 1450,
    "ifalias": "pycni,",
    "master": 3,
    ("linkinfo", "kind"): "vxlan",
    ("linkinfo", "data"): {"attrs": list(VXLAN.items())},
}


def test_interfaces_are_read(ipr: Any) -> None:
    ipr.link.return_value = [MESSAGE, {"index": 1, "flags": 2, "ifname": "lo"}]
    made = Links()
    whole = Device(7, "vxlan.42", "vxlan", "02:00:00:00:00:09", 1450, up=True, alias="pycni,", master=3, data=VXLAN)
    assert made.list_all() == [whole, Device(1, "lo", "", "", 0, up=False, alias="", master=0, data={})]
    assert (made.find("vxlan.42"), made.find_at(7), made.get("vxlan.42")) == (whole,) * 3
    assert [call.kwargs for call in ipr.link.call_args_list] == [
        {},
        {"ifname": "vxlan.42"},
        {"index": 7},
        {"ifname": "vxlan.42"},
    ]
    ipr.link.side_effect = NetlinkError(errno.ENODEV)
    assert made.find("none") is None
    with pytest.raises(KernelError, match="interface none: it is not there"):
        made.get("none")
    ipr.link.side_effect = NetlinkError(errno.EPERM)
    with pytest.raises(KernelError, match="interfaces cannot be read"):
        made.find("none")


def test_addresses_of_global_scope_are_read(ipr: Any) -> None:
    ipr.addr.return_value = [
        {"index": 3, "scope": 0, "local": "10.1.0.1", "address": "10.1.0.9", "prefixlen": 24},
        {"index": 3, "scope": 0, "address": "fd00:1::1", "prefixlen": 64},
        {"index": 3, "scope": 253, "address": "fe80::1", "prefixlen": 64},
    ]
    assert Links().list_addresses() == [Local(3, parse_cidr("10.1.0.1/24")), Local(3, parse_cidr("fd00:1::1/64"))]


def test_the_way_out_has_an_interface_and_a_source(ipr: Any) -> None:
    ipr.route.return_value = [{"oif": 2, "prefsrc": "192.0.2.1"}]
    assert Links().find_way_out("192.0.2.9") == (2, "192.0.2.1")
    ipr.route.return_value = [{"oif": 2}]
    assert Links().find_way_out("192.0.2.9") is None
    ipr.route.side_effect = NetlinkError(errno.ENETUNREACH)
    assert Links().find_way_out("192.0.2.9") is None


@pytest.fixture
def kernel(mocker: MockerFixture) -> Any:
    """Links that note what they are asked for."""
    for name in ("ignore_router_advertisements", "loosen_reverse_path"):
        mocker.patch.object(sysctl, name)
    return mocker.create_autospec(Links, instance=True)


def asked(kernel: Any) -> list[tuple[Any, ...]]:
    return [(name, *args, *kwargs.items()) for name, args, kwargs in kernel.mock_calls]


def test_the_bridge_has_exactly_its_gateways_and_new_ones_first(kernel: Any) -> None:
    old, kept, new = map(parse_cidr, ("10.1.0.1/24", "fd00:1::1/64", "10.2.0.1/24"))
    there = [Local(3, old), Local(3, kept), Local(2, parse_cidr("192.0.2.1/24"))]
    assert ensure_gateways(kernel, BRIDGE, there, [new, kept]) == (
        ["address 10.2.0.1/24 given to cni0", "address 10.1.0.1/24 taken from cni0"],
        [old],
    )
    assert asked(kernel) == [("add_address", BRIDGE, new), ("delete_address", BRIDGE, old)]


WANTED, UNDER = Overlay(42, 4789), Underlay(2, 1500, parse_ip("192.0.2.1"))
OURS = Device(
    7,
    "vxlan.42",
    "vxlan",
    mac_of(UNDER.local),
    1450,
    up=True,
    alias="pycni,",
    master=0,
    data={**VXLAN, "IFLA_VXLAN_LOCAL": "192.0.2.1"},
)
CREATE: tuple[Any, ...] = (
    "create",
    "vxlan.42",
    "vxlan",
    ("address", OURS.mac),
    *(("vxlan_id", 42), ("vxlan_link", 2), ("vxlan_port", 4789), ("vxlan_learning", 0), ("vxlan_local", "192.0.2.1")),
)
FRESH = OURS._replace(mtu=1500, up=False, alias="")


def settled(kernel: Any) -> list[tuple[Any, ...]]:
    return [call for call in asked(kernel) if call[0] not in ("find", "get")]


def test_an_overlay_that_is_right_is_left_alone(kernel: Any) -> None:
    kernel.find.return_value = kernel.get.return_value = OURS
    assert ensure_overlay(kernel, WANTED, UNDER) == (OURS, [])
    assert settled(kernel) == []


def test_an_overlay_that_is_missing_is_made(kernel: Any) -> None:
    kernel.find.return_value, kernel.get.return_value = None, FRESH
    assert ensure_overlay(kernel, WANTED, UNDER) == (FRESH, ["vxlan.42 made"])
    changes = [("change", FRESH, pair) for pair in (("ifalias", "pycni,"), ("mtu", 1450), ("state", "up"))]
    assert settled(kernel) == [CREATE, *changes]


@pytest.mark.parametrize(
    "data",
    [
        {"IFLA_VXLAN_ID": 43},
        {"IFLA_VXLAN_PORT": 8472},
        {"IFLA_VXLAN_LINK": 3},
        {"IFLA_VXLAN_LEARNING": 1},
        {"IFLA_VXLAN_LOCAL": "192.0.2.7"},
    ],
)
def test_an_overlay_that_cannot_be_changed_is_made_anew(kernel: Any, data: dict[str, Any]) -> None:
    there = OURS._replace(data={**OURS.data, **data})
    kernel.find.return_value, kernel.get.return_value = there, OURS
    device, done = ensure_overlay(kernel, WANTED, UNDER)
    assert (device, done[1:]) == (OURS, ["vxlan.42 made"])
    assert done[0].startswith("vxlan.42 removed, which had (4")
    assert settled(kernel) == [("delete", there), CREATE]


def test_what_the_kernel_does_not_say_is_zero(kernel: Any) -> None:
    kernel.find.return_value, kernel.get.return_value = OURS._replace(data={}), OURS
    assert ensure_overlay(kernel, WANTED, UNDER)[1][0] == "vxlan.42 removed, which had (0, 0, 0, '', 0)"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"mtu": 1400}, ("mtu", 1450)),
        ({"up": False}, ("state", "up")),
        ({"mac": "02:00:00:00:00:77"}, ("address", OURS.mac)),
    ],
)
def test_settings_are_put_right_and_told(kernel: Any, change: dict[str, Any], wanted: tuple[str, Any]) -> None:
    kernel.find.return_value = kernel.get.return_value = there = OURS._replace(**change)
    assert ensure_overlay(kernel, WANTED, UNDER)[1] == [f"vxlan.42 given {wanted[0]} {wanted[1]}"]
    assert settled(kernel) == [("change", there, wanted)]


@pytest.mark.parametrize(
    ("change", "ours"),
    [
        ({"alias": "pycni/"}, True),
        ({"alias": ""}, True),
        ({"alias": "", "mac": "02:00:00:00:00:77"}, False),
        ({"alias": "another's"}, False),
        ({"kind": "dummy"}, False),
    ],
)
def test_an_interface_of_others_is_refused(kernel: Any, change: dict[str, Any], *, ours: bool) -> None:
    kernel.find.return_value = kernel.get.return_value = OURS._replace(**change)
    if ours:
        ensure_overlay(kernel, WANTED, UNDER)
        return
    with pytest.raises(KernelError, match="choose another --vni, or remove it"):
        ensure_overlay(kernel, WANTED, UNDER)
    assert settled(kernel) == []


def test_the_overlay_has_the_gateway_of_ipv4_alone(kernel: Any) -> None:
    old, kept = parse_cidr("10.9.0.1/32"), parse_cidr("fd00::1/128")
    there = [Local(7, old), Local(7, kept), Local(2, parse_cidr("10.8.0.1/32"))]
    new = parse_cidr("10.1.0.1/32")
    done = ensure_sources(kernel, OURS, there, [new.ip, parse_ip("fd00:1::1")])
    assert done == ["address 10.1.0.1/32 given to vxlan.42", "address 10.9.0.1/32 taken from vxlan.42"]
    assert asked(kernel) == [("add_address", OURS, new), ("delete_address", OURS, old)]
    assert ensure_sources(kernel, OURS, [Local(7, new)], [new.ip]) == []


def test_former_overlays_of_ours_are_removed(kernel: Any) -> None:
    found = {"vxlan.1": OURS, "vxlan.2": OURS._replace(alias=""), "vxlan.3": OURS._replace(kind="dummy")}
    kernel.find.side_effect = found.get
    assert delete_former(kernel, [*found, "vxlan.4"]) == ["vxlan.1 removed, which belongs to no overlay any more"]
    assert settled(kernel) == [("delete", OURS)]


ADDRESSES = [
    Local(2, parse_cidr("192.0.2.1/24")),
    Local(2, parse_cidr("fd00:a::1/64")),
    Local(3, parse_cidr("10.1.0.1/24")),
]


def on_links(kernel: Any) -> Any:
    kernel.find_at.side_effect = {2: UPLINK, 3: BRIDGE._replace(mtu=1400)}.get
    kernel.find.side_effect = {"uplink": UPLINK, "cni0": BRIDGE}.get
    ways = {"198.51.100.1": (2, "192.0.2.1"), "192.0.2.1": (2, "192.0.2.1"), "2001:db8::1": (2, "fd00:a::1")}
    kernel.find_way_out.side_effect = ways.get
    return kernel


@pytest.mark.parametrize(
    ("device", "known", "expected"),
    [
        ("", ["192.0.2.1"], Underlay(2, 1500, parse_ip("192.0.2.1"))),
        ("", ["198.51.100.1"], Underlay(2, 1500, parse_ip("192.0.2.1"))),
        ("", ["203.0.113.1", "10.1.0.1"], Underlay(3, 1400, parse_ip("10.1.0.1"))),
        ("uplink", ["fd00:b::1"], Underlay(2, 1500, parse_ip("fd00:a::1"))),
        ("cni0", ["192.0.2.1", "203.0.113.1"], Underlay(3, 1400, parse_ip("10.1.0.1"))),
    ],
)
def test_the_network_below(kernel: Any, device: str, known: list[str], expected: Underlay) -> None:
    found = find_underlay(on_links(kernel), Overlay(42, 4789, device), ADDRESSES, list(map(parse_ip, known)))
    assert found == expected


@pytest.mark.parametrize(
    ("device", "known", "said"),
    [
        ("", "203.0.113.1", "to 203.0.113.1: no interface leads there; set --device"),
        ("cni0", "fd00:b::1", "cni0 has no address of its family"),
        ("none", "192.0.2.1", "there is no interface none"),
    ],
)
def test_no_network_below(kernel: Any, device: str, known: str, said: str) -> None:
    with pytest.raises(KernelError, match=said):
        find_underlay(on_links(kernel), Overlay(42, 4789, device), ADDRESSES, [parse_ip(known)])


def test_what_an_overlay_leaves_of_a_packet(kernel: Any) -> None:
    kernel = on_links(kernel)
    own4, own6 = [parse_ip("192.0.2.1")], [parse_ip("fd00:a::1")]
    assert [find_mtu(kernel, WANTED, ADDRESSES, own) for own in (own4, own6)] == [1450, 1430]
    assert find_mtu(kernel, WANTED, ADDRESSES, []) == 1450
    assert find_mtu(kernel, None, ADDRESSES, [*own4, parse_ip("10.1.0.1")]) == 1400
    assert find_mtu(kernel, None, ADDRESSES, [parse_ip("203.0.113.1")]) == 0
    assert find_own_addresses(kernel, ADDRESSES) == (parse_ip("192.0.2.1"), parse_ip("fd00:a::1"))
    assert find_own_addresses(kernel, ADDRESSES[:1]) == (parse_ip("192.0.2.1"),)
