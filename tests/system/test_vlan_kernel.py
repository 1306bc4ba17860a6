"""Networks with VLANs on a kernel that filters them: user-mode Linux, since the machine's own may not.

The oracles: `bridge -j vlan`, frames on packet sockets, and ping; tagged frames go through the kernel's own 802.1Q
interfaces.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.kit.frames import BROADCAST, Wire, ethernet
from tests.kit.host import Host
from tests.kit.in_uml import BOUND
from tests.kit.runtime import Runtime, without_bookkeeping
from tests.system.networks import address, find_differences, layer_2, network, port_of, refused

pytestmark = [pytest.mark.kernel, pytest.mark.uml, pytest.mark.timeout(BOUND + 40)]

EXPERIMENT = 0x88B5  # EtherType, IEEE 802: for local experiments
SILENCE = 0.1  # seconds; a bridge has handed a frame on before send(2) returns
PVID, UNTAGGED = "PVID", "Egress Untagged"
NATIVE = (PVID, UNTAGGED)


def vlans_of(host: Host, port: str) -> dict[int, tuple[str, ...]]:
    """The VLANs of a port and their flags, as bridge(8) reads them."""
    listed = json.loads(host.run("bridge", "-j", "vlan", "show", "dev", port).stdout)
    entries = listed[0]["vlans"] if listed else []
    return {
        vid: tuple(entry.get("flags", ()))
        for entry in entries
        for vid in range(entry["vlan"], entry.get("vlanEnd", entry["vlan"]) + 1)
    }


def gateway_port(host: Host, gateway: str) -> str:
    """The port that leads to a VLAN's gateway interface."""
    [port] = [link["ifname"] for link in host.ip("link") if link.get("link") == gateway]
    return str(port)


def filters_vlans(host: Host, bridge: str) -> bool:
    return bool(host.ip("link", "show", "dev", bridge)[0]["linkinfo"]["info_data"]["vlan_filtering"])


def hearers(host: Host, sender: tuple[str, str], *others: tuple[str, str]) -> list[tuple[str, str]]:
    """Which of the others (container and interface) a broadcast frame of the sender arrives at."""
    frame = ethernet(BROADCAST, "02:00:00:00:00:99", EXPERIMENT, b"hear, hear".ljust(46, b"\0"))
    with ExitStack() as stack:
        sending = stack.enter_context(Wire(host, *sender))
        wires = {other: stack.enter_context(Wire(host, *other)) for other in others}
        sending.send(frame)
        return [other for other, wire in wires.items() if wire.find(lambda got: b"hear, hear" in got, SILENCE)]


def tagged(host: Host, container: str, vid: int) -> tuple[str, str]:
    """An interface of a container whose frames have a VLAN's tag on eth0."""
    name = f"eth0.{vid}"
    host.run("ip", "link", "add", "link", "eth0", "name", name, "type", "vlan", "id", str(vid), container=container)
    host.run("ip", "link", "set", name, "up", container=container)
    return container, name


def test_access_ports_hear_those_of_their_vlan_alone(bridge: Runtime) -> None:
    host = bridge.host
    ports = {name: port_of(bridge.add(name, layer_2(vlan=vid))) for name, vid in (("a", 100), ("b", 100), ("c", 200))}
    assert filters_vlans(host, "br0")
    assert [vlans_of(host, port) for port in ports.values()] == [{100: NATIVE}, {100: NATIVE}, {200: NATIVE}]
    assert hearers(host, ("a", "eth0"), ("b", "eth0"), ("c", "eth0")) == [("b", "eth0")]
    assert hearers(host, ("c", "eth0"), ("a", "eth0"), ("b", "eth0")) == []
    bridge.check("a", layer_2(vlan=100))
    bridge.delete("a", layer_2(vlan=100))
    assert ports["a"] not in host.link_names()
    assert vlans_of(host, ports["b"]) == {100: NATIVE}


