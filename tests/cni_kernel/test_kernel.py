"""Every primitive on links, addresses and routes, on the real kernel, judged by `ip -j -d`."""

import errno
import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge.refusals import as_cni_error, kernel_refusals
from cni_kernel import waits
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.netlink import NetlinkError, NetlinkSocket
from cni_kernel.values import Address, Link, PortVlan, Route, Veth
from cni_kernel.vlans import parse_vlans, vlan_message
from cni_kernel.waits import wait_for_addresses, wait_for_port
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError
from tests.cni_bridge import open_container, open_kernel
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel

RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK = 16, 17, 19


@pytest.fixture
def kernel(host: Host) -> Iterator[Kernel]:
    """The kernel as the host sees it."""
    with open_kernel(host) as opened:
        yield opened


@pytest.fixture
def inside(host: Host) -> Iterator[Kernel]:
    """The kernel as container c1 sees it, which has a veth to the host's v0 and 10.1.0.5/16 and fd00:1::5/64 there."""
    host.add_container("c1")
    host.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", "c1")
    host.run("ip", "link", "set", "v0", "up")
    host.run("ip", "-n", "c1", "link", "set", "eth0", "up")
    host.run("ip", "-n", "c1", "address", "add", "10.1.0.5/16", "dev", "eth0")
    host.run("ip", "-n", "c1", "address", "add", "fd00:1::5/64", "dev", "eth0", "nodad")
    with open_kernel(host, "c1") as opened:
        yield opened


def link(host: Host, name: str, container: str | None = None) -> Any:
    return host.ip("link", "show", "dev", name, container=container)[0]


def make_pair(host: Host, kernel: Kernel, **changes: Any) -> None:
    host.add_container("c1")
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", "up")
    with open_container(host, "c1") as namespace:
        veth = Veth(
            host_name="veth1",
            owner="mynet,c1,eth0",
            bridge=kernel.get_link("br0").ifindex,
            name="eth0",
            namespace=namespace.descriptor,
            mac="",
            mtu=0,
            hairpin=False,
            isolated=False,
        )
        kernel.create_veth(veth._replace(**changes))


def test_a_link_is_found_by_name_and_index_as_ip_sees_it(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "mtu", "1400", "type", "bridge")
    seen = link(host, "br0")
    found = kernel.find_link("br0")
    assert found is not None
    assert kernel.find_link_at(found.ifindex) == kernel.get_link("br0") == found
    assert (found.ifindex, found.mac, found.mtu) == (seen["ifindex"], seen["address"], 1400)
    assert (found.kind, found.up, found.promisc, found.master) == ("bridge", False, False, 0)


def test_a_link_that_is_not_there_is_none_or_an_error(kernel: Kernel) -> None:
    assert kernel.find_link("br0") is None
    assert kernel.find_link_at(4711) is None
    with pytest.raises(KernelError, match="interface br0: it is not there, or has vanished"):
        kernel.get_link("br0")


@pytest.mark.parametrize(("mtu", "expected"), [(0, 1500), (1400, 1400), (9000, 9000), (68, 68)])
def test_a_bridge_is_made_down_with_a_mac_of_its_own(host: Host, kernel: Kernel, mtu: int, expected: int) -> None:
    assert kernel.create_bridge("br0", mtu) is True
    made = link(host, "br0")
    assert (made["linkinfo"]["info_kind"], made["mtu"]) == ("bridge", expected)
    assert "UP" not in made["flags"]
    assert int(made["address"][:2], 16) & 0b11 == 0b10  # locally administered, unicast
    assert kernel.create_bridge("br0", 0) is False
    assert link(host, "br0")["address"] == made["address"]


