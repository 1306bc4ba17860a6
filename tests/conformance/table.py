"""Reports as Markdown and JSON. Pure; the same report gives the same text."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.registry import Case
from tests.conformance.runner import Report, Verdict

SECTIONS = {
    "envelope": "Parameters, errors, output",
    "add": "ADD",
    "delete": "DEL",
    "check": "CHECK",
    "status": "STATUS",
    "version": "VERSION",
    "gc": "GC",
    "concurrency": "Concurrency",
    "delegation": "Delegation",
    "conventions": "Conventions",
}


def to_markdown(cases: Sequence[Case], reports: Mapping[str, Report]) -> str:
    """A table with a column for every pair of plugins (by its name), and behind it what failed."""
    lines = []
    for section, title in SECTIONS.items():
        mine = [case for case in cases if case.section == section]
        if not mine:
            continue
        lines += [f"## {title}", "", f"| | The specification asks | {' | '.join(reports)} |"]
        lines += [f"|--:|---|{'---|' * len(reports)}"]
        for case in mine:
            cells = [_cell(report.get(case.number, [])) for report in reports.values()]
            lines.append(f"| {case.number} | {_escape(case.sentence)} | {' | '.join(cells)} |")
        lines.append("")
    for name, report in reports.items():
        lines += _list_failures(name, cases, report)
    return "\n".join(lines)


def count(report: Report) -> tuple[int, int]:
    """How many cases passed (in every version that they were run for), and how many were run."""
    ran = [verdicts for verdicts in report.values() if verdicts]
    return sum(all(verdict.passed for verdict in verdicts) for verdicts in ran), len(ran)


def to_json(cases: Sequence[Case], report: Report) -> list[dict[str, Any]]:
    """A report as data."""
    return [
        {
            "number": case.number,
            "section": case.section,
            "sentence": case.sentence,
            "verdicts": [verdict._asdict() for verdict in report.get(case.number, [])],
        }
        for case in cases
    ]


def _cell(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "not run"
    failed = [verdict.version for verdict in verdicts if not verdict.passed]
    if not failed:
        return "pass"
    if len(verdicts) == 1 or len(failed) == len(verdicts):
        return "**fail**"
    return f"**fail** ({', '.join(failed)}); pass ({', '.join(v.version for v in verdicts if v.passed)})"


def _list_failures(name: str, cases: Sequence[Case], report: Report) -> list[str]:
    lines = [f"## What {name} fails", ""]
    for case in cases:
        groups: dict[tuple[str, str], list[str]] = {}
        for verdict in report.get(case.number, []):
            if not verdict.passed:
                key = tuple(text.replace(verdict.version, "VERSION") for text in (verdict.expected, verdict.seen))
                groups.setdefault((key[0], key[1]), []).append(verdict.version)
        for (expected, seen), versions in groups.items():
            shown = [text.replace("VERSION", versions[0]) if len(versions) == 1 else text for text in (expected, seen)]
            lines += [
                f"- **{case.number}** ({', '.join(versions)})  ",
                f"  expected: {_escape(shown[0])}  ",
                f"  seen: {_escape(shown[1])}",
            ]
    return [*lines, ""] if len(lines) > 2 else [*lines, "Nothing.", ""]


def _escape(text: str) -> str:
    """Text that Markdown shows as it is; what stands in backquotes is left alone."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return text.translate(_ESCAPES | {ord("`"): "\\`"})
    return "`".join(part if number % 2 else part.translate(_ESCAPES) for number, part in enumerate(parts))


_ESCAPES = {ord(char): f"\\{char}" for char in "\\*_<>|[]"}
