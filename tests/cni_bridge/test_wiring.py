"""The steps of ADD and DEL on links, each with its way back."""

import errno
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import observation, removal, wiring
from cni_bridge.bridge import get_bridge
from cni_bridge.config import parse_config
from cni_bridge.plan import LAYER_2
from cni_kernel import link_groups, sysctl
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.values import Link, PortVlan
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import CNIError
from cni_protocol.result import Route
from tests.cni_bridge import make_request
from tests.cni_bridge.rooms import ATTACHMENT, PORT, Rooms, config_of, plan_of, refused
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel


def bridge(host: Host, name: str = "cni0") -> Any:
    return host.ip("link", "show", "dev", name)[0]


def test_neither_end_may_be_there_already(rooms: Rooms) -> None:
    wiring.require_absent(rooms.site(config_of()))
    rooms.host.run("ip", "link", "add", PORT, "type", "bridge")
    with refused(102, f"interface {PORT} on the host belongs to an earlier ADD of container c1 interface eth0"):
        wiring.require_absent(rooms.site(config_of()))
    rooms.host.run("ip", "-n", "c1", "link", "add", "eth0", "type", "bridge")
    with refused(102, "interface eth0 exists already in the container"):
        wiring.require_absent(rooms.site(config_of()))
    assert rooms.host.link_names() == [PORT]
    assert rooms.host.link_names("c1") == ["eth0"]


@pytest.mark.parametrize("promisc", [False, True], ids=["plain", "promiscuous"])
def test_a_missing_bridge_is_made_and_comes_up(rooms: Rooms, promisc: bool) -> None:
    rooms.connect(promiscMode=promisc, mtu=1400)
    made = bridge(rooms.host)
    assert "UP" in made["flags"]
    assert ("PROMISC" in made["flags"]) is promisc
    assert made["mtu"] == 1400
    assert rooms.host.run("cat", "/proc/sys/net/ipv6/conf/cni0/accept_ra").stdout == "0\n"
    assert bridge(rooms.host, PORT)["master"] == "cni0"
    assert rooms.host.link_names("c1") == ["eth0"]


def test_a_bridge_that_is_there_is_used_as_it_is(rooms: Rooms) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "mtu", "1300", "type", "bridge", "ageing_time", "700")
    before = bridge(rooms.host)
    rooms.connect()
    after = bridge(rooms.host)
    assert (after["ifindex"], after["linkinfo"]["info_data"]["ageing_time"]) == (before["ifindex"], 700)


def test_an_interface_of_another_kind_is_no_bridge_and_stays(rooms: Rooms) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "other")
    with refused(7, "interface cni0 is there and is of kind veth"):
        rooms.connect()
    rooms.fail()
    assert sorted(rooms.host.link_names()) == ["cni0", "other"]


def test_a_failure_takes_the_pair_and_a_bridge_of_ours_away(rooms: Rooms) -> None:
    rooms.connect()
    rooms.fail()
    assert rooms.host.link_names() == []
    assert rooms.host.link_names("c1") == []


@pytest.mark.parametrize("before", [True, False], ids=["there before", "used meanwhile"])
def test_a_failure_leaves_a_bridge_that_is_not_only_ours(rooms: Rooms, before: bool) -> None:
    if before:
        rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    rooms.connect()
    if not before:
        rooms.host.run("ip", "link", "add", "p0", "master", "cni0", "type", "veth", "peer", "name", "p1")
    rooms.fail()
    assert set(rooms.host.link_names()) == ({"cni0"} if before else {"cni0", "p0", "p1"})


def test_the_container_gets_addresses_link_and_routes(rooms: Rooms) -> None:
    config = rooms.connect(isDefaultGateway=True)
    wanted = Route(parse_cidr("10.9.0.0/16"), parse_ip("10.1.0.7"), mtu=1300)
    plan = plan_of(config, "10.1.0.5/16", "fd00:1::5/64", routes=(wanted,))
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    assert rooms.host.addresses("eth0", "c1") == ["10.1.0.5/16", "fd00:1::5/64"]
    routes = rooms.host.ip("-4", "route", container="c1") + rooms.host.ip("-6", "route", container="c1")
    gateways = [(entry["dst"], entry["gateway"]) for entry in routes if "gateway" in entry]
    assert sorted(gateways) == [("10.9.0.0/16", "10.1.0.7"), ("default", "10.1.0.1"), ("default", "fd00:1::1")]
    assert "UP" in rooms.host.ip("link", "show", "dev", "eth0", container="c1")[0]["flags"]


