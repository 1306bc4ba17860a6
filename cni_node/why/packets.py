"""A packet as bytes, the way that rules of a packet filter look at it. Pure.

Must not: decide anything.
"""

from typing import NamedTuple

from cni_node.why.values import PROTOCOLS
from cni_protocol.address import IP

_ICMP, _ICMPV6 = PROTOCOLS["icmp"], PROTOCOLS["icmpv6"]
LINK, NETWORK, TRANSPORT = 0, 1, 2  # NFT_PAYLOAD_*
_ECHO = {_ICMP: (8, 0), _ICMPV6: (128, 129)}  # the type of a request, and of its answer
_SYN, _SYN_ACK = 0x02, 0x12
SIZE = 84  # bytes of a small packet


class Packet(NamedTuple):
    """A first packet, or (`answer`) the one that answers it. ICMP has its identifier as both ports.

    `message` is the type of ICMP where it is no echo.
    """

    source: IP
    destination: IP
    protocol: int
    source_port: int
    port: int
    answer: bool = False
    mark: int = 0
    source_mac: str = "00:00:00:00:00:00"
    target_mac: str = "00:00:00:00:00:00"
    message: int = 0

    @property
    def version(self) -> int:
        """Of IP."""
        return self.source.version

    @property
    def ends(self) -> tuple[IP, int, IP, int]:
        """What connection tracking tells connections by."""
        return self.source, self.source_port, self.destination, self.port

    def back(self) -> "Packet":
        """The answer to it."""
        return self._replace(
            source=self.destination,
            destination=self.source,
            source_port=self.port,
            port=self.source_port,
            answer=not self.answer,
            mark=0,
        )

    def header(self, base: int) -> bytes:
        """The header of the LINK, NETWORK or TRANSPORT layer."""
        if base == LINK:
            kind = (0x0800 if self.version == 4 else 0x86DD).to_bytes(2, "big")
            return _packed(self.target_mac) + _packed(self.source_mac) + kind
        return self._network() if base == NETWORK else self._transport()

    def _network(self) -> bytes:
        ends = self.source.packed + self.destination.packed
        if self.version == 4:
            return b"\x45\0" + SIZE.to_bytes(2, "big") + b"\0\0\x40\0\x40" + bytes([self.protocol, 0, 0]) + ends
        return b"\x60\0\0\0" + (SIZE - 40).to_bytes(2, "big") + bytes([self.protocol, 64]) + ends

    def _transport(self) -> bytes:
        if self.protocol in _ECHO:
            return (
                bytes([self.message or _ECHO[self.protocol][self.answer], 0, 0, 0])
                + self.port.to_bytes(2, "big")
                + b"\0\1"
            )
        ports = self.source_port.to_bytes(2, "big") + self.port.to_bytes(2, "big")
        flags = _SYN_ACK if self.answer else _SYN
        return ports + bytes(8) + bytes([0x50, flags]) + bytes(6)


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "")) if mac else bytes(6)
