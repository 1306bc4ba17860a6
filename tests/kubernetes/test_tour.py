"""The chapters of the tour about a cluster: their commands, run as they are written, print what the chapter shows."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.pages import code_blocks
from tests.tour.chapters import IN_A_CLUSTER, MARK, OUTPUT, script_of

pytestmark = pytest.mark.kernel

RUN_BOUND = 400  # seconds for a chapter; ten are usual
NAMESPACES = ("apps", "shop", "store")  # that the chapters make
# What differs from run to run: who runs where, and what is named after that.
RANDOM = (
    (r"10\.244\.\d+\.\d+(?!/16)", "POD"),
    (r"KUBE-(SVC|SEP)-[A-Z0-9]{16}", r"KUBE-\1-DIGEST"),
    (r"sport=\d+", "sport=PORT"),
    (r"pycni,[0-9a-f]{64}", "pycni,CONTAINER"),
    (r"\b([ei])_[0-9a-f]{20}", r"\1_DIGEST"),
    (r"[ \t]+$", ""),
)


def normalized(text: str) -> str:
    for pattern, replacement in RANDOM:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.strip()


@pytest.fixture(scope="module")
def functions(kubernetes: Kubernetes, traefik: None) -> Iterator[str]:
    """What scripts/kubernetes --keep has its user define."""
    yield "".join(f'{name}() {{ {command} "$@"; }}\n' for name, command in kubernetes.commands().items())
    for namespace in NAMESPACES:
        kubernetes.kubectl("delete", "namespace", namespace, "--ignore-not-found", seconds=120)


@pytest.mark.parametrize("chapter", IN_A_CLUSTER, ids=lambda chapter: chapter.stem)
def test_chapter_runs_as_written_and_prints_what_it_shows(chapter: Path, functions: str) -> None:
    text = chapter.read_text("utf-8")
    shown = [body for language, body in code_blocks(text) if language in OUTPUT]
    command = ("bash", "-eo", "pipefail")
    env = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        command,
        input=functions + script_of(text),
        env=env,
        capture_output=True,
        text=True,
        timeout=RUN_BOUND,
        check=False,
    )
    printed = done.stdout.split(f"{MARK}\n")
    for wanted, found in zip(shown, printed, strict=False):
        assert normalized(found) == normalized(wanted), done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed[len(shown) :] == [""]