def test_an_address_given_twice_is_an_error(rooms: Rooms) -> None:
    config = rooms.connect()
    with refused(102, "the IPAM plugin gave it twice"):
        plan = plan_of(config, "10.1.0.5/16", "10.1.0.5/16")
        wiring.configure_container(rooms.site(config), plan, rooms.undo)


def test_the_gateway_address_is_on_the_bridge_and_forwarding_is_on(rooms: Rooms) -> None:
    config = rooms.connect(isGateway=True)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        rooms.host.run("sh", "-c", f"echo 0 > /proc/sys/net/{path}")
    plan = plan_of(config, "10.1.0.5/16", "fd00:1::5/64")
    for _ in range(2):
        wiring.configure_host(rooms.outside, config, plan)
        assert rooms.host.addresses("cni0") == ["10.1.0.1/16", "fd00:1::1/64"]
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        assert rooms.host.run("cat", f"/proc/sys/net/{path}").stdout == "1\n"


@pytest.mark.parametrize(
    ("present", "wanted", "in_the_way"),
    [
        ("10.7.0.1/16", "10.1.0.5/16", True),
        ("10.1.0.9/16", "10.1.0.5/16", True),
        ("10.1.0.1/24", "10.1.0.5/16", True),
        ("10.1.0.1/16", "10.1.0.5/16", False),
        ("fd00:7::1/64", "10.1.0.5/16", False),
        ("fd00:1::9/64", "fd00:1::5/64", True),
        ("fd00:1:0:7::9/48", "fd00:1::5/64", True),
        ("fd00:7::1/64", "fd00:1::5/64", False),
        ("10.7.0.1/16", "fd00:1::5/64", False),
    ],
)
@pytest.mark.parametrize("force", [False, True], ids=["", "forceAddress"])
def test_an_address_in_the_way_is_an_error_or_gives_way(
    rooms: Rooms, present: str, wanted: str, in_the_way: bool, force: bool
) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    rooms.host.run("ip", "address", "add", present, "dev", "cni0")
    config = rooms.connect(isGateway=True, forceAddress=force)
    plan = plan_of(config, wanted)
    gateway = str(plan.gateways[0])
    if in_the_way and not force:
        with refused(7, f"bridge cni0 has address {present}, and this network wants {gateway} there"):
            wiring.configure_host(rooms.outside, config, plan)
        assert rooms.host.addresses("cni0") == [present]
        return
    wiring.configure_host(rooms.outside, config, plan)
    assert set(rooms.host.addresses("cni0")) == ({gateway} if in_the_way else {present, gateway})


def test_a_gateway_that_goes_with_the_address_in_its_way_is_added_again(rooms: Rooms) -> None:
    """The kernel removes an address's secondary ones with it, unless promote_secondaries is set."""
    rooms.host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/all/promote_secondaries")
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    rooms.host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/cni0/promote_secondaries")
    for address in ("10.1.0.9/16", "10.1.0.1/16"):
        rooms.host.run("ip", "address", "add", address, "dev", "cni0")
    config = rooms.connect(isGateway=True, forceAddress=True)
    wiring.configure_host(rooms.outside, config, plan_of(config, "10.1.0.5/16", "10.2.0.5/16"))
    assert sorted(rooms.host.addresses("cni0")) == ["10.1.0.1/16", "10.2.0.1/16"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_gateway_addresses_are_put_back_when_forwarding_fails(rooms: Rooms, mocker: MockerFixture, when: str) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    for address in ("10.7.0.1/16", "10.8.0.1/16", "10.7.0.2/16", "fd00:1::9/64"):
        rooms.host.run("ip", "address", "add", address, "dev", "cni0")
    config = rooms.connect(isGateway=True, forceAddress=True)
    before = rooms.host.addresses("cni0")
    genuine = sysctl.ensure_forwarding

    def fail(version: int) -> None:
        assert rooms.host.addresses("cni0") == ["10.1.0.1/16", "fd00:1::1/64"]
        if when == "after":
            genuine(version)
        raise CNIError(100, "no forwarding")

    mocker.patch.object(sysctl, "ensure_forwarding", fail)
    with refused(100, "no forwarding"):
        wiring.configure_host(rooms.outside, config, plan_of(config, "10.1.0.5/16", "fd00:1::5/64"))
    assert sorted(rooms.host.addresses("cni0")) == sorted(before)


def test_a_network_without_gateway_leaves_bridge_and_forwarding_alone(rooms: Rooms) -> None:
    rooms.host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    config = rooms.connect()
    wiring.configure_host(rooms.outside, config, plan_of(config, "10.1.0.5/16"))
    assert rooms.host.addresses("cni0") == []
    assert rooms.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"


def test_a_bridge_of_too_small_an_mtu_for_ipv6_is_named(rooms: Rooms) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "mtu", "1279", "type", "bridge")
    config = rooms.connect()
    with refused(7, "mtu: bridge cni0 has one of 1279, and eth0 takes it over; the least that IPv6 works with is 1280"):
        wiring.configure_container(rooms.site(config), plan_of(config, "fd00:1::5/64"), rooms.undo)
    wiring.configure_container(rooms.site(config), plan_of(config, "10.1.0.5/16"), rooms.undo)


