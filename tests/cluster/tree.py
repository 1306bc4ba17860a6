"""The root file system of the nodes: a small Debian with containerd and without Python. Made once for a whole run."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.kit.node import PLUGIN_DIR

_SUITE = "bookworm"  # glibc 2.36, the oldest that the bundle is for
_PACKAGES = ("containerd", "containernetworking-plugins", "iproute2", "nftables")
_BOUND = 300  # seconds
# dpkg waits for the disk after every file, so the work is done in memory. The pods' loopback is the business of
# another plugin, which every distribution of Kubernetes puts on its nodes.
_SCRIPT = f"""
set -e
mount -t tmpfs tree /mnt
mirrors=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages')
mirror=$(echo "$mirrors" | sed -n 's/^{_SUITE} //p' | head -n 1)
eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
export http_proxy
debootstrap --variant=minbase --include="$2" {_SUITE} /mnt/tree $mirror
rm -rf /mnt/tree/var/cache/apt /mnt/tree/var/lib/apt/lists
mkdir -p /mnt/tree{PLUGIN_DIR}
cp /mnt/tree/usr/lib/cni/loopback /mnt/tree{PLUGIN_DIR}
cp -a /mnt/tree/. "$1"
"""


def build_tree(target: Path, further: Sequence[str] = ()) -> Path:
    """Fill an empty directory, from the mirror that apt uses on this machine where it is of the same release.

    `further` names packages beside those that every node has.
    """
    packages = ",".join([*_PACKAGES, *further])
    command = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", str(target), packages)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BOUND, check=False)
    assert done.returncode == 0, f"debootstrap failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return target


def find_python(tree: Path) -> list[str]:
    """What of a tree could run Python: interpreters, their library, the standard library, compiled code."""
    found = []
    for directory, _, names in os.walk(tree):
        for name in names:
            path = Path(directory, name)
            is_program = name.startswith(("python", "pypy")) and os.access(path, os.X_OK)
            if is_program or name.startswith("libpython") or name.endswith(".pyc") or name == "os.py":
                found.append(str(path.relative_to(tree)))
    return found
