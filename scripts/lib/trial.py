"""A pod for a moment: ADD and DEL of a network namespace of our own, on the node itself.

It shows that the node can serve before the runtime is told so, and it has the plugin put its routes to the other nodes
where they are now, which it does on ADD: after a change of peers nobody has to wait for the next pod.
"""

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CALL_BOUND = 90  # seconds; longer than the plugin's own bounds
_CLONE_NEWNET = 0x40000000  # linux/sched.h


class TrialError(Exception):
    """What the plugin, or the kernel, had against it."""


def try_pod(conflist: Any, bin_dir: str) -> None:
    """Connect a network namespace as the configuration has it, and take it off again. Raises TrialError."""
    bridge = conflist["plugins"][0]
    config = {**bridge, "cniVersion": conflist["cniVersion"], "name": conflist["name"]}
    with _namespace() as path:
        problems = [_call(command, config, bin_dir, path) for command in ("ADD", "DEL")]
    if any(problems):
        raise TrialError("; ".join(filter(None, problems)))


def _call(command: str, config: dict[str, Any], bin_dir: str, netns: str) -> str:
    """What went wrong, nothing when it went well."""
    env = {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"trial-{os.getpid()}",
        "CNI_NETNS": netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": bin_dir,
    }
    executable = f"{bin_dir}/{config['type']}"
    try:
        result = subprocess.run(
            [executable],
            input=json.dumps(config).encode(),
            env=env,
            capture_output=True,
            timeout=CALL_BOUND,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{executable} cannot be run for {command}: {error}"
    if result.returncode == 0:
        return ""
    try:
        said = json.loads(result.stdout)["msg"]
    except (ValueError, LookupError, TypeError):
        said = (result.stdout + result.stderr).decode(errors="replace").strip()
    return f"{command} of a pod on trial failed: {said}"


@contextmanager
def _namespace() -> Iterator[str]:
    """The path of a network namespace that a child process holds. Raises TrialError."""
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_child)
        failed = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET)
        os.write(to_parent, bytes([ctypes.get_errno() if failed else 0]))
        os.read(from_parent, 1)  # until the parent closes its end, or is gone
        os._exit(0)
    for descriptor in (to_parent, from_parent):
        os.close(descriptor)
    try:
        errno = os.read(from_child, 1)[0]
        if errno:
            raise TrialError(f"a network namespace cannot be made: {os.strerror(errno)}; run this as root")
        yield f"/proc/{child}/ns/net"
    finally:
        for descriptor in (from_child, to_child):
            os.close(descriptor)
        os.waitpid(child, 0)