def test_live_means_that_the_port_forwards(rooms: Rooms) -> None:
    config = rooms.connect()
    wiring.configure_container(rooms.site(config), LAYER_2, rooms.undo)
    rooms.go_live(config, LAYER_2)
    assert bridge(rooms.host, PORT)["linkinfo"]["info_slave_data"]["state"] == "forwarding"


def test_a_port_that_does_not_forward_is_not_live(rooms: Rooms, mocker: MockerFixture) -> None:
    config = rooms.connect()  # the container's end is down
    mocker.patch("cni_kernel.waits.PORT_BOUND", 0.05)
    with refused(100, f"bridge port {PORT}: it is up and does not forward"):
        rooms.go_live(config, LAYER_2)


def test_a_container_that_may_not_announce_itself_is_connected(rooms: Rooms, mocker: MockerFixture) -> None:
    config = rooms.connect()
    plan = plan_of(config, "10.1.0.5/16")
    mocker.patch.object(sysctl, "announce_changes", return_value=[KernelError(errno.EROFS, "x")])
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    rooms.go_live(config, plan)
    assert rooms.host.addresses("eth0", "c1")


def test_the_interfaces_of_a_result_are_those_that_stand_there(rooms: Rooms) -> None:
    config = rooms.connect(mtu=1400)
    ends = rooms.outside.get_link("cni0"), rooms.inside.get_link("eth0")
    listed = wiring.list_interfaces(rooms.site(config), *ends, "/run/netns/c1")
    seen = [bridge(rooms.host), bridge(rooms.host, PORT), rooms.host.ip("link", "show", "eth0", container="c1")[0]]
    assert [(entry.name, entry.mac, entry.mtu) for entry in listed] == [
        (link["ifname"], link["address"], 1400) for link in seen
    ]
    assert [entry.sandbox for entry in listed] == ["", "", "/run/netns/c1"]


@pytest.mark.parametrize("with_namespace", [True, False], ids=["namespace", "no namespace"])
def test_disconnecting_removes_the_pair_and_nothing_else_again_and_again(rooms: Rooms, with_namespace: bool) -> None:
    config = rooms.connect()
    rooms.host.run("ip", "link", "add", "p0", "master", "cni0", "type", "veth", "peer", "name", "p1")
    for _ in range(3):
        removal.disconnect(rooms.outside, rooms.namespace if with_namespace else None, config, ATTACHMENT)
        assert set(rooms.host.link_names()) == {"cni0", "p0", "p1"}
        assert rooms.host.link_names("c1") == []


@pytest.mark.parametrize("bridged", [True, False], ids=["on our bridge", "the bridge is gone"])
def test_a_pair_that_the_reference_made_is_removed(rooms: Rooms, bridged: bool) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    peer = ("peer", "name", "eth0", "netns", "c1")
    rooms.host.run("ip", "link", "add", "veth12345678", "master", "cni0", "type", "veth", *peer)
    if not bridged:
        rooms.host.run("ip", "link", "delete", "cni0")
    removal.disconnect(rooms.outside, rooms.namespace, config_of(), ATTACHMENT)
    assert rooms.host.link_names() == (["cni0"] if bridged else [])
    assert rooms.host.link_names("c1") == []


