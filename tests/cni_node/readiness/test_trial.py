"""A trial pod with plugins that are made up; test_agent.py has real ones."""

import json
from pathlib import Path

import pytest

from cni_node.readiness.trial import clear_trial

CONFLIST = {"cniVersion": "1.0.0", "name": "pycni", "plugins": [{"type": "toy", "key": 7}]}
GOOD = "#!/bin/sh\ncat >{0}/stdin\nenv | grep ^CNI_ | sort >{0}/env\n"


def make(directory: Path, script: str) -> Path:
    """A plugin, and the mark of a trial that was killed."""
    (directory / "toy").write_text(script.format(directory))
    (directory / "toy").chmod(0o755)
    mark = directory / "trial"
    mark.write_text(json.dumps(CONFLIST))
    return mark


def test_what_is_left_of_a_trial_is_deleted(tmp_path: Path) -> None:
    mark = make(tmp_path, GOOD)
    assert clear_trial(str(tmp_path), mark) == ""
    assert not mark.exists()
    assert json.loads((tmp_path / "stdin").read_text()) == {
        "cniVersion": "1.0.0",
        "name": "pycni",
        "type": "toy",
        "key": 7,
    }
    assert (tmp_path / "env").read_text().split() == [
        "CNI_COMMAND=DEL",
        "CNI_CONTAINERID=pycni-trial",
        "CNI_IFNAME=eth0",
        "CNI_NETNS=",
        f"CNI_PATH={tmp_path}",
    ]
    assert clear_trial(str(tmp_path), mark) == ""


@pytest.mark.parametrize("text", ["", "{", "{}", '{"plugins": []}'])
def test_a_mark_that_says_nothing_is_removed(tmp_path: Path, text: str) -> None:
    (tmp_path / "trial").write_text(text)
    assert clear_trial(str(tmp_path), tmp_path / "trial") == ""
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('#!/bin/sh\necho \'{{"msg": "no"}}\'\nexit 1\n', "DEL of a pod on trial failed: no"),
        ("#!/bin/sh\necho words\necho more >&2\nexit 1\n", "DEL of a pod on trial failed: words\nmore"),
        ("#!/bin/sh\necho '[]'\nexit 1\n", "DEL of a pod on trial failed: []"),
        ("#!/none\n", "{}/toy cannot be run for DEL: [Errno 2] No such file or directory: '{}/toy'"),
    ],
)
def test_what_fails_is_told_and_tried_again(tmp_path: Path, script: str, said: str) -> None:
    mark = make(tmp_path, script)
    assert clear_trial(str(tmp_path), mark) == said.format(tmp_path, tmp_path)
    assert mark.exists()
