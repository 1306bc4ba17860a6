"""Fixtures: the tree, the bundle, and a cluster out of them, set up once for all tests of this directory."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import at_once
from tests.cluster.installation import build_bundle
from tests.cluster.probe import Seen
from tests.cluster.runtime import Kit
from tests.cluster.tree import build_tree
from tests.cluster.worlds import NODES, PODS, Parts, World, open_world, place_on_lan
from tests.kit import image
from tests.kit.containerd import load_messages
from tests.runtimes.conftest import require_modules

Record = Callable[[str, str, str, Seen | None], None]  # path, source, destination, what the destination saw
_HERE = Path(__file__).parent
_BOUND = 400  # seconds for a test; the first one waits for debootstrap
_PROGRAMS = {"busybox": "busybox-static", "debootstrap": "debootstrap", "ip": "iproute2", "iptables": "iptables"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this directory may take longer."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(_BOUND))


@pytest.fixture(scope="package")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system of the nodes; $PYCNI_NODE_TREE names one that is there already."""
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        pytest.fail(f"these Debian packages are missing: {' '.join(sorted(missing))}", pytrace=False)
    given = os.environ.get("PYCNI_NODE_TREE")
    if given:
        yield Path(given)
        return
    made = tmp_path_factory.mktemp("tree")
    try:
        yield build_tree(made)
    finally:
        shutil.rmtree(made)


@pytest.fixture(scope="package")
def parts(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The tree, the bundle of this checkout, the pause image and the messages of the CRI."""
    require_modules()
    made = tmp_path_factory.mktemp("parts")
    archive = image.write_archive(image.write_rootfs(made / "rootfs"), made / "pause.tar")
    return Parts(tree, build_bundle(made / "pycni.tar.gz"), Kit(archive, load_messages(made)))


@pytest.fixture(scope="package")
def world(parts: Parts) -> Iterator[World]:
    """Three nodes on one link, with two pods on each. Tests that take nodes away make a world of their own."""
    with open_world(parts, [place_on_lan(number) for number in (1, 2, 3)]) as made:
        run_pods(made)
        yield made


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Notes for scripts/cluster who reached whom."""

    def note(path: str, source: str, destination: str, seen: Seen | None) -> None:
        record_property("reached", [path, source, destination, seen.source if seen else "nothing"])

    return note


def run_pods(world: World) -> None:
    """Two pods on each node, on all nodes at once."""

    def run(node: str) -> None:
        for pod in (pod for pod, its in PODS.items() if its == node):
            world.cluster.run_pod(node, pod)

    at_once(run, NODES)
