"""The kit by itself: what is built is kept whole or not at all, and failures are said in words."""

import fcntl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from suites.kubernetes import REACHED, TESTED, write_between, write_table
from tests.kit.kubernetes import own, programs
from tests.kit.kubernetes.command import SetupError, await_value, run
from tests.kit.kubernetes.e2e_run import EXPLAINED, Case
from tests.kit.kubernetes.machine import last_words


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory as the one where things are kept."""
    monkeypatch.setenv(programs.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(target: Path, say: programs.Say) -> None:
    say("making")
    (target / "made").write_text("whole")


def fail(target: Path, say: programs.Say) -> None:
    (target / "made").write_text("half")
    raise SetupError("no")


def test_what_is_made_is_made_once_and_anew_when_it_shall_be_another(kept: Path) -> None:
    said: list[str] = []
    assert (programs.ensure("thing", "1", make, said.append) / "made").read_text() == "whole"
    programs.ensure("thing", "1", fail, said.append)
    programs.ensure("thing", "2", make, said.append)
    assert said == ["making", "making"]


def test_what_failed_is_not_kept_and_the_next_run_begins_anew(kept: Path) -> None:
    with pytest.raises(SetupError):
        programs.ensure("thing", "1", fail, print)
    assert not (kept / "thing").exists()
    assert (programs.ensure("thing", "1", make, print) / "made").read_text() == "whole"


def test_what_was_there_before_stays_when_the_new_one_fails(kept: Path) -> None:
    programs.ensure("thing", "1", make, print)
    with pytest.raises(SetupError):
        programs.ensure("thing", "2", fail, print)
    assert (kept / "thing/made").read_text() == "whole"


def test_the_image_of_a_checkout_is_made_anew_when_its_sources_change(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def install(command: Sequence[str], *, seconds: float) -> str:
        if command[0] == "python3":
            return "Python 3"
        made.append(source.read_text())
        Path(command[-1]).touch()
        return ""

    monkeypatch.setattr(own, "run", install)
    monkeypatch.setattr(own, "ROOT", tmp_path / "checkout")
    source = tmp_path / "checkout/cni_protocol/deep/module.py"
    source.parent.mkdir(parents=True)
    for text in ("1", "1", "2", "1", "3", "4", "5"):
        source.write_text(text)
        assert own.ensure_own_image(print).is_file()
    assert made == ["1", "2", "3", "4", "5"]
    assert len(list(kept.iterdir())) == 2 * 4  # directories and locks of the newest


def test_who_waits_for_another_run_says_so(kept: Path) -> None:
    kept.mkdir()
    said: list[str] = []
    with (kept / "thing.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = pool.submit(programs.ensure, "thing", "1", make, said.append)
        await_value("it waits", lambda: said, 60)
        assert (said, made.done()) == (["another run makes thing: waiting for it"], False)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert (made.result(60) / "made").read_text() == "whole"


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["sh", "-c", "echo it is broken >&2; exit 3"], r"failed \(3\): it is broken"),
        (["sleep", "60"], r"sleep 60 did not end within 0 s"),
        (["no-such-program"], r"no-such-program failed \(\d+\): .*No such file"),
    ],
    ids=["fails", "hangs", "is missing"],
)
def test_a_program_that_does_not_do_its_work_is_named_with_what_it_said(command: list[str], complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint):
        run(command, seconds=0.4)


def test_what_does_not_come_is_named_with_what_came() -> None:
    with pytest.raises(SetupError, match="the light is on: not so after 0 s; at last it was ''"):
        await_value("the light is on", str, 0.1)


def test_a_daemons_last_words_begin_where_it_says_why_it_ends() -> None:
    long = "I1 all is well\n" * 1000
    assert last_words(f"{long}F1125 17:00:00 no API\ngoroutine 1\n{long}").startswith(
        "F1125 17:00:00 no API\ngoroutine"
    )
    assert last_words(f"{long}panic: why\n").endswith("well\npanic: why\n")


def test_what_comes_of_a_run_is_written_between_its_markers_alone(tmp_path: Path) -> None:
    end = "<!-- end of table -->"
    page = tmp_path / "page.md"
    page.write_text(f"a\n{TESTED}\nold\n{end}\nb\n{REACHED}\n{end}\nc\n")
    (part,) = EXPLAINED
    cases = [Case("[x] a|b", 1.0, ""), Case("c", 1.0, "no"), Case(f"d {part}", 1.0, "no")]
    write_table(page, cases)
    write_between(REACHED, page, ["new"])
    rows = ["| test | result |", "|---|---|", "| \\[x] a\\|b | passes |", "| c | fails: not explained |"]
    rows.append(f"| d {part} | fails: {EXPLAINED[part]} |")
    assert page.read_text().splitlines() == ["a", TESTED, *rows, end, "b", REACHED, "new", end, "c"]
    with pytest.raises(SetupError, match="has no line 'elsewhere'"):
        write_between("elsewhere", page, [])
