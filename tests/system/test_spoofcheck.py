"""macspoofchk, shown by frames that a container sends under its own and under a foreign address."""

from typing import Any

import pytest

from tests.kit.frames import BROADCAST, SILENCE, Wire, ethernet
from tests.kit.runtime import Runtime, find_source
from tests.system.networks import address, find_differences, layer_2, mac_of, network, port_of

pytestmark = pytest.mark.kernel

FOREIGN = "02:00:00:00:00:66"
EXPERIMENTAL = 0x88B5  # an EtherType for tests (IEEE 802)
NETWORK = network(1, macspoofchk=True)


def arrives(runtime: Runtime, source: str, destination: str, sender: str = "c1", receiver: str = "c2") -> bool:
    """Whether a frame from one container with a source MAC arrives at another."""
    frame = ethernet(destination, source, EXPERIMENTAL, f"{sender} to {receiver}".encode().ljust(46, b"\0"))
    with Wire(runtime.host, receiver) as listening, Wire(runtime.host, sender) as wire:
        wire.send(frame)
        return listening.find(frame.__eq__, SILENCE) is not None


@pytest.mark.parametrize("make", [network, layer_2], ids=["with-addresses", "layer-2"])
def test_foreign_source_is_dropped_and_the_own_one_passes(bridge: Runtime, make: Any) -> None:
    config = make(macspoofchk=True)
    first, second = bridge.add("c1", config), bridge.add("c2", make())
    for destination in (BROADCAST, mac_of(second)):
        assert arrives(bridge, mac_of(first), destination)
        assert not arrives(bridge, FOREIGN, destination)
    bridge.check("c1", config)


def test_source_of_another_container_is_foreign(bridge: Runtime) -> None:
    for name in ("c1", "c2", "c3"):
        bridge.add(name, NETWORK)
    assert not arrives(bridge, mac_of(bridge.results["c2"]), mac_of(bridge.results["c3"]), receiver="c3")
    assert arrives(bridge, mac_of(bridge.results["c2"]), mac_of(bridge.results["c3"]), "c2", "c3")


def test_container_without_the_check_may_use_any_source(bridge: Runtime) -> None:
    bridge.add("c1", network(1))
    bridge.add("c2", NETWORK)
    assert arrives(bridge, FOREIGN, BROADCAST)


def test_requested_mac_is_the_own_one(bridge: Runtime) -> None:
    config = {**NETWORK, "runtimeConfig": {"mac": "02:11:22:33:44:55"}}
    bridge.add("c1", config)
    bridge.add("c2", NETWORK)
    assert arrives(bridge, "02:11:22:33:44:55", BROADCAST)
    assert not arrives(bridge, FOREIGN, BROADCAST)


def test_mac_that_was_changed_afterwards_is_foreign(bridge: Runtime) -> None:
    bridge.add("c1", NETWORK)
    second = bridge.add("c2", NETWORK)
    assert bridge.host.ping(address(second), "c1")
    bridge.host.run("ip", "link", "set", "eth0", "address", FOREIGN, container="c1")
    assert not bridge.host.ping(address(second), "c1")


def test_ordinary_traffic_passes(bridge: Runtime) -> None:
    first, second = bridge.add("c1", NETWORK), bridge.add("c2", NETWORK)
    for version in (4, 6):
        assert find_source(bridge.host, "c1", "c2", (address(second, version), 80)) == address(first, version)


def test_rules_do_not_grow_with_the_containers(bridge: Runtime) -> None:
    bridge.add("c1", NETWORK)
    alone = [entry for entry in bridge.host.nft() if "rule" in entry]
    for number in range(2, 8):
        bridge.add(f"c{number}", NETWORK)
    assert len(alone) == 1
    assert [entry for entry in bridge.host.nft() if "rule" in entry] != []
    assert sum(1 for entry in bridge.host.nft() if "rule" in entry) == len(alone)


@pytest.mark.parametrize(
    "command",
    ["flush set bridge pycni genuine", "flush set bridge pycni guarded", "flush chain bridge pycni prerouting"],
)
def test_check_sees_what_was_flushed(bridge: Runtime, command: str) -> None:
    bridge.add("c1", NETWORK)
    bridge.check("c1", NETWORK)
    bridge.host.run("nft", *command.split())
    assert "nftables table pycni" in find_differences(bridge, "c1", NETWORK)


def test_delete_takes_the_own_elements_alone_and_the_last_one_the_table(bridge: Runtime) -> None:
    for name in ("c1", "c2", "c3"):
        bridge.add(name, NETWORK)
    assert bridge.call("DEL", "c1", network(1), netns="") == (0, None, "", "")
    bridge.check("c2", NETWORK)
    assert port_of(bridge.results["c1"]) not in str(bridge.host.nft())
    assert not arrives(bridge, FOREIGN, BROADCAST, "c2", "c3")
    for name in ("c2", "c3"):
        bridge.delete(name, NETWORK)
    assert bridge.host.nft() == []
