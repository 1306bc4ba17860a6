"""Fixtures: throw-away hosts, and the executables under test, installed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host import Host, open_host

ROOT = Path(__file__).resolve().parent.parent
REFERENCE_DIR = "/usr/lib/cni"  # Debian's containernetworking-plugins


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root the kernel tests skip, with a reason; in CI (CI=true) they fail instead."""
    if os.geteuid() == 0 or os.environ.get("CI"):
        return
    for item in items:
        if "kernel" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root: network namespaces are made"))


@pytest.fixture(scope="session")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with the executables, installed from this checkout; $PYCNI_BIN names one that is there already."""
    given = os.environ.get("PYCNI_BIN")
    if given:
        return given
    target = tmp_path_factory.mktemp("installed")
    target.chmod(0o755)
    command = [str(ROOT / "install.sh"), "--bin-dir", str(target / "bin"), "--lib-dir", str(target / "lib")]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    return str(target / "bin")


@pytest.fixture
def host() -> Iterator[Host]:
    """A host of this test's own."""
    made = open_host()
    yield made
    made.close()


@pytest.fixture
def new_host() -> Iterator[Callable[[], Host]]:
    """A maker of hosts, for tests that need several."""
    made: list[Host] = []

    def make() -> Host:
        made.append(open_host())
        return made[-1]

    yield make
    for each in made:
        each.close()
