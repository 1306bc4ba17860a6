"""The plot: milliseconds of ADD and DEL over the number of reservations, as SVG, with the standard library alone."""

from collections.abc import Iterable, Sequence
from math import floor, log10

from benchmark.store import Point

_WIDTH, _HEIGHT = 760, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 740, 84, 370  # the edges of the drawing itself
_STYLE = """
    svg { font: 13px system-ui, sans-serif; }
    .ground { fill: #ffffff; } text { fill: #24292f; }
    .grid { stroke: #d0d7de; stroke-width: 1; } .minor { stroke: #eaeef2; stroke-width: 1; }
    .line { fill: none; stroke-width: 2.5; } .DEL.line { stroke-dasharray: 7 5; }
    .ours { stroke: #0969da; } .reference { stroke: #bc4c00; }
    .ours.dot { fill: #0969da; } .reference.dot { fill: #bc4c00; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0d1117; } text { fill: #e6edf3; }
      .grid { stroke: #3d444d; } .minor { stroke: #21262d; }
      .ours { stroke: #58a6ff; } .reference { stroke: #f0883e; }
      .ours.dot { fill: #58a6ff; } .reference.dot { fill: #f0883e; }
    }
"""
_NAMES = {"ours": "cni-ipam", "reference": "host-local"}
_COMMANDS = ("ADD", "DEL")


def draw(points: Sequence[Point]) -> str:
    """The text of the SVG file."""
    most = max(1, *(point.reservations for point in points))
    values = [point.times[command] for point in points for command in _COMMANDS]
    low, high = floor(log10(min(values))), floor(log10(max(values))) + 1
    scale = _Scale(most, low, high)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>Milliseconds of ADD and DEL over the number of reservations</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}"/>',
        *_grid(scale),
        *_legend(),
    ]
    for side in ("reference", "ours"):
        for command in _COMMANDS:
            parts += _curve(scale, [point for point in points if point.side == side], side, command)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """Where a number of reservations and a time stand: linear to the right, logarithmic upwards."""

    def __init__(self, most: int, low: int, high: int) -> None:
        self.most, self.low, self.high = most, low, high

    def x(self, reservations: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * reservations / self.most

    def y(self, milliseconds: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (log10(milliseconds) - self.low) / (self.high - self.low)


def _grid(scale: _Scale) -> Iterable[str]:
    for power in range(scale.low, scale.high + 1):
        y = scale.y(10.0**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>'
        yield _text(_LEFT - 8, y + 4, f"{10.0**power:,g}", "end")
        for digit in range(2, 10 if power < scale.high else 2):
            y = scale.y(digit * 10.0**power)
            yield f'<line class="minor" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>'
    for sixth in range(7):
        x, reservations = scale.x(scale.most * sixth / 6), round(scale.most * sixth / 6)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_BOTTOM}"/>'
        yield _text(x, _BOTTOM + 20, f"{reservations:,}", "end" if sixth == 6 else "middle")
    yield _text(_LEFT, 26, "Time of one command of the address plugin, cold (ms, logarithmic)", "start")
    yield _text((_LEFT + _RIGHT) / 2, _HEIGHT - 16, "addresses that are reserved already", "middle")


def _legend() -> Iterable[str]:
    x = float(_LEFT)
    for side, name in _NAMES.items():
        for command in _COMMANDS:
            yield f'<line class="line {side} {command}" x1="{x}" y1="54" x2="{x + 34}" y2="54"/>'
            yield _dot(x + 17, 54, side, command)
            yield _text(x + 42, 58, f"{name}: {command}", "start")
            x += 165


def _curve(scale: _Scale, points: Iterable[Point], side: str, command: str) -> Iterable[str]:
    ordered = sorted(points, key=lambda point: point.reservations)
    places = [(scale.x(point.reservations), scale.y(point.times[command])) for point in ordered]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline class="line {side} {command}" points="{line}"/>'
    for (x, y), point in zip(places, ordered, strict=True):
        words = f"{_NAMES[side]}, {command}, {point.reservations:,} reservations: {point.times[command]:.1f} ms"
        yield _dot(x, y, side, command, f"<title>{words}</title>")


def _dot(x: float, y: float, side: str, command: str, inside: str = "") -> str:
    """A disc for ADD, a square for DEL: the two are told apart without colours too."""
    if command == "ADD":
        return f'<circle class="dot {side}" cx="{x:.1f}" cy="{y:.1f}" r="4">{inside}</circle>'
    return f'<rect class="dot {side}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">{inside}</rect>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
