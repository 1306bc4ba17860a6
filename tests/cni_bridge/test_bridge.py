"""The bridge: made, or used as it is and given back as it was."""

import errno
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import wiring
from cni_kernel import sysctl, uplinks
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_protocol.errors import CNIError
from tests.cni_bridge.rooms import PORT, Rooms, plan_of, refused
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

IPV6_SETTINGS = ("accept_ra", "disable_ipv6", "keep_addr_on_down")


def link(rooms: Rooms, name: str = "cni0", container: str | None = None) -> Any:
    return rooms.host.ip("link", "show", "dev", name, container=container)[0]


def settings(host: Host, name: str = "cni0") -> list[str]:
    return [host.run("cat", f"/proc/sys/net/ipv6/conf/{name}/{key}").stdout.strip() for key in IPV6_SETTINGS]


def add_bridge(rooms: Rooms, *options: str, up: bool = True) -> None:
    rooms.host.run("ip", "link", "add", "cni0", *options, "type", "bridge")
    if up:
        rooms.host.run("ip", "link", "set", "cni0", "up")


def add_foreign_port(rooms: Rooms, mac: str = "fe:00:00:00:00:01", mtu: str = "1500") -> None:
    port = ("p0", "address", mac, "mtu", mtu, "master", "cni0")
    rooms.host.run("ip", "link", "add", *port, "type", "veth", "peer", "name", "p1", "mtu", mtu)
    rooms.host.run("ip", "link", "set", "p0", "up")


def test_another_name_of_a_bridge_is_refused(rooms: Rooms) -> None:
    """Rules would have this name, packets the bridge's own."""
    rooms.host.run("ip", "link", "add", "longer", "type", "bridge")
    rooms.host.run("ip", "link", "property", "add", "dev", "longer", "altname", "cni0")
    with refused(7, "bridge: cni0 is another name of longer; set bridge to longer"):
        rooms.connect()


@pytest.mark.parametrize("by_user", [False, True], ids=["at its making", "by the administrator"])
@pytest.mark.parametrize("with_port", [False, True], ids=["no port", "a port"])
@pytest.mark.parametrize("mtu", ["1300", "1500", "9000"])
def test_the_mtu_comes_from_a_bridge_that_is_there(rooms: Rooms, by_user: bool, with_port: bool, mtu: str) -> None:
    add_bridge(rooms, *([] if by_user else ["mtu", mtu]))
    if by_user:
        rooms.host.run("ip", "link", "set", "cni0", "mtu", mtu)
    if with_port:
        add_foreign_port(rooms, mtu=mtu)
    rooms.connect()
    mtus = [link(rooms)["mtu"], link(rooms, PORT)["mtu"], link(rooms, "eth0", "c1")["mtu"]]
    assert mtus == [int(mtu)] * 3


@pytest.mark.parametrize("with_port", [False, True], ids=["no port", "a port"])
@pytest.mark.parametrize(("bridge_mtu", "mtu"), [("9000", 1400), ("1400", 9000)], ids=["smaller", "larger"])
def test_a_bridge_that_is_there_keeps_its_mtu_whatever_its_ports_have(
    rooms: Rooms, capsys: pytest.CaptureFixture[str], with_port: bool, bridge_mtu: str, mtu: int
) -> None:
    add_bridge(rooms, "mtu", bridge_mtu)
    if with_port:
        add_foreign_port(rooms, mtu=bridge_mtu)
    rooms.connect(mtu=mtu)
    mtus = [link(rooms)["mtu"], link(rooms, PORT)["mtu"], link(rooms, "eth0", "c1")["mtu"]]
    assert mtus == [int(bridge_mtu), mtu, mtu]
    warning = "bridge cni0 keeps its mtu of 1400, which is less than the 9000 of its port"
    assert (warning in capsys.readouterr().err) is (mtu == 9000)


def test_a_bridge_of_ours_has_the_mtu_of_the_configuration(rooms: Rooms, capsys: pytest.CaptureFixture[str]) -> None:
    rooms.connect(mtu=1400)
    assert (link(rooms)["mtu"], link(rooms, PORT)["mtu"]) == (1400, 1400)
    assert capsys.readouterr().err == ""


def test_a_bridge_without_a_mac_of_its_own_keeps_the_one_that_it_has(rooms: Rooms, mocker: MockerFixture) -> None:
    add_bridge(rooms)
    add_foreign_port(rooms)
    before = link(rooms)["address"]
    assert before == "fe:00:00:00:00:01"  # any MAC that the kernel gives to our port is lower
    for failing in (False, True):
        rooms.connect()
        assert link(rooms)["address"] == before
        if failing:
            rooms.fail()
            assert link(rooms)["address"] == before
        rooms.outside.delete_link(PORT)


