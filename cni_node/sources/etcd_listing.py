"""The nodes and their pod ranges in etcd, read once and printed as a table (`pycni cluster`).

Must not: change anything.
"""

from typing import NamedTuple

from cni_node.snapshot import Node
from cni_node.sources.etcd_calls import Etcd
from cni_node.sources.etcd_keys import find_owner, find_subnet, parse_node


class Holding(NamedTuple):
    """A node and the remaining seconds of its lease; -1 without a lease: then its entry stays for ever."""

    node: Node
    seconds_left: int


class Holdings(NamedTuple):
    """All nodes, the reserved ranges that belong to no node, and invalid entries as sentences."""

    nodes: tuple[Holding, ...]
    reserved: tuple[str, ...]
    problems: tuple[str, ...]


def read_holdings(etcd: Etcd, prefix: str) -> Holdings:
    """Read all nodes, sorted by name. Raises CallError.

    It takes one request for each lease, since etcd has no request for several.
    """
    entries, _ = etcd.entries(f"{prefix}/nodes/")
    subnets, _ = etcd.entries(f"{prefix}/subnets/")
    nodes, problems = [], []
    for entry in entries:
        name = entry.key.removeprefix(f"{prefix}/nodes/")
        try:
            node = parse_node(name, entry.value)
        except ValueError as error:
            problems.append(f"node {name}: {error}")
            continue
        nodes.append(Holding(node, etcd.seconds_left(entry.lease) if entry.lease else -1))
    names = {holding.node.name for holding in nodes}
    pairs = [(find_subnet(entry.key), find_owner(entry.value)) for entry in subnets]
    reserved = tuple(f"{cidr} {owner}".strip() for cidr, owner in pairs if cidr is not None and owner not in names)
    return Holdings(tuple(nodes), reserved, tuple(problems))


def render_holdings(holdings: Holdings) -> str:
    """A table with a line for each node (pure)."""
    rows = [("NODE", "PODS", "ADDRESS", "MTU", "LEASE")]
    for node, seconds in holdings.nodes:
        pods, addresses = (",".join(map(str, each)) or "-" for each in (node.pods, node.addresses))
        rows.append((node.name, pods, addresses, str(node.mtu or "-"), f"{seconds} s" if seconds >= 0 else "none"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"reserved: {each}" for each in holdings.reserved]
    lines += [f"problem: {each}" for each in holdings.problems]
    return "\n".join(lines) + "\n"
