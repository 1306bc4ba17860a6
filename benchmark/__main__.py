"""The body of scripts/bench: measures row by row, prints as it goes, and writes what it is asked to write."""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.attach import measure_burst, measure_dual, measure_memory, measure_plain, measure_seed, measure_small
from benchmark.calls import Bench, Side
from benchmark.document import check_markers, write_document
from benchmark.load import measure_load
from benchmark.plot import draw
from benchmark.profile import Part, as_markdown, measure_profile
from benchmark.rows import Row, markdown, text_head, text_line
from benchmark.scale import measure_pods, measure_ports
from benchmark.store import Point, measure_full, measure_ipam
from benchmark.traffic import measure_nat
from suites import sandbox

_ROUNDS = 20
_PLACES = ["machine", "table", "parts"]  # in the document


class Findings:
    """All that was measured."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.points: list[Point] = []
        self.parts: list[Part] = []

    def add(self, rows: list[Row]) -> None:
        """Take rows, and print them."""
        self.rows += rows
        for row in rows:
            print(text_line(row), flush=True)

    def take_ipam(self, found: tuple[list[Row], list[Point]]) -> None:
        """Take the rows of the address plugins, and the curve that goes with them."""
        self.add(found[0])
        self.points = found[1]

    def take_parts(self, parts: list[Part]) -> None:
        """Take what calls consist of, and print it."""
        self.parts = parts
        print(f"\n{as_markdown(parts)}", flush=True)


def _groups(bench: Bench, findings: Findings) -> dict[str, Callable[[], None]]:
    """What --only can name, in the order of the table."""
    return {
        "seed": lambda: findings.add(measure_seed(bench)),
        "dual": lambda: findings.add(measure_dual(bench)),
        "plain": lambda: findings.add(measure_plain(bench)),
        "small": lambda: findings.add(measure_small(bench)),
        "ipam": lambda: findings.take_ipam(measure_ipam(bench)),
        "full": lambda: findings.add(measure_full(bench)),
        "burst": lambda: findings.add(measure_burst(bench)),
        "pods": lambda: findings.add(measure_pods(bench)),
        "ports": lambda: findings.add(measure_ports(bench)),
        "load": lambda: findings.add(measure_load(bench)),
        "nat": lambda: findings.add(measure_nat(bench)),
        "memory": lambda: findings.add(measure_memory(bench)),
        "profile": lambda: findings.take_parts(measure_profile(bench)),
    }


GROUPS = (
    "seed",
    "dual",
    "plain",
    "small",
    "ipam",
    "full",
    "burst",
    "pods",
    "ports",
    "load",
    "nat",
    "memory",
    "profile",
)


def main() -> None:
    """Measure, and print a line for each row."""
    options = _parse_options()
    if options.document:
        check_markers(options.document, _PLACES)
    version = _reference_version()  # before /var/lib is a private one
    sandbox.set_up()
    ours = Side("ours", options.bin_dir, "cni-bridge", "cni-ipam")
    reference = Side("reference", options.reference_bin_dir, "bridge", "host-local")
    bench = Bench(1 if options.quick else options.rounds, options.quick, ours, reference)
    machine = _describe_machine(bench, version)
    print(f"{machine}\n\n{text_head()}", flush=True)
    findings = Findings()
    began = time.monotonic()
    groups = _groups(bench, findings)
    for name in GROUPS:
        if name in options.only:
            groups[name]()
    print(f"measured in {time.monotonic() - began:.0f} s", flush=True)
    _write(options, machine, findings)


def _parse_options() -> Any:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="how long the plugins take, beside Debian's containernetworking-plugins"
    )
    for hidden in ("bin_dir", "reference_bin_dir"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"calls of each kind ({_ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="one round of small numbers, to see whether it runs")
    parser.add_argument("--only", nargs="+", metavar="ROWS", choices=GROUPS, default=GROUPS, help=", ".join(GROUPS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write the plot of ADD and DEL there (of: ipam)")
    parser.add_argument("--document", type=Path, metavar="FILE.md", help="put tables there, and the plot beside it")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.document and set(options.only) != set(GROUPS):
        parser.error("--document needs all rows; leave --only out")
    if options.plot and "ipam" not in options.only:
        parser.error("--plot draws what ipam measures; add it to --only")
    return options


def _reference_version() -> str:
    query = ["dpkg-query", "--show", "--showformat", "${Version}", "containernetworking-plugins"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout or "of an unknown version"


def _describe_machine(bench: Bench, version: str) -> str:
    rounds = "quick mode: the numbers mean nothing" if bench.quick else f"medians of {bench.rounds} rounds"
    return (
        f"Linux {platform.release()} with {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"containernetworking-plugins {version}; {rounds}."
    )


def _write(options: Any, machine: str, findings: Findings) -> None:
    if options.json:
        rows = [row.as_json() for row in findings.rows]
        points, parts = ([each._asdict() for each in found] for found in (findings.points, findings.parts))
        document = {"machine": machine, "rows": rows, "curve": points, "profile": parts}
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if options.plot:
        options.plot.write_text(draw(findings.points), "utf-8")
    if options.document:
        table, parts_table = markdown(findings.rows), as_markdown(findings.parts)
        contents = dict(zip(_PLACES, (f"{machine}\n", table, parts_table), strict=True))
        write_document(options.document, contents, draw(findings.points))


if __name__ == "__main__":
    main()
