"""When a node is admitted, and what is said where it is not."""

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from cni_node.admission import Admission, Admitted
from cni_node.settings import Settings
from cni_node.snapshot import Node
from cni_node.sources.static import StaticSettings
from cni_node.trial import TrialError
from cni_protocol.address import parse_cidr

PODS = (parse_cidr("10.240.1.0/24"),)
BOUND = 30.0  # seconds


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        pytest.param(TrialError("no bridge"), "no bridge; 10-pycni.conflist stays as it was", id="trial"),
        pytest.param(OSError(1, "Denied"), "peers cannot be asked: Denied", id="probe"),
        pytest.param(KeyError("ips"), "internal error during the trial: KeyError('ips')", id="fault of ours"),
    ],
)
def test_a_trial_that_fails_is_told_and_repeated(
    tmp_path: Path, mocker: Any, failure: Exception, sentence: str
) -> None:
    tried = mocker.patch("cni_node.admission.try_pod", side_effect=failure)
    results: SimpleQueue[Admitted] = SimpleQueue()
    settings = Settings(StaticSettings(Node("n", PODS, ())), root=tmp_path, socket=tmp_path / "agent.sock")
    admission = Admission(settings, results.put)
    admission.step(PODS, (), 1500, 1.0)
    admission.take(results.get(timeout=BOUND), 2.0)
    assert admission.problem == sentence
    admission.step(PODS, (), 1500, 100.0)
    results.get(timeout=BOUND)
    assert tried.call_count == 2