@pytest.mark.parametrize(
    "commands",
    [
        ["ip -n c1 link add eth0 type bridge"],
        ["ip link add other type bridge", "ip link add v0 master other type veth peer name eth0 netns c1"],
        ["ip link add v0 type veth peer name eth0 netns c1", "ip link set v0 master cni0 alias mynet,other,eth0"],
        ["ip -n c1 link add eth0 type veth peer name eth1"],
        ["ip link add v0 type veth peer name eth0 netns c1"],
        [
            "ip link delete cni0",
            "ip link add other type bridge",
            "ip link add v0 master other type veth peer name eth0 netns c1",
        ],
        [
            "ip link delete cni0",
            "ip link add v0 type veth peer name eth0 netns c1",
            "ip link set v0 alias mynet,other,eth0",
        ],
    ],
    ids=[
        "not a veth",
        "on another bridge",
        "of another attachment",
        "both ends in the container",
        "on no bridge",
        "on another bridge, ours gone",
        "of another attachment, the bridge gone",
    ],
)
def test_an_interface_of_that_name_that_is_somebody_elses_stays(rooms: Rooms, commands: list[str]) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    for command in commands:
        rooms.host.run(*command.split())
    before = rooms.host.link_names(), rooms.host.link_names("c1")
    removal.disconnect(rooms.outside, rooms.namespace, config_of(), ATTACHMENT)
    assert (rooms.host.link_names(), rooms.host.link_names("c1")) == before


def test_what_is_observed_is_what_stands_there(rooms: Rooms) -> None:
    config = rooms.connect(isGateway=True)
    plan = plan_of(config, "10.1.0.5/16")
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    wiring.configure_host(rooms.outside, config, plan)
    assert wait_until(lambda: rooms.outside.get_link(PORT).forwarding)
    seen = observation.observe(rooms.site(config), ["rule"])
    assert seen.bridge == rooms.outside.get_link("cni0")
    assert seen.host == rooms.outside.get_link(PORT)
    assert seen.container == rooms.inside.get_link("eth0")
    assert parse_cidr("10.1.0.5/16") in seen.addresses
    assert parse_cidr("10.1.0.0/16") in [route.dst for route in seen.routes]
    assert parse_cidr("10.1.0.1/16") in seen.gateways
    assert seen.missing_rules == ["rule"]


def test_what_is_not_there_is_observed_as_nothing(rooms: Rooms) -> None:
    seen = observation.observe(rooms.site(config_of()), [])
    assert seen == (None, None, None, [], [], [], None, None, {}, [])


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("promisc", [True, False], ids=["promiscuous", "plain"])
@pytest.mark.parametrize("mac", [True, False], ids=["MAC of its own", "MAC by chance"])
def test_a_failure_gives_an_unused_bridge_its_flags_and_mac_back(
    rooms: Rooms, mocker: MockerFixture, up: bool, promisc: bool, mac: bool
) -> None:
    address = ("address", "02:00:00:00:00:01") if mac else ()
    rooms.host.run("ip", "link", "add", "cni0", *address, "type", "bridge")
    rooms.host.run("ip", "link", "set", "cni0", "up" if up else "down", "promisc", "on" if promisc else "off")
    before = bridge(rooms.host)
    config = rooms.connect(isGateway=True, promiscMode=True)
    assert {"UP", "PROMISC"} <= set(bridge(rooms.host)["flags"])
    mocker.patch.object(sysctl, "ensure_forwarding", side_effect=CNIError(100, "no forwarding"))
    with refused(100, "no forwarding"):
        wiring.configure_host(rooms.outside, config, plan_of(config, "10.1.0.5/16"))
    rooms.fail()
    after = bridge(rooms.host)
    assert {"UP", "PROMISC"} & set(after["flags"]) == {"UP", "PROMISC"} & set(before["flags"])
    assert after["address"] == before["address"]
    assert rooms.host.addresses("cni0") == []


def test_a_bridge_that_somebody_uses_meanwhile_stays_up(rooms: Rooms) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    rooms.connect(promiscMode=True)
    rooms.host.run("ip", "link", "add", "p0", "master", "cni0", "type", "veth", "peer", "name", "p1")
    rooms.fail()
    assert {"UP", "PROMISC"} <= set(bridge(rooms.host)["flags"])


PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}


@pytest.mark.parametrize(
    ("keys", "hairpin", "isolated"),
    [
        ({}, False, False),
        ({"hairpinMode": True}, True, False),
        ({"portIsolation": True}, False, True),
        ({"runtimeConfig": PORTS}, True, False),
    ],
    ids=["plain", "hairpinMode", "portIsolation", "port mappings"],
)
def test_the_port_is_as_the_configuration_wants_it(
    rooms: Rooms, keys: dict[str, Any], hairpin: bool, isolated: bool
) -> None:
    rooms.connect(**keys)
    port = bridge(rooms.host, PORT)["linkinfo"]["info_slave_data"]
    assert (port["hairpin"], port["isolated"]) == (hairpin, isolated)


