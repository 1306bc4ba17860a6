"""Listens to the kernel's netlink notifications, and reports which stages they may have disturbed, and who caused them.

It decodes only the heads of messages, without pyroute2, which takes 50 us for one: a node with a routing daemon or a
busy kube-proxy has thousands of notifications that do not concern us.
Must not: read the kernel's state, or change it.
"""

import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from cni_kernel.attributes import LINK, NDA
from cni_kernel.nft_presence import TABLE
from cni_node.agent.keeper import EXEMPT, LOCAL, ROUTES, RULES, STAGES
from cni_node.host.peer_routes import PROTOCOL, Forward, Wanted
from cni_node.policy.rules import TABLE as POLICY_TABLE

POLICIES = "policies"  # a stage that is not the keeper's but the policy enforcer's
_ROUTE, _NETFILTER = 0, 12  # NETLINK_*
# RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
_NFTABLES_GROUP = 7  # NFNLGRP_NFTABLES
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33  # socket(7)
_BUFFER = 1 << 22  # bytes of the receive buffer for notifications
_LARGEST = 1 << 17  # bytes of one datagram
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINKS, _ADDRESSES, _ROUTES, _NEIGHBOURS = (16, 17), (20, 21), (24, 25), (28, 29)  # RTM_NEW*, RTM_DEL*
_DELNEIGH, _NEIGH_HEAD_BYTES = 29, 12  # struct ndmsg
_LINK_HEAD = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_IFF_UP, _LOWER_UP, _AF_BRIDGE, _SCOPE_UNIVERSE = 0x1, 0x10000, 7, 0
_NFT = 10 << 8  # NFNL_SUBSYS_NFTABLES
_DELTABLE, _DELRULE, _NEWGEN = _NFT | 2, _NFT | 8, _NFT | 15  # NFT_MSG_*
# DELSET, NEWSETELEM, DELSETELEM; a NEWSET takes nothing away, and comes with the first pod although the set is there
_SET_MESSAGES = frozenset(_NFT | number for number in (11, 12, 14))
_GEN_PROC_PID, _GEN_PROC_NAME = 2, 3  # NFTA_GEN_*


class Disturbance(NamedTuple):
    """A stage that another program may have disturbed, and which one, as far as the kernel says."""

    stage: str
    by: str


class View:
    """What the watcher needs to know to recognize relevant notifications. The loop writes it, the watcher reads it."""

    def __init__(self, ports: frozenset[int], names: frozenset[str], wanted: Callable[[], Wanted]) -> None:
        """`ports` are the addresses of our own netlink sockets, whose changes are ignored.

        `names` are the interfaces that the agent keeps. `wanted` returns the entries that should lead to the peers.
        """
        self.ports, self.names, self.wanted = ports, names, wanted
        self.overlay = 0  # index of the vxlan device
        self.interfaces: frozenset[int] = frozenset()  # indexes of the interfaces by which our routes leave
        self._flags: dict[int, int] = {}  # their flags, as last announced

    def has_turned(self, ifindex: int, flags: int) -> bool:
        """Whether an interface with routes of ours went up or down: the kernel drops these without notifications."""
        if ifindex not in self.interfaces:
            return False
        before, self._flags[ifindex] = self._flags.get(ifindex), flags & (_IFF_UP | _LOWER_UP)
        return before != self._flags[ifindex]


class Watcher:
    """The sockets for notifications: of rtnetlink and of nftables. `run` is for a thread of its own."""

    def __init__(self, view: View, publish: Callable[[Disturbance], None]) -> None:
        """Start listening in the network namespace that the process is in. Raises OSError."""
        self._view, self._publish = view, publish
        self._route = _open(_ROUTE, _GROUPS)
        self._nft = _open(_NETFILTER, 0)
        self._nft.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
        self._touched: set[str] = set()  # stages disturbed by the nftables transaction that is being announced

    def run(self) -> None:
        """Publish disturbances. Never returns."""
        while True:
            for sock in select.select([self._route, self._nft], [], [])[0]:
                try:
                    data = sock.recv(_LARGEST)
                except OSError as error:  # ENOBUFS: notifications were lost, so all stages may be disturbed
                    for stage in (*STAGES, POLICIES):
                        self._publish(Disturbance(stage, f"unknown, {error.strerror}"))
                    continue
                found = self._judge_nft(data) if sock is self._nft else judge_route_messages(data, self._view)
                for disturbance in dict.fromkeys(found):
                    self._publish(disturbance)

    def _judge_nft(self, data: bytes) -> Iterator[Disturbance]:
        """Disturbances in nftables. The kernel announces each change of a transaction, and at its end who made it."""
        for kind, port, body in messages_in(data):
            if port in self._view.ports:
                continue
            if kind == _NEWGEN:
                for stage in sorted(self._touched):
                    yield Disturbance(stage, describe_generation(body))
                self._touched = set()
            else:
                self._touched |= judge_nft_message(kind, body)


