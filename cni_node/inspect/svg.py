"""A node as a picture: containers, their pairs, the bridge, the way out, and the peers. SVG text, nothing else. Pure.

Must not: put a name into the text that is not escaped.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cni_node.inspect.values import Attached, Bridge, View, shorten

_PODS, _PEERS = 8, 6  # that are drawn one by one
_ROW, _TOP = 64, 110
_POD, _HOST, _BRIDGE, _OUT, _PEER = 30, 330, 580, 800, 1060  # where the columns begin
_WIDTHS = {_POD: 230, _HOST: 170, _BRIDGE: 140, _OUT: 190, _PEER: 230}
_WIDTH, _BOX = 1320, 48
_STYLE = """
text { font-family: system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2933 }
.small { font-size: 12px; fill: #52606d } .name { font-size: 14px; font-weight: 600 } .bad { fill: #b42318 }
.title { font-size: 22px; font-weight: 600 } .head { font-size: 12px; fill: #7b8794; letter-spacing: 1px }
rect { fill: #fff; stroke: #9aa5b1; stroke-width: 1.2 } .page { fill: #f7f8fa; stroke: none }
.pod { fill: #e6f0ff; stroke: #3b6fb6 } .bridge { fill: #e7f6ec; stroke: #2f855a }
.out { fill: #fff4e0; stroke: #b7791f } .wrong { fill: #fdeceb; stroke: #b42318 }
.line { fill: none; stroke: #7b8794; stroke-width: 1.6 } .far { stroke-dasharray: 5 4 }
"""


class _Box(NamedTuple):
    """A rectangle with a name and a line beneath it. `y` is its middle."""

    x: int
    y: int
    kind: str
    name: str
    below: str
    height: int = _BOX

    def svg(self) -> str:
        width = _WIDTHS[self.x]
        middle = self.x + width // 2
        small = "small bad" if self.kind == "wrong" else "small"
        return (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y - self.height // 2}" width="{width}" '
            f'height="{self.height}" rx="8"/>'
            + _text(middle, self.y - 3, self.name, "name", size=width // 9)
            + _text(middle, self.y + 15, self.below, small, size=width // 7)
        )

    @property
    def right(self) -> int:
        return self.x + _WIDTHS[self.x]


def draw(view: View) -> str:
    """The picture as the text of an SVG file."""
    body: list[str] = []
    y = _TOP
    for bridge in view.bridges:
        lines, y = _draw_bridge(bridge, view, y)
        body += lines
    if not view.bridges:
        body.append(_text(_POD, y, "no bridge with pods", "small", anchor="start"))
        y += _ROW
    body += _peers(view)
    height = max(y, _TOP + _ROW * _count(len(view.peers), _PEERS)) + 20
    body += [_text(_POD, height - 24, _summary(view), "small", anchor="start", size=200)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
    )
    page = f'<rect class="page" width="{_WIDTH}" height="{height}"/>'
    title = _text(_POD, 42, f"node {view.node}", "title", anchor="start", size=80)
    return "\n".join([head, f"<style>{_STYLE}</style>", page, title, *_heads(view), *body, "</svg>"]) + "\n"


def escape(text: str) -> str:
    """Escape a text for XML. Characters that XML does not allow or that are not printable become question marks."""
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _text(x: int, y: int, text: str, kind: str, *, anchor: str = "middle", size: int = 60) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(shorten(text, size))}</text>'


def _heads(view: View) -> Iterator[str]:
    columns = {_POD: "CONTAINER", _HOST: "HOST END", _BRIDGE: "BRIDGE", _OUT: "WAY OUT"}
    columns |= {_PEER: "PEERS"} if view.peers else {}
    for x, head in columns.items():
        yield _text(x + _WIDTHS[x] // 2, 76, head, "head")


def _count(number: int, most: int) -> int:
    """The number of rows for so many things: one each, or `most` and one row for the rest."""
    return number if number <= most else most + 1


def _draw_bridge(bridge: Bridge, view: View, top: int) -> tuple[list[str], int]:
    mine = set(bridge.owners)
    pods = [one for one in view.attached if one.owner in mine]
    rows = max(_count(len(pods), _PODS), len(_ways_out(view)), 1)
    bottom = top + (rows - 1) * _ROW
    middle = (top + bottom) // 2
    link = bridge.link
    kind = "bridge" if link.up else "wrong"
    what = " ".join(bridge.addresses[:1]) or "no address"
    box = _Box(_BRIDGE, middle, kind, link.name, what, bottom - top + _BOX)
    lines: list[str] = []
    for number, one in enumerate(pods[:_PODS]):
        lines += _draw_pod(one, top + number * _ROW)
    if len(pods) > _PODS:
        lines.append(_text(_POD + _WIDTHS[_POD] // 2, bottom, f"… {len(pods) - _PODS:,} more", "small"))
    lines += [box.svg(), _text(_BRIDGE + 70, middle + 31, f"mtu {link.mtu}{'' if link.up else ' down'}", "small")]
    for out in _ways_out(view, top):
        lines += [_line(box.right, out.y, out.x), out.svg()]
    return lines, bottom + _ROW


def _draw_pod(one: Attached, y: int) -> Iterator[str]:
    first = one.addresses[0] if one.addresses else one.unaddressed
    ports = " ".join(f"{port.port}/{port.protocol}" for port in one.ports[:2]) + (" …" if len(one.ports) > 2 else "")
    wrong = ", ".join(one.state)
    kind = "wrong" if wrong else "pod"
    pod = _Box(_POD, y, kind, one.label, wrong or f"{one.ifname}  {first}")
    host = one.host
    mtu = f"mtu {host.mtu}{f'  port {ports}' if ports else ''}" if host is not None else "not there"
    end = _Box(_HOST, y, "plain" if host is not None else "wrong", host.name if host is not None else "?", mtu)
    yield from (_line(pod.right, y, end.x), _line(end.right, y, _BRIDGE), pod.svg(), end.svg())


def _ways_out(view: View, top: int = _TOP) -> list[_Box]:
    ways = [
        (way["name"], " ".join(way["addresses"][:1]) or f"mtu {way['mtu']}", "out" if way["up"] else "wrong")
        for way in view.uplinks
    ]
    ways += [(link.name, f"overlay  mtu {link.mtu}", "out" if link.up else "wrong") for link in view.overlay]
    return [_Box(_OUT, top + number * _ROW, kind, name, below) for number, (name, below, kind) in enumerate(ways)]


def _peers(view: View) -> Iterator[str]:
    """Peers hang on the way out that leads to them, the overlay or the first uplink."""
    ways = {box.name: box for box in _ways_out(view)} if view.bridges else {}
    for number, peer in enumerate(view.peers[:_PEERS]):
        kind = "wrong" if peer.lacks else "plain"
        y = _TOP + number * _ROW
        way = ways.get(peer.device) or next(iter(ways.values()), None)
        if way is not None:
            yield _line(way.right, way.y, _PEER, y, "line far")
        name = peer.name or peer.node or peer.via
        yield _Box(_PEER, y, kind, name, peer.lacks or peer.pods).svg()
    if len(view.peers) > _PEERS:
        y = _TOP + _PEERS * _ROW
        yield _text(_PEER + _WIDTHS[_PEER] // 2, y, f"… {len(view.peers) - _PEERS:,} more", "small")


def _line(x: int, y: int, to_x: int, to_y: int | None = None, *kinds: str) -> str:
    """A line, level or as a curve."""
    kind = " ".join(kinds) or "line"
    if to_y is None or to_y == y:
        return f'<path class="{kind}" d="M{x} {y}H{to_x}"/>'
    middle = (x + to_x) // 2
    return f'<path class="{kind}" d="M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"/>'


def _summary(view: View) -> str:
    masqueraded = sum(any(rule.startswith("masquerade") for rule in one.rules) for one in view.attached)
    parts = [
        f"interfaces of pods: {len(view.attached):,}, masqueraded: {masqueraded:,}",
        f"host ports: {sum(len(one.ports) for one in view.attached):,}",
        f"peers: {len(view.peers):,}",
        f"left over: {f'{len(view.leftovers):,}' if view.sure else 'unknown'}",
    ]
    if view.problems:
        parts.append(f"could not be read: {len(view.problems):,}")
    return "   ·   ".join(parts)
