"""Who has which pod range in etcd, for whoever asks: read once, and as a table.

Must not: change anything.
"""

from typing import NamedTuple

from cni_node.snapshot import Node
from cni_node.sources.etcd_calls import Etcd
from cni_node.sources.etcd_keys import find_owner, find_subnet, parse_node


class Holding(NamedTuple):
    """A node and what is left of its lease, in seconds: -1 without one, where its entry stays for ever."""

    node: Node
    seconds_left: int


class Holdings(NamedTuple):
    """All nodes, the ranges that no node's entry goes with, and what makes no sense."""

    nodes: tuple[Holding, ...]
    reserved: tuple[str, ...]
    problems: tuple[str, ...]


def read_holdings(etcd: Etcd, prefix: str) -> Holdings:
    """What etcd has at the moment, in the order of the nodes' names. Raises CallError.

    One request for each lease, since etcd tells of no more than one at a time.
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
