"""The rows of the benchmark: what was measured, beside what, and whether a target is kept; as text, Markdown, JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

_WIDTHS = (64, 19, 28, 7, 10)  # of the columns but the last, in characters
_HEAD = ("what", "ours", "reference", "ratio", "target", "result")


class Target(NamedTuple):
    """A limit of a ratio, or of our value itself."""

    limit: float
    at_least: bool = False
    of_value: bool = False

    def text(self, unit: str) -> str:
        """As in the table."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}" + (f" {unit}" if self.of_value else "")


class Row(NamedTuple):
    """One line. The ratio is ours over `over`; where there is no `over`, ours over the reference."""

    key: str
    what: str
    unit: str
    ours: float | None = None
    over: float | None = None
    reference: float | None = None
    reference_over: float | None = None
    target: Target | None = None
    missing: str = ""  # why there is no value of ours

    @property
    def ratio(self) -> float | None:
        """What the target is about, unless that is about the value."""
        return _divide(self.ours, self.reference if self.over is None else self.over)

    @property
    def result(self) -> str:
        """PASS or FAIL, why there is neither, or nothing where no target is set."""
        if self.target is None:
            return self.missing if self.ours is None else ""
        judged = self.ours if self.target.of_value else self.ratio
        if judged is None:
            return self.missing or "not measured"
        kept = judged >= self.target.limit if self.target.at_least else judged <= self.target.limit
        return "PASS" if kept else "FAIL"

    def cells(self) -> tuple[str, ...]:
        """What stands in the columns."""
        theirs = _pair(self.reference, self.reference_over, self.unit)
        their_ratio = _divide(self.reference, self.reference_over)
        return (
            self.what,
            _pair(self.ours, self.over, self.unit),
            theirs if their_ratio is None else f"{theirs} ({their_ratio:,.2f})",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            self.target.text(self.unit) if self.target else "",
            self.result,
        )

    def as_json(self) -> dict[str, Any]:
        """Everything, the ratio and the result included."""
        target = self.target.text(self.unit) if self.target else None
        return {**self._asdict(), "target": target, "ratio": self.ratio, "result": self.result}


def text_head() -> str:
    """The first line of the table as text."""
    return _line(_HEAD)


def text_line(row: Row) -> str:
    """A row as text."""
    return _line(row.cells())


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---|--:|--:|--:|---|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    fitted = [f"{cells[0]:<{_WIDTHS[0]}}"]
    fitted += [f"{cell:>{width}}" for cell, width in zip(cells[1:4], _WIDTHS[1:4], strict=True)]
    return " ".join([*fitted, f" {cells[4]:<{_WIDTHS[4]}}", cells[5]]).rstrip()


def _divide(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _pair(value: float | None, base: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{_number(value)} / {_number(base)} {unit}" if base is not None else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"
