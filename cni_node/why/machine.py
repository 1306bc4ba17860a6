"""The expressions of nftables on one packet: what they load, compare and set. Pure.

Each returns True to go on, False where the rule does not fit, a verdict (code, chain), or None where nobody can tell.
Source: net/netfilter/nft_*.c, include/uapi/linux/netfilter/nf_tables.h.
Must not: know the order of rules.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

from cni_node.doctor.facts import Link
from cni_node.why.packets import NETWORK, SIZE, Packet
from cni_node.why.routing import find_route, has_route, is_link_local, is_local
from cni_node.why.sets import find_element
from cni_node.why.tracking import ORIGINAL, Attached
from cni_node.why.values import PROTOCOLS, Attributes, ChainKey, Stack
from cni_protocol.address import IP

Outcome = bool | tuple[int, str] | None
Choose = Callable[[int, str], int]
_NFPROTO, _ETHERTYPE = {4: 2, 6: 10}, {4: 0x0800, 6: 0x86DD}
_UNICAST, _LOCAL, _BROADCAST, _MULTICAST = 1, 2, 3, 5  # RTN_*
_SADDR, _DADDR = 1, 2  # NFTA_FIB_F_*


class Scene(NamedTuple):
    """Where a packet is: the stack, the family's table, and the interfaces by name, empty where it has none."""

    stack: Stack
    incoming: str = ""
    outgoing: str = ""


