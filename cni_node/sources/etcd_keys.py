"""The keys and values in etcd, and which pod range a node asks for. Pure.

    PREFIX/config                    {"networks": ["10.32.0.0/12"], "nodePrefixes": [24]}, written by the first node
    PREFIX/nodes/NAME                {"pods": [...], "addresses": [...], "mtu": 1500}
    PREFIX/subnets/10.32.7.0-24      {"node": NAME}; an entry without a node reserves a range

The entries of a node are tied to its lease, so etcd removes them when that ends.
Must not: call etcd.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from cni_node.snapshot import Node
from cni_node.sources.members import one_of_a_family
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from cni_protocol.errors import INVALID_CONFIG, CNIError


class Cluster(NamedTuple):
    """The cluster's pod networks, at most one per family, and the prefix length of a node's part of each."""

    networks: tuple[CIDR, ...]
    node_prefixes: tuple[int, ...]

    @property
    def parts(self) -> int:
        """How many nodes can have a part."""
        pairs = zip(self.networks, self.node_prefixes, strict=True)
        return min(1 << (prefix - network.prefix) for network, prefix in pairs)

    def part(self, index: int) -> tuple[CIDR, ...]:
        """Part number `index`, from 0: a pod range of each family."""
        pairs = zip(self.networks, self.node_prefixes, strict=True)
        return tuple(
            CIDR(IP(each.version, each.ip.value + (index << (each.ip.bits - prefix))), prefix) for each, prefix in pairs
        )


def check_cluster(cluster: Cluster) -> Cluster:
    """Check a Cluster, and return it. Raises CNIError when it cannot be used."""
    networks, prefixes = cluster
    shown = ", ".join(map(str, networks))
    if not networks or len({each.version for each in networks}) < len(networks) or len(networks) != len(prefixes):
        raise CNIError(INVALID_CONFIG, f"one range of a family and a prefix length for each are expected, not {shown}")
    for network, prefix in zip(networks, prefixes, strict=True):
        if network != network.network:
            raise CNIError(INVALID_CONFIG, f"{network} has host bits set; the network is {network.network}")
        if not network.prefix < prefix <= network.ip.bits - 2:
            most = network.ip.bits - 2  # a gateway and a pod
            raise CNIError(
                INVALID_CONFIG, f"a node's part of {network} is /{network.prefix + 1} to /{most}, not /{prefix}"
            )
    return cluster


def render_cluster(cluster: Cluster) -> str:
    """Encode the value of PREFIX/config."""
    return json.dumps({"networks": [str(each) for each in cluster.networks], "nodePrefixes": cluster.node_prefixes})


def parse_cluster(text: str) -> Cluster:
    """Parse the value of PREFIX/config. Raises CNIError."""
    try:
        document = json.loads(text)
        networks = tuple(parse_cidr(each) for each in document["networks"])
        return check_cluster(Cluster(networks, tuple(int(each) for each in document["nodePrefixes"])))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise CNIError(INVALID_CONFIG, f"{text[:60]!r} has no networks and nodePrefixes") from None


def render_node(node: Node) -> str:
    """Encode the value of PREFIX/nodes/NAME."""
    pods, addresses = [str(each) for each in node.pods], [str(each) for each in node.addresses]
    return json.dumps({"pods": pods, "addresses": addresses, "mtu": node.mtu})


def parse_node(name: str, text: str) -> Node:
    """Parse the value of PREFIX/nodes/NAME. Raises ValueError."""
    try:
        document = json.loads(text)
        pods = sorted(parse_cidr(each).network for each in document["pods"])
        addresses = [parse_ip(each) for each in document["addresses"]]
        mtu = int(document.get("mtu") or 0)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its entry {text[:60]!r} is not that of a node ({error!r})") from None
    if len({cidr.version for cidr in pods}) < len(pods):
        raise ValueError(f"two pod ranges of one family: {', '.join(map(str, pods))}")
    return Node(name, tuple(pods), one_of_a_family(addresses), mtu)


def subnet_key(prefix: str, cidr: CIDR) -> str:
    """The key of a pod range, below PREFIX/subnets/."""
    return f"{prefix}/subnets/{cidr.ip}-{cidr.prefix}"


def find_subnet(key: str) -> CIDR | None:
    """The pod range of a key below PREFIX/subnets/, None for any other key."""
    try:
        return parse_cidr(key.rpartition("/")[2].replace("-", "/"))
    except ValueError:
        return None


def render_owner(name: str) -> str:
    """Encode the value of PREFIX/subnets/RANGE."""
    return json.dumps({"node": name})


def find_owner(text: str) -> str:
    """The node's name in a value of PREFIX/subnets/RANGE, "" when it has none."""
    try:
        document: Any = json.loads(text)
        return str(document["node"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""


def candidates(cluster: Cluster, name: str, taken: Iterable[CIDR]) -> Iterator[tuple[CIDR, ...]]:
    """The free parts of a cluster, beginning at one that a digest of the node's name selects.

    So a node usually gets the same part again, and two nodes that start together seldom want the same one.
    """
    used = _used_parts(cluster, taken)
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    for step in range(cluster.parts):
        index = (first + step) % cluster.parts
        if index not in used:
            yield cluster.part(index)


def is_part(cluster: Cluster, pods: tuple[CIDR, ...]) -> bool:
    """Whether these pod ranges are exactly one part of the cluster."""
    used = _used_parts(cluster, pods)
    return len(used) == 1 and cluster.part(used.pop()) == pods


def overlap(one: CIDR, other: CIDR) -> bool:
    """Whether two ranges have an address in common."""
    return one.first in other or other.first in one


def _used_parts(cluster: Cluster, taken: Iterable[CIDR]) -> set[int]:
    used: set[int] = set()
    pairs = {each.version: (each, prefix) for each, prefix in zip(*cluster, strict=True)}
    for cidr in taken:
        network, prefix = pairs.get(cidr.version, (None, 0))
        if network is not None and overlap(network, cidr):
            shift = network.ip.bits - prefix
            first = (max(cidr.first.value, network.first.value) - network.first.value) >> shift
            last = (min(cidr.last.value, network.last.value) - network.first.value) >> shift
            used.update(range(first, min(last, cluster.parts - 1) + 1))
    return used
