"""Fixtures: nodes with a runtime on them. A runtime that is not installed is a failure, never a skip."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REFERENCE_DIR
from tests.kit import image
from tests.kit.containerd import CRI, Containerd, load_messages
from tests.kit.host import Host
from tests.kit.node import DEBIAN_PLUGINS, Node
from tests.runtimes.podman import Podman

_PACKAGES = {  # program: the Debian package that it comes with
    "busybox": "busybox-static",
    "conmon": "conmon",
    "containerd": "containerd",
    "ctr": "containerd",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "podman": "podman",
    "runc": "runc",
}
_MODULES = {"google.protobuf": "protobuf", "grpc": "grpcio", "grpc_tools": "grpcio-tools"}


@pytest.fixture(scope="session")
def runtimes_installed() -> None:
    """Fails with the names of what has to be installed."""
    missing = {package for program, package in _PACKAGES.items() if shutil.which(program) is None}
    if not all(Path(REFERENCE_DIR, plugin).is_file() for plugin in DEBIAN_PLUGINS):
        missing.add("containernetworking-plugins")
    if missing:
        pytest.fail(f"these Debian packages are missing: {' '.join(sorted(missing))}", pytrace=False)


@pytest.fixture(scope="session")
def rootfs(runtimes_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox."""
    return image.write_rootfs(tmp_path_factory.mktemp("image") / "rootfs")


@pytest.fixture(scope="session")
def archive(rootfs: Path) -> Path:
    """The same as an image."""
    return image.write_archive(rootfs, rootfs.parent / "pause.tar")


@pytest.fixture(scope="session")
def messages(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The messages of the CRI, compiled."""
    require_modules()
    return load_messages(tmp_path_factory.mktemp("cri"))


@pytest.fixture
def node(host: Host, bin_dir: str, runtimes_installed: None) -> Iterator[Node]:
    """The test's host with the plugins where runtimes look for them."""
    made = Node(host, bin_dir)
    yield made
    made.close()


@pytest.fixture
def start_containerd(node: Node, archive: Path) -> Iterator[Callable[[], Containerd]]:
    """A starter of the daemon, for when the node's network is configured."""
    started: list[Containerd] = []

    def start() -> Containerd:
        started.append(Containerd(node, archive))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def start_cri(start_containerd: Callable[[], Containerd], messages: ModuleType) -> Iterator[Callable[..., CRI]]:
    """The same, with a client for its CRI; or a client for a daemon that runs already."""
    clients: list[CRI] = []

    def start(daemon: Containerd | None = None) -> CRI:
        clients.append(CRI(daemon or start_containerd(), messages, importlib.import_module("grpc")))
        return clients[-1]

    yield start
    for each in clients:
        each.close()


@pytest.fixture
def podman(node: Node, rootfs: Path) -> Podman:
    """Podman with its CNI backend."""
    return Podman(node, rootfs)


def require_modules() -> None:
    """Fails with the names of what has to be installed for a client of the CRI."""
    missing = []
    for module, package in _MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        pytest.fail(f"these Python packages of the extra `test` are missing: {' '.join(missing)}", pytrace=False)
