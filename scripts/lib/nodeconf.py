"""The network configuration of one node: options -> the text of its conflist (pure).

Every problem is reported at once, as lines of a ValueError.
"""

import argparse
import json
from typing import Any, NamedTuple

from cni_protocol.address import CIDR, IP, any_network, parse_cidr, parse_ip

NETWORK = "pycni"
VXLAN_PORT = 4789  # IANA's
MIN_MTU = 68  # ETH_MIN_MTU; for IPv6 1280, RFC 8200 section 5
MAX_MTU = 65535
MAX_VNI = (1 << 24) - 1  # RFC 7348


class Peer(NamedTuple):
    """Another node: its pod range, and its address on the nodes' network."""

    pods: CIDR
    node: IP


class Node(NamedTuple):
    """What a node's configuration is made of. mtu in bytes, 0 is the plugin's choice; `device` may be empty."""

    pods: list[CIDR]
    peers: list[Peer]
    mtu: int
    vxlan: bool
    vni: int
    port: int
    device: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that parse_node reads."""
    option = parser.add_argument
    option("--pod-cidr", metavar="CIDR", help="the pods of this node, IPv4, as in 10.244.1.0/24")
    option("--pod-cidr6", metavar="CIDR", help="the same, IPv6")
    option(
        "--cluster-cidr", metavar="CIDR", help="the pods of all nodes; this node's part of it is said by the next two"
    )
    option("--node-index", metavar="N", type=int, help="which part, counted from 0")
    option(
        "--node-bits", metavar="N", type=int, help="how many bits tell the nodes apart: 10.32.0.0/12 and 12 make /24"
    )
    option("--peer", metavar="CIDR=ADDRESS", action="append", default=[], help="another node: its pods, its address")
    option(
        "--node-ip", metavar="ADDRESS", action="append", default=[], help="of this node; peers with it are passed over"
    )
    option("--mtu", metavar="N", type=int, default=0, help="of the pods' interfaces, in bytes")
    option("--overlay", choices=["vxlan"], help="to nodes that are not on one link")
    option("--vni", metavar="N", type=int, default=1, help="of the overlay [1]")
    option("--port", metavar="N", type=int, default=VXLAN_PORT, help=f"of the overlay, UDP [{VXLAN_PORT}]")
    option("--device", metavar="NAME", default="", help="the interface that the overlay goes out by [the route's]")


def parse_node(options: argparse.Namespace) -> Node:
    """The node that the options describe. Raises ValueError."""
    problems: list[str] = []
    pods = sorted([*_parse_pods(options, problems), *_parse_part(options, problems)])
    if not pods and not problems:
        problems.append("one of --pod-cidr, --pod-cidr6 and --cluster-cidr has to be given")
    if len({cidr.version for cidr in pods}) < len(pods):
        problems.append(f"two pod ranges of one family: {', '.join(map(str, pods))}")
    peers = _parse_peers(options, pods, problems)
    _check_numbers(options, pods, problems)
    if problems:
        raise ValueError("\n".join(problems))
    return Node(pods, peers, options.mtu, bool(options.overlay), options.vni, options.port, options.device)


def render(node: Node) -> str:
    """The conflist."""
    bridge: dict[str, Any] = {
        "type": "cni-bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "capabilities": {"portMappings": True},
    }
    if node.mtu:
        bridge["mtu"] = node.mtu
    if node.vxlan:
        overlay: dict[str, Any] = {"type": "vxlan", "vni": node.vni, "port": node.port}
        if node.device:
            overlay["device"] = node.device
        peers = [{"node": str(peer.node), "podCIDR": str(peer.pods)} for peer in node.peers]
        bridge["overlay"] = {**overlay, "peers": peers}
    else:  # an empty list too: routes to former peers go
        bridge["nodeRoutes"] = [{"dst": str(peer.pods), "gw": str(peer.node)} for peer in node.peers]
    bridge["ipam"] = {
        "type": "cni-ipam",
        "ranges": [[{"subnet": str(cidr)}] for cidr in node.pods],
        "routes": [{"dst": str(any_network(cidr.version))} for cidr in node.pods],
    }
    # containerd 1.6 reads results up to 1.0.0; who knows cniVersions takes the newest, which has STATUS and GC
    document = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": NETWORK, "plugins": [bridge]}
    return json.dumps(document, indent=2) + "\n"


def node_range(cluster: CIDR, bits: int, index: int) -> CIDR:
    """The part of a cluster's range that belongs to a node: index 3 of 10.32.0.0/12 with 12 bits is 10.32.3.0/24.

    Raises ValueError.
    """
    prefix = cluster.prefix + bits
    longest = cluster.ip.bits - 2  # a gateway and a pod
    if bits < 1 or prefix > longest:
        raise ValueError(f"--node-bits {bits}: {cluster} leaves 1 to {longest - cluster.prefix} bits for nodes")
    if not 0 <= index < 1 << bits:
        raise ValueError(f"--node-index {index}: with {bits} bits nodes are counted from 0 to {(1 << bits) - 1}")
    return CIDR(IP(cluster.version, cluster.first.value + (index << (cluster.ip.bits - prefix))), prefix)


def _parse_pods(options: argparse.Namespace, problems: list[str]) -> list[CIDR]:
    found = []
    for name, text, version in (("--pod-cidr", options.pod_cidr, 4), ("--pod-cidr6", options.pod_cidr6, 6)):
        cidr = _parse_network(name, text, problems) if text else None
        if cidr is None:
            continue
        if cidr.version != version:
            problems.append(
                f"{name} {text} is IPv{cidr.version}; that is said by --pod-cidr{'6' if version == 4 else ''}"
            )
        elif cidr.prefix > cidr.ip.bits - 2:
            problems.append(f"{name} {text} has no room for a gateway and a pod; at most /{cidr.ip.bits - 2}")
        found.append(cidr)
    return found


def _parse_part(options: argparse.Namespace, problems: list[str]) -> list[CIDR]:
    given = (options.cluster_cidr, options.node_index, options.node_bits)
    if all(value is None for value in given):
        return []
    if any(value is None for value in given):
        problems.append("--cluster-cidr, --node-index and --node-bits come together")
        return []
    cluster = _parse_network("--cluster-cidr", options.cluster_cidr, problems)
    if cluster is None:
        return []
    try:
        return [node_range(cluster, options.node_bits, options.node_index)]
    except ValueError as error:
        problems.append(str(error))
        return []


def _parse_network(name: str, text: str, problems: list[str]) -> CIDR | None:
    try:
        cidr = parse_cidr(text)
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None
    if cidr != cidr.network:
        problems.append(f"{name} {text} has host bits set; the network is {cidr.network}")
        return None
    return cidr


def _parse_peers(options: argparse.Namespace, pods: list[CIDR], problems: list[str]) -> list[Peer]:
    """The other nodes in the order of their ranges, so that the order of options changes nothing."""
    own = {ip for text in options.node_ip if (ip := _parse_address("--node-ip", text, problems))}
    peers: set[Peer] = set()
    for text in options.peer:
        range_text, _, address = text.partition("=")
        name = f"--peer {text}"
        cidr = _parse_network(name, range_text, problems)
        ip = _parse_address(name, address, problems)
        if cidr is None or ip is None or ip in own or cidr in pods:
            continue
        if not options.overlay and cidr.version != ip.version:
            problems.append(f"{name}: a route to IPv{cidr.version} needs an IPv{cidr.version} address (or --overlay)")
        problems += [
            f"{name} overlaps {other}"
            for other in (*pods, *(peer.pods for peer in peers))
            if other != cidr and (cidr.ip in other or other.ip in cidr)
        ]
        if any(peer.pods == cidr and peer.node != ip for peer in peers):
            problems.append(f"{name}: another --peer has the same pods")
        peers.add(Peer(cidr, ip))
    return sorted(peers)


def _parse_address(name: str, text: str, problems: list[str]) -> IP | None:
    try:
        return parse_ip(text)
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None


def _check_numbers(options: argparse.Namespace, pods: list[CIDR], problems: list[str]) -> None:
    least = 1280 if any(cidr.version == 6 for cidr in pods) else MIN_MTU
    for name, value, low, high in (
        ("--mtu", options.mtu or least, least, MAX_MTU),
        ("--vni", options.vni, 1, MAX_VNI),
        ("--port", options.port, 1, 65535),
    ):
        if not low <= value <= high:
            problems.append(f"{name} {value} is not in {low} to {high}")
    if options.device and not options.overlay:
        problems.append("--device is for --overlay")
