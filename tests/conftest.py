"""Fixtures: throw-away hosts, and the executables under test, installed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import in_uml
from tests.kit.cnitool import ensure_cnitool
from tests.kit.host import Host, open_host

ROOT = Path(__file__).resolve().parent.parent
BUILD_BOUND = 120  # seconds to fetch a wheel, or to make a bundle; a few are usual
TOGETHER = (
    "tests/cluster/",
    "tests/kubernetes/",
    "tests/tour/",
)  # they share their set-up
IN_UML = (
    "tests/cni_node/doctor/test_limits.py",
    "tests/cni_node/why/test_vlans.py",
    "tests/system/test_vlan_kernel.py",
)  # they share one boot
REFERENCE_DIR = "/usr/lib/cni"  # Debian's containernetworking-plugins


def pytest_configure(config: pytest.Config) -> None:
    """Tests marked `uml` run in user-mode Linux."""
    in_uml.register(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root the kernel tests skip, with a reason; in CI (CI=true) they fail instead."""
    if os.geteuid() == 0 or os.environ.get("CI"):
        return
    for item in items:
        if "kernel" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root: network namespaces are made"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run on several CPUs: each goes to whoever is free, but for those that belong together.

    Another way than the usual one may be asked for with --dist, as the pure tests do, of which there are thousands.
    The marker xdist_group would say the same, but xdist 3.8 does not see it with pytest 9.2.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(IN_UML):
                return "uml"
            return next((start for start in TOGETHER if nodeid.startswith(start)), nodeid)

    return Scheduling(config, log)


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


@pytest.fixture(scope="session")
def wheel_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with pyroute2's wheel, fetched once."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    requirement = next(line.strip() for line in (ROOT / "setup.cfg").read_text().splitlines() if "pyroute2>=" in line)
    subprocess.run([*command, "-d", str(target), requirement], check=True, timeout=BUILD_BOUND)
    return target


@pytest.fixture(scope="session")
def build_bundle(wheel_dir: Path) -> Callable[[Path, Path], None]:
    """A maker of bundles, from a checkout into an archive."""

    def build(checkout: Path, archive: Path) -> None:
        command = [str(checkout / "install.sh"), "--bundle", str(archive), "--wheel-dir", str(wheel_dir)]
        subprocess.run(command, check=True, timeout=BUILD_BOUND, stdout=subprocess.DEVNULL)

    return build


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, build_bundle: Callable[[Path, Path], None]) -> Path:
    """The archive that install.sh --bundle makes of this checkout."""
    archive = tmp_path_factory.mktemp("bundle") / "pycni.tar.gz"
    build_bundle(ROOT, archive)
    return archive


@pytest.fixture(scope="session")
def cnitool() -> Path:
    """The client of the specification's authors, out of Debian's source package."""
    return ensure_cnitool(print)


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
