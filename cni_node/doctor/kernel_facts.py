"""Interfaces, addresses, routes, neighbours and the packet filter's forward chains, dumped from the kernel.

Must not: change anything, or decide what is a fault.
"""

import errno
import struct
import sys
from collections.abc import Iterator
from typing import Any

from cni_kernel.attributes import BE32, LINK, LINK_DATA, NDA, NESTED, RTA, TEXT, Kind, Table, nested, split
from cni_kernel.kernel import Kernel
from cni_kernel.netlink import NETFILTER, ROUTE, NetlinkError, NetlinkSocket
from cni_kernel.nft_attributes import names_in
from cni_node.doctor.facts import Address, Chain, Link, Neighbour, Route, Rule
from cni_node.host.peer_routes import mac_of
from cni_protocol.address import CIDR, IP

_GETLINK, _GETROUTE, _GETNEIGH = 18, 26, 30  # RTM_*
_AF_BRIDGE, _AF_INET, _AF_INET6 = 7, 2, 10
_UP, _RUNNING = 1, 0x40  # IFF_*
_STATS64, _NETNSID = 23, 37  # IFLA_STATS64, IFLA_LINK_NETNSID
_REFUSING = (6, 7, 8)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_UNICAST, _LOCAL = 1, 2  # RTN_*
_DEAD = 1  # RTNH_F_DEAD
_FAILED, _PERMANENT, _NOARP = 0x20, 0x80, 0x40  # NUD_*
_LINK_HEAD, _ROUTE_HEAD = struct.Struct("=BxHiII"), struct.Struct("=BBBBBBBBI")
_NEIGHBOUR_HEAD = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
_NEXT_HOP = struct.Struct("=HxxI")
_NFT, GETTABLE, GETCHAIN, GETRULE = 10 << 8, 1, 4, 7  # NFNL_SUBSYS_NFTABLES, NFT_MSG_*
_NFT_HEAD = struct.Struct("!BBH")
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_FORWARD = 2  # NF_INET_FORWARD
_HOOK = Table(NFTA_HOOK_HOOKNUM=(1, BE32))
_CHAIN = Table(
    NFTA_CHAIN_TABLE=(1, TEXT),
    NFTA_CHAIN_NAME=(3, TEXT),
    NFTA_CHAIN_HOOK=(4, nested(_HOOK)),
    NFTA_CHAIN_POLICY=(5, BE32),
)
_RULE = Table(
    NFTA_RULE_TABLE=(1, TEXT),
    NFTA_RULE_CHAIN=(2, TEXT),
    NFTA_RULE_EXPRESSIONS=(4, Kind(bytes, bytes, NESTED)),
)
_TABLE = Table(NFTA_TABLE_NAME=(1, TEXT))
_NEUTRAL = {"counter", "immediate", "log", "limit", "reject"}
_OPAQUE = {"lookup", "match", "target", "xfrm", "objref"}
# xt_conntrack_mtinfo3 in include/uapi/linux/netfilter/xt_conntrack.h: where its flags are, XT_CONNTRACK_STATE, NEW
_CONNTRACK_REVISION, _CONNTRACK_FLAGS, _BY_STATE, _STATE_NEW = (3).to_bytes(4, "big"), 146, 1, 8
_VERDICTS = {0: "drop", 1: "accept", -3: "jump", -4: "jump"}  # NF_DROP, NF_ACCEPT, NFT_JUMP, NFT_GOTO


