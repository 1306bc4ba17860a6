"""The mutation test itself: what it changes and what it leaves alone, which tests it takes, and what it says."""

import json
import shutil
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from suites.mutants.checkout import Checkout, Run, read_sources
from suites.mutants.places import find_places, mutate
from suites.mutants.reach import Reach, Record, watch
from suites.mutants.reach import Test as RecordedTest
from suites.mutants.report import (
    parse_equivalents,
    score,
    to_survivors,
    to_table,
    write_section,
)
from suites.mutants.sample import draw
from suites.mutants.section import check_section, keep_section
from suites.mutants.trial import HUNG, KILLED, SURVIVED, Verdict, merge, try_mutant
from tests.conftest import ROOT

PACKAGE = "cni_ipam"
TINY = '''\
"""A tiny package."""

LIMIT = 3
STEP = 1


def is_small(number):
    """Whether it is."""
    return number <= LIMIT


def count_down(number):
    while number:
        number -= STEP
    return "done"


def never_asked():
    raise ValueError("it is not", 7)
'''
TESTS = """\
import subprocess
import sys

import pytest

from cni_ipam.tiny import count_down, is_small


@pytest.mark.parametrize("number", [3, 4])
def test_small(number):
    assert is_small(number) is (number == 3)


def test_it_ends():
    code = "import sys; sys.path[:0] = sys.argv[1:]; import cni_ipam.tiny as t; sys.exit(t.count_down(2) != 'done')"
    subprocess.run([sys.executable, "-I", "-c", code, sys.path[0]], check=True)


def test_it_fails():
    assert count_down(1) == "never"
"""


