"""Two nodes whose pods reach each other: over routes on one link, and over vxlan. Judged by `ip -j` and TCP."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.conftest import REFERENCE_DIR
from tests.host import Host, open_host
from tests.system.runtime import Runtime, addresses_of, find_source

pytestmark = pytest.mark.kernel

PORT = 8080
NODES = {4: ("192.168.1.11", "192.168.1.12"), 6: ("fd00:a::11", "fd00:a::12")}  # what the nodes have on the link
PODS = {4: ("10.240.1.0/24", "10.240.2.0/24"), 6: ("fd00:1::/64", "fd00:2::/64")}
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
UNDERLAYS = pytest.mark.parametrize("underlay", [4, 6], ids=["over IPv4", "over IPv6"])


class Pair(NamedTuple):
    """Two nodes on one link, with the plugin on each."""

    first: Runtime
    second: Runtime

    def both(self) -> tuple[Runtime, Runtime]:
        return (self.first, self.second)


@pytest.fixture
def pair(host: Host, bin_dir: str) -> Iterator[Pair]:
    other = open_host()
    try:
        link = ["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "uplink", "netns", str(other.pid)]
        host.run(*link)
        for i, node in enumerate((host, other)):
            for version, prefix in ((4, 24), (6, 64)):
                nodad = ["nodad"] if version == 6 else []
                node.run("ip", "address", "add", f"{NODES[version][i]}/{prefix}", "dev", "uplink", *nodad)
            node.run("ip", "link", "set", "uplink", "up")
        runtimes = [Runtime(node, f"{bin_dir}/cni-bridge", (bin_dir, REFERENCE_DIR)) for node in (host, other)]
        yield Pair(*runtimes)
    finally:
        other.close()


def network(index: int, **keys: Any) -> dict[str, Any]:
    """The network's configuration on one of the two nodes."""
    return {
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "cni-bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "ipam": {"type": "cni-ipam", "ranges": [[{"subnet": PODS[version][index]}] for version in (4, 6)]},
        **keys,
    }


def routes_to(*others: int) -> dict[str, Any]:
    entries = [{"dst": PODS[version][i], "gw": NODES[version][i]} for i in others for version in (4, 6)]
    return {"nodeRoutes": entries}


def overlay_to(underlay: int, *others: int, **keys: Any) -> dict[str, Any]:
    peers = [{"node": NODES[underlay][i], "podCIDR": PODS[version][i]} for i in others for version in (4, 6)]
    return {"overlay": {"type": "vxlan", "vni": 42, "port": 4789, "peers": peers, **keys}}


def our_routes(host: Host) -> dict[str, str]:
    found = [*host.ip("route", "show", "proto", "80"), *host.ip("-6", "route", "show", "proto", "80")]
    return {entry["dst"]: entry["gateway"] for entry in found}


def assert_reached(pair: Pair, results: list[Any], version: int, underlay: int) -> None:
    """Pods reach each other, nodes the pods of the other node and pods the other node, under their own addresses."""
    pods = [next(a for a in addresses_of(result) if (":" in a) == (version == 6)) for result in results]
    for source, target in ((0, 1), (1, 0)):
        seen = connect(pair.both()[source].host, "p", pair.both()[target].host, "p", pods[target])
        assert seen == pods[source]
        connect(pair.both()[source].host, None, pair.both()[target].host, "p", pods[target])
        if version != underlay:
            continue  # the list of peers does not have that address of the node
        node = NODES[version][target]
        assert connect(pair.both()[source].host, "p", pair.both()[target].host, None, node) == pods[source]


def connect(client: Host, container: str | None, server: Host, at: str | None, address: str) -> str:
    """The client's address as a server on another host sees it."""
    return find_source(client, container, at, (address, PORT), server_host=server)


@FAMILIES
def test_pods_of_two_nodes_on_one_link_reach_each_other_without_nat(pair: Pair, version: int) -> None:
    results = [node.add("p", network(i, **routes_to(1 - i))) for i, node in enumerate(pair.both())]
    assert_reached(pair, results, version, version)
    for i, node in enumerate(pair.both()):
        node.check("p", network(i, **routes_to(1 - i)))
        node.delete("p", network(i, **routes_to(1 - i)))


