"""portIsolation: isolated ports reach the gateway and all others, but not each other."""

import pytest

from tests.kit.runtime import OUTSIDE_ADDRESSES, Runtime, connect_outside
from tests.system.networks import BOTH_FAMILIES, address, find_differences, network, port_of

pytestmark = pytest.mark.kernel

ISOLATED, NORMAL = network(1, portIsolation=True), network(1)


@BOTH_FAMILIES
def test_isolated_containers_do_not_reach_each_other(bridge: Runtime, version: int) -> None:
    first, second = bridge.add("c1", ISOLATED), bridge.add("c2", ISOLATED)
    assert not bridge.host.ping(address(second, version), "c1")
    assert not bridge.host.ping(address(first, version), "c2")


@BOTH_FAMILIES
def test_isolated_container_reaches_the_gateway_and_a_normal_one(bridge: Runtime, version: int) -> None:
    first, second = bridge.add("c1", ISOLATED), bridge.add("c2", NORMAL)
    assert bridge.host.ping({4: "10.1.0.1", 6: "fd00:1::1"}[version], "c1")
    assert bridge.host.ping(address(second, version), "c1")
    assert bridge.host.ping(address(first, version), "c2")


@BOTH_FAMILIES
def test_normal_containers_reach_each_other_beside_an_isolated_one(bridge: Runtime, version: int) -> None:
    bridge.add("c1", ISOLATED)
    bridge.add("c2", NORMAL)
    third = bridge.add("c3", NORMAL)
    assert bridge.host.ping(address(third, version), "c2")


def test_isolated_container_reaches_the_outside(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    bridge.add("c1", {**ISOLATED, "ipMasq": True})
    for outside in OUTSIDE_ADDRESSES.values():
        assert bridge.host.ping(outside, "c1")


@pytest.mark.parametrize("isolated", [True, False], ids=["isolated", "normal"])
def test_check_sees_that_isolation_was_changed(bridge: Runtime, isolated: bool) -> None:
    config = network(1, portIsolation=isolated)
    bridge.add("c1", config)
    bridge.check("c1", config)
    bridge.host.run(
        "bridge", "link", "set", "dev", port_of(bridge.results["c1"]), "isolated", "off" if isolated else "on"
    )
    assert "isolation" in find_differences(bridge, "c1", config)
