"""install.sh --kind: what it asks of kind and kubectl, in which order, and what it says when one of them fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

RUN_BOUND = 120  # seconds
TOOLS = ("bash", "cat", "dirname", "mktemp", "rm", "sed")
# Stands in for kind and kubectl: notes how it was called, and what came on stdin.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>"{place}/log"
case "$*" in *"apply -f -") cat >"{place}/applied" ;; esac
case "$*" in *"$FAILING"*) echo "it does not work" >&2; exit 3 ;; esac
"""
STEPS = [
    "kind load image-archive {image} --name pycni",
    "kubectl --context kind-pycni apply -f -",
    "kubectl --context kind-pycni -n kube-system rollout restart daemonset/pycni",
    "kubectl --context kind-pycni -n kube-system rollout status daemonset/pycni --timeout=120s",
    "kubectl --context kind-pycni wait --for=condition=Ready nodes --all --timeout=120s",
]


class Place:
    """A directory with the stand-ins, an image, and what came of a call."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.image = root / "image.tar"
        self.image.touch()
        self.programs = root / "programs"
        self.programs.mkdir()
        for name in (*TOOLS, "basename"):
            found = shutil.which(name)
            assert found
            (self.programs / name).symlink_to(found)
        for name in ("kind", "kubectl"):
            program = self.programs / name
            program.write_text(STAND_IN.format(place=root))
            program.chmod(0o755)

    def run(self, *options: str, failing: str = "never") -> "subprocess.CompletedProcess[str]":
        command = [str(ROOT / "install.sh"), "--kind", "pycni", *options]
        env = {"PATH": str(self.programs), "FAILING": failing}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=RUN_BOUND, check=False)

    @property
    def log(self) -> list[str]:
        log = self.root / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def steps(self) -> list[str]:
        return [step.format(image=self.image) for step in STEPS]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def agent_arguments(text: str) -> list[str]:
    """The arguments of the agent in a manifest."""
    sets = [document for document in yaml.safe_load_all(text) if document["kind"] == "DaemonSet"]
    [daemon] = sets
    arguments: list[str] = daemon["spec"]["template"]["spec"]["containers"][0]["args"]
    return arguments


def test_the_image_is_loaded_and_the_manifest_applied_as_it_stands(place: Place) -> None:
    done = place.run("--image", str(place.image))
    assert (done.returncode, done.stderr) == (0, "")
    assert place.log == place.steps
    assert (place.root / "applied").read_text() == (ROOT / "conf" / "pycni.yaml").read_text()


def test_options_of_the_agent_go_into_the_manifest(place: Place) -> None:
    done = place.run("--image", str(place.image), "--mtu", "1400", "--overlay=vxlan", "--direct")
    assert (done.returncode, done.stderr) == (0, "")
    plain = agent_arguments((ROOT / "conf" / "pycni.yaml").read_text())
    given = agent_arguments((place.root / "applied").read_text())
    assert given[:5] == [*plain[:2], "--mtu=1400", "--overlay=vxlan", "--direct"]
    assert given[5:] == plain[2:]


def test_a_rehearsal_prints_the_steps_and_takes_none(place: Place) -> None:
    done = place.run("--image", str(place.image), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == place.steps
    assert place.log == []


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_a_step_that_fails_ends_it_and_is_named(place: Place, number: int) -> None:
    failing = ("load", "apply", "restart", "rollout status", "wait")[number]
    done = place.run("--image", str(place.image), failing=failing)
    assert done.returncode == 1
    assert "it does not work" in done.stderr
    failed = done.stderr.replace("command ", "")
    assert f"install.sh: this failed: {place.steps[number]}" in failed
    assert place.log == place.steps[: number + 1]


@pytest.mark.parametrize("name", ["kind", "kubectl"])
def test_a_program_that_is_missing_is_named(place: Place, name: str) -> None:
    (place.programs / name).unlink()
    done = place.run("--image", str(place.image))
    assert (done.returncode, done.stderr) == (1, f"install.sh: {name} is not in PATH; install it first\n")


@pytest.mark.parametrize("options", [["--peer=x"], ["--mtu"]], ids=["unknown", "without a value"])
def test_an_option_that_makes_no_sense_is_refused(place: Place, options: list[str]) -> None:
    done = place.run("--image", str(place.image), *options)
    assert done.returncode != 0
    assert options[0] in done.stderr
    assert place.log == []


def test_help_lists_the_options(place: Place) -> None:
    done = place.run("--help")
    assert done.returncode == 0
    for option in ("--image", "--dry-run", "--mtu", "--overlay", "--direct"):
        assert option in done.stdout


def test_without_an_image_one_is_made_and_goes_again(place: Place, bundle: Path, tmp_path: Path) -> None:
    for directory in ("/usr/sbin", "/usr/bin"):
        for path in Path(directory).iterdir():
            if path.name not in ("kind", "kubectl", *os.listdir(place.programs)):
                (place.programs / path.name).symlink_to(path)
    done = place.run("--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    image = Path(place.log[0].split()[3])
    assert image.suffix == ".tar"
    assert not image.exists()
