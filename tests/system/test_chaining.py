"""Chained use: behind another plugin, before another plugin, and what CHECK makes of it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import REFERENCE_DIR
from tests.kit.host import Host
from tests.kit.runtime import Runtime
from tests.system.networks import address, find_differences, layer_2, network, port_of, refused, sysctl

pytestmark = pytest.mark.kernel

NETWORK = network(1, ipMasq=True, macspoofchk=True, mtu=1400, hairpinMode=True)
EARLIER: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "tap7", "mac": "02:00:00:00:00:07"},
        {"name": "net0", "mac": "02:00:00:00:00:08", "mtu": 1280, "sandbox": "/run/netns/c1"},
    ],
    "ips": [{"interface": 1, "address": "198.51.100.7/24", "gateway": "198.51.100.1"}],
    "routes": [{"dst": "203.0.113.0/24", "gw": "198.51.100.1"}],
    "dns": {"nameservers": ["198.51.100.53"], "domain": "earlier.example"},
}


def prepare_earlier(host: Host) -> None:
    """What the plugin that came first is supposed to have made."""
    host.add_container("c1")
    host.run("ip", "link", "add", "tap7", "type", "veth", "peer", "name", "net0", "netns", "c1")
    for name, container in (("tap7", None), ("net0", "c1")):
        host.run("ip", "link", "set", name, "up", container=container)
    host.run("ip", "address", "add", "198.51.100.7/24", "dev", "net0", container="c1")
    host.run("ip", "route", "add", "203.0.113.0/24", "via", "198.51.100.1", container="c1")


def test_previous_result_is_passed_on_and_extended(bridge: Runtime) -> None:
    prepare_earlier(bridge.host)
    config = network(1, isDefaultGateway=False, isGateway=True, prevResult=EARLIER)
    result = bridge.add("c1", config)
    assert result["interfaces"][:2] == EARLIER["interfaces"]
    assert [entry["name"] for entry in result["interfaces"][2:4]] == [
        "br1",
        port_of({"interfaces": result["interfaces"][2:]}),
    ]
    assert (result["interfaces"][4]["name"], result["interfaces"][4]["sandbox"]) == ("eth0", "/run/netns/c1")
    assert result["ips"][0] == EARLIER["ips"][0]
    assert [(entry["interface"], entry["address"]) for entry in result["ips"][1:]] == [
        (4, "10.1.0.2/16"),
        (4, "fd00:1::2/64"),
    ]
    assert result["routes"][0] == EARLIER["routes"][0]
    assert "198.51.100.53" in result["dns"]["nameservers"]
    bridge.check("c1", config)
    bridge.delete("c1", config)
    assert bridge.host.link_names("c1") == ["net0"]
    assert bridge.host.addresses("net0", "c1") == ["198.51.100.7/24"]


def test_layer_2_passes_the_previous_result_on(bridge: Runtime) -> None:
    prepare_earlier(bridge.host)
    config = layer_2(prevResult=EARLIER)
    result = bridge.add("c1", config)
    assert result["ips"] == EARLIER["ips"]
    assert result["interfaces"][:2] == EARLIER["interfaces"]
    assert [entry["name"] for entry in result["interfaces"][2:]][::2] == ["br0", "eth0"]
    assert result["dns"] == EARLIER["dns"]
    bridge.check("c1", config)


def test_previous_result_without_interfaces(bridge: Runtime) -> None:
    result = bridge.add("c1", network(1, prevResult={"cniVersion": "1.1.0", "dns": {}}))
    assert [entry["interface"] for entry in result["ips"]] == [2, 2]


def test_address_of_an_earlier_plugin_is_not_ours_to_check(bridge: Runtime) -> None:
    prepare_earlier(bridge.host)
    config = network(1, isDefaultGateway=False, isGateway=True, prevResult=EARLIER)
    bridge.add("c1", config)
    bridge.host.run("ip", "address", "delete", "198.51.100.7/24", "dev", "net0", container="c1")
    bridge.check("c1", config)


@pytest.mark.parametrize("previous", ["text", 5, [], {"ips": "x"}, {"interfaces": [{"mac": 5}]}], ids=str)
def test_malformed_previous_result_changes_nothing(bridge: Runtime, snapshot: Callable[[], Any], previous: Any) -> None:
    bridge.host.add_container("c1")
    before = snapshot()
    error = refused(bridge, "ADD", "c1", network(1, prevResult=previous))
    assert error["code"] == 7
    assert "prevResult" in error["msg"]
    assert snapshot() == before


def change_mac(host: Host, _: str) -> None:
    host.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99", container="c1")


def add_address(host: Host, _: str) -> None:
    host.run("ip", "address", "add", "198.51.100.9/24", "dev", "eth0", container="c1")
    host.run("ip", "address", "add", "2001:db8:9::9/64", "dev", "eth0", "nodad", container="c1")


def add_routes(host: Host, _: str) -> None:
    host.run("ip", "route", "add", "203.0.113.0/24", "via", "10.1.0.1", container="c1")
    host.run("ip", "route", "add", "10.1.0.9", "dev", "eth0", "table", "100", container="c1")
    host.run("ip", "route", "add", "blackhole", "203.0.114.0/24", container="c1")


def add_default_route_of_lower_priority(host: Host, _: str) -> None:
    host.run("ip", "route", "add", "default", "via", "10.1.0.9", "metric", "500", container="c1")


def add_interface(host: Host, _: str) -> None:
    host.run("ip", "link", "add", "net1", "type", "veth", "peer", "name", "net2", container="c1")


def add_rules(host: Host, _: str) -> None:
    host.run("nft", "add table inet theirs { chain c { type filter hook forward priority 0; accept; }; }")


TOLERATED = [change_mac, add_address, add_routes, add_default_route_of_lower_priority, add_interface, add_rules]


@pytest.mark.parametrize("change", TOLERATED, ids=lambda change: change.__name__)
def test_check_tolerates_what_a_later_plugin_may_do(bridge: Runtime, change: Callable[[Host, str], None]) -> None:
    config = network(1, ipMasq=True, mtu=1400, hairpinMode=True)
    bridge.add("c1", config)
    change(bridge.host, port_of(bridge.results["c1"]))
    bridge.check("c1", config)


def _ip(*words: str, container: str | None = "c1") -> Callable[[Host, str], None]:
    def change(host: Host, port: str) -> None:
        host.run("ip", *(word.format(port=port) for word in words), container=container)

    return change


def _bridge(*words: str) -> Callable[[Host, str], None]:
    def change(host: Host, port: str) -> None:
        host.run("bridge", "link", "set", "dev", port, *words)

    return change


def _nft(command: str) -> Callable[[Host, str], None]:
    def change(host: Host, _: str) -> None:
        host.run("nft", command)

    return change


FINDINGS = {
    "link-down": (_ip("link", "set", "eth0", "down"), "eth0 is down"),
    "link-gone": (_ip("link", "delete", "eth0"), "eth0 is missing"),
    "link-renamed": (
        lambda host, _: [
            host.run("ip", "link", "set", "eth0", *words, container="c1") for words in (["down"], ["name", "x0"])
        ],
        "eth0 is missing",
    ),
    "host-end-down": (_ip("link", "set", "{port}", "down", container=None), "is down"),
    "host-end-detached": (_ip("link", "set", "{port}", "nomaster", container=None), "is not a port of bridge br1"),
    "bridge-down": (_ip("link", "set", "br1", "down", container=None), "bridge br1 is down"),
    "bridge-gone": (_ip("link", "delete", "br1", container=None), "bridge br1 is missing"),
    "address": (_ip("address", "delete", "10.1.0.2/16", "dev", "eth0"), "address 10.1.0.2/16"),
    "address-IPv6": (_ip("address", "delete", "fd00:1::2/64", "dev", "eth0"), "address fd00:1::2/64"),
    "route": (_ip("route", "delete", "default"), "route 0.0.0.0/0"),
    "route-IPv6": (_ip("-6", "route", "delete", "default"), "route ::/0"),
    "route-elsewhere": (_ip("route", "replace", "default", "via", "10.1.0.77"), "route 0.0.0.0/0"),
    "gateway-address": (_ip("address", "delete", "10.1.0.1/16", "dev", "br1", container=None), "10.1.0.1/16"),
    "gateway-address-IPv6": (_ip("address", "delete", "fd00:1::1/64", "dev", "br1", container=None), "fd00:1::1/64"),
    "nat-elements": (_nft("flush map inet pycni masquerade4"), "masquerade4"),
    "nat-elements-IPv6": (_nft("flush map inet pycni masquerade6"), "masquerade6"),
    "nat-chain": (_nft("flush chain inet pycni postrouting"), "chain postrouting"),
    "filter-elements": (_nft("flush set bridge pycni genuine"), "genuine"),
    "filter-table": (_nft("delete table bridge pycni"), "prerouting"),
    "mtu-container": (_ip("link", "set", "eth0", "mtu", "1500"), "mtu of eth0 is 1500, more than 1400"),
    "mtu-host": (_ip("link", "set", "{port}", "mtu", "1300", container=None), "is 1300, not 1400"),
    "hairpin": (_bridge("hairpin", "off"), "hairpin is off"),
    "isolation": (_bridge("isolated", "on"), "isolation is on"),
}


@pytest.mark.parametrize("finding", FINDINGS)
def test_check_finds_what_is_broken(bridge: Runtime, finding: str) -> None:
    change, words = FINDINGS[finding]
    bridge.add("c1", NETWORK)
    bridge.check("c1", NETWORK)
    change(bridge.host, port_of(bridge.results["c1"]))
    assert words in find_differences(bridge, "c1", NETWORK)


def test_check_reports_all_differences_at_once(bridge: Runtime) -> None:
    bridge.add("c1", NETWORK)
    for finding in ("hairpin", "mtu-container", "address", "nat-elements"):
        FINDINGS[finding][0](bridge.host, port_of(bridge.results["c1"]))
    message = find_differences(bridge, "c1", NETWORK)
    for finding in ("hairpin", "mtu-container", "address", "nat-elements"):
        assert FINDINGS[finding][1] in message


@pytest.mark.parametrize(
    "later", [{"type": "tuning", "mtu": 1300}, {"type": "sbr"}], ids=["tuning lowers the MTU", "sbr moves the routes"]
)
def test_check_allows_what_a_later_plugin_of_the_chain_does(bridge: Runtime, later: dict[str, Any]) -> None:
    config = network(1, mtu=1400, cniVersion="1.0.0")
    result = bridge.add("c1", config)
    after = Runtime(bridge.host, f"{REFERENCE_DIR}/{later['type']}", bridge.path)
    bridge.results["c1"] = after.add("c1", {"cniVersion": "1.0.0", "name": "net1", **later, "prevResult": result})
    bridge.check("c1", config)


@pytest.mark.parametrize("key", ["promiscMode"])
def test_check_finds_that_the_bridge_is_no_longer_promiscuous(bridge: Runtime, key: str) -> None:
    config = network(1, promiscMode=True)
    bridge.add("c1", config)
    bridge.check("c1", config)
    bridge.host.run("ip", "link", "set", "br1", "promisc", "off")
    assert "promiscMode" in find_differences(bridge, "c1", config)


@pytest.mark.parametrize("what", ["file", "store"])
def test_check_finds_that_the_reservation_is_missing(bridge: Runtime, what: str) -> None:
    bridge.add("c1", NETWORK)
    path = "/var/lib/cni/networks" + ("/net1/10.1.0.2" if what == "file" else "")
    bridge.host.run("rm", "-r", path)
    error = refused(bridge, "CHECK", "c1", {**NETWORK, "prevResult": bridge.results["c1"]})
    assert error["code"] == 103
    assert "10.1.0.2" in error["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda result: result["ips"][0].update(address="10.1.0.77/16"), "10.1.0.77"),
        (lambda result: result["interfaces"][2].update(name="eth7"), "no interface eth0"),
        (lambda result: result["interfaces"][2].update(sandbox="/run/netns/c9"), "no interface eth0"),
        (lambda result: result["routes"].append({"dst": "203.0.113.0/24"}), "203.0.113.0/24"),
    ],
    ids=["address", "name", "sandbox", "route"],
)
def test_check_goes_by_the_previous_result(
    bridge: Runtime, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    config = network(1)
    result = bridge.add("c1", config)
    change(result)
    error = refused(bridge, "CHECK", "c1", {**config, "prevResult": result})
    assert error["code"] == 103
    assert words in error["msg"]


def test_forwarding_and_addresses_survive_a_second_network_on_the_bridge(bridge: Runtime) -> None:
    bridge.add("c1", NETWORK)
    subnet = {"type": "cni-ipam", "subnet": "10.1.0.0/16", "rangeStart": "10.1.9.0"}
    sharing = network(3, bridge="br1", mtu=1400, ipam=subnet)
    second = bridge.add("c2", sharing)
    bridge.check("c1", NETWORK)
    bridge.check("c2", sharing)
    assert sysctl(bridge.host, "ipv4/ip_forward") == "1"
    assert bridge.host.ping(address(second), "c1")
