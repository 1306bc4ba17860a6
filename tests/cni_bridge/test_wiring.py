"""The steps of ADD and DEL on links, each with its way back."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import sysctl, wiring
from cni_bridge.config import BridgeConfig, parse_config
from cni_bridge.kernel import Kernel
from cni_bridge.namespace import Namespace
from cni_bridge.plan import LAYER_2, Attachment, Plan, make_plan
from cni_bridge.undo import Undo
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import CNIError
from cni_protocol.result import IPConfig, Result, Route
from tests.cni_bridge import make_request, open_container, open_kernel
from tests.host import Host, wait_until

pytestmark = pytest.mark.kernel

ATTACHMENT = Attachment("mynet", "c1", "eth0")
PORT = ATTACHMENT.host_name


class Rooms:
    """All that a step needs, opened inside a host with one container."""

    def __init__(self, host: Host, outside: Kernel, inside: Kernel, namespace: Namespace) -> None:
        self.host = host
        self.outside = outside
        self.inside = inside
        self.namespace = namespace
        self.undo = Undo()

    def connect(self, **keys: Any) -> BridgeConfig:
        config = config_of(**keys)
        wiring.connect(self.outside, self.namespace, config, ATTACHMENT, self.undo)
        return config

    def fail(self) -> None:
        """Leave the undo stack as a failure does."""
        with pytest.raises(ZeroDivisionError), self.undo:
            raise ZeroDivisionError


@pytest.fixture
def rooms(host: Host) -> Iterator[Rooms]:
    """The rooms of one attachment; the test runs inside the host."""
    host.add_container("c1")
    with (
        open_kernel(host) as outside,
        open_kernel(host, "c1") as inside,
        open_container(host, "c1") as namespace,
        host.entered(),
    ):
        yield Rooms(host, outside, inside, namespace)


def config_of(**keys: Any) -> BridgeConfig:
    return parse_config(make_request(ipam={"type": "host-local"}, **keys))


def plan_of(config: BridgeConfig, *addresses: str, routes: tuple[Route, ...] = ()) -> Plan:
    ips = tuple(IPConfig(parse_cidr(address)) for address in addresses)
    return make_plan(config, Result(ips=ips, routes=routes))


def bridge(host: Host, name: str = "cni0") -> Any:
    return host.ip("link", "show", "dev", name)[0]


@contextmanager
def refused(code: int, words: str) -> Iterator[None]:
    with pytest.raises(CNIError) as caught:
        yield
    assert caught.value.code == code
    assert words in caught.value.msg


def test_neither_end_may_be_there_already(rooms: Rooms) -> None:
    wiring.require_absent(rooms.outside, rooms.inside, ATTACHMENT)
    rooms.host.run("ip", "link", "add", PORT, "type", "bridge")
    with refused(102, f"interface {PORT} on the host belongs to an earlier ADD of container c1 interface eth0"):
        wiring.require_absent(rooms.outside, rooms.inside, ATTACHMENT)
    rooms.host.run("ip", "-n", "c1", "link", "add", "eth0", "type", "bridge")
    with refused(102, "interface eth0 exists already in the container"):
        wiring.require_absent(rooms.outside, rooms.inside, ATTACHMENT)
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
    wiring.configure_container(rooms.inside, rooms.namespace, plan, "eth0")
    assert rooms.host.addresses("eth0", "c1") == ["10.1.0.5/16", "fd00:1::5/64"]
    routes = rooms.host.ip("-4", "route", container="c1") + rooms.host.ip("-6", "route", container="c1")
    gateways = [(entry["dst"], entry["gateway"]) for entry in routes if "gateway" in entry]
    assert sorted(gateways) == [("10.9.0.0/16", "10.1.0.7"), ("default", "10.1.0.1"), ("default", "fd00:1::1")]
    assert "UP" in rooms.host.ip("link", "show", "dev", "eth0", container="c1")[0]["flags"]


def test_an_address_given_twice_is_an_error(rooms: Rooms) -> None:
    config = rooms.connect()
    with refused(102, "the IPAM plugin gave it twice"):
        wiring.configure_container(rooms.inside, rooms.namespace, plan_of(config, "10.1.0.5/16", "10.1.0.5/16"), "eth0")


def test_the_gateway_address_is_on_the_bridge_and_forwarding_is_on(rooms: Rooms) -> None:
    config = rooms.connect(isGateway=True)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        rooms.host.run("sh", "-c", f"echo 0 > /proc/sys/net/{path}")
    plan = plan_of(config, "10.1.0.5/16", "fd00:1::5/64")
    for _ in range(2):
        wiring.configure_gateway(rooms.outside, config, plan)
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
            wiring.configure_gateway(rooms.outside, config, plan)
        assert rooms.host.addresses("cni0") == [present]
        return
    wiring.configure_gateway(rooms.outside, config, plan)
    assert set(rooms.host.addresses("cni0")) == ({gateway} if in_the_way else {present, gateway})


@pytest.mark.parametrize("when", ["before", "after"])
def test_gateway_addresses_are_put_back_when_forwarding_fails(rooms: Rooms, mocker: MockerFixture, when: str) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    for address in ("10.7.0.1/16", "10.8.0.1/16", "fd00:1::9/64"):
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
        wiring.configure_gateway(rooms.outside, config, plan_of(config, "10.1.0.5/16", "fd00:1::5/64"))
    assert sorted(rooms.host.addresses("cni0")) == sorted(before)


def test_a_network_without_gateway_leaves_bridge_and_forwarding_alone(rooms: Rooms) -> None:
    rooms.host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    config = rooms.connect()
    wiring.configure_gateway(rooms.outside, config, plan_of(config, "10.1.0.5/16"))
    assert rooms.host.addresses("cni0") == []
    assert rooms.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"


def test_live_means_that_the_port_forwards(rooms: Rooms) -> None:
    rooms.connect()
    wiring.configure_container(rooms.inside, rooms.namespace, LAYER_2, "eth0")
    mac = rooms.inside.get_link("eth0").mac
    wiring.go_live(rooms.outside, rooms.namespace, LAYER_2, ATTACHMENT, mac)
    assert bridge(rooms.host, PORT)["linkinfo"]["info_slave_data"]["state"] == "forwarding"


def test_a_port_that_does_not_forward_is_not_live(rooms: Rooms, mocker: MockerFixture) -> None:
    rooms.connect()  # the container's end is down
    mocker.patch("cni_bridge.kernel.PORT_BOUND", 0.05)
    with refused(100, f"bridge port {PORT} is up and does not forward"):
        wiring.go_live(rooms.outside, rooms.namespace, LAYER_2, ATTACHMENT, "0a:58:0a:f4:00:02")


def test_an_announcement_that_cannot_be_sent_is_no_failure(
    rooms: Rooms, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    config = rooms.connect()
    plan = plan_of(config, "10.1.0.5/16")
    wiring.configure_container(rooms.inside, rooms.namespace, plan, "eth0")
    mocker.patch.object(wiring, "announce", side_effect=OSError(errno.ENOBUFS, "No buffer space available"))
    wiring.go_live(rooms.outside, rooms.namespace, plan, ATTACHMENT, "0a:58:0a:f4:00:02")
    assert "no announcement on eth0: No buffer space available" in capsys.readouterr().err


def test_the_interfaces_of_a_result_are_those_that_stand_there(rooms: Rooms) -> None:
    config = rooms.connect(mtu=1400)
    listed = wiring.list_interfaces(rooms.outside, rooms.inside, config, ATTACHMENT, "/run/netns/c1")
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
        wiring.disconnect(rooms.outside, rooms.namespace if with_namespace else None, config, ATTACHMENT)
        assert set(rooms.host.link_names()) == {"cni0", "p0", "p1"}
        assert rooms.host.link_names("c1") == []


@pytest.mark.parametrize("port", [("master", "cni0"), ()], ids=["on our bridge", "on no bridge any more"])
def test_a_pair_that_the_reference_made_is_removed(rooms: Rooms, port: tuple[str, ...]) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    peer = ("peer", "name", "eth0", "netns", "c1")
    rooms.host.run("ip", "link", "add", "veth12345678", *port, "type", "veth", *peer)
    wiring.disconnect(rooms.outside, rooms.namespace, config_of(), ATTACHMENT)
    assert rooms.host.link_names() == ["cni0"]
    assert rooms.host.link_names("c1") == []


@pytest.mark.parametrize(
    "commands",
    [
        ["ip -n c1 link add eth0 type bridge"],
        ["ip link add other type bridge", "ip link add v0 master other type veth peer name eth0 netns c1"],
        ["ip link add v0 type veth peer name eth0 netns c1", "ip link set v0 master cni0 alias mynet/other/eth0"],
        ["ip -n c1 link add eth0 type veth peer name eth1"],
    ],
    ids=["not a veth", "on another bridge", "of another attachment", "both ends in the container"],
)
def test_an_interface_of_that_name_that_is_somebody_elses_stays(rooms: Rooms, commands: list[str]) -> None:
    rooms.host.run("ip", "link", "add", "cni0", "type", "bridge")
    for command in commands:
        rooms.host.run(*command.split())
    before = rooms.host.link_names(), rooms.host.link_names("c1")
    wiring.disconnect(rooms.outside, rooms.namespace, config_of(), ATTACHMENT)
    assert (rooms.host.link_names(), rooms.host.link_names("c1")) == before


def test_what_is_observed_is_what_stands_there(rooms: Rooms) -> None:
    config = rooms.connect(isGateway=True)
    plan = plan_of(config, "10.1.0.5/16")
    wiring.configure_container(rooms.inside, rooms.namespace, plan, "eth0")
    wiring.configure_gateway(rooms.outside, config, plan)
    assert wait_until(lambda: rooms.outside.get_link(PORT).forwarding)
    seen = wiring.observe(rooms.outside, rooms.inside, config, ATTACHMENT, ["rule"])
    assert seen.bridge == rooms.outside.get_link("cni0")
    assert seen.host == rooms.outside.get_link(PORT)
    assert seen.container == rooms.inside.get_link("eth0")
    assert parse_cidr("10.1.0.5/16") in seen.addresses
    assert parse_cidr("10.1.0.0/16") in [route.dst for route in seen.routes]
    assert parse_cidr("10.1.0.1/16") in seen.bridge_addresses
    assert seen.missing_rules == ["rule"]


def test_what_is_not_there_is_observed_as_nothing(rooms: Rooms) -> None:
    seen = wiring.observe(rooms.outside, rooms.inside, config_of(), ATTACHMENT, [])
    assert seen == (None, None, None, [], [], [], [])
