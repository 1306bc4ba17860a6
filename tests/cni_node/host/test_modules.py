"""Loading a module with the node's own modprobe: a root file system with a modprobe that notes what it is asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

RUN_BOUND = 60  # seconds

pytestmark = pytest.mark.kernel  # chroot(2) is for root


def load(root: Path, name: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cni_node", "load-module", "--root", str(root), name]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=RUN_BOUND, check=False)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A root with a shell."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "sbin").mkdir()
    shutil.copy("/usr/bin/busybox", tmp_path / "bin" / "sh")
    return tmp_path


def put_modprobe(node: Path, body: str) -> None:
    path = node / "sbin" / "modprobe"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_the_nodes_modprobe_is_run_with_the_nodes_root(node: Path) -> None:
    put_modprobe(node, 'echo "$@" >/asked')
    done = load(node, "br_netfilter")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (node / "asked").read_text() == "br_netfilter\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("echo no such module >&2; exit 1", "is not loaded: no such module", id="refused"),
        pytest.param("exit 3", "is not loaded: modprobe ended with 3", id="without a word"),
        pytest.param("", "No such file or directory: 'modprobe'", id="no modprobe"),
    ],
)
def test_what_was_against_it_is_said_and_is_no_failure(node: Path, body: str, message: str) -> None:
    if body:
        put_modprobe(node, body)
    done = load(node, "br_netfilter")
    assert done.returncode == 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = load(tmp_path / "none", "br_netfilter")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert f"{tmp_path}/none" in done.stderr
