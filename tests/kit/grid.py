"""A table of who reached whom, as text. Pure."""

from collections.abc import Iterator, Mapping


def grid(cells: Mapping[tuple[str, str], tuple[str, bool]]) -> Iterator[str]:
    """A line for each source, a column for each destination; what was seen there, and whether that is right."""
    sources, destinations = (list(dict.fromkeys(pair[index] for pair in cells)) for index in (0, 1))
    rows = [["", *destinations]]
    for source in sources:
        found = [cells.get((source, destination)) for destination in destinations]
        rows.append([source, *("" if cell is None else cell[0] + ("" if cell[1] else " !") for cell in found)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
