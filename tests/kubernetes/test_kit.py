"""The kit by itself: what is built is kept whole or not at all, and failures are said in words."""

from pathlib import Path

import pytest

from tests.kit.kubernetes import programs
from tests.kit.kubernetes.command import SetupError, await_value, run


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
