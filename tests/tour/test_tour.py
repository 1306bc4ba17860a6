"""The tour: each chapter's commands, run as they are written, print what the chapter shows, and leave nothing behind.

Commands go to one shell through a pipe, as if typed. The chapters about a cluster run in tests/kubernetes.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.kit.node import CGROUPS
from tests.kit.pages import code_blocks, machine_network, normalized
from tests.tour.chapters import BY_HAND, CHAPTERS, INDEX, MARK, OUTPUT, script_of

RUN_BOUND = 100  # seconds for a chapter; five are usual
# All processes of a chapter end with the first of this namespace, whatever a chapter has started and however it ends.
CONTAINED = (
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount",
    "--propagation",
    "private",
    "--mount-proc",
    "bash",
)


def run_script(script: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run commands in a shell that ends with the first of them that fails, and all processes with it."""
    options = "errexit:pipefail"  # inherited by the shells inside
    env = {**os.environ, "SHELLOPTS": options, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env}
    return subprocess.run(
        CONTAINED, input=script, env=env, cwd=ROOT, capture_output=True, text=True, timeout=RUN_BOUND, check=False
    )


def machine_places() -> list[bool]:
    """Which places there are that the commands of a chapter would make on the machine if they were run there."""
    return [os.path.exists(place) for place in ("/etc/netns", "/etc/docker", "/opt/containerd", "/run/nodes")]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the index's first commands make: the directory $tour with the plugins. Its last ones take it away."""
    directory = tmp_path_factory.mktemp("tour")
    text = INDEX.read_text("utf-8")
    first, last = [body for language, body in code_blocks(text) if language == "sh"]
    [shown] = [body for language, body in code_blocks(text) if language in OUTPUT]
    made = run_script(f"{first}echo {MARK}\necho $tour\n", {"TMPDIR": str(directory)})
    assert made.returncode == 0, made.stdout + made.stderr
    printed, tour = made.stdout.split(f"{MARK}\n")
    assert normalized(printed) == normalized(shown)
    yield tour.strip()
    gone = run_script(last, {"tour": tour.strip()})
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert list(directory.iterdir()) == []


@pytest.fixture
def no_cgroups(chapter: Path) -> Iterator[None]:
    """The cgroups that a chapter's daemon was told to use are gone at the end, by the chapter or by us."""
    yield
    left = [*CGROUPS.rglob(f"pycni-{chapter.stem}")]
    for top in left:
        for directory, _, _ in os.walk(top, topdown=False):
            os.rmdir(directory)
    assert left == []


@pytest.mark.kernel
@pytest.mark.parametrize("chapter", BY_HAND, ids=lambda chapter: chapter.stem)
def test_chapter_runs_as_written_and_prints_what_it_shows(
    chapter: Path, installed: str, no_cgroups: None, tmp_path: Path
) -> None:
    before = machine_network(), machine_places()
    text = chapter.read_text("utf-8")
    shown = [body for language, body in code_blocks(text) if language in OUTPUT]
    done = run_script(script_of(text), {"tour": installed, "TMPDIR": str(tmp_path)})
    printed = done.stdout.split(f"{MARK}\n")
    for wanted, found in zip(shown, printed, strict=False):
        assert normalized(found) == normalized(wanted), done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed[len(shown) :] == [""]
    assert (machine_network(), machine_places()) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_is_in_the_index_and_has_a_drawing(chapter: Path) -> None:
    text = chapter.read_text("utf-8")
    heading = text.partition("\n")[0]
    assert re.match(rf"# {int(chapter.name[:2])}\. ", heading)
    assert f"](tour/{chapter.name})" in INDEX.read_text("utf-8")
    assert "" in [language for language, _ in code_blocks(text)]