@FAMILIES
@UNDERLAYS
def test_pods_of_two_nodes_reach_each_other_over_vxlan(pair: Pair, underlay: int, version: int) -> None:
    results = [node.add("p", network(i, **overlay_to(underlay, 1 - i))) for i, node in enumerate(pair.both())]
    assert_reached(pair, results, version, underlay)
    for i, node in enumerate(pair.both()):
        node.check("p", network(i, **overlay_to(underlay, 1 - i)))
        [link] = node.host.ip("link", "show", "vxlan.42")
        assert link["linkinfo"]["info_data"]["learning"] is False
        header = 50 if underlay == 4 else 70
        [inside] = node.host.ip("link", "show", "eth0", container="p")
        assert (link["mtu"], inside["mtu"]) == (1500 - header, 1500 - header)
        node.delete("p", network(i, **overlay_to(underlay, 1 - i)))


def test_the_same_list_may_stand_on_every_node(pair: Pair) -> None:
    pair.first.add("p", network(0, **routes_to(0, 1)))
    assert our_routes(pair.first.host) == {"10.240.2.0/24": NODES[4][1], "fd00:2::/64": NODES[6][1]}


def test_other_peers_replace_the_former_ones_and_leave_others_routes_alone(pair: Pair) -> None:
    host = pair.first.host
    host.run("ip", "route", "add", "10.9.0.0/16", "via", NODES[4][1])
    host.run("ip", "route", "add", "10.8.0.0/16", "via", NODES[4][1], "proto", "80", "metric", "5")
    pair.first.add("p", network(0, **routes_to(1)))
    moved = {"nodeRoutes": [{"dst": PODS[4][1], "gw": "192.168.1.77"}, {"dst": "10.240.3.0/24", "gw": NODES[4][1]}]}
    outcome = pair.first.call("CHECK", "p", {**network(0, **moved), "prevResult": pair.first.results["p"]})
    assert (outcome.status, outcome.document["code"]) == (1, 103)
    assert "route 10.240.3.0/24 via 192.168.1.12" in outcome.document["msg"]
    pair.first.add("q", network(0, **moved))
    assert our_routes(host) == {
        "10.8.0.0/16": NODES[4][1],
        PODS[4][1]: "192.168.1.77",
        "10.240.3.0/24": NODES[4][1],
    }
    pair.first.add("r", network(0, nodeRoutes=[]))
    assert our_routes(host) == {"10.8.0.0/16": NODES[4][1]}
    assert [entry["gateway"] for entry in host.ip("route", "show", "10.9.0.0/16")] == [NODES[4][1]]


def test_status_and_check_name_what_is_missing(pair: Pair) -> None:
    config = network(0, **routes_to(1))
    pair.first.add("p", config)
    assert pair.first.call("STATUS", "p", config).status == 0
    pair.first.host.run("ip", "route", "flush", "proto", "80")
    for command, code in (("STATUS", 51), ("CHECK", 103)):
        outcome = pair.first.call(command, "p", {**config, "prevResult": pair.first.results["p"]})
        assert (outcome.status, outcome.document["code"]) == (1, code)
        assert "route 10.240.2.0/24 via 192.168.1.12 proto 80 metric" in outcome.document["msg"]
    pair.first.add("q", config)
    assert pair.first.call("STATUS", "p", config).status == 0


@pytest.mark.parametrize("what", ["link", "neigh", "fdb", "route"])
def test_every_part_of_an_overlay_is_missed_and_mended(pair: Pair, what: str) -> None:
    config = network(0, **overlay_to(4, 1))
    pair.first.add("p", config)
    host = pair.first.host
    breakages = {
        "link": "ip link del vxlan.42",
        "neigh": "ip neigh flush dev vxlan.42 nud permanent",
        "fdb": "bridge fdb del $(bridge fdb show dev vxlan.42 | cut -d' ' -f1) dev vxlan.42 dst 192.168.1.12",
        "route": "ip route flush proto 80",
    }
    host.run("sh", "-c", breakages[what])
    outcome = pair.first.call("CHECK", "p", {**config, "prevResult": pair.first.results["p"]})
    assert (outcome.status, outcome.document["code"]) == (1, 103)
    words = {"link": "forwarding entry", "neigh": "neighbour", "fdb": "forwarding entry", "route": "route"}
    assert words[what] in outcome.document["msg"]
    results = [pair.first.add("q", config), pair.second.add("p", network(1, **overlay_to(4, 0)))]
    pair.first.check("p", config)
    second = addresses_of(results[1])[0]
    assert connect(host, "q", pair.second.host, "p", second) == addresses_of(results[0])[0]


