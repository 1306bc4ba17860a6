"""enabledad: duplicate address detection where it is asked for, and no wait where it is not."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.host import Host
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE, Runtime, connect_outside
from tests.system.networks import address, network, refused, sysctl

pytestmark = pytest.mark.kernel

DETECTING, PLAIN = network(1, enabledad=True), network(1)


def flags(host: Host, container: str, text: str) -> set[str]:
    """The flags of an address that ip(8) names."""
    entries = host.ip("address", "show", "dev", "eth0", container=container)[0]["addr_info"]
    entry = next(entry for entry in entries if entry["local"] == text)
    return {key for key in ("tentative", "dadfailed", "nodad") if entry.get(key)}


def tentative(host: Host, container: str | None, ifname: str = "eth0") -> Any:
    return host.ip("-6", "address", "show", "dev", ifname, "tentative", container=container)


def test_without_it_the_address_is_usable_at_once(bridge: Runtime) -> None:
    # even where the kernel would take a minute to look for duplicates
    bridge.host.add_container("c1")
    sysctl(bridge.host, "ipv6/conf/default/dad_transmits", 60, container="c1")
    result = bridge.add("c1", PLAIN)
    assert flags(bridge.host, "c1", address(result, 6)) == {"nodad"}
    assert bridge.host.ping("fd00:1::1", "c1")


def test_without_it_a_fresh_bridge_forwards_to_its_first_container_at_once(bridge: Runtime) -> None:
    # the kernel looks for the container with the bridge's link-local address, once that is not tentative any more
    host = bridge.host
    sysctl(host, "ipv6/conf/default/dad_transmits", 60)
    connect_outside(host)
    host.run("ip", "-n", OUTSIDE, "route", "add", "fd00:1::/64", "via", HOST_ADDRESSES[6])
    result = bridge.add("c1", PLAIN)
    assert tentative(host, None, "br1") in ([], [{}])
    assert host.ping(address(result, 6), OUTSIDE)


def test_with_it_no_address_is_tentative_after_add(bridge: Runtime) -> None:
    result = bridge.add("c1", DETECTING)
    assert tentative(bridge.host, "c1") in ([], [{}])
    assert flags(bridge.host, "c1", address(result, 6)) == set()
    assert bridge.host.ping("fd00:1::1", "c1")
    bridge.check("c1", DETECTING)


def test_with_it_the_kernel_has_looked(bridge: Runtime) -> None:
    bridge.host.add_container("c1")
    sysctl(bridge.host, "ipv6/conf/default/accept_dad", 0, container="c1")
    bridge.add("c1", DETECTING)
    assert sysctl(bridge.host, "ipv6/conf/eth0/accept_dad", container="c1") == "1"


@pytest.mark.parametrize("keys", [{}, {"hairpinMode": True}], ids=["plain", "hairpin"])
def test_own_probe_that_comes_back_is_no_duplicate(bridge: Runtime, keys: dict[str, Any]) -> None:
    config = network(1, enabledad=True, **keys)
    for name in ("c1", "c2"):
        result = bridge.add(name, config)
        assert flags(bridge.host, name, address(result, 6)) == set()


def test_duplicate_makes_add_fail_and_everything_is_undone(bridge: Runtime, snapshot: Callable[[], Any]) -> None:
    host = bridge.host
    bridge.add("c1", DETECTING)
    host.run("ip", "address", "add", "fd00:1::3/64", "dev", "eth0", "nodad", container="c1")  # nobody reserved it
    host.add_container("c2")
    before = snapshot()
    error = refused(bridge, "ADD", "c2", {**DETECTING, "ipMasq": True})
    assert error["code"] == 100
    assert "fd00:1::3" in error["msg"]
    assert "in use" in error["msg"]
    after = snapshot()
    for taken in (before, after):  # round robin goes on
        taken["files"] = [line for line in taken["files"] if "last_reserved_ip" not in line]
    assert after == before
    host.run("ip", "address", "delete", "fd00:1::3/64", "dev", "eth0", container="c1")
    bridge.add("c2", DETECTING)


def test_without_it_a_duplicate_goes_unnoticed(bridge: Runtime) -> None:
    bridge.add("c1", PLAIN)
    bridge.host.run("ip", "address", "add", "fd00:1::3/64", "dev", "eth0", "nodad", container="c1")
    assert address(bridge.add("c2", PLAIN), 6) == "fd00:1::3"


def test_network_without_ipv6_does_not_wait(bridge: Runtime) -> None:
    bridge.host.add_container("c1")
    sysctl(bridge.host, "ipv6/conf/default/dad_transmits", 60, container="c1")
    config = network(1, enabledad=True, ipam={"type": "cni-ipam", "subnet": "10.1.0.0/16"})
    bridge.add("c1", config)  # the link-local address alone is nobody's concern; it would take a minute
    assert bridge.host.addresses("eth0", "c1") == ["10.1.0.2/16"]
