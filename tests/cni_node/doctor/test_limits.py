"""pycni doctor on a limit that only the first network namespace of a kernel has, so on a kernel of the test's own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.kit.host import RUN_BOUND
from tests.kit.in_uml import BOUND
from tests.kit.uml import SHARED

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.uml,
    pytest.mark.timeout(BOUND + 40),
    pytest.mark.usefixtures("bin_dir"),
]
SYSCTLS = Path("/proc/sys/net")
NEIGHBOURS = {f"ipv4/neigh/default/gc_thresh{number}": "10" for number in (1, 2, 3)}


def run(*command: str, text: str = "") -> None:
    """A command on this kernel; what it refuses is a part of the test."""
    subprocess.run(command, input=text, text=True, capture_output=True, timeout=RUN_BOUND, check=False)


def found(root: Path) -> set[str]:
    """The kinds of what the doctor finds, without any file of the machine."""
    command = [
        sys.executable,
        "-m",
        "cni_node",
        "doctor",
        "--json",
        "--root",
        str(root),
        "--socket",
        str(root / "none"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_BOUND, check=False)
    return {finding["kind"] for finding in json.loads(done.stdout)["findings"]}


@contextmanager
def limited(limits: Mapping[str, str]) -> Iterator[None]:
    """Smaller limits of this kernel for a block."""
    before = {name: (SYSCTLS / name).read_text() for name in limits}
    for name, value in limits.items():
        (SYSCTLS / name).write_text(value)
    try:
        yield
    finally:
        for name, value in before.items():
            (SYSCTLS / name).write_text(value)


def meet_many() -> None:
    """More neighbours than there is room for."""
    entries = [f"neighbour add 192.0.2.{n} lladdr 02:00:00:00:00:{n:02x} nud stale dev wire" for n in range(10, 40)]
    run("ip", "-force", "-batch", "-", text="\n".join(entries))


def test_a_full_table_of_neighbours_is_found(tmp_path: Path) -> None:
    assert os.environ[SHARED], "this would change the machine"
    run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "other")
    try:
        for name in ("wire", "other"):
            run("ip", "link", "set", name, "up")
        run("ip", "address", "add", "192.0.2.1/24", "dev", "wire")
        with limited(NEIGHBOURS):
            assert found(tmp_path) == set()
            meet_many()
            assert found(tmp_path) == {"neighbours-full"}
    finally:
        run("ip", "link", "delete", "wire")
