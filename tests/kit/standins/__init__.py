"""What the stand-ins for kind, docker, kubectl and ssh beside this file go by: a directory, named by $STAND_INS."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAMS = Path(__file__).parent
_ROOT = PROGRAMS.parent.parent.parent


def write_state(root: Path, prefixes: Mapping[str, Sequence[str]]) -> None:
    """Which nodes there are, and what goes in front of a command for each."""
    (root / "nodes").write_text("".join(f"{name} {' '.join(prefix)}\n" for name, prefix in prefixes.items()))
    (root / "log").write_text("")


def environment(root: Path) -> dict[str, str]:
    """Variables for a process that shall meet the stand-ins where it looks for the programs."""
    kubelet = f"env PYTHONPATH={_ROOT} {sys.executable} -m tests.cluster.kubelet"
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "STAND_INS": str(root), "STAND_INS_KUBELET": kubelet}