class Vlans:
    """Stands for the kernel's VLANs, which not every kernel has: what was asked for, by name of the interface."""

    def __init__(self, mocker: MockerFixture) -> None:
        self.filtering: list[str] = []
        self.ports: dict[str, tuple[PortVlan, ...]] = {}
        mocker.patch.object(Kernel, "filter_vlans", lambda _, link: self.filtering.append(link.name))
        mocker.patch.object(Kernel, "set_vlans", lambda _, port, vlans: self.ports.update({port.name: tuple(vlans)}))
        mocker.patch.object(Kernel, "list_all_vlans", lambda kernel: self.by_index(kernel))

    def by_index(self, kernel: Kernel) -> dict[int, list[PortVlan]]:
        return {kernel.get_link(name).ifindex: list(vlans) for name, vlans in self.ports.items()}


@pytest.fixture
def vlans(mocker: MockerFixture) -> Vlans:
    """VLANs of a kernel that has them."""
    return Vlans(mocker)


@pytest.mark.parametrize(
    ("keys", "filtering", "expected"),
    [
        ({}, [], None),
        ({"vlan": 5}, ["cni0"], (PortVlan(5, True, True),)),
        ({"vlan": 5, "vlanTrunk": [{"id": 7}]}, ["cni0"], (PortVlan(5, True, True), PortVlan(7))),
        ({"vlanTrunk": [{"id": 7}]}, ["cni0"], (PortVlan(1, True, True), PortVlan(7))),
    ],
    ids=["none", "vlan", "both", "trunk"],
)
def test_the_port_is_put_into_its_vlans(
    rooms: Rooms, vlans: Vlans, keys: dict[str, Any], filtering: list[str], expected: tuple[PortVlan, ...] | None
) -> None:
    rooms.connect(**keys)
    assert vlans.filtering == filtering
    assert vlans.ports == ({} if expected is None else {PORT: expected})


def test_a_bridge_that_filters_already_is_not_told_again(rooms: Rooms, vlans: Vlans, mocker: MockerFixture) -> None:
    genuine = get_bridge
    mocker.patch(
        "cni_bridge.bridge.get_bridge",
        lambda kernel, name: genuine(kernel, name)._replace(vlan_filtering=True),
    )
    rooms.connect(vlan=5)
    assert vlans.filtering == []
    assert PORT in vlans.ports


def test_a_kernel_without_vlans_fails_and_leaves_nothing(rooms: Rooms, mocker: MockerFixture) -> None:
    mocker.patch.object(Kernel, "filter_vlans", side_effect=CNIError(100, "vlan: no such thing"))
    with refused(100, "vlan: no such thing"):
        rooms.connect(vlan=5)
    rooms.fail()
    assert rooms.host.link_names() == []


def test_the_gateway_of_a_vlan_is_an_interface_that_leads_into_it(rooms: Rooms, vlans: Vlans) -> None:
    config = rooms.connect(vlan=5, isGateway=True, mtu=1400)
    plan = plan_of(config, "10.1.0.5/16", "fd00:1::5/64")
    for _ in range(2):
        [made] = wiring.configure_host(rooms.outside, config, plan)
        assert rooms.host.addresses("cni0") == []
        assert rooms.host.addresses("cni0.5") == ["10.1.0.1/16", "fd00:1::1/64"]
    own = bridge(rooms.host, "cni0.5")
    assert (made.name, made.mac, made.mtu) == ("cni0.5", own["address"], 1400)
    assert (own["linkinfo"]["info_kind"], "UP" in own["flags"]) == ("veth", True)
    [port] = [link for link in rooms.host.ip("link") if link["ifname"] == own["link"]]
    assert port["master"] == "cni0"
    assert vlans.ports == {PORT: (PortVlan(5, True, True),), port["ifname"]: (PortVlan(5, True, True),)}
    seen = observation.observe(rooms.site(config), [])
    assert seen.host is not None
    assert seen.gateway_port is not None
    assert seen.gateway_port.name == port["ifname"]
    assert seen.vlans == {key: [PortVlan(5, True, True)] for key in (seen.host.ifindex, port["ifindex"])}
    assert parse_cidr("10.1.0.1/16") in seen.gateways


