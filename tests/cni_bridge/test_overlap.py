"""What of the host's addresses and routes overlaps a network's subnets."""

import pytest

from cni_bridge.overlap import find_overlaps
from cni_protocol.address import parse_cidr
from tests.cni_bridge import open_kernel
from tests.kit.host import Host

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("command", "overlapping"),
    [
        ("address add 10.1.7.9/24 dev up0", "10.1.7.0/24"),
        ("address add 10.1.7.9/32 dev up0", "10.1.7.9/32"),
        ("address add 10.1.0.1/8 dev up0", "10.0.0.0/8"),
        ("address add 10.1.7.9/24 dev down0", "10.1.7.0/24"),
        ("address add fd00:1::9/64 dev down0", "fd00:1::/64"),
        ("address add fd00:1::9/128 dev up0", "fd00:1::9/128"),
        ("route add 10.1.128.0/17 dev up0", "10.1.128.0/17"),
        ("route add 10.0.0.0/8 dev up0", "10.0.0.0/8"),
        ("-6 route add fd00::/16 dev up0", "fd00::/16"),
        ("route add default dev up0", ""),
        ("-6 route add default dev up0", ""),
        ("route add 10.2.0.0/16 dev up0", ""),
        ("route add 10.1.0.0/16 dev up0 table 7", ""),
        ("route add blackhole 10.1.0.0/16", ""),
        ("address add 10.1.0.1/32 dev up0", ""),
        ("address add 10.1.0.1/16 dev own", ""),
        ("route add 10.1.7.0/24 dev own", ""),
    ],
)
def test_what_the_host_has_elsewhere_is_named(host: Host, command: str, overlapping: str) -> None:
    for name in ("own", "up0", "down0"):
        host.run("ip", "link", "add", name, "type", "bridge")
        if name != "down0":
            host.run("ip", "link", "set", name, "up")
    host.run("ip", *command.split())
    gateways = [parse_cidr("10.1.0.1/16"), parse_cidr("fd00:1::1/64")]
    with open_kernel(host) as kernel:
        found = find_overlaps(kernel, [kernel.get_link("own")], gateways)
        assert find_overlaps(kernel, [kernel.get_link("own")], []) == []
    if not overlapping:
        assert found == []
        return
    subnet = "fd00:1::/64" if ":" in overlapping else "10.1.0.0/16"
    name = command.split(" dev ")[1]
    assert f"subnet {subnet} overlaps {overlapping}, which the host has on {name}; choose" in found[0]
    assert len(found) == 1
