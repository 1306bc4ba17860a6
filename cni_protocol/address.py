"""IP addresses and networks as numbers, and their text.

Text is read with inet_pton(3) and written in the form of RFC 5952. Go prints addresses in the same form, and the names
of the reservation files depend on it. An IPv4-mapped IPv6 address (::ffff:10.1.2.3) is read as the IPv4 address in it.
"""

from .light.standard import NamedTuple, socket

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96
_LOW_32 = 0xFFFFFFFF


class IP(NamedTuple):
    """An address: its IP version (4 or 6) and its value as an unsigned integer."""

    version: int
    value: int

    @property
    def bits(self) -> int:
        """How many bits an address of this version has: 32 or 128."""
        return 32 if self.version == 4 else 128

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return int(_FAMILY[self.version])

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes in network order."""
        return self.value.to_bytes(self.bits // 8, "big")

    def __str__(self) -> str:
        version, value = self
        if version == 4:  # not by way of inet_ntop: reading a store of another plugin asks for this a million times
            return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
        text = socket.inet_ntop(self.family, self.packed)
        if "." in text:  # libc writes ::/96 as ::10.1.2.3, RFC 5952 and Go as ::a01:203
            text = f"::{(self.value & _LOW_32) >> 16:x}:{self.value & 0xFFFF:x}"
        return text


class CIDR(NamedTuple):
    """An address and the prefix length of its subnet. It denotes a network when no host bit is set."""

    ip: IP
    prefix: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ip.version

    @property
    def _host_mask(self) -> int:
        return (1 << (self.ip.bits - self.prefix)) - 1

    @property
    def first(self) -> IP:
        """The lowest address of the subnet: the network address."""
        return IP(self.version, self.ip.value & ~self._host_mask)

    @property
    def last(self) -> IP:
        """The highest address of the subnet: for IPv4 the broadcast address."""
        return IP(self.version, self.ip.value | self._host_mask)

    @property
    def network(self) -> "CIDR":
        """The same subnet without host bits."""
        return CIDR(self.first, self.prefix)

    def __contains__(self, ip: object) -> bool:
        return isinstance(ip, IP) and ip.version == self.version and self.first.value <= ip.value <= self.last.value

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix}"


ANY4 = CIDR(IP(4, 0), 0)
ANY6 = CIDR(IP(6, 0), 0)
# Every interface that is up and has IPv6 enabled has an address of this network.
LINK_LOCAL6 = CIDR(IP(6, 0xFE80 << 112), 10)


def any_network(version: int) -> CIDR:
    """0.0.0.0/0 or ::/0."""
    return ANY4 if version == 4 else ANY6


def parse_ip(text: str) -> IP:
    """Parse an address without a prefix length. Raises ValueError."""
    version = 6 if ":" in text else 4
    try:
        packed = socket.inet_pton(_FAMILY[version], text)
    except (OSError, UnicodeError, ValueError):
        raise ValueError(f"{text!r} is no IP address") from None
    value = int.from_bytes(packed, "big")
    if version == 6 and value & ~_LOW_32 == _MAPPED:
        return IP(4, value & _LOW_32)
    return IP(version, value)


def parse_cidr(text: str) -> CIDR:
    """Parse ADDRESS/PREFIX; host bits are kept. Raises ValueError."""
    address, slash, prefix = text.partition("/")
    ip = parse_ip(address)
    length = int(prefix) if slash and prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 else -1
    if ip.version == 4 and ":" in address:
        length -= 96  # the prefix length of an IPv4-mapped address counts in 128 bits
    if not 0 <= length <= ip.bits:
        raise ValueError(f"{text!r} is no address with a prefix length (as in {ip}/{ip.bits * 3 // 4})")
    return CIDR(ip, length)


def parse_ip_or_cidr(text: str) -> IP:
    """Parse ADDRESS or ADDRESS/PREFIX, and return the address alone. Raises ValueError."""
    return parse_cidr(text).ip if "/" in text else parse_ip(text)