def test_the_mac_of_a_bridge_stays_when_ports_come_and_go(host: Host, kernel: Kernel) -> None:
    kernel.create_bridge("br0", 0)
    before = link(host, "br0")["address"]
    host.run("ip", "link", "add", "p0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "p1")
    host.run("ip", "link", "set", "p0", "master", "br0", "up")
    assert link(host, "br0")["address"] == before
    host.run("ip", "link", "delete", "p0")
    assert link(host, "br0")["address"] == before


def test_set_mac_pins_the_mac_that_a_bridge_has_by_chance(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    bridge = kernel.get_link("br0")
    kernel.set_mac(bridge, bridge.mac)
    host.run("ip", "link", "add", "p0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "p1")
    host.run("ip", "link", "set", "p0", "master", "br0", "up")
    assert link(host, "br0")["address"] == bridge.mac


def test_a_name_that_is_taken_makes_no_bridge(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "type", "veth", "peer", "name", "p1")
    assert kernel.create_bridge("br0", 0) is False


def test_a_pair_is_born_as_it_is_to_be(host: Host, kernel: Kernel) -> None:
    make_pair(host, kernel)
    outer, inner = link(host, "veth1"), link(host, "eth0", "c1")
    assert (outer["master"], outer["ifalias"]) == ("br0", "mynet,c1,eth0")
    assert "UP" in outer["flags"]
    assert "UP" not in inner["flags"]
    assert outer["linkinfo"]["info_kind"] == inner["linkinfo"]["info_kind"] == "veth"
    assert (outer["link_index"], inner["link_index"]) == (inner["ifindex"], outer["ifindex"])
    assert outer["linkinfo"]["info_slave_data"]["hairpin"] is False
    assert host.link_names() == ["br0", "veth1"]
    found = kernel.get_link("veth1")
    assert (found.peer, found.alias, found.kind) == (inner["ifindex"], "mynet,c1,eth0", "veth")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mac": "0a:58:0a:f4:00:02"}, {"address": "0a:58:0a:f4:00:02"}),
        ({"mtu": 1400}, {"mtu": 1400}),
        ({"mtu": 65535}, {"mtu": 65535}),
    ],
    ids=["mac", "mtu", "largest mtu"],
)
def test_the_inner_end_gets_its_mac_and_both_get_the_mtu(
    host: Host, kernel: Kernel, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    make_pair(host, kernel, **changes)
    inner, outer = link(host, "eth0", "c1"), link(host, "veth1")
    assert {key: inner[key] for key in expected} == expected
    assert outer["mtu"] == changes.get("mtu", 1500)
    assert outer["address"] != changes.get("mac")


def test_the_hairpin_of_a_port(host: Host, kernel: Kernel) -> None:
    make_pair(host, kernel, hairpin=True)
    assert link(host, "veth1")["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert kernel.get_link("veth1").hairpin is True


@pytest.mark.parametrize("isolated", [False, True], ids=["not isolated", "isolated"])
def test_the_isolation_of_a_port(host: Host, kernel: Kernel, isolated: bool) -> None:
    make_pair(host, kernel, isolated=isolated)
    assert link(host, "veth1")["linkinfo"]["info_slave_data"]["isolated"] is isolated
    assert kernel.get_link("veth1").isolated is isolated


def test_the_longest_owner_fits_an_alias(host: Host, kernel: Kernel) -> None:
    owner = Attachment("n" * 300, "c" * 300, "fifteen-bytes-x").owner
    make_pair(host, kernel, owner=owner)
    assert link(host, "veth1")["ifalias"] == owner


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mtu": 67}, "Invalid argument; the kernel takes no such value; correct the configuration"),
        ({"mac": "01:00:00:00:00:01"}, "Cannot assign requested address"),
        ({"bridge": 4711}, ""),
        ({"owner": "a" * 256}, ""),
    ],
    ids=["mtu too small", "multicast MAC", "no such bridge", "alias too long"],
)
def test_a_pair_that_cannot_be_is_an_error_that_names_both_ends(
    host: Host, kernel: Kernel, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(KernelError) as caught:
        make_pair(host, kernel, **changes)
    assert "veth pair veth1 (host) and eth0 (container) cannot be created" in str(caught.value)
    assert words in as_cni_error(caught.value).msg


def test_the_ports_of_a_bridge_are_listed(host: Host, kernel: Kernel) -> None:
    for bridge in ("br0", "br1"):
        host.run("ip", "link", "add", bridge, "type", "bridge")
    for number, bridge in enumerate(("br0", "br0", "br1")):
        host.run("ip", "link", "add", f"p{number}", "master", bridge, "type", "veth")
    assert sorted(port.name for port in kernel.list_ports(kernel.get_link("br0"))) == ["p0", "p1"]
    assert [port.name for port in kernel.list_ports(kernel.get_link("br1"))] == ["p2"]


def test_deleting_tolerates_absence(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    assert kernel.delete_link("br0") is True
    assert host.link_names() == []
    assert kernel.delete_link("br0") is False


@pytest.mark.parametrize("before", [(False, False), (True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("after", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_up_and_promiscuous_are_set_as_asked_for(
    host: Host, kernel: Kernel, before: tuple[bool, bool], after: tuple[bool, bool]
) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", *(["up"] if before[0] else []), "promisc", "on" if before[1] else "off")
    kernel.set_flags(kernel.get_link("br0"), up=after[0], promisc=after[1])
    flags = link(host, "br0")["flags"]
    assert ("UP" in flags, "PROMISC" in flags) == after
    again = kernel.get_link("br0")
    assert (again.up, again.promisc) == after


def test_flags_that_are_right_already_are_not_sent_again(host: Host, kernel: Kernel, mocker: MockerFixture) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    bridge = kernel.get_link("br0")
    mocker.patch.object(NetlinkSocket, "send", side_effect=NetlinkError(errno.EPERM, "", 0))
    kernel.set_flags(bridge, up=False, promisc=False)
    with pytest.raises(KernelError, match="interface br0 cannot be set up"):
        kernel.set_flags(bridge, up=True, promisc=False)


def test_bringing_up_leaves_the_other_flags_alone(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", "promisc", "on")
    kernel.configure(kernel.get_link("br0"), [], up=True)
    assert {"UP", "PROMISC"} <= set(link(host, "br0")["flags"])


def test_all_links_are_listed(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "add", "p0", "master", "br0", "type", "veth", "peer", "name", "p1")
    host.run("ip", "link", "set", "p0", "alias", "mynet,c1,eth0")
    assert sorted(entry.name for entry in kernel.list_links()) == ["br0", "lo", "p0", "p1"]
    assert [entry for entry in kernel.list_links() if entry.alias] == [kernel.get_link("p0")]


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_probing_a_kind_that_there_is_changes_nothing(host: Host, kernel: Kernel, kind: str) -> None:
    kernel.probe_kind(kind)
    assert host.link_names() == []


def test_a_kind_that_the_kernel_lacks_is_named(host: Host, kernel: Kernel) -> None:
    with pytest.raises(KernelError, match="interfaces of kind no-such-kind cannot be made") as caught:
        kernel.probe_kind("no-such-kind")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert host.link_names() == []


def test_no_right_to_make_a_kind_is_found(kernel: Kernel, mocker: MockerFixture) -> None:
    mocker.patch.object(NetlinkSocket, "send", side_effect=NetlinkError(errno.EPERM, "", 0))
    with pytest.raises(KernelError, match="interfaces of kind bridge cannot be made: Operation not permitted"):
        kernel.probe_kind("bridge")


def test_a_kernel_that_cannot_filter_vlans_is_told_what_it_lacks(
    host: Host, kernel: Kernel, mocker: MockerFixture
) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "add", "p0", "master", "br0", "type", "veth", "peer", "name", "p1")
    bridge, port = kernel.get_link("br0"), kernel.get_link("p0")
    mocker.patch.object(NetlinkSocket, "send", side_effect=NetlinkError(errno.EOPNOTSUPP, "", 0))
    actions: dict[str, Callable[[], None]] = {
        "vlan: bridge br0 cannot filter VLANs": lambda: kernel.filter_vlans(bridge),
        "vlan: port p0 cannot be put into its VLANs": lambda: kernel.set_vlans(port, [PortVlan(5, True, True)]),
    }
    for words, action in actions.items():
        with pytest.raises(KernelError, match=words) as caught:
            action()
        assert "CONFIG_BRIDGE_VLAN_FILTERING" in str(caught.value)


@pytest.mark.parametrize(
    ("there", "wanted", "deleted", "added"),
    [
        ([PortVlan(1, True, True)], [PortVlan(5, True, True)], [PortVlan(1)], [PortVlan(5, True, True)]),
        ([PortVlan(1, True, True)], [PortVlan(1, False, True)], [], [PortVlan(1, False, True)]),
        ([PortVlan(1), PortVlan(7)], [], [PortVlan(1), PortVlan(7)], []),
        ([], [PortVlan(2), PortVlan(3)], [], [PortVlan(2), PortVlan(3)]),
    ],
    ids=["the default gives way", "the default changes", "none any more", "new ones"],
)
def test_a_port_gets_exactly_its_vlans(
    kernel: Kernel,
    mocker: MockerFixture,
    there: list[PortVlan],
    wanted: list[PortVlan],
    deleted: list[PortVlan],
    added: list[PortVlan],
) -> None:
    mocker.patch.object(Kernel, "list_vlans", return_value=there)
    sent = mocker.patch.object(NetlinkSocket, "send", return_value=[])
    kernel.set_vlans(LO._replace(ifindex=9), wanted)
    [[messages]] = [call.args for call in sent.call_args_list]
    assert [(message.kind, parse_vlans(message.body)) for message in messages] == [
        *([(RTM_DELLINK, (9, deleted))] if deleted else []),
        *([(RTM_SETLINK, (9, added))] if added else []),
    ]


def test_a_port_that_has_its_vlans_is_left_alone(kernel: Kernel, mocker: MockerFixture) -> None:
    mocker.patch.object(Kernel, "list_vlans", return_value=[PortVlan(5, True, True), PortVlan(7)])
    sent = mocker.patch.object(NetlinkSocket, "send", return_value=[])
    kernel.set_vlans(LO._replace(ifindex=9), [PortVlan(5, True, True), PortVlan(7)])
    assert sent.call_args_list == []


def test_only_the_vlans_of_the_port_are_listed_in_order(kernel: Kernel, mocker: MockerFixture) -> None:
    replies = [
        vlan_message(RTM_NEWLINK, 0, 9, [PortVlan(7), PortVlan(1, True, True)]).body,
        vlan_message(RTM_NEWLINK, 0, 8, [PortVlan(3)]).body,
    ]
    mocker.patch.object(NetlinkSocket, "dump", return_value=replies)
    assert kernel.list_vlans(LO._replace(ifindex=9)) == [PortVlan(1, True, True), PortVlan(7)]


@pytest.mark.parametrize("text", ["10.1.0.9/16", "10.1.0.9/32", "10.1.0.8/31", "fd00:1::9/64", "fd00:1::9/128"])
def test_an_address_is_added_and_deleted(host: Host, inside: Kernel, text: str) -> None:
    eth0, address = inside.get_link("eth0"), parse_cidr(text)
    before = host.addresses("eth0", "c1")
    assert inside.add_addresses(eth0, [address]) is None
    assert sorted(host.addresses("eth0", "c1")) == sorted([*before, text])
    assert Address(address, tentative=False, duplicate=False, ifindex=eth0.ifindex) in inside.list_addresses(eth0)
    assert inside.add_addresses(eth0, [address]) == address
    inside.delete_address(eth0, address)
    inside.delete_address(eth0, address)
    assert host.addresses("eth0", "c1") == before


def test_of_many_addresses_the_one_that_is_there_is_told(host: Host, inside: Kernel) -> None:
    eth0 = inside.get_link("eth0")
    addresses = [parse_cidr(f"10.1.{number >> 8}.{number & 255}/16") for number in range(256, 1256)]
    assert inside.add_addresses(eth0, addresses) is None
    assert len(host.addresses("eth0", "c1")) == 1002
    assert (
        inside.add_addresses(eth0, [parse_cidr("10.7.0.1/16"), parse_cidr("10.7.0.2/16"), *addresses]) == addresses[0]
    )


def test_of_many_addresses_the_one_that_is_refused_is_named(inside: Kernel) -> None:
    addresses = [parse_cidr(f"10.7.{number >> 8}.{number & 255}/16") for number in range(256, 556)]
    addresses[200] = CIDR(IP(6, 0xFF02 << 112), 64)  # a multicast address is no interface's
    with pytest.raises(KernelError, match="address ff02::/64 cannot be given to eth0"):
        inside.add_addresses(inside.get_link("eth0"), addresses)


def test_of_many_routes_the_one_that_is_refused_is_named(inside: Kernel) -> None:
    routes = [route(f"10.9.{number}.0/24") for number in range(200)]
    routes[150] = route("10.200.0.0/16", "192.168.7.1")
    with pytest.raises(KernelError, match=r"route 10\.200\.0\.0/16 via 192\.168\.7\.1 cannot be added"):
        inside.configure(inside.get_link("eth0"), [], routes, up=False)


def test_ten_thousand_routes_are_added_and_listed(inside: Kernel) -> None:
    eth0 = inside.get_link("eth0")
    wanted = [route(f"10.{9 + (number >> 8)}.{number & 255}.0/24", "10.1.0.1") for number in range(10000)]
    inside.configure(eth0, [], wanted, up=False)
    assert {entry.dst for entry in inside.list_routes(eth0)} >= {entry.dst for entry in wanted}


def test_an_address_is_usable_at_once_and_has_its_broadcast_address(host: Host, inside: Kernel) -> None:
    eth0 = inside.get_link("eth0")
    host.run("ip", "-n", "c1", "address", "flush", "dev", "eth0")
    inside.add_addresses(eth0, [parse_cidr("10.9.0.5/24")])
    inside.add_addresses(eth0, [parse_cidr("fd00:9::5/64")])
    infos = host.ip("address", "show", "dev", "eth0", container="c1")[0]["addr_info"]
    v4, v6 = (next(info for info in infos if info["local"] == text) for text in ("10.9.0.5", "fd00:9::5"))
    assert v4["broadcast"] == "10.9.0.255"
    assert v6["nodad"] is True
    assert "tentative" not in v6


def test_an_address_whose_duplicates_are_looked_for_is_tentative_until_none_was_found(
    host: Host, inside: Kernel
) -> None:
    eth0, address = inside.get_link("eth0"), parse_cidr("fd00:9::5/64")
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_dad", container="c1")
    inside.add_addresses(eth0, [address], detect_duplicates=True)
    entry = Address(address, tentative=True, duplicate=False, ifindex=eth0.ifindex)
    assert entry in inside.list_addresses(eth0)
    wait_for_addresses(inside, eth0)
    assert entry._replace(tentative=False) in inside.list_addresses(eth0)
    [info] = [
        entry
        for entry in host.ip("address", "show", "dev", "eth0", container="c1")[0]["addr_info"]
        if entry["local"] == "fd00:9::5"
    ]
    assert "tentative" not in info


def test_a_duplicate_address_is_found_and_named(host: Host, inside: Kernel) -> None:
    host.run("ip", "address", "add", "fd00:9::5/64", "dev", "v0", "nodad")
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_dad", container="c1")
    eth0 = inside.get_link("eth0")
    inside.add_addresses(eth0, [parse_cidr("fd00:9::5/64")], detect_duplicates=True)
    with pytest.raises(KernelError, match="fd00:9::5/64 is in use by another host of the network"):
        wait_for_addresses(inside, eth0)


# one IPv6 destination over two interfaces becomes one route with two next hops, whoever adds them; IPv4 needs `nexthop`
@pytest.mark.parametrize(
    "commands",
    [
        [
            "-6 route add fd00:9::/64 via fd00:1::1 dev eth0 metric 7",
            "-6 route append fd00:9::/64 via fd00:2::1 dev eth1 metric 7",
        ],
        ["-6 route add fd00:9::/64 metric 7 nexthop via fd00:1::1 dev eth0 nexthop via fd00:2::1 dev eth1"],
        ["-4 route add 10.9.0.0/16 metric 7 nexthop via 10.1.0.1 dev eth0 nexthop via 10.2.0.1 dev eth1 weight 3"],
        [
            "nexthop add id 1 via fd00:1::1 dev eth0",
            "nexthop add id 2 via fd00:2::1 dev eth1",
            "nexthop add id 3 group 1/2",
            "-6 route add fd00:9::/64 metric 7 nhid 3",
        ],
    ],
    ids=["IPv6", "IPv6-nexthop", "IPv4-nexthop", "nexthop-objects"],
)
def test_a_route_of_several_next_hops_is_listed_for_each_of_its_interfaces(host: Host, commands: list[str]) -> None:
    host.add_container("c2")
    for number in (1, 2):
        name = f"eth{number - 1}"
        host.run("ip", "-n", "c2", "link", "add", name, "type", "veth", "peer", "name", f"other{number}")
        for address in (f"10.{number}.0.5/16", f"fd00:{number}::5/64"):
            nodad = ["nodad"] if ":" in address else []
            host.run("ip", "-n", "c2", "address", "add", address, "dev", name, *nodad)
        for end in (name, f"other{number}"):
            host.run("ip", "-n", "c2", "link", "set", end, "up")
    for command in commands:
        host.run("ip", "-n", "c2", *command.split())
    with open_kernel(host, "c2") as kernel:
        for number in (1, 2):
            eth = kernel.get_link(f"eth{number - 1}")
            routes = [(str(r.dst), str(r.gw)) for r in kernel.list_routes(eth) if r.priority == 7]
            version = 4 if "10.9" in commands[0] else 6
            expected = ("10.9.0.0/16", f"10.{number}.0.1") if version == 4 else ("fd00:9::/64", f"fd00:{number}::1")
            assert routes == [expected]


def test_all_routes_are_listed_by_table_and_protocol(host: Host, kernel: Kernel) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    host.run("ip", "link", "set", "br0", "up")
    for command in (
        *("-4 route add 10.9.0.0/16 dev br0 table 7", "-4 route add 10.8.0.0/16 dev br0 proto ra"),
        *("-6 route add fd00:9::/64 dev br0 table 7", "-6 route add fd00:8::/64 dev br0 proto ra"),
        *("-4 route add 10.7.0.0/16 dev lo", "-4 route add blackhole 10.6.0.0/16"),
    ):
        host.run("ip", *command.split())
    br0 = kernel.get_link("br0").ifindex

    def listed(**options: int) -> set[tuple[int, str]]:
        return {(ifindex, str(route.dst)) for ifindex, route in kernel.list_all_routes(**options)}

    assert listed(table=7) == {(br0, "10.9.0.0/16"), (br0, "fd00:9::/64")}
    assert listed(protocol=9) == {(br0, "10.8.0.0/16"), (br0, "fd00:8::/64")}
    assert listed(table=8) == set()
    assert {(1, "10.7.0.0/16"), (br0, "10.9.0.0/16")} < listed()
    assert (1, "10.7.0.0/16") not in listed(ifindex=br0)


@pytest.mark.parametrize("mtu", [1300, 9000])
def test_a_bridge_keeps_the_mtu_that_it_is_given(host: Host, kernel: Kernel, mtu: int) -> None:
    kernel.create_bridge("br0", 0)
    kernel.set_mtu(kernel.get_link("br0"), mtu)
    host.run("ip", "link", "add", "p0", "mtu", "1400", "master", "br0", "type", "veth", "peer", "name", "p1")
    assert link(host, "br0")["mtu"] == mtu


def test_the_wait_for_addresses_has_a_bound(inside: Kernel, mocker: MockerFixture) -> None:
    pending = Address(parse_cidr("fd00:9::5/64"), tentative=True, duplicate=False)
    mocker.patch.object(Kernel, "list_addresses", return_value=[pending])
    mocker.patch.object(waits, "DAD_BOUND", 0.05)
    with pytest.raises(KernelError, match="duplicate address detection did not end"):
        wait_for_addresses(inside, LO)


def test_addresses_that_are_settled_are_not_waited_for(inside: Kernel, mocker: MockerFixture) -> None:
    slept = mocker.patch("time.sleep")
    assert wait_until_settled(inside)
    wait_for_addresses(inside, inside.get_link("eth0"))
    assert slept.call_count == 0


def wait_until_settled(inside: Kernel) -> bool:
    """Whether the link-local address, which the kernel made by itself, is settled; without time.sleep."""
    poll = select.poll()
    for _ in range(1000):
        if not any(entry.tentative for entry in inside.list_addresses(inside.get_link("eth0"))):
            return True
        poll.poll(10)
    return False


def test_only_the_addresses_of_the_link_are_listed(host: Host, kernel: Kernel) -> None:
    for name in ("br0", "br1"):
        host.run("ip", "link", "add", name, "type", "bridge")
        host.run("ip", "address", "add", f"10.{name[-1]}.0.1/16", "dev", name)
    assert [str(entry.cidr) for entry in kernel.list_addresses(kernel.get_link("br1"))] == ["10.1.0.1/16"]


def route(dst: str, gw: str = "", **numbers: int) -> Route:
    scope = 0 if gw or ":" in dst else 253
    return Route(parse_cidr(dst), parse_ip(gw) if gw else None, **{"scope": scope, "table": 254, **numbers})


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (route("0.0.0.0/0", "10.1.0.1"), {"dst": "default", "gateway": "10.1.0.1", "protocol": "boot"}),
        (route("10.9.0.0/16", "10.1.0.1", mtu=1400, advmss=1360), {"metrics": [{"mtu": 1400, "advmss": 1360}]}),
        (route("10.9.0.0/16", "10.1.0.1", priority=77), {"metric": 77}),
        (route("10.9.0.0/16", "10.1.0.1", table=100), {"gateway": "10.1.0.1"}),
        (route("10.9.0.0/16", "10.1.0.1", table=70000), {"gateway": "10.1.0.1"}),
        (route("10.9.0.0/16"), {"scope": "link", "dst": "10.9.0.0/16"}),
        (route("10.9.0.7/32", scope=253), {"scope": "link", "dst": "10.9.0.7"}),
        (route("::/0", "fd00:1::1"), {"dst": "default", "gateway": "fd00:1::1"}),
        (route("fd00:9::/64", "fd00:1::1", priority=5, table=100), {"metric": 5}),
        (route("fd00:9::/64"), {"dst": "fd00:9::/64"}),
    ],
    ids=[
        "default",
        "metrics",
        "priority",
        "table",
        "large table",
        "on link",
        "host",
        "IPv6",
        "IPv6 numbers",
        "IPv6 link",
    ],
)
def test_a_route_is_added_with_all_its_numbers(
    host: Host, inside: Kernel, wanted: Route, expected: dict[str, Any]
) -> None:
    eth0 = inside.get_link("eth0")
    inside.configure(eth0, [], [wanted], up=False)
    family = "-6" if wanted.dst.version == 6 else "-4"
    dst = str(wanted.dst) if wanted.dst.prefix else "default"
    [seen] = host.ip(family, "route", "show", "table", str(wanted.table), "exact", dst, container="c1")
    assert {key: seen.get(key) for key in expected} == expected
    there = [entry for entry in inside.list_routes(eth0) if entry.dst == wanted.dst]
    assert [(entry.gw, entry.table, entry.mtu, entry.advmss) for entry in there] == [
        (wanted.gw, wanted.table, wanted.mtu, wanted.advmss)
    ]


def test_a_route_beside_an_equal_one_is_no_conflict(host: Host, inside: Kernel) -> None:
    eth0 = inside.get_link("eth0")
    inside.configure(eth0, [], [route("10.9.0.0/16", "10.1.0.1"), route("10.9.0.0/16", "10.1.0.2")], up=False)
    seen = host.ip("-4", "route", "show", "10.9.0.0/16", container="c1")
    assert [entry["gateway"] for entry in seen] == ["10.1.0.1", "10.1.0.2"]


def test_routes_of_other_links_and_local_ones_are_not_listed(host: Host, inside: Kernel) -> None:
    host.run("ip", "-n", "c1", "link", "add", "br0", "type", "bridge")
    host.run("ip", "-n", "c1", "link", "set", "br0", "up")
    host.run("ip", "-n", "c1", "route", "add", "10.8.0.0/16", "dev", "br0")
    listed = [str(entry.dst) for entry in inside.list_routes(inside.get_link("eth0"))]
    assert "10.8.0.0/16" not in listed
    assert sorted(dst for dst in listed if not dst.startswith(("fe80", "ff00"))) == ["10.1.0.0/16", "fd00:1::/64"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (route("0.0.0.0/0", "192.168.7.1"), "route 0.0.0.0/0 via 192.168.7.1 cannot be added: Network is unreachable"),
        (route("::/0", "fd00:77::1"), "route ::/0 via fd00:77::1 cannot be added: "),
        (route("10.9.0.0/16", "127.0.0.1"), "route 10.9.0.0/16 via 127.0.0.1 cannot be added: "),
    ],
    ids=["IPv4", "IPv6", "loopback"],
)
def test_a_gateway_that_cannot_be_reached_is_named(inside: Kernel, wanted: Route, words: str) -> None:
    with pytest.raises(KernelError) as caught:
        inside.configure(inside.get_link("eth0"), [], [wanted], up=False)
    assert as_cni_error(caught.value).msg.startswith(words)


def test_the_remedy_for_an_unreachable_gateway_names_the_keys(inside: Kernel) -> None:
    with pytest.raises(CNIError, match="correct routes and gateway in ipam"), kernel_refusals():
        inside.configure(inside.get_link("eth0"), [], [route("0.0.0.0/0", "192.168.7.1")], up=False)


@pytest.mark.parametrize("mtu", [67, 65536])
def test_an_mtu_that_the_kernel_does_not_take_is_an_error(host: Host, kernel: Kernel, mtu: int) -> None:
    with pytest.raises(KernelError, match="bridge br0 cannot be created: Invalid argument") as caught:
        kernel.create_bridge("br0", mtu)
    assert caught.value.errno == errno.EINVAL
    assert host.link_names() == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EOPNOTSUPP, "modules bridge, veth"), (errno.EPERM, "run the plugin as root"), (errno.ENOMEM, "")],
    ids=["missing kind", "no right", "anything else"],
)
def test_a_refusal_says_what_was_done_and_what_may_help(
    kernel: Kernel, mocker: MockerFixture, number: int, remedy: str
) -> None:
    mocker.patch.object(NetlinkSocket, "send", side_effect=NetlinkError(number, "Unknown device type", 0))
    with pytest.raises(KernelError) as caught:
        kernel.create_bridge("br0", 0)
    assert str(caught.value).startswith("bridge br0 cannot be created: ")
    assert "(Unknown device type)" in str(caught.value)
    assert remedy in as_cni_error(caught.value).msg


LO = Link(1, "lo", "", "", 65536, True, True, False, 0, 0, "", False, False, False, False)
ACTIONS: dict[str, Callable[[Kernel], object]] = {
    "find_link_at": lambda kernel: kernel.find_link_at(1),
    "list_links": lambda kernel: kernel.list_links(),
    "probe_kind": lambda kernel: kernel.probe_kind("bridge"),
    "create_veth": lambda kernel: kernel.create_veth(Veth("v", "a/b/c", 1, "e", 0, "", 0, False, False)),
    "filter_vlans": lambda kernel: kernel.filter_vlans(LO),
    "set_vlans": lambda kernel: kernel.set_vlans(LO, [PortVlan(5)]),
    "list_vlans": lambda kernel: kernel.list_vlans(LO),
    "wait_for_addresses": lambda kernel: wait_for_addresses(kernel, LO),
    "wait_for_port": lambda kernel: wait_for_port(kernel, "lo"),
    "find_link": lambda kernel: kernel.find_link("lo"),
    "list_ports": lambda kernel: kernel.list_ports(LO),
    "create_bridge": lambda kernel: kernel.create_bridge("br0", 0),
    "delete_link": lambda kernel: kernel.delete_link("br0"),
    "configure": lambda kernel: kernel.configure(LO, [], up=True),
    "set_flags": lambda kernel: kernel.set_flags(LO, up=True, promisc=True),
    "set_mac": lambda kernel: kernel.set_mac(LO, "02:00:00:00:00:01"),
    "set_mtu": lambda kernel: kernel.set_mtu(LO, 1500),
    "list_all_addresses": lambda kernel: kernel.list_all_addresses(),
    "list_all_routes": lambda kernel: kernel.list_all_routes(),
    "list_addresses": lambda kernel: kernel.list_addresses(LO),
    "add_addresses": lambda kernel: kernel.add_addresses(LO, [parse_cidr("10.1.0.5/16")]),
    "delete_address": lambda kernel: kernel.delete_address(LO, parse_cidr("10.1.0.5/16")),
    "routes": lambda kernel: kernel.configure(LO, [], [route("10.9.0.0/16")], up=False),
    "list_routes": lambda kernel: kernel.list_routes(LO),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())
def test_no_netlink_exception_leaves_the_kernel_room(
    kernel: Kernel, mocker: MockerFixture, action: Callable[[Kernel], object]
) -> None:
    for method in ("send", "ask", "dump"):
        mocker.patch.object(NetlinkSocket, method, side_effect=TimeoutError(errno.ETIMEDOUT, "timed out"))
    with pytest.raises(KernelError) as caught:
        action(kernel)
    assert str(caught.value).endswith(": timed out")


def test_the_wait_ends_when_the_port_forwards(host: Host, kernel: Kernel) -> None:
    make_pair(host, kernel)
    host.run("ip", "-n", "c1", "link", "set", "eth0", "up")
    wait_for_port(kernel, "veth1")
    assert link(host, "veth1")["linkinfo"]["info_slave_data"]["state"] == "forwarding"


def test_a_port_that_never_forwards_is_an_error_after_a_bound(
    host: Host, kernel: Kernel, mocker: MockerFixture
) -> None:
    make_pair(host, kernel)  # its other end stays down
    mocker.patch.object(waits, "PORT_BOUND", 0.05)
    with pytest.raises(KernelError, match="bridge port veth1: it is up and does not forward"):
        wait_for_port(kernel, "veth1")


def test_a_link_that_runs_is_told_from_one_that_is_merely_up(host: Host, kernel: Kernel) -> None:
    make_pair(host, kernel)
    assert (kernel.get_link("veth1").up, kernel.get_link("veth1").running) == (True, False)
    host.run("ip", "-n", "c1", "link", "set", "eth0", "up")
    assert wait_until(lambda: kernel.get_link("veth1").running)
