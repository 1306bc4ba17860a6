"""What of the host is not the plugin's stays as it is, and what it cannot have is said."""

import pytest

from tests.kit.frames import Wire
from tests.kit.host import Host, wait_until
from tests.kit.runtime import Runtime
from tests.system.networks import address, network, sysctl
from tests.system.test_announce import router_advertisement

pytestmark = pytest.mark.kernel

ROUTER, PREFIX = "fe80::aa", "2001:db8:5:"
IPV4 = {"type": "cni-ipam", "ranges": [[{"subnet": "10.1.0.0/16"}]]}


def connect_router(host: Host) -> Wire:
    """A router on a wire to the host's interface uplink, which has forwarding off and accept_ra at its default."""
    host.add_container("router")
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", "router")
    sysctl(host, "ipv6/conf/all/forwarding", 0)
    host.run("ip", "link", "set", "uplink", "up")
    host.run("ip", "-n", "router", "link", "set", "eth0", "up")
    # what comes from routers is heard once there is a link-local address that has been found unique
    assert wait_until(lambda: "tentative" not in str(host.ip("-6", "address", "show", "dev", "uplink")) != "[]")
    return Wire(host, "router")


def default_routes(host: Host) -> list[str]:
    return [f"{route['gateway']} {route['dev']}" for route in host.ip("-6", "route", "show", "default")]


def test_host_keeps_its_way_out_when_forwarding_is_switched_on(bridge: Runtime) -> None:
    host = bridge.host
    frame = router_advertisement("02:00:00:00:00:aa", ROUTER, f"{PREFIX}:")
    with connect_router(host) as router:

        def advertised() -> bool:
            router.send(frame)
            return default_routes(host) == [f"{ROUTER} uplink"]

        assert wait_until(advertised)
        bridge.add("c1", network(1))
        assert sysctl(host, "ipv6/conf/all/forwarding") == "1"
        assert default_routes(host) == [f"{ROUTER} uplink"]
        host.run("ip", "-6", "route", "delete", "default")
        assert wait_until(advertised)  # and hears of the next one


def test_bridge_with_jumbo_frames_keeps_them_without_mtu_in_the_configuration(bridge: Runtime) -> None:
    host, config = bridge.host, network(1)
    host.run("ip", "link", "add", "br1", "mtu", "9000", "type", "bridge")
    result = bridge.add("c1", config)
    assert [entry["mtu"] for entry in result["interfaces"]] == [9000, 9000, 9000]
    bridge.check("c1", config)
    bridge.add("c2", {**config, "mtu": 1400})
    assert host.ip("link", "show", "dev", "br1")[0]["mtu"] == 9000
    bridge.delete("c2", {**config, "mtu": 1400})
    bridge.delete("c1", config)
    assert host.ip("link", "show", "dev", "br1")[0]["mtu"] == 9000


def make_read_only(host: Host) -> None:
    host.run("mount", "--bind", "/proc/sys", "/proc/sys")
    host.run("mount", "-o", "remount,bind,ro", "/proc/sys")


def test_read_only_proc_keeps_nobody_from_an_ipv4_network(bridge: Runtime) -> None:
    host, config = bridge.host, network(1, ipam=IPV4)
    sysctl(host, "ipv4/ip_forward", 1)
    make_read_only(host)
    host.add_container("c1")
    outcome = bridge.call("ADD", "c1", config)
    assert outcome.status == 0, outcome
    assert "cni-bridge: warning: sysctl net.ipv6.conf.br1.accept_ra=0 cannot be set: Read-only" in outcome.stderr
    assert "net.ipv6.conf.eth0.accept_ra=0" in outcome.stderr
    assert host.ping("10.1.0.1", "c1")
    bridge.results["c1"] = outcome.document
    bridge.check("c1", config)
    bridge.delete("c1", config)


def test_read_only_proc_keeps_nobody_from_an_ipv6_network_that_is_allowed(bridge: Runtime) -> None:
    host, config = bridge.host, network(1)
    for version in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        sysctl(host, version, 1)
    make_read_only(host)
    result = bridge.add("c1", config)
    assert host.ping(address(result, 6))
    bridge.delete("c1", config)


def test_read_only_proc_without_forwarding_is_an_error_and_leaves_nothing(bridge: Runtime) -> None:
    host = bridge.host
    sysctl(host, "ipv4/ip_forward", 0)
    make_read_only(host)
    host.add_container("c1")
    outcome = bridge.call("ADD", "c1", network(1, ipam=IPV4))
    assert outcome.document["code"] == 100, outcome
    assert "sysctl net.ipv4.ip_forward=1 cannot be set: Read-only file system" in outcome.document["msg"]
    assert host.link_names() == []


WARNING = "cni-bridge: warning: subnet 10.1.0.0/16 overlaps 10.1.7.0/24, which the host has on lo"


@pytest.mark.parametrize("command", ["address add 10.1.7.9/24 dev lo", "route add 10.1.7.0/24 dev lo"])
def test_subnet_that_the_host_has_elsewhere_is_warned_of(bridge: Runtime, command: str) -> None:
    config = network(1, ipam=IPV4)
    bridge.host.run("ip", *command.split())
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", config)
    assert (outcome.status, outcome.stderr.count(WARNING)) == (0, 1)
    bridge.host.add_container("c2")
    assert WARNING not in bridge.call("ADD", "c2", config).stderr
    outcome = bridge.call("STATUS", "", config)
    assert (outcome.status, outcome.stderr.count(WARNING)) == (0, 1)


def test_subnet_that_is_nowhere_else_is_not_warned_of(bridge: Runtime) -> None:
    host, config = bridge.host, network(1)
    host.run("ip", "address", "add", "10.2.0.1/16", "dev", "lo")
    host.add_container("c1")
    for command in ("ADD", "STATUS"):
        outcome = bridge.call(command, "c1", config)
        assert outcome.status == 0
        assert "overlaps" not in outcome.stderr
