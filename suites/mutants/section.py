"""The section of a document that has the mutants' figures: found by its markers, kept, or written anew.

Must not: import anything of this project. `scripts/faults` keeps the section, with Debian's own Python.
"""

import re
from pathlib import Path

_BEGIN, _END = "<!-- mutants: written by scripts/mutants -->\n", "<!-- end of mutants -->"
_SECTION = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)


def check_section(path: Path) -> None:
    """Raise SystemExit unless a document has a place for this; to be asked before all the work."""
    if not _SECTION.search(path.read_text("utf-8")):
        raise SystemExit(f"{path} has no markers for: mutants")


def keep_section(old: str, new: str) -> str:
    """A new text of a document, with the section that the old one had."""
    section = _SECTION.search(old)
    return f"{new}\n{section[0]}\n" if section else new


def put_section(path: Path, text: str) -> None:
    """Put a text between the markers of a document."""
    path.write_text(_SECTION.sub(lambda _: f"{_BEGIN}{text}{_END}", path.read_text("utf-8")), "utf-8")
