"""A node as text for people, with a small drawing. Pure.

Must not: let a name from outside write control characters to a terminal.
"""

from collections.abc import Iterator, Sequence

from cni_kernel.values import Link
from cni_node.inspect.values import Attached, Bridge, HostPort, Network, View

FIRST = 10  # of a long list
_MANY_PODS = 20  # that are drawn one by one


def render(view: View, *, everything: bool = False) -> str:
    """The whole text; long lists in short unless `everything` is wanted."""
    bound = 0 if everything else FIRST
    sections = [
        _head(view),
        _titled("networks", _cut(list(map(_network_line, view.networks)), bound)),
        *(_bridge_lines(bridge, view, 0 if everything else _MANY_PODS) for bridge in view.bridges),
        _unbridged(view, bound),
        _peer_lines(view, bound),
        _filter_lines(view),
        _leftover_lines(view, bound),
        _titled("could not be read", _cut(view.problems, bound)),
    ]
    lines = [line for section in map(list, sections) if section for line in ("", *section)]
    return "\n".join(map(_printable, lines[1:])) + "\n"


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in line)


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _cut(lines: Sequence[str], bound: int) -> list[str]:
    if not bound or len(lines) <= bound:
        return list(lines)
    return [*lines[:bound], f"… {len(lines) - bound:,} more (--all)"]


def _head(view: View) -> list[str]:
    return [f"node {view.node}: {summary_of(view)}"]


def summary_of(view: View) -> str:
    """How much of everything there is, in words."""
    counts = [
        _count(len(view.attached), "interface of a pod", "interfaces of pods"),
        _count(len(view.bridges), "bridge", "bridges"),
        _count(len(view.peers), "way to a peer", "ways to peers"),
        _count(len(view.leftovers), "leftover", "leftovers"),
    ]
    return ", ".join(counts)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _network_line(network: Network) -> str:
    counts = [
        _count(network.attachments, "interface", "interfaces"),
        _count(network.reservations, "reserved address", "reserved addresses"),
    ]
    where = f" on {', '.join(network.bridges)}" if network.bridges else ""
    return f"{network.name}{where}: {', '.join(counts)}"


def _state_of(link: Link) -> str:
    return f"mtu {link.mtu} {'up' if link.up else 'DOWN'}"


def _bridge_lines(bridge: Bridge, view: View, bound: int) -> Iterator[str]:
    link = bridge.link
    yield " ".join(filter(None, [f"bridge {link.name}  {_state_of(link)}", " ".join(bridge.addresses)]))
    mine = dict.fromkeys(bridge.owners)
    pods = [one for one in view.attached if one.owner in mine]
    shown = pods if not bound or len(pods) <= bound else pods[:FIRST]
    width = max((len(f"{one.label} {one.ifname}") for one in shown), default=0)
    yield ""
    yield from _drawing(shown, bridge, view, width)
    if len(shown) < len(pods):
        yield f"  … {len(pods) - len(shown):,} more (--all)"
    if bridge.others:
        yield f"  other ports: {', '.join(_cut(bridge.others, FIRST))}"
    for one in shown:
        yield from _details(one)


def _drawing(pods: list[Attached], bridge: Bridge, view: View, width: int) -> Iterator[str]:
    """A line for each pod. Beside the first one are the bridge and the interfaces by which its traffic leaves."""
    ways = [f"{way['name']} {' '.join(way['addresses'])}".strip() for way in view.uplinks]
    ways += [link.name for link in view.overlay]
    out = f"{bridge.link.name} ── {', '.join(ways)}" if ways else f"{bridge.link.name}"
    if not pods:
        yield f"  (no pods) ── {out}"
    for number, one in enumerate(pods):
        name = f"{one.label} {one.ifname}".ljust(width)
        joint = "┘" if number == len(pods) - 1 else "┤" if number else "┐"
        joint = "─" if len(pods) == 1 else joint
        host = one.host.name if one.host is not None else "?"
        mark = f"  ! {', '.join(one.state)}" if one.state else ""
        yield f"  {name} ── {host} ─{joint}" + (f"── {out}" if number == 0 else "") + mark


def _details(one: Attached) -> Iterator[str]:
    yield ""
    yield f"  {one.label}  {' '.join(one.addresses) or one.unaddressed}"
    yield f"    container {one.container_id} interface {one.ifname} of network {one.network}"
    if one.inside.link is not None and one.host is not None:
        inner, outer = one.inside.link, one.host
        yield f"    {inner.name} {inner.mac} {_state_of(inner)}, {outer.name} {_state_of(outer)}"
    elif one.host is not None:
        yield f"    {one.host.name} {_state_of(one.host)}"
    if one.reserved:
        yield f"    reserved {' '.join(one.reserved)}"
    for port in one.ports:
        yield f"    host port {describe_port(port)}"
    for rule in one.rules:
        yield f"    {rule}"
    for state in one.state:
        yield f"    ! {state}"


def describe_port(port: HostPort) -> str:
    """A host port as people write it."""
    where = f"[{port.address}]:" if ":" in port.address else f"{port.address}:" if port.address else ""
    return f"{where}{port.port}/{port.protocol} -> {port.target}"


def _unbridged(view: View, bound: int) -> list[str]:
    """The attachments that are on no bridge."""
    shown = {owner for bridge in view.bridges for owner in bridge.owners}
    lines = [
        f"{one.label} {one.ifname} {' '.join(one.addresses)}: {', '.join(one.state) or 'in no bridge'}"
        for one in view.attached
        if one.owner not in shown
    ]
    return _titled("in no bridge", _cut(lines, bound))


def _peer_lines(view: View, bound: int) -> list[str]:
    lines = []
    for peer in view.peers:
        device = f" dev {peer.device}" if peer.device else ""
        node = f", node {peer.node}" if peer.device and peer.node else ""
        lacks = f"  ! {peer.lacks}" if peer.lacks else ""
        lines.append(f"{peer.name or '?'}  {peer.pods} via {peer.via}{device}{node}{lacks}")
    bad = sum(bool(peer.lacks) for peer in view.peers)
    title = "ways to peers" + (f" ({bad:,} not complete)" if bad else "")
    return _titled(title, _cut(lines, bound))


def _filter_lines(view: View) -> list[str]:
    lines = []
    if view.exempt:
        lines.append(f"{view.exempt:,} networks are not masqueraded towards")
    if view.policies is not None:
        counts = view.policies
        lines.append(f"policies: {counts.pods:,} isolated addresses, {counts.chains:,} chains, {counts.sets:,} sets")
        denied = ", ".join(f"{why} {number:,}" for why, number in counts.denied.items() if number)
        lines.append(f"packets denied: {denied or 'none'}")
    return _titled("packet filter", lines)


def _leftover_lines(view: View, bound: int) -> list[str]:
    title = "left over" if view.sure else "left over, or not (what tells could not all be read)"
    return _titled(title, _cut([f"{entry.kind} {entry.what}: {entry.why}" for entry in view.leftovers], bound))
