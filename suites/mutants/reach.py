"""Which tests run which lines: recorded once for each file of tests, kept, and looked up for a place.

Lines are recorded beside the sources that they were in, so that a place is found after other lines have moved.
"""

import ast
import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from suites.mutants.checkout import Checkout
from suites.mutants.places import Place
from suites.mutants.recorder import CURRENT, LINES, NOTES, watched

_BOUND = 1800  # seconds for one file of tests
# What needs minutes, or tests something else than the code: documents, another kernel, sources as texts.
_NOT_TRIED = (
    "test_fuzz.py",
    "test_libcni.py",
    "test_first_network.py",
    "test_vlan_kernel.py",
    "test_limits.py",
    "test_vlans.py",
)
# These run what a bundle brings, in another root directory where nothing is noted: they count for all of a module.
_IN_BUNDLES = {"tests/test_node.py": ("cni_node/agent/setup.py", "cni_node/readiness/trial.py")}


class Test(NamedTuple):
    """A test that passes without a change."""

    name: str  # as pytest knows it
    kernel: bool
    seconds: float  # it took so long while it was watched

    @property
    def file(self) -> str:
        """The file that it is in."""
        return self.name.partition("::")[0]


def list_test_files(root: Path, rooms: Iterable[str], kernel: bool) -> list[str]:
    """The files in these directories of tests/, or these files, with tests that need the kernel or with others."""
    places = [root / "tests" / name for name in rooms]
    found = [path for place in places for path in (sorted(place.rglob("test_*.py")) if place.is_dir() else [place])]
    files = [str(path.relative_to(root)) for path in found if path.name not in _NOT_TRIED]
    return [file for file in files if _may_have(kernel, (root / file).read_text("utf-8"))]


def _may_have(kernel: bool, text: str) -> bool:
    return "mark.kernel" in text if kernel else "pytestmark = pytest.mark.kernel" not in text


class Record:
    """The recordings of a cache directory: of the tests that need the kernel, or of the others."""

    def __init__(self, cache: Path, kernel: bool) -> None:
        self._cache, self._kernel = cache, kernel
        cache.mkdir(parents=True, exist_ok=True)

    def is_current(self, root: Path, file: str) -> bool:
        """Whether there is a recording of these tests as they are now."""
        return self._path(root, file).exists()

    def record(self, checkout: Checkout, sources: Mapping[str, str], file: str) -> int:
        """Run the tests of a file in a watched copy, and once more those that failed. Returns how many passed."""
        tests, failed = self._run(checkout, sources, [file])
        if failed:
            tests += self._run(checkout, sources, failed)[0]
        used = {source for _, _, _, its in tests for source in its}
        kept = {source: self._keep(sources[source]) for source in used}
        self._path(checkout.root, file).write_text(json.dumps({"file": file, "sources": kept, "tests": tests}))
        return len(tests)

    def _run(
        self, checkout: Checkout, sources: Mapping[str, str], asked: list[str]
    ) -> tuple[list[tuple[str, bool, float, dict[str, list[int]]]], list[str]]:
        """The tests that passed, each with its lines; and the names of those that did not."""
        notes = checkout.root.parent / "notes"
        notes.mkdir(exist_ok=True)
        for name in (NOTES, LINES, CURRENT):
            (notes / name).write_text("0" if name == CURRENT else "")
            (notes / name).chmod(0o666)
        kind = "kernel" if self._kernel else "not kernel"
        checkout.pytest(["-p", "suites.mutants.recorder", "-m", kind, *asked], _BOUND, {"MUTANTS_NOTES": str(notes)})
        lines: dict[int, dict[str, list[int]]] = {}
        for entry in sorted(set((notes / LINES).read_text("utf-8", "replace").splitlines())):
            number, _, where = entry.partition(" ")
            source, _, line = where.rpartition(":")
            if number.isdecimal() and line.isdecimal() and source in sources:
                lines.setdefault(int(number), {}).setdefault(source, []).append(int(line))
        told = [json.loads(line) for line in (notes / NOTES).read_text().splitlines()]
        passed = [(name, self._kernel, seconds, lines.get(number, {})) for name, number, well, seconds in told if well]
        return passed, [name for name, _, well, _ in told if not well]

    def load(self, root: Path, files: Iterable[str]) -> Iterator[Any]:
        """The recordings of these files of tests, each with the text of the sources that it was made with."""
        for file in files:
            recording = json.loads(self._path(root, file).read_text())
            recording["sources"] = {
                name: (self._cache / text).read_text() for name, text in recording["sources"].items()
            }
            yield recording

    def _path(self, root: Path, file: str) -> Path:
        digest = hashlib.sha256((root / file).read_bytes()).hexdigest()[:16]
        return self._cache / f"{file.replace('/', '.')}-{'kernel' if self._kernel else 'pure'}-{digest}.json"

    def _keep(self, source: str) -> str:
        name = "source-" + hashlib.sha256(source.encode()).hexdigest()[:16]
        if not (self._cache / name).exists():
            (self._cache / name).write_text(source, "utf-8")
        return name


