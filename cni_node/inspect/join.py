"""Joins what was read of a node by owner: container, pair, bridge, addresses, ports and rules of one attachment. Pure.

The owner stands in the alias of the host's end and in the comments of rules; a result and a reservation have its parts.
Must not: read anything.
"""

from collections import defaultdict
from collections.abc import Iterator

from cni_kernel.values import Link
from cni_node.host.peer_routes import NETWORK
from cni_node.inspect.values import (
    Attached,
    Bridge,
    Inside,
    Leftover,
    Network,
    Reading,
    Remembered,
    Reservation,
    Rule,
    View,
)
from cni_protocol.attachment import Attachment, describe_owner, spelt_anew

_PARTS = 3  # of an owner


class _Joined:
    """What was read, indexed by owner."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.remembered = {_owner_of(entry): entry for entry in reading.remembered}
        named = {link.name: link for link in reading.links if link.kind == "veth"}
        self.ports = {
            owner: named[name]
            for owner, entry in self.remembered.items()
            if (name := Attachment(*entry[:3]).host_name) in named and not named[name].alias
        }  # of an ADD that is about to give the alias
        for link in reading.links:
            if link.kind == "veth" and is_owner(owner := spelt_anew(link.alias)):
                self.ports[owner] = link
        self.rules: dict[str, list[Rule]] = defaultdict(list)
        for rule in reading.rules or []:
            self.rules[rule.owner].append(rule)
        self.reserved: dict[str, list[Reservation]] = defaultdict(list)
        for entry in reading.reservations:
            self.reserved[_holder_of(entry, self.remembered)].append(entry)
        self.masters = {link.ifindex: link.name for link in reading.links}


def is_owner(text: str) -> bool:
    """Whether an alias or a comment is an owner."""
    return text.count(",") >= _PARTS - 1 and all(text.split(",", _PARTS - 1))


def join(reading: Reading) -> View:
    """The node as it is."""
    joined = _Joined(reading)
    owners = dict.fromkeys([*joined.remembered, *joined.ports])
    attached = sorted(
        (_attached(owner, joined) for owner in owners), key=lambda one: (one.network, one.pod, one.container_id)
    )
    links = {link.name: link for link in reading.links}
    addresses = _addresses(reading)
    return View(
        node=reading.node,
        uplinks=[_uplink(name, gateway, links, addresses) for name, gateway in reading.uplinks],
        overlay=[link for link in reading.links if link.kind == "vxlan" and link.alias.startswith(f"{NETWORK}")],
        networks=list(_networks(reading.reservations, attached)),
        bridges=list(_bridges(joined, addresses)),
        attached=attached,
        peers=sorted(reading.peers, key=lambda peer: (peer.name, peer.pods)),
        exempt=reading.exempt,
        policies=reading.policies,
        leftovers=list(_leftovers(joined, attached)),
        sure=reading.has_links and reading.has_results,
        problems=list(dict.fromkeys(reading.problems)),
    )


def _owner_of(entry: Remembered) -> str:
    return Attachment(entry.network, entry.container_id, entry.ifname).owner


def _holder_of(entry: Reservation, remembered: dict[str, Remembered]) -> str:
    """The owner of a reservation. If its file names no interface, the result with the address decides."""
    if entry.ifname or not entry.container_id:
        return Attachment(entry.network, entry.container_id, entry.ifname).owner
    ip = str(entry.ip)
    same = [
        owner
        for owner, one in remembered.items()
        if (one.network, one.container_id) == (entry.network, entry.container_id)
    ]
    holders = [owner for owner in same if any(each.partition("/")[0] == ip for each in remembered[owner].addresses)]
    return next(iter(holders or same), Attachment(entry.network, entry.container_id, "").owner)


def _addresses(reading: Reading) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for entry in reading.addresses:
        found[entry.ifindex].append(str(entry.cidr))
    return found


def _uplink(name: str, gateway: str, links: dict[str, Link], addresses: dict[int, list[str]]) -> dict[str, object]:
    link = links.get(name)
    return {
        "name": name,
        "gateway": gateway,
        "mtu": link.mtu if link else 0,
        "up": bool(link and link.up),
        "addresses": addresses.get(link.ifindex, []) if link else [],
    }


def _attached(owner: str, joined: _Joined) -> Attached:
    entry, host = joined.remembered.get(owner), joined.ports.get(owner)
    network, container_id, ifname = entry[:3] if entry else owner.split(",", _PARTS - 1)
    inside = joined.reading.inside.get(owner, Inside("unread"))
    bridge = joined.masters.get(host.master, "") if host is not None else ""
    rules = joined.rules.get(owner, [])
    there = tuple(str(each) for each in inside.addresses)
    return Attached(
        owner=owner,
        network=network,
        container_id=container_id,
        ifname=ifname,
        pod=entry.pod if entry else "",
        netns=entry.netns if entry else "",
        bridge=bridge or (entry.bridge if entry else ""),
        host=host,
        inside=inside,
        addresses=there or (entry.addresses if entry else ()),
        reserved=tuple(str(one.ip) for one in joined.reserved.get(owner, [])),
        ports=tuple(rule.port for rule in rules if rule.port is not None),
        rules=tuple(dict.fromkeys(rule.what for rule in rules if rule.what and rule.port is None)),
        state=tuple(_state(entry, host, inside, joined)),
    )


def _state(entry: Remembered | None, host: Link | None, inside: Inside, joined: _Joined) -> Iterator[str]:
    if entry is None:
        yield "no result" if joined.reading.has_results else "no result was read"
    if inside.netns == "gone":
        yield "netns gone"
    if host is None:
        if joined.reading.has_links:
            yield "no host interface"
    elif host.master == 0:
        yield "in no bridge"
    elif not host.up:
        yield "host end down"
    elif not host.running:
        yield "no carrier"
    if inside.netns == "ok" and entry is not None:
        if inside.link is None:
            yield f"no {entry.ifname} in the container"
        elif not inside.link.up:
            yield f"{entry.ifname} down"
        missing = set(entry.addresses) - {str(each) for each in inside.addresses}
        if inside.link is not None and missing:
            yield f"lacks {', '.join(sorted(missing))}"


def _bridges(joined: _Joined, addresses: dict[int, list[str]]) -> Iterator[Bridge]:
    """The bridges that have ports of ours, or that a network of ours names."""
    owners = {link.ifindex: owner for owner, link in joined.ports.items()}
    used = {link.master for link in joined.ports.values()}
    named = {entry.bridge for entry in joined.remembered.values()} | {"cni0"}
    members: dict[int, list[Link]] = defaultdict(list)
    for link in joined.reading.links:
        members[link.master].append(link)
    for link in joined.reading.links:
        if link.kind == "bridge" and (link.ifindex in used or link.name in named):
            ports = members[link.ifindex]
            yield Bridge(
                link,
                tuple(addresses.get(link.ifindex, [])),
                tuple(owners[port.ifindex] for port in ports if port.ifindex in owners),
                tuple(port.name for port in ports if port.ifindex not in owners),
            )


def _networks(reservations: list[Reservation], attached: list[Attached]) -> Iterator[Network]:
    names = {one.network for one in attached} | {entry.network for entry in reservations}
    for name in sorted(names):
        own = [one for one in attached if one.network == name]
        bridges = tuple(sorted({one.bridge for one in own if one.bridge}))
        yield Network(name, bridges, len(own), sum(entry.network == name for entry in reservations))


def _leftovers(joined: _Joined, attached: list[Attached]) -> Iterator[Leftover]:
    """Leftovers of attachments that do not exist any more. They are certain only if all results could be read."""
    alive = {one.owner for one in attached}
    for one in attached:
        whose = describe_owner(one.owner)
        if one.owner not in joined.remembered and one.host is not None:
            yield Leftover("interface", f"{one.host.name} of {whose}", "no result")
        elif one.inside.netns == "gone":
            yield Leftover("result", whose, f"its namespace {one.netns} is gone")
        elif one.host is None and joined.reading.has_links:
            yield Leftover("result", whose, "its interface on the host is gone")
    for owner, entries in joined.reserved.items():
        for entry in entries if owner not in alive else []:
            holder = f"container {entry.container_id} " if entry.container_id else "nobody "
            where = f"{entry.directory}/{entry.network}/{entry.ip}"
            yield Leftover("reservation", f"{entry.ip} for {holder}({where})", "no attachment")
    for owner, rules in joined.rules.items():
        if owner not in alive and rules:
            yield Leftover("rules", f"{len(rules)} of {describe_owner(owner)}", "no attachment")
