"""A cluster that install.sh --kind sets up, by way of stand-ins for kind, docker and kubectl that reach its nodes."""

import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.fabric import Port, bare
from tests.cluster.sources import Place
from tests.conftest import ROOT
from tests.standins import describe_node, environment, write_state

LINK = "kind"
RUN_BOUND = 120  # seconds


def kind_place(number: int) -> Place:
    """A node as kind has it: 0 is the control plane, 1 the first worker, all on docker's network of that name."""
    name = "pycni-control-plane" if number == 0 else f"pycni-worker{number if number > 1 else ''}"
    return Place(name, Port(LINK, (f"172.18.0.{2 + number}/16",), ("172.18.0.1",)), (f"10.244.{number}.0/24",))


class KindCluster(Cluster):
    """Its nodes are told of each other by install.sh --kind, as a user calls it."""

    def __init__(self, *arguments: Any, directory: Path) -> None:
        super().__init__(*arguments)
        self.directory = directory  # the stand-ins'
        self.said = ""  # the last output

    def configure(self) -> None:
        """Run it on all nodes; what it has done already stays as it is."""
        self.describe()
        command = [str(ROOT / "install.sh"), "--kind", "pycni", "--bundle", str(self.bundle)]
        env = environment(self.directory)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=RUN_BOUND, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self.said = done.stdout

    def describe(self) -> None:
        """Have the stand-ins know the nodes as they are now."""
        items = [
            describe_node(place.name, place.pod_cidrs, bare(place.port.addresses)) for place in self.places.values()
        ]
        write_state(self.directory, self.places, items, {name: node.argv() for name, node in self.nodes.items()})