@pytest.mark.parametrize("there", [False, True], ids=["made", "there before"])
def test_the_interface_into_a_vlan_goes_when_it_was_made_in_vain(
    rooms: Rooms, vlans: Vlans, mocker: MockerFixture, there: bool
) -> None:
    config = rooms.connect(vlan=5, isGateway=True)
    plan = plan_of(config, "10.1.0.5/16")
    if there:
        wiring.configure_host(rooms.outside, config, plan)
        rooms.host.run("ip", "address", "flush", "dev", "cni0.5")
    before = rooms.host.link_names()
    mocker.patch.object(sysctl, "is_forwarding", return_value=False)
    mocker.patch.object(sysctl, "ensure_forwarding", side_effect=CNIError(100, "no forwarding"))
    with refused(100, "no forwarding"):
        wiring.configure_host(rooms.outside, config, plan)
    assert rooms.host.link_names() == before
    assert ("cni0.5" in before) is there
    assert not there or rooms.host.addresses("cni0.5") == []


def test_an_interface_that_is_to_stay_down_stays_down(rooms: Rooms) -> None:
    config = parse_config(make_request(disableContainerInterface=True))
    wiring.connect(rooms.site(config), rooms.undo)
    wiring.configure_container(rooms.site(config), LAYER_2, rooms.undo)
    rooms.go_live(config, LAYER_2)
    assert "UP" not in rooms.host.ip("link", "show", "dev", "eth0", container="c1")[0]["flags"]


def test_live_means_that_duplicates_were_looked_for_when_asked_for(rooms: Rooms) -> None:
    config = rooms.connect(enabledad=True)
    plan = plan_of(config, "fd00:1::5/64")
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    rooms.go_live(config, plan)
    infos = rooms.host.ip("address", "show", "dev", "eth0", container="c1")[0]["addr_info"]
    [info] = [entry for entry in infos if entry["local"] == "fd00:1::5"]
    assert "tentative" not in info
    assert "nodad" not in info


def test_an_address_that_somebody_has_is_not_live(rooms: Rooms) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    rooms.host.run("ip", "link", "set", "cni0", "up")
    rooms.host.run("ip", "address", "add", "fd00:1::5/64", "dev", "cni0", "nodad")
    config = rooms.connect(enabledad=True)
    plan = plan_of(config, "fd00:1::5/64")
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    with refused(100, "fd00:1::5/64 is in use by another host of the network"):
        rooms.go_live(config, plan)


def test_without_detection_addresses_are_not_waited_for(rooms: Rooms, mocker: MockerFixture) -> None:
    config = rooms.connect()
    plan = plan_of(config, "fd00:1::5/64")
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    waited = mocker.patch.object(wiring, "wait_for_addresses")
    rooms.go_live(config, plan)
    assert waited.call_count == 0


def add_veth(host: Host, name: str, alias: str) -> None:
    host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", "netns", "c1")
    if alias:
        host.run("ip", "link", "set", name, "alias", alias)


def test_exactly_the_stale_ends_of_a_network_are_removed(rooms: Rooms) -> None:
    for name, alias in (
        ("stale0", "mynet,gone,eth0"),
        ("stale1", "mynet,c1,eth1"),
        ("valid0", "mynet,c1,eth0"),
        ("other0", "mynet2,gone,eth0"),
        ("other1", "xmynet,gone,eth0"),
        ("noalias", ""),
        ("former", "mynet/gone/eth2"),
    ):
        add_veth(rooms.host, name, alias)
    rooms.host.run("ip", "link", "add", "br0", "type", "bridge")
    rooms.host.run("ip", "link", "set", "br0", "alias", "mynet,gone,eth0")
    removal.remove_stale_pairs(lambda owner: owner.startswith("mynet,") and owner != "mynet,c1,eth0")
    assert sorted(rooms.host.link_names()) == ["br0", "noalias", "other0", "other1", "valid0"]


def test_removing_stale_ends_goes_on_past_errors_and_names_them_all(rooms: Rooms, mocker: MockerFixture) -> None:
    for name in ("a0", "b0", "d0"):
        add_veth(rooms.host, name, f"mynet,{name},eth0")
    genuine = link_groups.delete_links

    def delete_links(links: list[Link]) -> list[KernelError]:
        refusals = genuine([link for link in links if link.name == "b0"])
        return refusals + [KernelError(errno.EBUSY, link.name, "is stubborn") for link in links if link.name != "b0"]

    mocker.patch.object(link_groups, "delete_links", delete_links)
    with pytest.raises(CNIError) as caught:
        removal.remove_stale_pairs(lambda owner: owner.startswith("mynet,"))
    assert caught.value.code == 100
    assert {"a0: is stubborn", "d0: is stubborn"} == set(caught.value.msg.split("; "))
    assert sorted(rooms.host.link_names()) == ["a0", "d0"]
