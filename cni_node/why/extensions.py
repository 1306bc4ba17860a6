"""The extensions of iptables that are most used (xt matches and targets), on one packet. Pure.

Source: include/uapi/linux/netfilter/xt_*.h, netfilter_ipv4/ipt_*.h; iptables-extensions(8).
Must not: guess: what is not here cannot be told.
"""

import struct

from cni_node.why.machine import Machine, Outcome, is_echo, kind_of
from cni_node.why.packets import TRANSPORT, Packet
from cni_node.why.values import ACCEPT, DROP, PROTOCOLS
from cni_protocol.address import IP

Translation = tuple[IP | None, int, bool]  # address, port, whether it is the source's
_BY_STATE = {1 << 0: 1 << 0, 1 << 1: 1 << 1, 1 << 3: 1 << 3, 1 << 6: 1 << 8}  # NF_CT_STATE_* -> XT_CONNTRACK_STATE_*
_STATE, _ALIAS = 1 << 0, 1 << 13  # XT_CONNTRACK_*
_WITH_ADDRESS, _WITH_PORT = 1, 2  # NF_NAT_RANGE_*
_IGNORED = ("LOG", "NFLOG", "TCPMSS", "CHECKSUM", "TRACE", "CLASSIFY", "TOS", "DSCP", "CONNMARK")


def match(name: str, info: bytes, machine: Machine) -> Outcome:
    """Whether a packet fits, None where nobody can tell."""
    if name == "comment":
        return True
    if name == "statistic":
        return bool(machine.choose(2, "one by chance"))
    handler = {
        "tcp": _tcp,
        "udp": _udp,
        "conntrack": _conntrack,
        "addrtype": _addrtype,
        "mark": _mark,
        "multiport": _multiport,
    }.get(name)
    return handler(info, machine) if handler is not None else None


def _tcp(info: bytes, machine: Machine) -> Outcome:
    first, last, to_first, to_last, option, mask, wanted, inverted = struct.unpack_from("=HHHHBBBB", info)
    if option or machine.packet.protocol != PROTOCOLS["tcp"]:
        return None if option else False
    flags = machine.packet.header(TRANSPORT)[13]
    fits = [
        (first <= machine.packet.source_port <= last) != bool(inverted & 1),
        (to_first <= machine.packet.port <= to_last) != bool(inverted & 2),
        (flags & mask == wanted) != bool(inverted & 4),
    ]
    return all(fits)


def _udp(info: bytes, machine: Machine) -> Outcome:
    first, last, to_first, to_last, inverted = struct.unpack_from("=HHHHB", info)
    return (
        machine.packet.protocol == PROTOCOLS["udp"]
        and (int(first) <= machine.packet.source_port <= last) != bool(inverted & 1)
        and (to_first <= machine.packet.port <= to_last) != bool(inverted & 2)
    )


def _conntrack(info: bytes, machine: Machine) -> Outcome:
    flags, inverted, states, _ = struct.unpack_from("=HHHH", info, 146)
    if flags & ~(_STATE | _ALIAS):
        return None
    translated = machine.attached.connection.translated
    there = _BY_STATE[machine.attached.state] | translated["source"] << 6 | translated["destination"] << 7
    return bool(there & states) != bool(inverted & _STATE)


def _addrtype(info: bytes, machine: Machine) -> Outcome:
    source, destination, flags = struct.unpack_from("=HHI", info)
    if flags & ~3:
        return None
    packet, stack = machine.packet, machine.scene.stack
    fits = [
        not mask or bool(1 << kind_of(stack, address) & mask) != bool(flags & bit)
        for mask, address, bit in ((source, packet.source, 1), (destination, packet.destination, 2))
    ]
    return all(fits)


def _mark(info: bytes, machine: Machine) -> Outcome:
    mark, mask, inverted = struct.unpack_from("=IIB", info)
    return bool(machine.packet.mark & mask == mark) != bool(inverted)


def _multiport(info: bytes, machine: Machine) -> Outcome:
    kind, count = info[0], info[1]
    ports, flags, inverted = struct.unpack_from("=15H", info, 2), info[32:47], info[47]
    if kind > 2 or is_echo(machine.packet.protocol):
        return None if kind > 2 else False
    asked = [[machine.packet.source_port], [machine.packet.port], [machine.packet.source_port, machine.packet.port]]
    found, index = False, 0
    while index < count:
        last = ports[index + 1] if flags[index] else ports[index]
        found = found or any(ports[index] <= port <= last for port in asked[kind])
        index += 2 if flags[index] else 1
    return found != bool(inverted)


def target(name: str, revision: int, info: bytes, machine: Machine) -> "Outcome | Translation":
    """What is done with a packet: a verdict, a translation, True to go on; None where nobody can tell."""
    if name in _IGNORED:
        return True
    if name == "REJECT":
        return DROP, ""
    if name == "ACCEPT":
        return ACCEPT, ""
    if name == "MARK" and revision == 2:
        mark, mask = struct.unpack_from("=II", info)
        machine.packet = machine.packet._replace(mark=machine.packet.mark & ~mask & 0xFFFFFFFF ^ mark)
        return True
    if name == "MASQUERADE":
        return None, 0, True
    if name in ("DNAT", "SNAT"):
        return _range(revision, info, machine.packet, source=name == "SNAT")
    return None


def _range(revision: int, info: bytes, packet: Packet, *, source: bool) -> "Translation | None":
    """struct nf_nat_ipv4_multi_range_compat for IPv4's first revision, else nf_nat_range."""
    if packet.version == 4 and revision == 0:
        _, flags, first, last, port, last_port = struct.unpack_from("=II4s4s2s2s", info)
    else:
        flags, first, last, port, last_port = struct.unpack_from("=I16s16s2s2s", info)
        first, last = first[: packet.source.bits // 8], last[: packet.source.bits // 8]
    if first != last or port != last_port:
        return None
    address = IP(packet.version, int.from_bytes(first, "big")) if flags & _WITH_ADDRESS else None
    return address, int.from_bytes(port, "big") if flags & _WITH_PORT else 0, source