def test_trunk_takes_and_gives_the_tags_of_its_vlans(bridge: Runtime) -> None:
    host = bridge.host
    trunk = layer_2(vlanTrunk=[{"id": 5}, {"minID": 10, "maxID": 12}])
    port = port_of(bridge.add("trunk", trunk))
    assert vlans_of(host, port) == {1: NATIVE, 5: (), 10: (), 11: (), 12: ()}
    bridge.check("trunk", trunk)
    bridge.add("five", layer_2(vlan=5))
    bridge.add("six", layer_2(vlan=6))
    five, six = ("five", "eth0"), ("six", "eth0")
    tag5, tag6 = tagged(host, "trunk", 5), tagged(host, "trunk", 6)
    assert hearers(host, tag5, five, six) == [five]
    assert hearers(host, tag6, five, six) == []
    assert hearers(host, five, tag5, tag6, six) == [tag5]
    assert hearers(host, six, tag5, tag6, five) == []
    assert hearers(host, ("trunk", "eth0"), five, six) == []


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "left"])
def test_default_vlan(bridge: Runtime, keep: bool) -> None:
    host = bridge.host
    config = layer_2(vlan=100, preserveDefaultVlan=keep)
    port = port_of(bridge.add("a", config))
    assert vlans_of(host, port) == ({1: (UNTAGGED,), 100: NATIVE} if keep else {100: NATIVE})
    host.add_container("plain")
    host.run("ip", "link", "add", "p0", "type", "veth", "peer", "name", "eth0", "netns", "plain")
    host.run("ip", "link", "set", "p0", "master", "br0", "up")
    host.run("ip", "link", "set", "eth0", "up", container="plain")
    assert hearers(host, ("plain", "eth0"), ("a", "eth0")) == ([("a", "eth0")] if keep else [])
    assert hearers(host, ("a", "eth0"), ("plain", "eth0")) == []
    bridge.check("a", config)


def test_gateway_is_in_the_vlan_and_leads_out_of_it(bridge: Runtime) -> None:
    host = bridge.host
    result = bridge.add("a", network(vlan=100))
    other = bridge.add("b", network(2, bridge="br1", vlan=200))
    assert [entry["name"] for entry in result["interfaces"] if "sandbox" not in entry][2:] == ["br1.100"]
    assert host.addresses("br1.100") == ["10.1.0.1/16", "fd00:1::1/64"]
    assert host.addresses("br1") == []
    for gateway in ("br1.100", "br1.200"):  # one that is tentative looks for no neighbours for what is forwarded
        assert host.ip("-6", "address", "show", "dev", gateway, "tentative") in ([], [{}])
    for target in ("10.1.0.1", "fd00:1::1", address(other, 4), address(other, 6)):
        assert host.ping(target, "a"), target
    assert hearers(host, ("a", "eth0"), ("b", "eth0")) == []
    bridge.check("a", network(vlan=100))
    before = set(host.link_names())
    bridge.delete("a", network(vlan=100))
    assert before - set(host.link_names()) == {port_of(result)}
    assert host.reservations("net1") == []


def test_check_tells_what_has_become_of_the_vlans(bridge: Runtime) -> None:
    host = bridge.host
    config = network(vlan=100, vlanTrunk=[{"minID": 10, "maxID": 20}])
    port = port_of(bridge.add("a", config))
    gateway = gateway_port(host, "br1.100")

    def told(there: tuple[str, ...], back: tuple[str, ...]) -> str:
        host.run(*there)
        words = find_differences(bridge, "a", config)
        host.run(*back)
        return words

    add, remove = ("bridge", "vlan", "add", "dev"), ("bridge", "vlan", "del", "dev")
    filtering = ("ip", "link", "set", "br1", "type", "bridge", "vlan_filtering")
    wanted = "10-20, 100 pvid untagged"
    less = told((*remove, port, "vid", "15"), (*add, port, "vid", "15"))
    assert less == f"VLANs of port {port} are 10-14, 16-20, 100 pvid untagged, not {wanted}"
    more = told((*add, port, "vid", "300"), (*remove, port, "vid", "300"))
    assert more == f"VLANs of port {port} are {wanted}, 300, not {wanted}"
    assert "bridge br1 does not filter VLANs" in told((*filtering, "0"), (*filtering, "1"))
    native = ("vid", "100", "pvid", "untagged")
    lost = told((*remove, gateway, "vid", "100"), (*add, gateway, *native))
    assert lost == f"VLANs of port {gateway} are none, not 100 pvid untagged"
    assert "br1.100 is down" in told(("ip", "link", "set", "br1.100", "down"), ("ip", "link", "set", "br1.100", "up"))
    assert find_differences(bridge, "a", config) == ""


