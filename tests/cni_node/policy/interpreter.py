"""What a compiled table does with the first packet of a connection: an nftables of one page, without a kernel."""

from cni_node.policy.desired import NETWORKS, PORTS, Allow, Desired, Set
from cni_node.policy.evaluator import Connection
from cni_node.policy.model import PortRange
from cni_protocol.address import IP

NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "GRE": 47, "ESP": 50}


def is_let_through(table: Desired, asked: Connection) -> bool:
    """Whether the base chain comes to its end."""
    source, destination = asked.source, asked.destination
    version = source.version
    if source.packed + destination.packed in table.sets[f"self{version}"].elements:
        return True
    for direction, subject in (("egress", source), ("ingress", destination)):
        name = table.sets[f"{direction}{version}"].elements.get(subject.packed)
        if name == "pending":
            return False
        if name is not None:
            chain = table.chains[str(name)]
            assert chain.direction == direction
            other = destination if direction == "egress" else source
            if not any(_allows(table, allow, asked, other) for allow in chain.allows):
                return False
    return True


def _allows(table: Desired, allow: Allow, asked: Connection, other: IP) -> bool:
    if allow.version not in (0, other.version):
        return False
    service = bytes([NUMBERS[asked.protocol], 0, 0, 0]) + asked.port.to_bytes(2, "big") + bytes(2)
    return (
        (not allow.peers or _has(table.sets[allow.peers], other.packed))
        and (allow.port is None or _is_in(allow.port, asked))
        and (not allow.ports or _has(table.sets[allow.ports], service))
        and (not allow.named or _has(table.sets[allow.named], asked.destination.packed + service))
    )


def _is_in(port: PortRange, asked: Connection) -> bool:
    return port.protocol == asked.protocol and port.first <= asked.port <= port.last


def _has(found: Set, key: bytes) -> bool:
    if found.kind == NETWORKS:
        return any(first <= key <= str_free(last) for first, last in found.elements.items())
    if found.kind == PORTS:
        return any(
            first[:4] == key[:4] and first[4:] <= key[4:] <= str_free(last)[4:]
            for first, last in found.elements.items()
        )
    return key in found.elements


def str_free(value: bytes | str) -> bytes:
    """The last key of an interval."""
    assert isinstance(value, bytes)
    return value
