"""A cluster that install.sh --kind sets up, by way of stand-ins for kind, docker and kubectl that reach its nodes.

Its API is played, and so are controller and kubelets: kubelet.py has the pods of the manifest run in containerd.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster, at_once
from tests.cluster.fabric import Fabric, Port
from tests.cluster.kubelet import ACCOUNT
from tests.cluster.runtime import Daemon
from tests.cluster.sources import TOKEN, ApiSource, Place
from tests.conftest import ROOT
from tests.kit.standins import environment, write_state

LINK = "kind"
API = Port(LINK, ("172.18.255.1/16",))
RUN_BOUND = 300  # seconds


def kind_place(number: int) -> Place:
    """A node as kind has it: 0 is the control plane, 1 the first worker, all on docker's network of that name."""
    name = "pycni-control-plane" if number == 0 else f"pycni-worker{number if number > 1 else ''}"
    return Place(name, Port(LINK, (f"172.18.0.{2 + number}/16",), ("172.18.0.1",)), (f"10.244.{number}.0/24",))


class KindCluster(Cluster):
    """Its nodes get their agent by install.sh --kind, as a user calls it. Its source is an ApiSource."""

    nodes_reboot = False

    def __init__(self, fabric: Fabric, *arguments: Any, directory: Path, **options: Any) -> None:
        super().__init__(fabric, *arguments, source=ApiSource(fabric, directory / "api", API), **options)
        self.directory = directory  # the stand-ins'
        self.said = ""  # the last output

    def power_on(self, *places: Place) -> None:
        """See Cluster; with containerd, as kind's nodes have it."""
        super().power_on(*places)
        self._start_daemons([place.name for place in places])
        self.describe()

    def configure(self) -> None:
        """Run it; what it has done already is done again."""
        self.describe()
        self.said = self._run("--kind", "pycni", "--image", str(self.image()))
        self.settle()

    def image(self) -> Path:
        """The image of the bundle, made once."""
        image = self.directory / "pycni.tar"
        if not image.exists():
            self._run("--image", str(image), "--bundle", str(self.bundle))
        return image

    def describe(self) -> None:
        """Have the stand-ins and the API know the nodes as they are now, and each node the service account."""
        self.tell()
        assert isinstance(self.source, ApiSource)
        described = {}
        for name, node in self.nodes.items():
            account = node.path(ACCOUNT)
            account.mkdir(exist_ok=True)
            (account / "ca.crt").write_bytes(self.source.ca.read_bytes())
            (account / "token").write_text(TOKEN)
            described[name] = {"prefix": node.argv(), "cgroup": node.cgroup, "root": str(node.path("/"))}
        (self.directory / "cluster.json").write_text(json.dumps({"nodes": described, "api": self.source.where}))
        write_state(self.directory, {name: node.argv() for name, node in self.nodes.items()})

    def boot(self, name: str) -> None:
        """See Cluster; its kubelet starts its pods again."""
        self.nodes[name].boot()
        self._start_daemons([name])
        self.describe()
        self.start_pod(name)
        self.settle()
        self.start_runtimes([name])

    def start_pod(self, name: str) -> None:
        """As its kubelet does it by itself, once the image is there."""
        with self.image().open("rb") as archive:
            self.nodes[name].run("ctr", "-n", "k8s.io", "images", "import", "-", stdin=archive)
        env = environment(self.directory)
        subprocess.run([*env["STAND_INS_KUBELET"].split(), "restart", name], env=env, timeout=RUN_BOUND, check=True)

    def close(self) -> None:
        """See Cluster; the API is this cluster's own."""
        super().close()
        self.source.close()

    def _start_daemons(self, names: list[str]) -> None:
        started = at_once(lambda name: Daemon(self.nodes[name], self.kit.archive), names)
        self.daemons.update(zip(names, started, strict=True))

    def _run(self, *arguments: str) -> str:
        command = [str(ROOT / "install.sh"), *arguments]
        env = environment(self.directory)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=RUN_BOUND, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