@pytest.mark.parametrize("with_port", [False, True], ids=["no port", "a port"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("listens", ["1", "0"], ids=["listens", "deaf"])
def test_a_failure_leaves_the_addresses_and_settings_of_a_bridge_that_was_there(
    rooms: Rooms, mocker: MockerFixture, up: bool, with_port: bool, listens: str
) -> None:
    add_bridge(rooms, up=up)
    rooms.host.run("sh", "-c", f"echo {listens} > /proc/sys/net/ipv6/conf/cni0/accept_ra")
    if with_port:
        add_foreign_port(rooms)
    for address in ("10.7.0.1/16", "fd00:7::1/64", "fd00:8::1/64"):
        rooms.host.run("ip", "address", "add", address, "dev", "cni0")
    before = rooms.host.addresses("cni0"), settings(rooms.host), "UP" in link(rooms)["flags"]
    assert before[1] == [listens, "0", "0"]
    config = rooms.connect(isGateway=True, forceAddress=True, promiscMode=True)
    mocker.patch.object(sysctl, "ensure_forwarding", side_effect=CNIError(100, "no forwarding"))
    mocker.patch.object(sysctl, "is_forwarding", return_value=False)
    with refused(100, "no forwarding"):
        wiring.configure_host(rooms.outside, config, plan_of(config, "fd00:1::5/64"))
    rooms.fail()
    after = rooms.host.addresses("cni0"), settings(rooms.host), "UP" in link(rooms)["flags"]
    assert after == before
    assert "PROMISC" not in link(rooms)["flags"]


def test_a_bridge_whose_addresses_would_go_stays_up(
    rooms: Rooms, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    add_bridge(rooms, up=False)
    rooms.host.run("ip", "address", "add", "fd00:7::1/64", "dev", "cni0")
    rooms.connect()
    mocker.patch.object(sysctl, "_write", side_effect=KernelError(errno.EROFS, "read-only"))
    rooms.fail()
    assert "UP" in link(rooms)["flags"]
    assert rooms.host.addresses("cni0") == ["fd00:7::1/64"]
    assert "undoing after an error: read-only" in capsys.readouterr().err


def test_vlan_filtering_is_switched_off_again(rooms: Rooms, mocker: MockerFixture) -> None:
    add_bridge(rooms)
    told: list[bool] = []
    mocker.patch.object(Kernel, "list_all_vlans", return_value={})
    before = rooms.outside.get_link("cni0")
    genuine = Kernel.find_link_at
    mocker.patch.object(Kernel, "filter_vlans", lambda *_, on=True: told.append(on))
    mocker.patch.object(Kernel, "set_vlans")
    rooms.connect(vlan=5)
    mocker.patch.object(
        Kernel,
        "find_link_at",
        lambda kernel, ifindex: (
            before._replace(vlan_filtering=True) if ifindex == before.ifindex else genuine(kernel, ifindex)
        ),
    )
    rooms.fail()
    assert told == [True, False]


# Stands for the kinds of lines, none of which every kernel can make within a namespace.
LINE = "vxlan id 7 dstport 4789 local 127.0.0.1"


@pytest.fixture
def lines(mocker: MockerFixture) -> None:
    mocker.patch.object(uplinks, "LINES", (*uplinks.LINES, LINE.split()[0]))


LAN_BRIDGES = {
    "has heard a router": (True, ["ip -6 route add default via fe80::1 dev cni0 proto ra"]),
    "has a line": (True, [f"ip link add line master cni0 type {LINE}"]),
    "has its gateway elsewhere": (False, []),
}


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize("which", LAN_BRIDGES)
def test_a_bridge_that_may_live_by_router_advertisements_goes_on_listening(
    rooms: Rooms, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, commands = LAN_BRIDGES[which]
    add_bridge(rooms)
    for command in commands:
        rooms.host.run(*command.split())
    rooms.connect(isGateway=gateway)
    assert settings(rooms.host)[0] == "1"
    assert "bridge cni0 was there before, and goes on listening to router advertisements" in capsys.readouterr().err


def test_a_bridge_that_a_killed_add_has_left_listens_no_longer(rooms: Rooms) -> None:
    add_bridge(rooms, up=False)
    rooms.connect()
    assert settings(rooms.host)[0] == "0"


def test_another_bridge_listens_no_longer(rooms: Rooms, capsys: pytest.CaptureFixture[str]) -> None:
    add_bridge(rooms)
    rooms.host.run("ip", "link", "add", "other", "type", "bridge")
    rooms.host.run("ip", "link", "set", "other", "up")
    rooms.host.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "other", "proto", "ra")
    rooms.connect(isGateway=True)
    assert (settings(rooms.host)[0], settings(rooms.host, "other")[0]) == ("0", "1")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_who_lives_by_router_advertisements_listens_to_them_while_forwarding(
    rooms: Rooms, mocker: MockerFixture, fails: bool
) -> None:
    host = rooms.host
    for name in ("routed", "lent", "fixed", "deaf"):
        host.run("ip", "link", "add", name, "type", "bridge")
        host.run("ip", "link", "set", name, "up")
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/deaf/accept_ra")
    for name in ("routed", "deaf"):
        host.run(
            "ip",
            "-6",
            "route",
            "add",
            "default",
            "via",
            "fe80::1",
            "dev",
            name,
            "proto",
            "ra",
            "metric",
            str(len(name)),
        )
    for name, lifetime in (("lent", ("valid_lft", "600", "preferred_lft", "600")), ("fixed", ())):
        host.run("ip", "address", "add", f"fd00:{len(name)}::1/64", "dev", name, *lifetime)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.run("sh", "-c", f"echo 0 > /proc/sys/net/{path}")
    config = rooms.connect(isGateway=True)
    plan = plan_of(config, "10.1.0.5/16", "fd00:1::5/64")
    if fails:
        genuine = sysctl.ensure_forwarding

        def switch_on_and_fail(version: int) -> None:
            genuine(version)
            if version == 6:
                raise CNIError(100, "too late")

        mocker.patch.object(sysctl, "ensure_forwarding", switch_on_and_fail)
        with refused(100, "too late"):
            wiring.configure_host(rooms.outside, config, plan)
    else:
        wiring.configure_host(rooms.outside, config, plan)
    listening = [settings(host, name)[0] for name in ("routed", "lent", "fixed", "deaf")]
    assert listening == (["1", "1", "1", "0"] if fails else ["2", "2", "1", "0"])
    with host.entered():
        assert [sysctl.is_forwarding(version) for version in (4, 6)] == [not fails] * 2


@pytest.mark.usefixtures("lines")
def test_uplinks_that_have_heard_no_router_yet_listen_while_forwarding(rooms: Rooms) -> None:
    host = rooms.host
    for command in (
        f"ip link add line type {LINE}",
        "ip link add routed type veth peer name far",
        "ip link add to-a-container type veth peer name inner",
        "ip link add lan type bridge",
        "ip link add line-of-lan master lan type vxlan id 8 dstport 4790 local 127.0.0.1",
        "ip link add other type bridge",
        "ip link set routed up",
        "ip address add 192.0.2.1/24 dev routed",
        "ip route add default via 192.0.2.2",
    ):
        host.run(*command.split())
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
    config = rooms.connect(isGateway=True)
    wiring.configure_host(rooms.outside, config, plan_of(config, "fd00:1::5/64"))
    listening = {name: settings(host, name)[0] for name in host.link_names()}
    assert {name for name, value in listening.items() if value == "2"} == {"line", "routed", "lan"}
    assert {"to-a-container", "line-of-lan", "other"} <= {name for name, value in listening.items() if value == "1"}


def test_a_failure_leaves_the_container_s_loopback_as_it_was(rooms: Rooms) -> None:
    path = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
    rooms.host.run("sh", "-c", f"echo 1 > {path}", container="c1")
    config = rooms.connect()
    plan = plan_of(config, "fd00:1::5/64")
    wiring.configure_container(rooms.site(config), plan, rooms.undo)
    assert rooms.host.run("cat", path, container="c1").stdout == "0\n"
    rooms.fail()
    assert rooms.host.run("cat", path, container="c1").stdout == "1\n"


def test_a_gateway_keeps_its_mac_when_ports_come_and_go(rooms: Rooms) -> None:
    # containers have it in their neighbour tables
    add_bridge(rooms)
    add_foreign_port(rooms, mac="02:00:00:00:00:01")
    config = rooms.connect(isGateway=True)
    wiring.configure_host(rooms.outside, config, plan_of(config, "10.1.0.5/16"))
    assert link(rooms)["address"] == "02:00:00:00:00:01"
    rooms.host.run("ip", "link", "delete", "p0")
    assert link(rooms)["address"] == "02:00:00:00:00:01"