class Machine:
    """Registers, and what they are loaded from. `packet` and the mark of its connection may change."""

    def __init__(self, scene: Scene, packet: Packet, attached: Attached, choose: Choose) -> None:
        self.scene, self.packet, self.attached, self.choose = scene, packet, attached, choose
        self._registers = bytearray(80)  # numbers 1 to 4 are of 16 bytes, from 8 on of 4

    def load(self, register: int, length: int) -> bytes:
        """What stands in a register."""
        start = _at(register)
        return bytes(self._registers[start : start + length])

    def store(self, register: int, data: bytes) -> bool:
        """Have it stand there, filled up to words."""
        start, size = _at(register), len(data) + -len(data) % 4
        self._registers[start : start + size] = data.ljust(size, b"\0")
        return True

    def run(self, name: str, values: Attributes, key: ChainKey) -> Outcome:
        """One expression of a rule in the chain `key`."""
        if name == "lookup":
            return self._lookup(values, key)
        handlers = {
            "immediate": self._immediate,
            "payload": self._payload,
            "cmp": self._compare,
            "bitwise": self._bitwise,
            "byteorder": self._byteorder,
            "range": self._range,
            "meta": self._meta,
            "ct": self._connection,
            "fib": self._fib,
            "numgen": self._number,
        }
        return handlers[name](values) if name in handlers else None

    def redirected(self) -> IP:
        """The address of the interface that the packet came in by, else the loopback's."""
        stack, version = self.scene.stack, self.packet.version
        links = [link.ifindex for link in stack.links if link.name == self.scene.incoming]
        own = [each.cidr.ip for each in stack.addresses if each.ifindex in links and each.cidr.version == version]
        return next(iter(own), IP(4, 127 << 24 | 1) if version == 4 else IP(6, 1))

    def _immediate(self, values: Attributes) -> Outcome:
        data = values["DATA"]
        if "NFTA_DATA_VERDICT" in data:
            verdict = data["NFTA_DATA_VERDICT"]
            return verdict.get("NFTA_VERDICT_CODE", 0), verdict.get("NFTA_VERDICT_CHAIN", "")
        return self.store(values["DREG"], data["NFTA_DATA_VALUE"])

    def _payload(self, values: Attributes) -> Outcome:
        base, offset, length = values.get("BASE", 0), values.get("OFFSET", 0), values["LEN"]
        if base > 2:
            return None
        if "SREG" in values:
            return self._write(base, offset, self.load(values["SREG"], length))
        header = self.packet.header(base)
        return offset + length <= len(header) and self.store(values["DREG"], header[offset : offset + length])

    def _write(self, base: int, offset: int, data: bytes) -> Outcome:
        places = {12: "source", 16: "destination"} if self.packet.version == 4 else {8: "source", 24: "destination"}
        if base != NETWORK or offset not in places or len(data) != self.packet.source.bits // 8:
            return None
        address = IP(self.packet.version, int.from_bytes(data, "big"))
        source = places[offset] == "source"
        self.packet = self.packet._replace(source=address) if source else self.packet._replace(destination=address)
        return True

    def _compare(self, values: Attributes) -> Outcome:
        wanted = values["DATA"]["NFTA_DATA_VALUE"]
        found = self.load(values["SREG"], len(wanted))
        outcomes = (found == wanted, found != wanted, found < wanted, found <= wanted, found > wanted, found >= wanted)
        return bool(outcomes[values.get("OP", 0)])

    def _range(self, values: Attributes) -> Outcome:
        first, last = values["FROM"]["NFTA_DATA_VALUE"], values["TO"]["NFTA_DATA_VALUE"]
        return bool(first <= self.load(values["SREG"], len(first)) <= last) != bool(values.get("OP", 0))

    def _bitwise(self, values: Attributes) -> Outcome:
        if values.get("OP", 0):  # shifts
            return None
        mask, xor = values["MASK"]["NFTA_DATA_VALUE"], values["XOR"]["NFTA_DATA_VALUE"]
        found = self.load(values["SREG"], values["LEN"])
        return self.store(values["DREG"], bytes(a & m ^ x for a, m, x in zip(found, mask, xor, strict=False)))

    def _byteorder(self, values: Attributes) -> Outcome:
        size, data = values["SIZE"], self.load(values["SREG"], values["LEN"])
        words = [data[start : start + size] for start in range(0, len(data), size)]
        swapped = words if sys.byteorder == "big" else [word[::-1] for word in words]
        return self.store(values["DREG"], b"".join(swapped))

    def _meta(self, values: Attributes) -> Outcome:
        key = values.get("KEY", 0)
        if "SREG" in values:
            if key == 3:
                self.packet = self.packet._replace(mark=int.from_bytes(self.load(values["SREG"], 4), sys.byteorder))
            return True
        data = self._of_packet(key)
        return None if data is None else self.store(values["DREG"], data)

    def _of_packet(self, key: int) -> bytes | None:
        """By the numbers NFT_META_*."""
        packet, scene = self.packet, self.scene
        indexes = {link.name: link.ifindex for link in scene.stack.links}
        found: dict[int, bytes] = {
            0: _native(SIZE),
            1: _ETHERTYPE[packet.version].to_bytes(2, "big"),
            3: _native(packet.mark),
            4: _native(indexes.get(scene.incoming, 0)),
            5: _native(indexes.get(scene.outgoing, 0)),
            6: scene.incoming.encode().ljust(16, b"\0"),
            7: scene.outgoing.encode().ljust(16, b"\0"),
            15: bytes([_NFPROTO[packet.version]]),
            16: bytes([packet.protocol]),
            19: b"\0",  # for this host
        }
        if (key == 4 and not scene.incoming) or (key == 5 and not scene.outgoing):
            return None
        return found.get(key)

    def _connection(self, values: Attributes) -> Outcome:
        key, attached = values.get("KEY", 0), self.attached
        if "SREG" in values:
            if key == 3:
                attached.connection.mark = int.from_bytes(self.load(values["SREG"], 4), sys.byteorder)
            return True
        if not attached.valid and key:
            return False
        data = self._of_connection(key, values.get("DIRECTION"))
        return None if data is None else self.store(values["DREG"], data)

    def _of_connection(self, key: int, direction: int | None) -> bytes | None:
        """By the numbers NFT_CT_*."""
        attached = self.attached
        there, back = attached.connection.first, attached.connection.there.back()
        packet = there if (direction if direction is not None else ORIGINAL) == ORIGINAL else back
        found: dict[int, bytes] = {
            0: _native(attached.state),
            1: bytes([attached.direction]),
            2: _native(attached.status),
            3: _native(attached.connection.mark),
            7: bytes([_NFPROTO[packet.version]]),
            10: bytes([packet.protocol]),
            **dict.fromkeys((8, 19 if packet.version == 4 else 21), packet.source.packed),
            **dict.fromkeys((9, 20 if packet.version == 4 else 22), packet.destination.packed),
            11: packet.source_port.to_bytes(2, "big"),
            12: packet.port.to_bytes(2, "big"),
        }
        return found.get(key)

    def _fib(self, values: Attributes) -> Outcome:
        flags, result = values.get("FLAGS", 0), values.get("RESULT", 0)
        if flags & ~(_SADDR | _DADDR | 4 | 8 | 16 | 32):
            return None
        address = self.packet.source if flags & _SADDR else self.packet.destination
        stack = self.scene.stack
        if result == 3:
            return self.store(values["DREG"], _native(kind_of(stack, address)))
        other = self.packet.destination if flags & _SADDR else self.packet.source
        if flags & 8 and (self.scene.incoming == "lo" or is_link_local(address)):
            return self._way(values, next((each for each in stack.links if each.name == self.scene.incoming), None))
        route = find_route(stack, address, other, mark=self.packet.mark if flags & 4 else 0)
        there = has_route(route) and not route.refuses and not route.local
        link = stack.at(route.ifindex) if there else None
        if link is not None and flags & 8 and link.name != self.scene.incoming:
            link = None
        return self._way(values, link)

    def _way(self, values: Attributes, link: Link | None) -> Outcome:
        """The result of fib: an interface."""
        if values.get("FLAGS", 0) & 32:
            return self.store(values["DREG"], bytes([link is not None]))
        name = link.name if link is not None else ""
        if values.get("RESULT", 0) == 1:
            return self.store(values["DREG"], _native(link.ifindex if link is not None else 0))
        return self.store(values["DREG"], name.encode().ljust(16, b"\0"))

    def _number(self, values: Attributes) -> Outcome:
        modulus, offset = values["MODULUS"], values.get("OFFSET", 0)
        return self.store(values["DREG"], _native(offset + self.choose(modulus, "one by chance")))

    def _lookup(self, values: Attributes, key: ChainKey) -> Outcome:
        found = self.scene.stack.filter.sets.get((key[0], key[1], values["SET"]))
        if found is None:
            return None
        element = find_element(found, self.load(values["SREG"], found.length))
        if values.get("FLAGS", 0) & 1:
            return element is None
        if element is None or "DREG" not in values:
            return element is not None
        if values["DREG"] == 0:
            return element.verdict
        return self.store(values["DREG"], element.data)


def kind_of(stack: Stack, address: IP) -> int:
    """What an address is to a stack, as RTN_*."""
    if (address.version == 4 and address.value >> 28 == 0xE) or (address.version == 6 and address.value >> 120 == 0xFF):
        return _MULTICAST
    if is_local(stack, address):
        return _LOCAL
    if address.version == 4 and address.value in (0xFFFFFFFF, *_broadcasts(stack)):
        return _BROADCAST
    route = find_route(stack, address)
    return _UNICAST if has_route(route) and not route.refuses else 0


def _broadcasts(stack: Stack) -> list[int]:
    networks = [entry.cidr for entry in stack.addresses if entry.cidr.version == 4 and entry.cidr.prefix < 31]
    return [network.last.value for network in networks]


def is_echo(protocol: int) -> bool:
    """Whether it has no ports."""
    return protocol in (PROTOCOLS["icmp"], PROTOCOLS["icmpv6"])


def _at(register: int) -> int:
    return (register - 8) * 4 if register >= 8 else (register - 1) * 16


def _native(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)
