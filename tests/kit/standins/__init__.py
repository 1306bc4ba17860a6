"""What the stand-ins for kind, docker, kubectl and ssh beside this file go by: a directory, named by $STAND_INS."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent


def describe_node(name: str, pods: Sequence[str], addresses: Sequence[str]) -> dict[str, Any]:
    """A node as `kubectl get nodes -o json` has it."""
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pods[0], "podCIDRs": list(pods)} if pods else {},
        "status": {"addresses": [*listed, {"type": "Hostname", "address": name}]},
    }


def write_state(
    root: Path, names: Iterable[str], items: Iterable[Mapping[str, Any]], prefixes: Mapping[str, Sequence[str]]
) -> None:
    """The nodes that kind names and that the cluster has, and what goes in front of a command on those that run."""
    (root / "kind-nodes").write_text("".join(f"{name}\n" for name in names))
    (root / "nodes.json").write_text(json.dumps({"items": list(items)}))
    (root / "nodes").write_text("".join(f"{name} {' '.join(prefix)}\n" for name, prefix in prefixes.items()))
    (root / "log").write_text("")


def environment(root: Path) -> dict[str, str]:
    """Variables for a process that shall meet the stand-ins where it looks for the programs."""
    return {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "STAND_INS": str(root)}
