"""Fixtures: a Kubernetes cluster with pycni, set up once for all tests of this directory, and what runs on it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster.cluster import at_once
from tests.kit.kubernetes.cluster import Kubernetes, gather_parts
from tests.kit.kubernetes.command import SetupError, await_value
from tests.kit.kubernetes.images import write_program_image
from tests.kit.kubernetes.programs import ensure_traefik
from tests.kubernetes import workloads
from tests.kubernetes.ingress import IMAGE as TRAEFIK
from tests.kubernetes.probes import Prober

NODES = ("node1", "node2", "node3")
Record = Callable[[str, str, str, str], None]  # path, source, destination, what came of it
_HERE = Path(__file__).parent
SOON = 120.0  # seconds, for what a pod that is ready waits for: that every kube-proxy and the DNS server know of it
_BOUND = 1200  # seconds for a test; the first one waits for the build, where nothing is cached
_PROGRAMS = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "debootstrap": "debootstrap",
    "dpkg-source": "dpkg-dev",
    "go": "golang-go",
    "ip": "iproute2",
    "openssl": "openssl",
    "patchelf": "patchelf",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this directory may take longer."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(_BOUND))


@pytest.fixture(scope="package")
def kubernetes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """Three nodes that are Ready, and a DNS server; a cluster that scripts/kubernetes has started is taken."""
    given = getattr(request.config, "kubernetes", None)
    if given is not None:
        yield given
        return
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        pytest.fail(f"these Debian packages are missing: {' '.join(sorted(missing))}", pytrace=False)
    try:
        cluster = Kubernetes(gather_parts(tmp_path_factory.mktemp("parts"), print))
    except SetupError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        cluster.start(NODES)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="package")
def web(kubernetes: Kubernetes) -> Kubernetes:
    """The same with a web server of several pods behind services, and a client on each node, all ready."""
    kubernetes.kubectl.apply(*workloads.web())
    # a node that has just become Ready is given its pods a moment later
    nodes = set(kubernetes.nodes)
    await_value("a client on each", lambda: {pod.node for pod in kubernetes.kubectl.pods("app=client")} >= nodes, SOON)
    kubernetes.kubectl.roll_out("deployment/web", "daemonset/client", "statefulset/member")
    kubernetes.kubectl.roll_out("deployment/kube-dns", namespace="kube-system")
    return kubernetes


@pytest.fixture(scope="package")
def traefik(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Has the image of Traefik on every node."""
    image = write_program_image(tmp_path_factory.mktemp("traefik") / "traefik.tar", TRAEFIK, ensure_traefik(print))
    at_once(lambda name: kubernetes.nodes[name].import_image(image), list(kubernetes.nodes))


@pytest.fixture(scope="package")
def prober(web: Kubernetes) -> Iterator[Prober]:
    """Asks from pods, from nodes and from outside; all services are in force on every node."""
    with closing(Prober(web)) as made:
        await_value("services are in force everywhere", lambda: all(map(made.reaches_services, web.nodes)), SOON)
        yield made


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Notes for scripts/kubernetes who reached what."""

    def note(path: str, source: str, destination: str, seen: str) -> None:
        record_property("reached", [path, source, destination, seen])

    return note
