"""The root file system of the cluster's machines: the tree of the cluster tests with what Kubernetes wants, kept."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.tree import build_tree
from tests.kit.kubernetes.command import SetupError
from tests.kit.kubernetes.programs import Say, ensure

# What the kubelet and kube-proxy call; then what stands on the control plane's machine, and clients anywhere.
_PACKAGES = (
    *("conntrack", "ethtool", "ipset", "iptables", "kmod", "procps", "socat"),
    *("busybox-static", "etcd-server", "kubernetes-client"),
)


def ensure_tree(say: Say) -> Path:
    """The directory with the tree; debootstrap makes it, once for all runs. Raises SetupError."""

    def build(target: Path, say: Say) -> None:
        say("making the file system of the machines by debootstrap")
        make_tree(target, _PACKAGES)

    return ensure("tree", " ".join(_PACKAGES), build, say)


def make_tree(target: Path, packages: Sequence[str]) -> None:
    """Fill an empty directory by debootstrap. Raises SetupError with what it said, as of a missing package."""
    try:
        build_tree(target, packages)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        raise SetupError(str(error)) from error
