"""A pod for a moment: ADD and DEL of a network namespace of our own, on the node itself.

It shows that the node can serve before the runtime is told so. The namespace is a thread's, so it goes with the
process, whatever happens; a trial that did not come to its end is taken off by the next one, or by clear_trial.
"""

import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONTAINER_ID = "pycni-trial"
CALL_BOUND = 90  # seconds; longer than the plugin's own bounds
THREAD_BOUND = 10  # seconds
_CLONE_NEWNET = 0x40000000  # linux/sched.h


class TrialError(Exception):
    """What the plugin, or the kernel, had against it."""


def try_pod(conflist: str, bin_dir: str, mark: Path) -> None:
    """Connect a network namespace as the configuration has it, and take it off again. Raises TrialError.

    The file `mark` is there meanwhile, with the configuration, for who comes after a process that was killed.
    """
    config = _config_of(conflist)
    try:
        mark.write_text(conflist)
    except OSError as error:
        raise TrialError(f"{mark} cannot be written: {error.strerror}") from None
    with _namespace() as path:
        problems = [_call(command, config, bin_dir, path) for command in ("DEL", "ADD", "DEL")]
    if any(problems):
        raise TrialError("; ".join(filter(None, problems)))
    mark.unlink(missing_ok=True)


def clear_trial(bin_dir: str, mark: Path) -> str:
    """Take a trial off that a process left by being killed. Returns what went wrong, mostly nothing."""
    try:
        config = _config_of(mark.read_text())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, LookupError):
        mark.unlink(missing_ok=True)
        return ""
    problem = _call("DEL", config, bin_dir, "")
    if not problem:
        mark.unlink(missing_ok=True)
    return problem


def _config_of(conflist: str) -> dict[str, Any]:
    document = json.loads(conflist)
    return {**document["plugins"][0], "cniVersion": document["cniVersion"], "name": document["name"]}


def _call(command: str, config: Mapping[str, Any], bin_dir: str, netns: str) -> str:
    """What went wrong, nothing when it went well."""
    env = {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": CONTAINER_ID,
        "CNI_NETNS": netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": bin_dir,
    }
    executable = f"{bin_dir}/{config['type']}"
    stdin = json.dumps(config).encode()
    try:
        result = subprocess.run(
            [executable], input=stdin, env=env, capture_output=True, timeout=CALL_BOUND, check=False
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
    """The path of a network namespace that a thread of ours is in. Raises TrialError."""
    inside, done = threading.Event(), threading.Event()
    state = {"errno": 0, "thread": 0}

    def live() -> None:
        failed = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET)
        state["errno"], state["thread"] = ctypes.get_errno() if failed else 0, threading.get_native_id()
        inside.set()
        done.wait()

    thread = threading.Thread(target=live, name="trial", daemon=True)
    thread.start()
    try:
        if not inside.wait(THREAD_BOUND):
            raise TrialError("a network namespace cannot be made: the thread for it does not start")
        if state["errno"]:
            raise TrialError(f"a network namespace cannot be made: {os.strerror(state['errno'])}; run this as root")
        yield f"/proc/{os.getpid()}/task/{state['thread']}/ns/net"
    finally:
        done.set()
        thread.join(THREAD_BOUND)
