"""The plugins that faults strike, and the networks that they are called for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

REFERENCE_DIR = "/usr/lib/cni"
DATA_DIR = "/var/lib/cni"  # the host's own, see tests/kit/host.py
RECORDS = "/.pycni/"  # in a path: what cni-ipam remembers beside the reservations


class Subject(NamedTuple):
    """A pair of plugins. `collects`: it knows GC. `threads`: which thread makes a call differs from run to run.

    `forks`: its DEL has a child that waits for the kernel.
    """

    name: str
    bin_dir: str
    bridge: str
    ipam: str
    version: str
    collects: bool
    threads: bool
    forks: bool


class Network(NamedTuple):
    """A network, and whether another container is on it already; then more is shared, and less is made anew."""

    name: str
    keys: Mapping[str, Any]
    ranges: tuple[str, ...]
    mapped_port: int
    has_neighbour: bool

    def config(self, subject: Subject, container: str) -> dict[str, Any]:
        """The network configuration as a runtime hands it to the plugin of a subject for a container."""
        config: dict[str, Any] = {
            "cniVersion": subject.version,
            "name": self.name,
            "type": subject.bridge,
            "bridge": "cni0",
            **self.keys,
            "ipam": {"type": subject.ipam, "ranges": [[{"subnet": subnet}] for subnet in self.ranges]},
        }
        if self.mapped_port:
            port = self.mapped_port + sum(container.encode())  # each container its own
            mappings = [
                {"hostPort": port, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": port, "containerPort": 53, "protocol": "udp"},
            ]
            config["runtimeConfig"] = {"portMappings": mappings}
        return config


SEED = Network("seed", {"isGateway": True, "ipMasq": True}, ("10.1.0.0/24",), 0, has_neighbour=False)
FULL = Network(
    "full",
    {"isGateway": True, "ipMasq": True, "macspoofchk": True, "capabilities": {"portMappings": True}},
    ("10.2.0.0/24", "fd00:2::/64"),
    8000,
    has_neighbour=True,
)


def ours(bin_dir: str) -> Subject:
    """The plugins of this repository, installed in a directory."""
    return Subject("pycni", bin_dir, "cni-bridge", "cni-ipam", "1.1.0", collects=True, threads=False, forks=True)


def reference() -> Subject:
    """Debian's plugins."""
    return Subject(
        "reference", REFERENCE_DIR, "bridge", "host-local", "1.0.0", collects=False, threads=True, forks=False
    )


def networks_of(subject: Subject) -> tuple[Network, ...]:
    """The networks that a subject is tried on; port mappings and the like are more than the reference's bridge has."""
    return (SEED, FULL) if subject.collects else (SEED,)