def read_links() -> list[Link]:
    """All interfaces."""
    with NetlinkSocket(ROUTE) as sock:
        return [_parse_link(body) for body in sock.dump(_GETLINK, _LINK_HEAD.pack(0, 0, 0, 0, 0))]


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK_HEAD.unpack_from(body)
    found, raw = LINK.unpack(body[_LINK_HEAD.size :]), dict(split(body[_LINK_HEAD.size :]))
    info = found.get("IFLA_LINKINFO", {})
    kind, port = info.get("IFLA_INFO_KIND", ""), info.get("IFLA_INFO_SLAVE_DATA", {})
    data = LINK_DATA[kind].unpack(info.get("IFLA_INFO_DATA", b"")) if kind in ("bridge", "vxlan") else {}
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6")
    received, sent = struct.unpack_from("=QQ", raw[_STATS64]) if len(raw.get(_STATS64, b"")) >= 16 else (0, 0)
    netnsid = int.from_bytes(raw.get(_NETNSID, b"\xff" * 4), sys.byteorder, signed=True)
    return Link(
        ifindex=index,
        name=found["IFLA_IFNAME"],
        kind=kind,
        mac=found.get("IFLA_ADDRESS", ""),
        mtu=found.get("IFLA_MTU", 0),
        up=bool(flags & _UP),
        running=bool(flags & _RUNNING),
        master=found.get("IFLA_MASTER", 0),
        lower=data.get("IFLA_VXLAN_LINK", 0) or found.get("IFLA_LINK", 0),
        alias=found.get("IFLA_IFALIAS", ""),
        hairpin=bool(port.get("IFLA_BRPORT_MODE")),
        isolated=bool(port.get("IFLA_BRPORT_ISOLATED")),
        state=port.get("IFLA_BRPORT_STATE", -1),
        peer_known=netnsid >= 0,
        received=received,
        sent=sent,
        derived=mac_of(local) if local is not None else "",
        underlay_version=local.version if local is not None else 4,
        filters_vlans=bool(data.get("IFLA_BR_VLAN_FILTERING")),
    )


def read_addresses() -> list[Address]:
    """The addresses of all interfaces."""
    with Kernel() as host:
        return [Address(entry.ifindex, entry.cidr, entry.duplicate) for entry in host.list_all_addresses()]


def read_routes(*, local: bool = False) -> list[Route]:
    """The routes of all tables that lead somewhere or refuse; with `local` those to the host itself, too."""
    with NetlinkSocket(ROUTE) as sock:
        bodies = [
            body
            for family in (_AF_INET, _AF_INET6)
            for body in sock.dump(_GETROUTE, _ROUTE_HEAD.pack(family, *(0,) * 8))
        ]
    return [route for body in bodies for route in _parse_route(body) if local or not route.local]


def _parse_route(body: bytes) -> Iterator[Route]:
    family, prefix, _, _, table, protocol, _, kind, flags = _ROUTE_HEAD.unpack_from(body)
    if kind not in (_UNICAST, _LOCAL, *_REFUSING) or flags & _DEAD:
        return
    found = RTA.unpack(body[_ROUTE_HEAD.size :])
    dst = CIDR(found.get("RTA_DST") or IP(4 if family == _AF_INET else 6, 0), prefix)
    number = found.get("RTA_TABLE", table)
    hops = [(found.get("RTA_OIF", 0), found.get("RTA_GATEWAY"))]
    if data := found.get("RTA_MULTIPATH", b""):
        hops = []
        while len(data) >= _NEXT_HOP.size:
            length, index = _NEXT_HOP.unpack_from(data)
            hops.append((index, RTA.unpack(data[_NEXT_HOP.size : length]).get("RTA_GATEWAY")))
            data = data[max((length + 3) & ~3, _NEXT_HOP.size) :]
    for index, gateway in hops:
        yield Route(
            dst,
            index,
            gateway,
            protocol,
            found.get("RTA_PRIORITY", 0),
            number,
            kind in _REFUSING,
            kind == _LOCAL,
            found.get("RTA_PREFSRC"),
        )


def read_neighbours() -> list[Neighbour]:
    """The neighbour tables of both IP versions, and the forwarding entries of vxlan devices."""
    with NetlinkSocket(ROUTE) as sock:
        bodies = [
            body
            for family in (_AF_INET, _AF_INET6, _AF_BRIDGE)
            for body in sock.dump(_GETNEIGH, _NEIGHBOUR_HEAD.pack(family, 0, 0, 0, 0))
        ]
    return [_parse_neighbour(body) for body in bodies]