def messages_in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in a datagram: type, address (nl_pid) of the socket that caused it, and body."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, offset)
        yield kind, port, data[offset + _HEADER.size : offset + length]
        offset += max((length + 3) & ~3, _HEADER.size)


def judge_route_messages(data: bytes, view: View) -> Iterator[Disturbance]:
    """The disturbances that notifications about links, addresses, routes and neighbours show."""
    for kind, port, body in messages_in(data):
        if port in view.ports:
            continue
        stages: tuple[str, ...] = ()
        if kind in _ROUTES:
            stages = (ROUTES,) if body[5] == PROTOCOL else ()
        elif kind in _NEIGHBOURS:
            mine = bool(view.overlay) and int.from_bytes(body[4:8], sys.byteorder) == view.overlay
            stages = (ROUTES,) if mine and _is_foreign(kind, body, view) else ()
        elif kind in _ADDRESSES:
            stages = (LOCAL, ROUTES) if body[3] == _SCOPE_UNIVERSE else ()
        elif kind in _LINKS:
            stages = _judge_link(body, view)
        for stage in stages:
            yield Disturbance(stage, describe_port(port))


def _is_foreign(kind: int, body: bytes, view: View) -> bool:
    """Whether a notification about the vxlan device shows a neighbour or forwarding entry that is not as wanted.

    Neighbours that are not ours are ignored, since the kernel adds some itself. The kernel does not say who changed a
    forwarding entry, nor which MAC a removed neighbour had, so our own changes cannot be recognized by these.
    """
    found = NDA.unpack(body[_NEIGH_HEAD_BYTES:])
    ip, mac = found.get("NDA_DST"), found.get("NDA_LLADDR", "")
    if ip is None:
        return False
    if body[0] == _AF_BRIDGE:
        return (Forward(mac, ip) in view.wanted()) == (kind == _DELNEIGH)
    wanted = view.wanted().find_mac(ip)
    return wanted != "" and (kind == _DELNEIGH or mac != wanted)


def _judge_link(body: bytes, view: View) -> tuple[str, ...]:
    family, _, ifindex, flags, _ = _LINK_HEAD.unpack_from(body)
    if family == _AF_BRIDGE:
        return ()
    if view.has_turned(ifindex, flags):
        return (LOCAL, ROUTES)
    if ifindex == view.overlay or LINK.unpack(body[_LINK_HEAD.size :]).get("IFLA_IFNAME") in view.names:
        return (LOCAL,)
    return ()


def judge_nft_message(kind: int, body: bytes) -> set[str]:
    """The stages that a change of nftables may have disturbed, found by searching the bytes of the message."""
    if POLICY_TABLE.encode() + b"\0" in body:
        return {POLICIES}
    if kind in (_DELTABLE, _DELRULE):
        ours = TABLE.encode() + b"\0" in body
        return {EXEMPT, RULES} if ours and kind == _DELTABLE else {RULES} if ours else set()
    return {EXEMPT} if kind in _SET_MESSAGES and b"exempt" in body else set()


def describe_generation(body: bytes) -> str:
    """The program that made a new generation of the rule set: its name and pid, as the kernel says."""
    name, pid, offset = "", 0, 4  # struct nfgenmsg
    while offset + 4 <= len(body):
        length, number = struct.unpack_from("=HH", body, offset)
        value = body[offset + 4 : offset + length]
        if number & 0x3FFF == _GEN_PROC_NAME:
            name = value.rstrip(b"\0").decode("utf-8", "replace")
        elif number & 0x3FFF == _GEN_PROC_PID:
            pid = int.from_bytes(value, "big")
        offset += max((length + 3) & ~3, 4)
    return f"{name} pid {pid}" if name else f"pid {pid}"


def describe_port(port: int) -> str:
    """The program with this netlink address: usually the address is its pid. It may have ended by now."""
    if not port:
        return "the kernel"
    with suppress(OSError), open(f"/proc/{port}/comm", encoding="utf-8", errors="replace") as file:
        return f"{file.read().strip()} pid {port}"
    return f"netlink port {port}"


def _open(protocol: int, groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.bind((0, groups))
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    except OSError:
        sock.close()
        raise
    return sock
