"""Reads what decides where packets go: of the node, and of those pods that a packet comes to.

Must not: change anything, or decide.
"""

import struct
from collections.abc import Iterable
from functools import partial

from cni_kernel.attributes import BE32, TEXT, Table
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import open_namespace
from cni_kernel.netlink import NETFILTER, ROUTE, NetlinkSocket
from cni_kernel.values import PortVlan
from cni_node.doctor import kernel_facts, proc_files
from cni_node.doctor.kernel_facts import GETCHAIN, GETRULE, GETTABLE, dump_filter
from cni_node.doctor.reading import Reader
from cni_node.inspect.join import join
from cni_node.inspect.reading import Places, read_node
from cni_node.inspect.values import Attached
from cni_node.inspect.values import Peer as SeenPeer
from cni_node.why import decode
from cni_node.why.names import place_name
from cni_node.why.programs import read_programs
from cni_node.why.values import NODE, ChainKey, Filter, FilterSet, Place, RoutingRule, Rule, Stack, StopError, World
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip

_GETSET, _GETSETELEM, _GETROUTINGRULE = 10, 13, 34  # NFT_MSG_*, RTM_GETRULE
_ROUTING_RULE_HEAD = struct.Struct("=BxxxxxxxI")
_FAMILIES = (2, 10)  # AF_INET, AF_INET6
_NAMES = Table(TABLE=(1, TEXT), SET=(2, TEXT))
_TABLE_NAME = Table(NAME=(1, TEXT), FLAGS=(2, BE32))
_DORMANT = 1  # NFT_TABLE_F_DORMANT
_HEAD = 4  # bytes of nfgenmsg


class Node:
    """The node that the process is on; pods are read when they are asked for."""

    def __init__(self, places: Places) -> None:
        view = join(read_node(places))
        self._attached = {one.owner: one for one in view.attached}
        own = read_stack(NODE, "node")
        links = {link.name for link in own.links}
        found = tuple(_place(one) for one in view.attached)
        peers = tuple(peer for each in view.peers for peer in _peer(each))
        problems = () if links else tuple(view.problems)
        self.world = World(view.node, {NODE: own}, found, peers, problems)

    def read(self, owner: str) -> None:
        """Read a pod, too. Raises StopError for one whose namespace is gone, KernelError where it cannot be read."""
        one = self._attached[owner]
        label = place_name(one.pod, one.container_id)
        if not one.netns or one.inside.netns == "gone":
            raise StopError("namespace-gone", label, f"the network namespace of {label} is gone ({one.netns})")
        with open_namespace(one.netns) as namespace, namespace.entered():
            stack = read_stack(owner, label)
        self.world = self.world._replace(stacks={**self.world.stacks, owner: stack})


def _place(one: Attached) -> Place:
    addresses = tuple(parse_cidr(text).ip for text in one.addresses)
    host = one.host.name if one.host is not None else ""
    return Place(
        one.owner, place_name(one.pod, one.container_id), one.pod, one.container_id, one.ifname, host, addresses
    )


def _peer(seen: SeenPeer) -> Iterable[tuple[str, CIDR, IP | None]]:
    if seen.name:
        yield seen.name, parse_cidr(seen.pods), parse_ip(seen.node) if seen.node else None


def read_stack(owner: str, name: str) -> Stack:
    """The network namespace that the process is in."""
    reader = Reader()
    ask = reader.ask_all
    links = ask("interfaces", kernel_facts.read_links)
    legacy = ask("the tables of iptables-legacy", proc_files.read_legacy_tables)
    if legacy:
        reader.problems.append(f"the rules of iptables-legacy ({', '.join(legacy)}) cannot be read")
    found = reader.ask("the packet filter", read_filter) or Filter()
    strange = sorted({f"{' '.join(b.key)} on {b.device}" for b in found.bases if b.key[0] == "netdev"})
    reader.problems += [f"{each} is not looked at: what it does to packets is not known" for each in strange]
    programs = reader.ask("programs of interfaces", read_programs) or {}
    vlans = reader.ask("VLANs", _read_vlans) if any(link.filters_vlans for link in links) else None
    prefix = f"{name}: " if owner else ""
    return Stack(
        owner,
        name,
        links,
        ask("addresses", kernel_facts.read_addresses),
        ask("routes", partial(kernel_facts.read_routes, local=True)),
        ask("routing rules", _read_routing_rules),
        ask("neighbours", kernel_facts.read_neighbours),
        found,
        proc_files.read_sysctls(link.name for link in links),
        frozenset(ask("sockets", proc_files.read_listening)),
        tuple(prefix + text for text in reader.problems),
        programs,
        vlans or {},
    )


def _read_vlans() -> dict[int, list[PortVlan]]:
    with Kernel() as here:
        return here.list_all_vlans()


def _read_routing_rules() -> list[RoutingRule]:
    with NetlinkSocket(ROUTE) as sock:
        heads = [_ROUTING_RULE_HEAD.pack(family, 0) for family in _FAMILIES]
        return [decode.parse_routing_rule(body) for head in heads for body in sock.dump(_GETROUTINGRULE, head)]


def read_filter() -> Filter:
    """All chains, rules, sets and elements of the packet filter. Raises NetlinkError, OSError."""
    with NetlinkSocket(NETFILTER) as sock:
        tables = [(body[0], _TABLE_NAME.unpack(body[_HEAD:])) for body in dump_filter(sock, GETTABLE, 0, b"")]
        awake = {(family, one["NAME"]) for family, one in tables if not one.get("FLAGS", 0) & _DORMANT}
        bodies = dump_filter(sock, GETCHAIN, 0, b"")
        bases = [decode.parse_chain(body[0], body[_HEAD:]) for body in bodies if body[0] in decode.FAMILIES]
        chains: dict[ChainKey, tuple[Rule, ...]] = {}
        sets: dict[ChainKey, FilterSet] = {}
        for family, table in awake:
            if family not in decode.FAMILIES:
                continue
            asked = _NAMES.pack([("TABLE", table)])
            chains |= decode.parse_rules(family, [body[_HEAD:] for body in dump_filter(sock, GETRULE, family, asked)])
            for body in dump_filter(sock, _GETSET, family, asked):
                name, flags, length, parts = decode.parse_set(body[_HEAD:])
                asked_set = _NAMES.pack([("TABLE", table), ("SET", name)])
                elements = [one[_HEAD:] for one in dump_filter(sock, _GETSETELEM, family, asked_set)]
                sets[decode.FAMILIES[family], table, name] = decode.parse_elements(elements, flags, length, parts)
    names = {(decode.FAMILIES[family], table) for family, table in awake if family in decode.FAMILIES}
    return Filter(tuple(base for base in bases if base is not None and base.key[:2] in names), chains, sets)
