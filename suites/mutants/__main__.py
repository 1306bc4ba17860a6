"""The body of scripts/mutants; it is run as root, from the root of the repository."""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from suites.mutants.checkout import PACKAGES, Checkout, read_sources
from suites.mutants.places import Place
from suites.mutants.reach import Reach, Record, list_test_files, watch
from suites.mutants.report import parse_equivalents, score, to_survivors, to_table, write_section
from suites.mutants.sample import draw
from suites.mutants.section import check_section
from suites.mutants.trial import SURVIVED, Verdict, merge, try_mutant

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.txt")
WANTED = 0.9
_ELSEWHERE = ("test_node.py", "test_linked.py")
_WITH_NODE = ("system/test_policies.py", "test_node.py")
_T = TypeVar("_T")


def main() -> int:
    """Returns the exit status: 0 when the score is as wanted, 1 when it is lower."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="how many small changes do the tests notice?")
    parser.add_argument("--count", type=int, metavar="N", default=300, help="how many places (300)")
    parser.add_argument("--seed", type=int, metavar="N", default=1, help="of the random sample (1)")
    parser.add_argument(
        "--package", action="append", choices=PACKAGES, help="only this one; more than one may be named"
    )
    parser.add_argument("--workers", type=int, metavar="N", default=os.cpu_count() or 1, help="at a time (one per CPU)")
    parser.add_argument("--cache", metavar="DIR", default="/var/cache/pycni/mutants", help="which test runs which line")
    parser.add_argument(
        "--results", metavar="FILE", help="kept there; what it has is not tried again by the same tests"
    )
    parser.add_argument("--document", metavar="FILE", help="put the table there")
    options = parser.parse_args()
    if options.document:
        check_section(Path(options.document))
    packages = options.package or PACKAGES
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        Path(scratch).chmod(0o755)
        work = Workshop(Path(scratch), Path(options.cache), options.workers)
        sources = {file: text for file, text in work.sources.items() if file.partition("/")[0] in packages}
        verdicts = _try_all(draw(sources, options.count, options.seed), packages, work, options.results)
    equivalents = parse_equivalents(EQUIVALENTS.read_text("utf-8"))
    print("\n".join(["", *to_survivors(verdicts, equivalents), "", *to_table(verdicts, equivalents)]))
    if options.document:
        write_section(Path(options.document), options.seed, verdicts, equivalents)
    counted = [verdict for verdict in verdicts if verdict.result != SURVIVED or verdict.name not in equivalents]
    return 0 if score(counted) >= WANTED else 1


class Workshop:
    """A snapshot of the checkout, which may change while this runs, and the copies of it that are worked on."""

    def __init__(self, scratch: Path, cache: Path, workers: int) -> None:
        self._scratch, self._workers = scratch, workers
        self._root = Checkout(ROOT, self._place()).root
        self._cache = cache
        self._wheels = _fetch_wheel(cache)
        self.sources = read_sources(self._root)

    def learn(self, rooms: Iterable[str], kernel: bool) -> Reach:
        """Which tests in these directories run which line; what is not known yet is recorded."""
        files, record = list_test_files(self._root, rooms, kernel), Record(self._cache, kernel)

        def run(checkout: Checkout, file: str) -> None:
            print(f"{file}: {record.record(checkout, self.sources, file)} tests recorded", flush=True)

        missing = [file for file in files if not record.is_current(self._root, file)]
        _at_once(lambda: self._copy(watched=True), run, missing, self._workers)
        return Reach(self.sources, record.load(self._root, files))

    def try_mutants(
        self, places: Iterable[Place], reach: Reach, past: Mapping[str, Verdict], tell: Callable[[Verdict], None]
    ) -> None:
        """Try each, and tell what came of it. `past` are earlier verdicts by name."""

        def run(checkout: Checkout, place: Place) -> None:
            runs = past[place.name].past if place.name in past else ()
            tell(try_mutant(checkout, self.sources[place.file], place, reach, runs))

        _at_once(lambda: self._copy(watched=False), run, places, self._workers)

    def _copy(self, watched: bool) -> Checkout:
        checkout = Checkout(self._root, self._place(), self._wheels)
        if watched:
            watch(checkout, PACKAGES)
        checkout.install()
        return checkout

    def _place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))


def _try_all(places: Sequence[Place], packages: Sequence[str], work: Workshop, results: str | None) -> list[Verdict]:
    """Try the mutants with the tests of their packages, the pure ones first; those that survive with all others."""
    path = Path(results) if results else None
    past, equivalents = _read(path), parse_equivalents(EQUIVALENTS.read_text("utf-8"))
    verdicts = {name: verdict for name, verdict in past.items() if verdict.result != SURVIVED}
    for place in places:
        if place.name in equivalents:  # what is slower alone may fail on a busy machine
            verdicts[place.name] = Verdict(place.name, place.file, place.line, place.shown, SURVIVED, "nobody", 0)
    lock = threading.Lock()

    def tell(verdict: Verdict) -> None:
        with lock:
            verdicts[verdict.name] = merge(verdicts.get(verdict.name), verdict)
            print(f"{verdict.result:8} {verdict.file}:{verdict.line}: {verdict.change}  [{verdict.by}]", flush=True)
            if path:
                _write(path, {**past, **verdicts})

    for further, kernel in ((False, False), (False, True), (True, False), (True, True)):
        left = [place for place in places if place.name not in verdicts or verdicts[place.name].result == SURVIVED]
        left = [place for place in left if place.name not in equivalents]
        rooms = _further(left, packages) if further else packages
        kind = "kernel" if kernel else "pure"
        print(f"{len(left)} of {len(places)} places: the {kind} tests of {', '.join(rooms)}", flush=True)
        if left:
            work.try_mutants(left, work.learn(rooms, kernel), past, tell)
    return [verdicts[place.name]._replace(line=place.line) for place in places]


def _further(left: Iterable[Place], packages: Sequence[str]) -> Sequence[str]:
    """Where else tests may run these places, those of other packages than these too. The plugins run no cni_node."""
    if all(place.file.startswith("cni_node/") for place in left):
        return _WITH_NODE
    return (*(package for package in PACKAGES if package not in packages), "system", "conformance", *_ELSEWHERE)


def _at_once(
    make: Callable[[], Checkout], run: Callable[[Checkout, _T], None], tasks: Iterable[_T], workers: int
) -> None:
    """Do all tasks, in some copies of the checkout; the first error ends it."""
    waiting: queue.SimpleQueue[_T] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            checkout = make()
            try:
                while not errors:
                    run(checkout, waiting.get_nowait())
            finally:
                checkout.remove()
        except queue.Empty:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(min(workers, waiting.qsize()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _fetch_wheel(cache: Path) -> Path:
    """A directory with pyroute2's wheel."""
    if not list(cache.glob("wheel/pyroute2-*.whl")):
        wanted = next(line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines() if "pyroute2>=" in line)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(cache / "wheel"), wanted], check=True, timeout=300)
    return cache / "wheel"


def _read(results: Path | None) -> dict[str, Verdict]:
    if results is None or not results.exists():
        return {}
    return {entry[0]: Verdict(*entry) for entry in json.loads(results.read_text("utf-8"))}


def _write(results: Path, verdicts: Mapping[str, Verdict]) -> None:
    results.with_suffix(".new").write_text(json.dumps(list(verdicts.values()), indent=0), "utf-8")
    results.with_suffix(".new").replace(results)


if __name__ == "__main__":
    sys.exit(main())