def mutants(source: str) -> set[str]:
    return {mutate(source, place).strip() for place in find_places(source, "x.py")}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("x == y", {"(x != y)"}, id="comparison"),
        pytest.param("x is y", {"(x is not y)"}, id="identity"),
        pytest.param("x in y", {"(x not in y)"}, id="membership"),
        pytest.param("x and y and z", {"(x or y or z)"}, id="and"),
        pytest.param("x << y", {"(x >> y)"}, id="shift"),
        pytest.param("x += y", {"x -= y"}, id="added to"),
        pytest.param("x = 4", {"x = 5"}, id="even number"),
        pytest.param("x = 5", {"x = 4"}, id="odd number"),
        pytest.param("x = True", {"x = False"}, id="truth"),
        pytest.param("x = 'word'", {'x = ""'}, id="string"),
        pytest.param("x = ''", {'x = "?"'}, id="empty string"),
        pytest.param("x = b'word'", {'x = b""'}, id="bytes"),
        pytest.param("x = f'{y}/'", {'x = ""'}, id="formatted"),
        pytest.param("x(on=y)", {"pass"}, id="call"),
        pytest.param("x = not y", {"x = (y)"}, id="not"),
        pytest.param("if x:\n    y = z", {"if (not x):\n    y = z"}, id="condition"),
        pytest.param(
            "if x == y:\n    y = z", {"if (x != y):\n    y = z"}, id="condition that a comparison turns round"
        ),
        pytest.param("x = y if z else y", {"x = y if (not z) else y"}, id="conditional value"),
        pytest.param("x = [y for y in z if y]", {"x = [y for y in z if (not y)]"}, id="filter"),
        pytest.param("for x in y:\n    break", {"for x in y:\n    continue"}, id="break"),
        pytest.param("def f():\n    return x", {"def f():\n    return None"}, id="return"),
        pytest.param("def f():\n    return False", {"def f():\n    return True"}, id="return of what None is, too"),
        pytest.param("raise X('a word', 4)", {"pass", "raise X('a word', 5)"}, id="raise"),
        pytest.param(
            "ü = 4 if 'ü' else x", {"ü = 5 if 'ü' else x", 'ü = 4 if "" else x'}, id="wide characters before it"
        ),
        pytest.param("x = (y +\n     z)", {"x = ((y - z))"}, id="over two lines"),
    ],
)
def test_what_is_changed(source: str, expected: set[str]) -> None:
    assert mutants(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""words"""',
        "x = 'some words'",
        "x = f'some words {y}'",
        "x: list[int | None] = y",
        "X = Left | None",
        "X = Callable[['str'], None]",
        "def f(x: 'str') -> 'int | str':\n    ...",
        "if TYPE_CHECKING:\n    x = 4",
        "TYPE_CHECKING = False",
        "if __name__ == '__main__':\n    f()",
        "__all__ = ['x']",
        "T = TypeVar('T')",
        "_log.info('word', 4)",
        "assert x == 4",
        "x = y(help='word')",
        "def f():\n    return None",
    ],
)
def test_what_is_left_alone(source: str) -> None:
    assert mutants(source) == set()


def test_a_place_has_its_name_and_its_rank_wherever_it_stands() -> None:
    first, second = find_places("x = 4\nx = 4", "x.py")
    moved = find_places("y = z\n\nx = 4", "x.py")[0]
    assert first.name != second.name
    assert (moved.name, moved.rank(1), moved.line) == (first.name, first.rank(1), 3)
    assert first.rank(1) != first.rank(2)


def test_a_sample_has_its_share_of_each_package_and_is_the_same_for_a_seed() -> None:
    sources = {"a/x.py": "x = 4\n" * 60, "b/x.py": "x = 4\n" * 30, "b/y.py": "x = 4\n" * 9, "c/x.py": "x = 4"}
    sample = draw(sources, 10, 1)
    assert [sum(place.file.startswith(name) for place in sample) for name in "abc"] == [6, 3, 1]
    assert draw(sources, 10, 1) == sample != draw(sources, 10, 2)
    assert len(draw(sources, 1000, 1)) == 100
    grown = {**sources, "a/x.py": "y = 'z'\n" + sources["a/x.py"]}
    assert len({place.name for place in sample} & {place.name for place in draw(grown, 10, 1)}) >= 9


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkout of one module with its tests, and this tool."""
    root = tmp_path / "tiny"
    shutil.copytree(ROOT / "suites", root / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in ((f"{PACKAGE}/__init__.py", ""), (f"{PACKAGE}/tiny.py", TINY), ("tests/__init__.py", "")):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text(text)
    (root / f"tests/{PACKAGE}").mkdir()
    (root / f"tests/{PACKAGE}/__init__.py").write_text("")
    (root / f"tests/{PACKAGE}/test_tiny.py").write_text(TESTS)
    return root


@pytest.mark.kernel
@pytest.mark.timeout(300)  # pytest is started twenty times, and one mutant hangs
def test_a_tiny_package_from_the_recording_to_the_verdicts(tiny: Path, tmp_path: Path) -> None:
    sources, file = read_sources(tiny, [PACKAGE]), f"tests/{PACKAGE}/test_tiny.py"
    record = Record(tmp_path / "cache", kernel=False)
    watched = Checkout(tiny, tmp_path / "watched")
    watch(watched, [PACKAGE])
    assert not record.is_current(tiny, file)
    assert record.record(watched, sources, file) == 3  # the one that fails does not count
    assert record.is_current(tiny, file)

    moved = {**sources, f"{PACKAGE}/tiny.py": TINY.replace("\n\nLIMIT", "\n# a line more\n\nLIMIT")}
    for name, text in moved.items():
        (tiny / name).write_text(text)
    reach = Reach(moved, record.load(tiny, [file]))
    checkout = Checkout(tiny, tmp_path / "mutants")
    verdicts = [
        try_mutant(checkout, moved[place.file], place, reach)
        for place in find_places(moved[f"{PACKAGE}/tiny.py"], f"{PACKAGE}/tiny.py")
        if place.shown != "1 -> 0"  # hangs, too
    ]
    assert {
        verdict.change: (verdict.result, verdict.by.rpartition("::")[2].partition("[")[0], verdict.tests)
        for verdict in verdicts
    } == {
        "3 -> 2": (KILLED, "test_small", 2),
        "return number <= LIMIT -> return None": (KILLED, "test_small", 2),
        "number <= LIMIT -> number > LIMIT": (KILLED, "test_small", 2),
        "number -> not number": (SURVIVED, file, 1),
        "number -= STEP -> number += STEP": (HUNG, "test_it_ends", 1),
        "return 'done' -> return None": (KILLED, "test_it_ends", 1),
        "'done' -> \"\"": (KILLED, "test_it_ends", 1),
        "raise ValueError('it is not', 7) -> pass": (SURVIVED, "no test runs it", 0),
        "7 -> 6": (SURVIVED, "no test runs it", 0),
    }
    assert (checkout.root / PACKAGE / "tiny.py").read_text() == moved[f"{PACKAGE}/tiny.py"]


@pytest.mark.parametrize(
    ("status", "output", "result"),
    [
        (0, "2 passed in 0.10s", SURVIVED),
        (0, "", KILLED),  # the mutant has ended pytest
        (1, "1 failed in 0.10s", KILLED),
        (1, "Failed: Timeout (>15.0s)", HUNG),
        (-11, "", KILLED),
        (None, "", HUNG),
    ],
)
def test_what_a_run_came_to_and_that_a_survivor_is_not_tried_again(
    tmp_path: Path, mocker: MockerFixture, status: int | None, output: str, result: str
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_x.py").write_text("")
    checkout, reach = mocker.Mock(root=tmp_path), mocker.Mock()
    checkout.pytest.return_value = Run(status, output)
    reach.find_tests.return_value = {RecordedTest("tests/test_x.py::test_it", kernel=False, seconds=1.0)}
    [place, *_] = find_places(TINY, "cni_node/tiny.py")
    verdict = try_mutant(checkout, TINY, place, reach)
    assert verdict.result == result
    assert [call.args for call in checkout.write.call_args_list] == [
        ("cni_node/tiny.py", mutate(TINY, place)),
        ("cni_node/tiny.py", TINY),
    ]
    if result == SURVIVED:
        assert try_mutant(checkout, TINY, place, reach, verdict.past) == verdict
        assert checkout.pytest.call_count == 1
        (tmp_path / "tests/test_x.py").write_text("# it is another one now")
        assert try_mutant(checkout, TINY, place, reach, verdict.past).past != verdict.past
        assert checkout.pytest.call_count == 2


FLAKY = """\
import pytest

calls = []


@pytest.mark.kernel
@pytest.mark.parametrize("twice", [False, True])
def test_it(twice, tmp_path):
    calls.append(tmp_path)
    assert len(set(calls)) == 2 and not twice
"""


def test_a_test_on_the_kernel_has_to_fail_twice(tiny: Path, tmp_path: Path) -> None:
    file = f"tests/{PACKAGE}/test_tiny.py"
    (tiny / file).write_text(FLAKY)
    plan = tmp_path / "plan"
    plan.write_text(json.dumps([f"{file}::test_it[False]", f"{file}::test_it[True]"]))
    checkout = Checkout(tiny, tmp_path / "copy")
    run = checkout.pytest(["-x", "-p", "suites.mutants.chooser", file], 60, {"MUTANTS_PLAN": str(plan)})
    assert "1 failed, 1 passed" in run.output
    assert plan.with_suffix(".failed").read_text() == f"{file}::test_it[True]"


def verdict(file: str, result: str, name: str = "n", by: str = "t") -> Verdict:
    return Verdict(name, file, 7, "0 -> 1", result, by, 2)


VERDICTS = [
    *(verdict("cni_ipam/x.py", result) for result in (KILLED, KILLED, HUNG, SURVIVED)),
    verdict("cni_node/x.py", SURVIVED, "same"),
    verdict("cni_node/x.py", KILLED, "same"),
]


def test_the_table_leaves_equivalents_out_of_the_score() -> None:
    assert to_table(VERDICTS, {"same": "why"})[2:] == [
        "| cni_ipam | 4 | 3 | 1 | 1 | 0 | 0.75 |",
        "| cni_node | 2 | 1 | 0 | 0 | 1 | 1.00 |",
        "| all | 6 | 4 | 1 | 1 | 1 | 0.80 |",
    ]
    assert score(VERDICTS) == pytest.approx(4 / 6)


def test_survivors_are_told_with_what_was_tried_or_why_they_may() -> None:
    assert to_survivors(VERDICTS, {"same": "why"}) == [
        "cni_ipam/x.py:7: 0 -> 1",
        "    2 tests of t",
        "cni_node/x.py:7: 0 -> 1",
        "    equivalent: why",
    ]


@pytest.mark.parametrize(
    ("first", "second", "result", "by", "tests"),
    [
        (SURVIVED, SURVIVED, SURVIVED, "a, b", 4),
        (SURVIVED, KILLED, KILLED, "b", 2),
    ],
)
def test_a_survivor_is_tried_with_more_tests(first: str, second: str, result: str, by: str, tests: int) -> None:
    merged = merge(verdict("x", first, by="a"), verdict("x", second, by="b"))
    assert (merged.result, merged.by, merged.tests) == (result, by, tests)


def test_equivalents_have_reasons() -> None:
    assert parse_equivalents("# comment\n\nname: x\n    for a reason\n") == {"name: x": "for a reason"}
    for wrong in ("name: x\n", "name: x\nname: y\n"):
        with pytest.raises(ValueError, match="a line with its reason"):
            parse_equivalents(wrong)


def test_the_equivalents_name_places_that_are_there() -> None:
    names = {place.name for file, source in read_sources(ROOT).items() for place in find_places(source, file)}
    assert set(parse_equivalents((ROOT / "suites/mutants/equivalents.txt").read_text())) <= names


def test_a_document_gets_its_section_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Page\n")
    with pytest.raises(SystemExit, match=r"page\.md has no markers for: mutants"):
        check_section(path)
    path.write_text("# Page\n\n<!-- mutants: written by scripts/mutants -->\n<!-- end of mutants -->\n")
    check_section(path)
    for _ in range(2):  # the second time there is one already
        write_section(path, 5, VERDICTS, {"same": "why"})
        text = path.read_text()
        assert (text.count("| all | 6 | 4 |"), text.count("(seed 5)"), text.count("# Page")) == (1, 1, 1)
    kept = keep_section(text, "# Another\n")
    assert kept.startswith("# Another\n\n<!-- mutants")
    assert "| all | 6 | 4 |" in kept
    assert keep_section("# Page\n", "# Another\n") == "# Another\n"
