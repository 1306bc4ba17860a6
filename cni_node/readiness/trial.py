"""A trial pod: ADD and DEL for a network namespace of our own.

It shows that the plugins work on this node, before the runtime is told that it is ready. A thread holds the namespace,
so that it ends with the process. An interrupted trial is removed by the next one, or by clear_trial.
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
    """The trial failed; the text says why, in the words of the plugin or the kernel."""


def try_pod(conflist: str, bin_dir: str, mark: Path) -> None:
    """Connect a network namespace by this configuration, and disconnect it again. Raises TrialError.

    Meanwhile the file `mark` holds the configuration. If the process is killed, clear_trial needs it.
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
    """Remove the trial pod of a process that was killed, if there is one. Returns what failed, "" for nothing."""
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
    """Run the plugin. Returns what failed, "" for nothing."""
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
    """The path of a new network namespace that exists while the block runs. Raises TrialError."""
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
