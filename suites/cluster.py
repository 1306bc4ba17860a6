"""The body of scripts/cluster; it is run as root, from the root of the repository. Other arguments go to pytest."""

import argparse
import os
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fabric import ip_in
from tests.cluster.worlds import World
from tests.kit.grid import grid

TESTS = Path("tests/cluster")
FIRST = "test_reach.py"  # its cluster is timed
LAST = ("speed.py", "route_speed.py", "agent_speed.py", "policy_speed.py")
TABLES = {"agent": LAST[1:3], "policies": LAST[3:]}  # tables of documents, and the files whose measures they have
MARKERS = "<!-- {0}: written by scripts/cluster -->\n", "<!-- end of {0} -->"
Measure = tuple[str, str, bool | None]  # what was measured, what was found, whether that is enough; None: no target
_RESULTS = {True: "PASS", False: "FAIL", None: ""}
READY_BOUND = 60  # seconds from the start to three nodes with pods, debootstrap not counted


class Report:
    """A pytest plugin: gathers what tests note about themselves, and prints it at the end."""

    def __init__(self) -> None:
        self.failed = False
        self.tables: dict[str, list[Measure]] = {name: [] for name in TABLES}
        self._begin = began()
        self._tree_seconds = 0.0
        self._drawn: list[str] = []
        self._reached: dict[str, dict[tuple[str, str], tuple[str, bool]]] = {}
        self._measured: list[Measure] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Draws every cluster when it stands, and looks at the clock."""
        begin = time.monotonic()
        made = yield
        if fixturedef.argname == "tree":
            self._tree_seconds = time.monotonic() - begin
        if isinstance(made, World):
            self._drawn.append("\n".join([f"The cluster of the fixture {fixturedef.argname}", *draw(made)]))
        if fixturedef.argname == "world":
            self._note_ready(time.monotonic() - self._begin - self._tree_seconds)
        return made

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes over what a test has noted."""
        if report.when != "call":
            return
        noted: list[tuple[str, Any]] = list(report.user_properties)
        for kind, value in noted:
            if kind == "reached":
                path, source, destination, seen = value
                self._reached.setdefault(path, {})[source, destination] = (seen, report.passed)
            elif kind == "measured":
                self._measured.append(value)
                for name, files in TABLES.items():
                    if report.nodeid.partition("::")[0].endswith(tuple(f"/{file}" for file in files)):
                        self.tables[name].append(value)

    def print(self) -> None:
        """All of it."""
        for text in self._drawn:
            print(f"\n{text}")
        for path, cells in self._reached.items():
            print(f"\nWho reached whom: {path} (the address that the other end saw; ! is wrong)")
            print("\n".join(grid(cells)))
        print("\nMeasures")
        for what, text, passed in self._measured:
            print(f"  {_RESULTS[passed] or '    '}  {what}: {text}")

    def _note_ready(self, seconds: float) -> None:
        passed = seconds <= READY_BOUND
        self.failed |= not passed
        without = f"debootstrap ({self._tree_seconds:.1f} s) not counted"
        text = f"{seconds:.1f} s, with two pods each, {without}; target <= {READY_BOUND} s"
        self._measured.append(("three nodes ready with pods, from the script's start", text, passed))


def began() -> float:
    """When the script began, on this process's clock; $PYCNI_BEGAN has the time of day, not for what tests run."""
    now = time.time()
    return time.monotonic() - (now - float(os.environ.pop("PYCNI_BEGAN", now)))


def main() -> int:
    """Run the tests. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/cluster", description="other arguments go to pytest")
    parser.add_argument("--document", metavar="FILE", type=Path, help="put what was measured into its place there")
    options, arguments = parser.parse_known_args()
    if options.document:
        with_rows(options.document.read_text("utf-8"), {})  # or all the measuring is for nothing
    report = Report()
    names = dict.fromkeys([FIRST, *sorted(path.name for path in TESTS.glob("test_*.py")), *LAST])
    arguments = ["-q", "-rN", "--tb=short", "-p", "no:cacheprovider", *arguments]
    status = pytest.main([*arguments, *(str(TESTS / name) for name in names)], plugins=[report])
    report.print()
    if options.document:
        text = with_rows(options.document.read_text("utf-8"), report.tables)
        options.document.write_text(text, "utf-8")
    failed = status != pytest.ExitCode.OK or report.failed
    print("\nNot all is as it should be." if failed else "\nAll is as it should be.")
    return 1 if failed else 0


def with_rows(text: str, tables: Mapping[str, Sequence[Measure]]) -> str:
    """The text of a document with the tables for which it has markers. Raises SystemExit if it has none at all."""
    marked = {name: "{}.*{}".format(*(marker.format(name) for marker in MARKERS)) for name in TABLES}
    there = [name for name, pattern in marked.items() if re.search(pattern, text, re.DOTALL)]
    if not there:
        raise SystemExit(
            f"the document has no markers for: {', '.join(TABLES)} (such as {MARKERS[0].format('agent').strip()})"
        )
    for name in there:
        lines = ["| what | found | target | result |", "|---|---|---|---|"]
        for what, found, passed in tables.get(name, ()):
            value, _, target = found.partition("; target ")
            lines.append(f"| {what} | {value} | {target} | {_RESULTS[passed]} |")
        begin, end = (marker.format(name) for marker in MARKERS)
        text = re.sub(marked[name], "\n".join([begin, *lines, "", end]).replace("\\", r"\\"), text, flags=re.DOTALL)
    return text


def draw(world: World) -> Iterator[str]:
    """What is on each link, as the cluster was told; and what the nodes made of it, as `ip -j` tells."""
    for link, machines in world.fabric.links.items():
        yield f"  link {link}"
        for name, addresses in machines.items():
            yield f"    {name}  {', '.join(addresses)}"
            if name in world.cluster.nodes:
                yield from (f"      {line}" for line in draw_node(world, name))


def draw_node(world: World, name: str) -> Iterator[str]:
    """A node's routes to others and its pods."""
    netns = world.machine(name).netns
    for family in ("-4", "-6"):
        for route in ip_in(netns, family, "route"):
            if "gateway" in route:
                yield f"{route['dst']} via {route['gateway']} dev {route['dev']}"
    for pod in world.cluster.runtimes[name].pods:
        yield f"pod {pod}  {', '.join(world.machine(pod).addresses)}"


if __name__ == "__main__":
    raise SystemExit(main())
