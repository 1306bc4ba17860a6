"""The start of the agent: one at a time, and why it does not run is left for `pycni status`."""

import argparse
import fcntl
import stat
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from cni_kernel.errors import KernelError
from cni_node.__main__ import all_parsers
from cni_node.agent import run
from cni_node.agent.status import refusal_path


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    """A command line that is right."""
    words = ["--pod-cidr", "10.1.0.0/24", "--socket", str(tmp_path / "run/agent.sock"), "--root", str(tmp_path)]
    return all_parsers()["agent"].parse_args(words)


def test_a_refusal_is_left_for_status_and_the_next_start_takes_it_away(
    options: argparse.Namespace, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = mocker.patch.object(run, "_serve", side_effect=KernelError(1, "sockets"))
    path = refusal_path(options.socket)
    assert run.run(options) == 1
    said = "sockets: Operation not permitted (run this as root)"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (f"{said}\n", 0o600)
    assert capsys.readouterr().err == f"pycni: {said}\n"
    serve.side_effect = OSError(2, "No such file or directory", "/x")
    assert run.run(options) == 1
    assert path.read_text() == "/x: No such file or directory\n"
    serve.side_effect = OSError(28, "No space left on device")
    assert run.run(options) == 1
    assert path.read_text() == f"{options.socket}: No space left on device\n"
    serve.side_effect = lambda *_: 7 if not path.exists() else 0
    assert run.run(options) == 7


def test_a_second_one_is_refused(
    options: argparse.Namespace, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = mocker.patch.object(run, "_serve", return_value=0)
    assert run.run(options) == 0
    lock = options.socket.with_suffix(".lock")
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run.run(options) == 1
    assert serve.call_count == 1
    assert capsys.readouterr().err == f"pycni: another agent runs, with {options.socket}\n"


def test_options_that_make_no_sense_are_a_status_of_their_own(options: argparse.Namespace) -> None:
    options.pod_cidr = "10.1.0.0"
    assert run.run(options) == 2
    assert "10.1.0.0" in refusal_path(options.socket).read_text()
