"""The chapters of the tour about a cluster: their commands, run as they are written, print what the chapter shows."""

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


def run_chapter(chapter: Path, functions: str) -> "subprocess.CompletedProcess[str]":
    """In a shell that ends with the first command that fails."""
    command, env = ("bash", "-eo", "pipefail"), {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    script = functions + script_of(chapter.read_text("utf-8"))
    return subprocess.run(
        command, input=script, env=env, capture_output=True, text=True, timeout=RUN_BOUND, check=False
    )


@pytest.fixture(scope="module")
def runs(kubernetes: Kubernetes, traefik: None) -> Iterator[dict[Path, "Future[subprocess.CompletedProcess[str]]"]]:
    """All chapters, which run at once, with what scripts/kubernetes --keep has its user define."""
    functions = "".join(f'{name}() {{ {command} "$@"; }}\n' for name, command in kubernetes.commands().items())
    with ThreadPoolExecutor(len(IN_A_CLUSTER)) as pool:
        yield {chapter: pool.submit(run_chapter, chapter, functions) for chapter in IN_A_CLUSTER}
    kubernetes.kubectl.delete(*(f"namespace/{namespace}" for namespace in NAMESPACES))


@pytest.mark.parametrize("chapter", IN_A_CLUSTER, ids=lambda chapter: chapter.stem)
def test_chapter_runs_as_written_and_prints_what_it_shows(
    chapter: Path, runs: dict[Path, "Future[subprocess.CompletedProcess[str]]"]
) -> None:
    shown = [body for language, body in code_blocks(chapter.read_text("utf-8")) if language in OUTPUT]
    done = runs[chapter].result()
    printed = done.stdout.split(f"{MARK}\n")
    for wanted, found in zip(shown, printed, strict=False):
        assert normalized(found) == normalized(wanted), done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed[len(shown) :] == [""]
