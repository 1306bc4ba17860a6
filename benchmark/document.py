"""docs/performance.md: its figures are put between markers, its words are written by hand."""

import re
from pathlib import Path

_MARKERS = "<!-- {0}: written by scripts/bench -->\n", "<!-- end of {0} -->"


def check_markers(path: Path, names: list[str]) -> None:
    """Raise SystemExit unless the document has a place for each of these; to be asked before all the measuring."""
    text = path.read_text("utf-8")
    missing = [name for name in names if not re.search(_place(name), text, re.DOTALL)]
    if missing:
        raise SystemExit(f"{path} has no markers for: {', '.join(missing)}")


def write_document(path: Path, contents: dict[str, str], plot: str) -> None:
    """Put each content into its place, and the plot beside the document."""
    text = path.read_text("utf-8")
    for name, content in contents.items():
        begin, end = (marker.format(name) for marker in _MARKERS)
        place = f"{begin}\n{content}\n{end}"
        text = text.replace(re.findall(_place(name), text, re.DOTALL)[0], place)
    path.write_text(text, "utf-8")
    path.with_suffix(".svg").write_text(plot, "utf-8")


def _place(name: str) -> str:
    begin, end = (re.escape(marker.format(name)) for marker in _MARKERS)
    return f"{begin}.*?{end}"
