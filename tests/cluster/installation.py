"""The installation of a node: the one place that knows how pycni gets there."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cluster.fabric import version_of
from tests.cluster.node import Node
from tests.conftest import ROOT

CONFLIST = "/etc/cni/net.d/10-pycni.conflist"
_NODE = "/opt/cni/lib/pycni/node"


class Peer(NamedTuple):
    """Another node: a range of its pods, and the node's address."""

    cidr: str
    node: str


class Overlay(NamedTuple):
    """A network over the network, for nodes that are not on one link."""

    version: int  # the IP version of what carries it
    type: str = "vxlan"


def build_bundle(target: Path) -> Path:
    """The archive of this checkout."""
    subprocess.run(
        [str(ROOT / "install.sh"), "--bundle", str(target)], check=True, timeout=300, stdout=subprocess.DEVNULL
    )
    return target


def install_node(
    node: Node, bundle: Path, pod_cidrs: Sequence[str], peers: Sequence[Peer], overlay: Overlay | None
) -> None:
    """Unpack the bundle on a node, unless that was done, and tell the node what it is; or tell it anew."""
    if not node.path(_NODE).exists():
        with bundle.open("rb") as archive:
            node.run("tar", "-xz", "-C", "/", stdin=archive)
    options = [f"--pod-cidr{'6' if version_of(cidr) == 6 else ''}={cidr}" for cidr in pod_cidrs]
    options += [f"--peer={peer.cidr}={peer.node}" for peer in peers]
    options += [f"--overlay={overlay.type}"] if overlay else []
    node.run(_NODE, *options)
