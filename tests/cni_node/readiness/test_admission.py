"""When the runtime gets its configuration: after a trial that succeeds, again after one that fails, and once."""

from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from cni_node.readiness import admission
from cni_node.readiness.admission import Admission, Admitted
from cni_node.readiness.runtime import render
from cni_node.readiness.trial import TrialError
from cni_node.settings import OFF, RECHECK, Settings
from cni_node.snapshot import Node
from cni_protocol.address import parse_cidr, parse_ip

PODS = (parse_cidr("10.1.0.0/24"),)
PEER = Node("node2", (parse_cidr("10.2.0.0/24"),), (parse_ip("192.168.1.2"),))


class Trial:
    """An admission whose trials come out as it is told."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.published: SimpleQueue[Admitted] = SimpleQueue()
        self.tried: list[tuple[str, str, Path]] = []
        self.asked: list[tuple[Any, Any]] = []
        self.error: Exception | None = None
        self.asking: Exception | None = None
        made = Settings(None, root=root, socket=root / "agent.sock", bin_dir="/bin", **settings)  # type: ignore[arg-type]
        self.admission = Admission(made, self.published.put)
        monkeypatch.setattr(admission, "try_pod", self._try)
        monkeypatch.setattr(admission, "find_silent", self._ask)

    def _try(self, text: str, bin_dir: str, mark: Path) -> None:
        self.tried.append((text, bin_dir, mark))
        if self.error is not None:
            raise self.error

    def _ask(self, own: Any, targets: Any) -> list[str]:
        self.asked.append((own, targets))
        if self.asking is not None:
            raise self.asking
        return ["node2"]

    def step(self, now: float = 0.0) -> bool:
        return self.admission.step(PODS, [PEER], 1450, now)

    def take(self, now: float = 0.0) -> Admitted:
        """The result of the trial that is under way, as the loop takes it."""
        result = self.published.get(timeout=30)
        self.admission.take(result, now)
        return result


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    return lambda **settings: Trial(tmp_path, monkeypatch, **settings)


def text_of(trial: Trial, *, policies: bool = False) -> str:
    return render(PODS, 1450, str(trial.admission.path.parents[3] / "agent.sock"), policies=policies)


def test_nothing_is_said_before_the_first_trial(make: Callable[..., Trial]) -> None:
    fresh = make().admission
    assert (fresh.serving, fresh.problem, fresh.silent) == (False, "", ())


@pytest.mark.parametrize("policies", [OFF, RECHECK])
def test_a_configuration_is_tried_and_then_written_once(make: Callable[..., Trial], policies: str) -> None:
    trial = make(policies=policies)
    text = text_of(trial, policies=policies == RECHECK)
    path = trial.admission.path
    assert [trial.step(), trial.step()] == [False, False]
    assert trial.take() == Admitted(text, "", ("node2",))
    assert not path.exists()
    assert [trial.step(), trial.step()] == [True, False]
    assert (trial.admission.serving, trial.admission.problem, trial.admission.silent) == (True, "", ("node2",))
    assert path.read_text() == text
    assert path == trial.admission.path.parents[3] / "etc/cni/net.d/10-pycni.conflist"
    assert trial.tried == [(text, "/bin", path.parents[3] / "trial")]
    [(own, targets)] = trial.asked
    assert (own, targets) == ([parse_cidr("10.1.0.1/24")], {parse_ip("10.2.0.1"): "node2"})


def test_a_configuration_that_is_there_is_not_tried(make: Callable[..., Trial]) -> None:
    trial = make()
    trial.admission.path.parent.mkdir(parents=True)
    trial.admission.path.write_text(text_of(trial))
    trial.admission.path.chmod(0o644)
    assert (trial.step(), trial.admission.serving, trial.tried) == (False, True, [])
    trial.admission.path.unlink()  # somebody has removed it
    assert (trial.step(), trial.admission.serving, trial.tried) == (True, True, [])


def test_a_failed_trial_is_repeated_later_and_later(make: Callable[..., Trial]) -> None:
    trial = make()
    trial.error = TrialError("no plugin")
    moment = 100.0
    for wait in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        assert not trial.step(moment)
        assert trial.take(moment).problem == "no plugin; 10-pycni.conflist stays as it was"
        count = len(trial.tried)
        assert not trial.step(moment + wait - 0.01)
        assert len(trial.tried) == count
        moment += wait
    assert (trial.admission.problem, trial.asked) == ("no plugin; 10-pycni.conflist stays as it was", [])
    trial.error = None
    trial.step(moment)
    trial.take(moment)
    assert trial.step(moment)
    trial.admission.path.unlink()
    trial.error = TrialError("again")
    trial.admission.step(PODS, [PEER], 1400, moment)  # another configuration; the waits begin anew
    trial.take(moment)
    trial.admission.step(PODS, [PEER], 1400, moment + 5.0)
    assert trial.take(moment).problem.startswith("again")


def test_peers_that_cannot_be_asked_are_a_problem(make: Callable[..., Trial]) -> None:
    trial = make()
    trial.asking = PermissionError(1, "Operation not permitted")
    trial.step()
    assert trial.take() == Admitted(text_of(trial), "peers cannot be asked: Operation not permitted", ())


def test_a_file_that_cannot_be_written_is_a_problem_until_it_can(make: Callable[..., Trial]) -> None:
    trial = make()
    blocked = trial.admission.path.parents[1]
    blocked.parent.mkdir()
    blocked.write_text("no directory")
    trial.step()
    trial.take()
    assert not trial.step()
    assert trial.admission.problem == f"{trial.admission.path} cannot be written: Not a directory"
    blocked.unlink()
    assert trial.step()
    assert trial.admission.problem == ""


def test_a_fault_of_ours_is_a_problem_and_the_trial_repeated(make: Callable[..., Trial]) -> None:
    trial = make()
    trial.error = KeyError("ips")
    trial.step()
    trial.take()
    assert trial.admission.problem == "internal error during the trial: KeyError('ips')"
    trial.error = None
    trial.step(now=100.0)
    trial.take()
    assert (trial.admission.problem, len(trial.tried)) == ("", 2)