def test_bridge_in_use_gets_to_filter_and_its_ports_go_on(bridge: Runtime) -> None:
    host = bridge.host
    bridge.add("a", layer_2())
    bridge.add("b", layer_2())
    assert not filters_vlans(host, "br0")
    bridge.add("c", layer_2(vlan=100))
    assert filters_vlans(host, "br0")
    assert hearers(host, ("a", "eth0"), ("b", "eth0"), ("c", "eth0")) == [("b", "eth0")]
    bridge.check("a", layer_2())


@pytest.mark.parametrize("bridge_is_there", [False, True], ids=["fresh-bridge", "bridge-in-use"])
def test_failed_add_is_undone(bridge: Runtime, snapshot: Callable[[], Any], bridge_is_there: bool) -> None:
    host = bridge.host
    if bridge_is_there:
        bridge.add("a", network())
    host.run("ip", "link", "add", "br1.100", "type", "veth", "peer", "name", "other")
    host.run("ip", "address", "add", "10.9.0.1/16", "dev", "br1.100")
    host.add_container("b")
    before = snapshot()
    error = refused(bridge, "ADD", "b", network(vlan=100))
    assert (error["code"], "br1.100 has address 10.9.0.1/16" in error["msg"]) == (7, True)
    assert without_bookkeeping(snapshot()) == without_bookkeeping(before)
    assert not bridge_is_there or not filters_vlans(host, "br1")


def test_gateway_that_was_left_half_made_is_completed_by_the_next_add(bridge: Runtime) -> None:
    host = bridge.host
    bridge.add("a", network(vlan=100))
    gateway = gateway_port(host, "br1.100")
    host.run("ip", "link", "set", "br1.100", "down")
    host.run("bridge", "vlan", "del", "dev", gateway, "vid", "100")
    host.run("bridge", "vlan", "add", "dev", gateway, "vid", "1", "pvid", "untagged")
    bridge.add("b", network(vlan=100))
    assert vlans_of(host, gateway) == {100: NATIVE}
    assert host.ping("10.1.0.1", "b")


@pytest.mark.parametrize(
    ("trunk", "vids"),
    [
        ([{"minID": 1, "maxID": 4094}], range(2, 4095)),
        ([{"id": vid} for vid in range(3, 4095, 2)], range(3, 4095, 2)),
    ],
    ids=["all", "every-other"],
)
def test_large_trunk(bridge: Runtime, trunk: list[dict[str, int]], vids: range) -> None:
    host = bridge.host
    config = layer_2(vlanTrunk=trunk)
    started = time.monotonic()
    port = port_of(bridge.add("a", config))
    assert time.monotonic() - started < 15  # half a second is usual, for Python to start; the VLANs take a tenth of it
    assert vlans_of(host, port) == {1: NATIVE, **dict.fromkeys(vids, ())}
    bridge.add("b", config)
    bridge.check("a", config)
    host.run("bridge", "vlan", "del", "dev", port, "vid", "2001")
    words = find_differences(bridge, "a", config)
    assert words.startswith(f"VLANs of port {port} are 1 pvid untagged, ")
    bridge.delete("a", config)
    assert port not in host.link_names()