def _parse_neighbour(body: bytes) -> Neighbour:
    family, index, state, _, _ = _NEIGHBOUR_HEAD.unpack_from(body)
    found: dict[str, Any] = NDA.unpack(body[_NEIGHBOUR_HEAD.size :])
    lasting = bool(state & (_PERMANENT | _NOARP))
    ip, mac = found.get("NDA_DST"), found.get("NDA_LLADDR", "")
    return Neighbour(index, ip, mac, bool(state & _FAILED), lasting, family == _AF_BRIDGE)


def read_filter() -> tuple[list[Chain], frozenset[tuple[str, str]]]:
    """The chains at the forward hook, each with the rules of its table; and all tables as (family, name)."""
    with NetlinkSocket(NETFILTER) as sock:
        heads = [(body[0], _TABLE.unpack(body[4:])["NFTA_TABLE_NAME"]) for body in dump_filter(sock, GETTABLE, 0, b"")]
        tables = frozenset((_FAMILIES[family], name) for family, name in heads if family in _FAMILIES)
        chains = []
        for body in dump_filter(sock, GETCHAIN, 0, b""):
            found = _CHAIN.unpack(body[4:])
            hook = found.get("NFTA_CHAIN_HOOK", {}).get("NFTA_HOOK_HOOKNUM")
            if body[0] not in _FAMILIES or hook != _FORWARD:
                continue
            name = found["NFTA_CHAIN_TABLE"]
            rules = tuple(_read_rules(sock, body[0], name)) if not name.startswith("pycni") else ()
            drops = found.get("NFTA_CHAIN_POLICY", 1) == 0
            chains.append(Chain(f"{_FAMILIES[body[0]]} {name}", found["NFTA_CHAIN_NAME"], drops, rules))
    return chains, tables


def dump_filter(sock: NetlinkSocket, kind: int, family: int, attributes: bytes) -> list[bytes]:
    """What the packet filter has of a kind (NFT_MSG_GET...), each behind 4 bytes with the family first.

    `family` 0 stands for all. Nothing where there is no such thing; raises NetlinkError.
    """
    try:
        return sock.dump(_NFT | kind, _NFT_HEAD.pack(family, 0, 0) + attributes)
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return []


def _read_rules(sock: NetlinkSocket, family: int, table: str) -> Iterator[Rule]:
    for body in dump_filter(sock, GETRULE, family, _RULE.pack([("NFTA_RULE_TABLE", table)])):
        found = _RULE.unpack(body[4:])
        data = found.get("NFTA_RULE_EXPRESSIONS", b"")
        names = names_in(data)
        verdict, target = _verdict_of(data)
        if "reject" in names:
            verdict = "reject"
        matches = any(name not in _NEUTRAL for name in names)
        opaque = bool(_OPAQUE & set(names)) and not _is_about_known_connections(data)
        yield Rule(found["NFTA_RULE_CHAIN"], verdict, target, matches, opaque, data)


def _is_about_known_connections(rule: bytes) -> bool:
    """Whether iptables' match on connections keeps new ones out, so that the rule accepts nothing by itself."""
    for _, entry in split(rule):
        parts = dict(split(entry))
        match = dict(split(parts.get(2, b""))) if TEXT.unpack(parts.get(1, b"")) == "match" else {}
        if TEXT.unpack(match.get(1, b"")) != "conntrack" or match.get(2) != _CONNTRACK_REVISION:
            continue
        flags, inverted, states = struct.unpack_from("=HHH", match[3], _CONNTRACK_FLAGS)
        if flags & _BY_STATE and not inverted & _BY_STATE and not states & _STATE_NEW:
            return True
    return False


def _verdict_of(rule: bytes) -> tuple[str, str]:
    """The verdict of a rule, in its last expression `immediate`, and the target chain if it is a jump."""
    for _, entry in reversed(split(rule)):
        parts = dict(split(entry))
        if TEXT.unpack(parts.get(1, b"")) != "immediate":
            continue
        data = dict(split(dict(split(parts.get(2, b""))).get(2, b"")))
        verdict = dict(split(data.get(2, b"")))
        code = int.from_bytes(verdict.get(1, b""), "big", signed=True) if 1 in verdict else None
        return _VERDICTS.get(code, "") if code is not None else "", TEXT.unpack(verdict.get(2, b""))
    return "", ""
