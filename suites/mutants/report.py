"""What the mutants came to: a table, a list of survivors, a section of a document.

Must not: try anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from suites.mutants.checkout import PACKAGES
from suites.mutants.section import put_section
from suites.mutants.trial import HUNG, SURVIVED, Verdict


def parse_equivalents(text: str) -> dict[str, str]:
    """Mutants that do what the code does: their names, and the reason. Two lines each; # begins a comment."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) % 2 or any(not reason.startswith("    ") for reason in lines[1::2]):
        raise ValueError("the equivalents: each name needs a line with its reason, indented by four")
    return {name: reason.strip() for name, reason in zip(lines[::2], lines[1::2], strict=True)}


def score(verdicts: Sequence[Verdict]) -> float:
    """The part of the mutants that was noticed."""
    return 1 - sum(verdict.result == SURVIVED for verdict in verdicts) / len(verdicts) if verdicts else 1.0


def to_table(verdicts: Sequence[Verdict], equivalents: Mapping[str, str]) -> list[str]:
    """A line for each package, and one for all of them. Equivalent mutants count nowhere else."""
    lines = ["| package | places | noticed | of these by no end | survived | equivalent | score |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for package in (*PACKAGES, ""):
        its = [verdict for verdict in verdicts if verdict.file.startswith(f"{package}/" if package else "")]
        counted = [verdict for verdict in its if verdict.result != SURVIVED or verdict.name not in equivalents]
        if not its:
            continue
        survived = sum(verdict.result == SURVIVED for verdict in counted)
        hung = sum(verdict.result == HUNG for verdict in counted)
        cells = (len(its), len(counted) - survived, hung, survived, len(its) - len(counted), f"{score(counted):.2f}")
        lines.append(f"| {package or 'all'} | " + " | ".join(map(str, cells)) + " |")
    return lines


def to_survivors(verdicts: Iterable[Verdict], equivalents: Mapping[str, str]) -> list[str]:
    """Each survivor: where, the change, and what was tried, or why it is equivalent."""
    lines = []
    for verdict in verdicts:
        if verdict.result == SURVIVED:
            reason = equivalents.get(verdict.name)
            lines.append(f"{verdict.file}:{verdict.line}: {verdict.change}")
            lines.append(f"    equivalent: {reason}" if reason else f"    {verdict.tests} tests of {verdict.by}")
    return lines


def write_section(path: Path, seed: int, verdicts: Sequence[Verdict], equivalents: Mapping[str, str]) -> None:
    """Put the figures between the markers of a document."""
    text = f"""
## Mutants

Whether the tests would notice a mistake. `sudo scripts/mutants --document docs/reliability.md` makes {len(verdicts)}
small changes of the code, one at a time, at places that are drawn at random (seed {seed}) from all packages in
proportion to their code. A comparison is another one, a condition is negated, `and` is `or`, a number is off by one, a
string is empty, a function returns None, a call or a `raise` is gone. What people read is left alone: docstrings,
annotations, messages. The tests that run the changed line are tried, the module's own first; one of them has to fail,
and to fail again.

{chr(10).join(to_table(verdicts, equivalents))}

*by no end*: the tests did not end in time. *equivalent*: no test could tell; `suites/mutants/equivalents.txt` says why.

"""
    put_section(path, text)