def watch(checkout: Checkout, packages: Iterable[str]) -> None:
    """Have the code of a copy note which lines run; before install()."""
    for package in packages:
        path = checkout.root / package / "__init__.py"
        path.write_text(watched(path.read_text("utf-8"), checkout.root.parent / "notes"), "utf-8")


class Reach:
    """Which tests run a line, for the sources as they are now."""

    def __init__(self, sources: Mapping[str, str], recordings: Iterable[Any]) -> None:
        self._trees = {file: ast.parse(source) for file, source in sources.items()}
        self._tests: dict[str, dict[int, set[Test]]] = {file: {} for file in sources}
        self._uses = _uses(self._trees)
        self._whole: dict[str, set[Test]] = {}
        moves: dict[tuple[str, str], dict[int, int]] = {}
        for recording in recordings:
            for name, kernel, seconds, lines in recording["tests"]:
                test = Test(name, kernel, seconds)
                for file in _IN_BUNDLES.get(test.file, ()):
                    self._whole.setdefault(file, set()).add(test)
                for file, numbers in lines.items():
                    if file in sources:
                        then = recording["sources"][file]
                        if (file, then) not in moves:
                            moves[file, then] = _moves(then, sources[file])
                        for number in numbers:
                            now = moves[file, then].get(number)
                            if now is not None:
                                self._tests[file].setdefault(now, set()).add(test)

    def find_tests(self, place: Place) -> set[Test]:
        """The tests that run a place; for what runs on import, those that run a function that uses its name."""
        return self._find_tests(place) | self._whole.get(place.file, set())

    def _find_tests(self, place: Place) -> set[Test]:
        if place.function:
            tree = self._trees[place.file]
            first, last = _statement(tree, place.line)
            found = self._of(place.file, range(first, last + 1))
            inside = next(node for node in _functions(tree) if node.lineno <= place.line <= (node.end_lineno or 0))
            if not found or place.line < inside.body[0].lineno:  # code that has changed since; a parameter's default
                found = self._of(place.file, range(inside.body[0].lineno, (inside.end_lineno or 0) + 1))
            return found
        names, seen = _named_at(self._trees[place.file], place.line), set[str]()
        found = set[Test]()
        while names - seen:
            name = min(names - seen)
            seen.add(name)
            for file, line in self._uses.get(name, ()):
                if _in_function(self._trees[file], line):
                    found |= self._of(file, [line])
                else:  # a value that others are made of
                    names |= _named_at(self._trees[file], line)
        return found or self._of(place.file, self._tests[place.file])

    def _of(self, file: str, lines: Iterable[int]) -> set[Test]:
        return {test for line in lines for test in self._tests[file].get(line, ())}


def _moves(then: str, now: str) -> dict[int, int]:
    """Where the lines of a source stand in a later one; those that are there no more are left out."""
    before, after = then.splitlines(), now.splitlines()
    if before == after:
        return {number: number for number in range(1, len(after) + 1)}
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return {a + i + 1: b + i + 1 for a, b, size in blocks for i in range(size)}


def _uses(trees: Mapping[str, ast.Module]) -> dict[str, set[tuple[str, int]]]:
    """Where each name is read: files and lines."""
    found: dict[str, set[tuple[str, int]]] = {}
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                name = node.id if isinstance(node, ast.Name) else node.attr
                found.setdefault(name, set()).add((file, node.end_lineno or 0))
    return found


def _in_function(tree: ast.Module, line: int) -> bool:
    return any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in _functions(tree))


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions, inner ones first."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted(found, key=lambda node: (node.end_lineno or 0) - node.lineno)


def _statement(tree: ast.Module, line: int) -> tuple[int, int]:
    """The first and the last line of the statement that a line belongs to; of a compound one, its head."""
    best = (1, 1 << 30)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or 0
            if node.lineno <= line <= last and last - node.lineno < best[1] - best[0]:
                best = (node.lineno, last)
    return best


def _named_at(tree: ast.Module, line: int) -> set[str]:
    """The names that the statement at a line of a module or of a class gives; a class's own name for its fields."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.lineno <= line <= (node.end_lineno or 0):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        if isinstance(node, ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0):
            found.add(node.name)
    return found
