"""`pycni load-module`: loads a kernel module from a container, with modprobe(8) of the node (the image has none).

Must not: fail because the kernel has no such module. The agent works without it and reports what does not work.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # of the node
_BOUND = 30  # seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `pycni load-module`."""
    parser.add_argument("name", metavar="NAME", help="of the module, as in br_netfilter")
    parser.add_argument(
        "--root", metavar="DIR", type=Path, required=True, help="where the node's root directory is mounted"
    )


def run(options: argparse.Namespace) -> int:
    """Load the module, or print why that failed. Returns exit status 0 in both cases."""
    try:
        os.chroot(options.root)
        os.chdir("/")
        command = ["modprobe", options.name]
        done = subprocess.run(
            command, env={"PATH": _PATH}, stderr=subprocess.PIPE, text=True, timeout=_BOUND, check=False
        )
        problem = done.stderr.strip() or f"modprobe ended with {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        print(f"pycni: the module {options.name} is not loaded: {problem}", file=sys.stderr)
    return 0
