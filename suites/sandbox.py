"""A host of a script's own, for the demo and the benchmark: the namespaces that scripts/* start them in.

Everything made there goes with the process. What is looked at is looked at with `ip -j` and `nft -j`.
"""

import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

COMMAND_BOUND = 60  # seconds for one command
KINDS = ("net", "mnt")  # the namespaces that have to be the script's own


class Reply(NamedTuple):
    """What a plugin answered: its exit status and the JSON document on stdout, None for none."""

    status: int
    document: Any


def set_up() -> None:
    """Have private, empty /run and /var/lib, and the loopback up."""
    if any(os.readlink(f"/proc/self/ns/{kind}") == os.readlink(f"/proc/{os.getppid()}/ns/{kind}") for kind in KINDS):
        raise SystemExit("these are the namespaces of the caller; call scripts/demo or scripts/bench")
    run("mount", "--make-rprivate", "/")
    for directory in ("/run", "/var/lib"):
        run("mount", "-t", "tmpfs", "tmpfs", directory)
    run("ip", "link", "set", "lo", "up")


def run(*command: str, inside: str = "") -> str:
    """Run a command on the host, or inside a namespace of that name, and return its stdout. It has to succeed."""
    result = attempt(*command, inside=inside)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed ({result.returncode}): {result.stderr or result.stdout}")
    return result.stdout


def attempt(*command: str, inside: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a command that may fail."""
    return subprocess.run(
        argv(*command, inside=inside), capture_output=True, text=True, timeout=COMMAND_BOUND, check=False
    )


def argv(*command: str, inside: str = "") -> list[str]:
    """The command line that runs a command on the host, or inside a namespace."""
    return ["ip", "netns", "exec", inside, *command] if inside else list(command)


def ip(*arguments: str, inside: str = "") -> Any:
    """What `ip -j` says."""
    text = run("ip", "-j", "-d", *arguments, inside=inside)
    return json.loads(text) if text.strip() else []


def add_container(name: str) -> str:
    """A network namespace with its loopback up, as a container runtime makes one. Returns its path."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    return f"/run/netns/{name}"


def have_container(name: str) -> str:
    """A network namespace of that name, made unless it is there. Returns its path."""
    path = f"/run/netns/{name}"
    return path if os.path.exists(path) else add_container(name)


def add_containers(names: Sequence[str]) -> Sequence[str]:
    """Many network namespaces, their loopback left down: it takes a fraction of the time. Returns their names."""
    commands = "".join(f"netns add {name}\n" for name in names)
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, timeout=COMMAND_BOUND, check=True)
    return names


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Have this very process, and what it starts, in the network namespace at a path, for a block."""
    with open("/proc/self/ns/net", "rb") as home, open(path, "rb") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    """setns(2); os.setns exists from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def die_with_parent() -> None:
    """Have this process, which another one has just forked, end with that one (prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def call_plugin(command: str, config: Mapping[str, Any], bin_dir: str, container: str) -> Reply:
    """Call a plugin as a runtime does, for the interface eth0 of a container. `container` may be empty (VERSION)."""
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": f"/run/netns/{container}" if container else "",
        "CNI_IFNAME": "eth0" if container else "",
        "CNI_PATH": bin_dir,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    result = subprocess.run(
        [f"{bin_dir}/{config['type']}"],
        input=json.dumps(config),
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        timeout=COMMAND_BOUND,
        check=False,
    )
    return Reply(result.returncode, json.loads(result.stdout) if result.stdout.strip() else None)


def plugin_configs(conflist: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The configuration that each plugin of a conflist gets (SPEC.md, "Deriving request configuration")."""
    common = {"cniVersion": conflist["cniVersion"], "name": conflist["name"]}
    return [{**common, **plugin} for plugin in conflist["plugins"]]
