"""Whether our table is there at all, for a DEL that has nothing to do with nftables and loads no more of it.

The kernel takes some milliseconds to destroy what was deleted, and whoever closes a socket of nfnetlink in that time
waits until it is done (nft_rcv_nl_event in net/netfilter/nf_tables_api.c). So there is one for all that a process
removes, open until it ends.
Must not: read or change what is in a table.
"""

import errno

from cni_protocol.light.standard import struct

from .attributes import attribute
from .netlink import ACK, NETFILTER, Message, NetlinkError, NetlinkSocket

TABLE = "pycni"
INET, BRIDGE = 1, 7  # NFPROTO_INET, NFPROTO_BRIDGE: the families of tables
PARTS = "nf_tables, nft_chain_nat, nft_masq, nft_fib_inet"  # modules of the kernel

_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_NAME = 1  # NFTA_TABLE_NAME
_HEAD = struct.Struct("!BBH")  # nfgenmsg: family, version, resource id
_left_open: list[NetlinkSocket] = []


def open_socket() -> NetlinkSocket:
    """The socket that stays open. Raises OSError when the kernel has no nfnetlink."""
    if not _left_open:
        _left_open.append(NetlinkSocket(NETFILTER))
    return _left_open[0]


def open_descriptors() -> list[int]:
    """Its descriptor, if there is one."""
    return [socket.fileno() for socket in _left_open]


def close_socket() -> None:
    """Close it before the process ends: the next command may be in another namespace."""
    while _left_open:
        _left_open.pop().close()


def has_table(family: int) -> bool:
    """Whether our table of a family is there. Raises OSError."""
    body = _HEAD.pack(family, 0, 0) + attribute(_NAME, TABLE.encode() + b"\0")
    try:
        open_socket().send([Message(_GETTABLE, ACK, body)])
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True
