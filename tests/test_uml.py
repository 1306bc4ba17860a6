"""User-mode Linux as a tool of the tests: what comes back from it, and that nothing of it stays."""

import tempfile
from pathlib import Path

import pytest

from tests.kit.uml import run_in_uml

pytestmark = pytest.mark.kernel


def test_a_command_gives_back_what_it_did_and_leaves_the_machine_as_it_is(tmp_path: Path) -> None:
    script = 'echo "$GIVEN" && pwd && touch here /tmp/written && echo kept >"$UML_SHARED/file" && exit 7'
    done = run_in_uml(["sh", "-c", script], tmp_path, {"GIVEN": "it's here"}, 60)
    assert (done.status, done.output) == (7, f"it's here\n{tmp_path}\n"), done.console
    assert done.files == {"file": "kept\n"}
    assert not (tmp_path / "here").exists()
    assert not Path("/tmp/written").exists()


def test_a_command_that_goes_on_too_long_is_ended_with_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # so the kernel's command line names it
    done = run_in_uml(["sh", "-c", 'echo started >"$UML_SHARED/file"; sleep 600'], tmp_path, {}, 5)
    assert (done.status, done.files) == (None, {"file": "started\n"}), done.console
    assert "not ended after 5 s" in done.console
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in running if str(tmp_path).encode() in line]
