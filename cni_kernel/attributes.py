"""The netlink attributes that every call needs, under the kernel's names: values to bytes and back. Pure.

pyroute2 has all attributes, but importing it takes longer than the rest of an ADD. Source:
include/uapi/linux/{if_link,if_addr,rtnetlink}.h and netfilter/nf_tables.h, netlink(7).
Must not: know what a message is for.
"""

from __future__ import annotations

import sys

from cni_protocol.address import IP
from cni_protocol.light.standard import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple

if TYPE_CHECKING:
    from typing import Literal

NESTED = 0x8000  # NLA_FNESTED
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK
_IFINFOMSG = 16  # bytes


class Kind(NamedTuple):
    """The type of an attribute's value: how to encode and decode it. `flag` is added to the attribute's number."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    flag: int = 0


class Table:
    """The attributes of one nesting level: name -> number and kind. Attributes that are not listed are not decoded."""

    def __init__(self, **entries: tuple[int, Kind]) -> None:
        self._by_name = entries
        self._by_number = {number: (name, kind) for name, (number, kind) in entries.items()}

    def pack(self, attributes: Iterable[tuple[str, Any]]) -> bytes:
        """Encode attributes, in their order."""
        parts = []
        for name, value in attributes:
            number, kind = self._by_name[name]
            parts.append(attribute(number | kind.flag, kind.pack(value)))
        return b"".join(parts)

    def unpack(self, data: bytes) -> dict[str, Any]:
        """Decode attributes: values by name. Of an attribute that occurs several times the last one counts."""
        return dict(self.unpack_all(data))

    def unpack_all(self, data: bytes) -> list[tuple[str, Any]]:
        """Decode attributes: names and values, in their order."""
        found = []
        for number, value in split(data):
            name, kind = self._by_number.get(number, ("", RAW))
            if name:
                found.append((name, kind.unpack(value)))
        return found


def attribute(number: int, data: bytes) -> bytes:
    """Encode one attribute: struct nlattr, the data, and padding to a multiple of four bytes."""
    head = (4 + len(data)).to_bytes(2, sys.byteorder) + number.to_bytes(2, sys.byteorder)
    return head + data + b"\0" * (-len(data) % 4)


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Split consecutive attributes. Returns the number (without flags) and the data of each."""
    found = []
    offset = 0
    while offset + 4 <= len(data):
        length = int.from_bytes(data[offset : offset + 2], sys.byteorder)
        number = int.from_bytes(data[offset + 2 : offset + 4], sys.byteorder)
        found.append((number & _TYPE_MASK, data[offset + 4 : offset + length]))
        offset += max((length + 3) & ~3, 4)
    return found


def number(size: int, order: Literal["little", "big"] = sys.byteorder) -> Kind:
    """An unsigned number of `size` bytes, in host byte order or ("big") in network byte order."""
    return Kind(lambda value: value.to_bytes(size, order), lambda data: int.from_bytes(data, order))


def nested(table: Table) -> Kind:
    """Nested attributes: encoded from a list of names and values, decoded to a mapping."""
    return Kind(table.pack, table.unpack, NESTED)


def _text_of(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


RAW = Kind(bytes, bytes)
TEXT = Kind(lambda value: value.encode("utf-8", "surrogateescape") + b"\0", _text_of)
MAC = Kind(lambda value: bytes.fromhex(value.replace(":", "")), lambda data: data.hex(":"))
ADDRESS = Kind(lambda ip: ip.packed, lambda data: IP(4 if len(data) == 4 else 6, int.from_bytes(data, "big")))
U8, U32 = number(1), number(4)
BE16, BE32 = number(2, "big"), number(4, "big")

PORT = Table(IFLA_BRPORT_STATE=(1, U8), IFLA_BRPORT_MODE=(4, U8), IFLA_BRPORT_ISOLATED=(33, U8))
INFO = Table(
    IFLA_INFO_KIND=(1, TEXT),
    IFLA_INFO_DATA=(2, Kind(bytes, bytes, NESTED)),  # its attributes depend on the kind: see LINK_DATA
    IFLA_INFO_SLAVE_KIND=(4, TEXT),
    IFLA_INFO_SLAVE_DATA=(5, nested(PORT)),
)
IFLA_GROUP = 27
LINK = Table(
    IFLA_ADDRESS=(1, MAC),
    IFLA_IFNAME=(3, TEXT),
    IFLA_MTU=(4, U32),
    IFLA_LINK=(5, U32),
    IFLA_MASTER=(10, U32),
    IFLA_LINKINFO=(18, nested(INFO)),
    IFLA_IFALIAS=(20, TEXT),
    IFLA_GROUP=(IFLA_GROUP, U32),
    IFLA_NET_NS_FD=(28, U32),
    IFLA_EXT_MASK=(29, U32),
)
PEER = Kind(lambda values: bytes(_IFINFOMSG) + LINK.pack(values), bytes, NESTED)
LINK_DATA = {
    "bridge": Table(IFLA_BR_VLAN_FILTERING=(7, U8)),
    "veth": Table(VETH_INFO_PEER=(1, PEER)),
    "vxlan": Table(
        IFLA_VXLAN_LINK=(3, U32),
        IFLA_VXLAN_LOCAL=(4, ADDRESS),
        IFLA_VXLAN_PORT=(15, BE16),
        IFLA_VXLAN_LOCAL6=(17, ADDRESS),
    ),
}
IFA = Table(IFA_ADDRESS=(1, ADDRESS), IFA_LOCAL=(2, ADDRESS), IFA_BROADCAST=(4, ADDRESS), IFA_FLAGS=(8, U32))
RTA = Table(
    RTA_DST=(1, ADDRESS),
    RTA_OIF=(4, U32),
    RTA_GATEWAY=(5, ADDRESS),
    RTA_PRIORITY=(6, U32),
    RTA_PREFSRC=(7, ADDRESS),
    RTA_METRICS=(8, nested(Table(RTAX_MTU=(2, U32), RTAX_ADVMSS=(8, U32)))),
    RTA_MULTIPATH=(9, RAW),
    RTA_TABLE=(15, U32),
)
NDA = Table(NDA_DST=(1, ADDRESS), NDA_LLADDR=(2, MAC), NDA_IFINDEX=(8, U32))