@pytest.mark.parametrize("keys", [routes_to(1), overlay_to(4, 1)], ids=["routes", "overlay"])
def test_an_add_that_fails_leaves_no_way_behind(pair: Pair, keys: dict[str, Any]) -> None:
    host = pair.first.host
    host.add_container("p")
    bad = (
        {"nodeRoutes": [*keys["nodeRoutes"], {"dst": "10.250.0.0/16", "gw": "203.0.113.9"}]}
        if "nodeRoutes" in keys
        else keys
    )
    if bad is keys:
        host.run("ip", "link", "add", "cni0", "type", "bridge")
        host.run("ip", "address", "add", "10.240.1.77/24", "dev", "cni0")  # in the way of the gateway's
    outcome = pair.first.call("ADD", "p", network(0, **bad))
    assert (outcome.status, outcome.document["code"]) == (1, 7)
    assert our_routes(host) == {}
    assert "vxlan.42" not in host.link_names()


def test_another_address_of_the_node_makes_the_device_anew(pair: Pair) -> None:
    config = network(0, **overlay_to(4, 1))
    pair.first.add("p", config)
    host = pair.first.host
    [before] = host.ip("link", "show", "vxlan.42")
    host.run("ip", "address", "flush", "dev", "uplink")
    host.run("ip", "address", "add", "192.168.1.21/24", "dev", "uplink")
    pair.first.add("q", config)
    [after] = host.ip("link", "show", "vxlan.42")
    assert (before["address"] != after["address"], after["linkinfo"]["info_data"]["local"]) == (True, "192.168.1.21")
    pair.first.check("q", config)


def test_a_device_of_somebody_else_is_refused(pair: Pair) -> None:
    pair.first.host.run("ip", "link", "add", "vxlan.42", "type", "bridge")
    pair.first.host.add_container("p")
    outcome = pair.first.call("ADD", "p", network(0, **overlay_to(4, 1)))
    assert (outcome.status, outcome.document["code"]) == (1, 7)
    assert "vxlan.42 is there and does not belong to network pods" in outcome.document["msg"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"device": "nosuch"}, "there is no interface nosuch"),
        ({"device": "lo"}, "has no IPv4 address"),
        ({"peers": [{"node": "203.0.113.9", "podCIDR": "10.9.0.0/16"}]}, "node 203.0.113.9 cannot be reached"),
    ],
    ids=["no device", "device without address", "peer out of reach"],
)
def test_an_underlay_that_is_no_use_is_named(pair: Pair, keys: dict[str, Any], words: str) -> None:
    pair.first.host.run("ip", "address", "flush", "dev", "lo")
    pair.first.host.add_container("p")
    outcome = pair.first.call("ADD", "p", network(0, **overlay_to(4, 1, **keys)))
    assert (outcome.status, outcome.document["code"]) == (1, 7)
    assert words in outcome.document["msg"]


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("state", ["on", "off"])
def test_bridge_netfilter_is_told_where_it_is_off(pair: Pair, required: bool, state: str) -> None:
    host = pair.first.host
    config = network(0, requireBridgeNetfilter=required)
    pair.first.add("p", config)
    for key in ("iptables", "ip6tables"):
        host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{key}={int(state == 'on')}")
    outcome = pair.first.call("STATUS", "p", config)
    told = outcome.document["msg"] if outcome.status else outcome.stderr
    assert outcome.status == (1 if required and state == "off" else 0)
    assert ("net.bridge.bridge-nf-call-iptables=1" in told) == (state == "off")
