"""Sets up every node of a kind cluster with the bundle: install.sh --kind.

What it does to a node it does by programs that are there: `kind` names the nodes, `kubectl` tells their pod ranges and
addresses, `docker exec` (or podman, nerdctl) runs the bundle's own program on each, see node.py. A node that fails is
reported with the command that failed, and the others are still done; all of it can be run again at any time.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

COMMAND_BOUND = 120  # seconds for one command
READY_BOUND = 90  # seconds for all nodes to become ready
LIBRARY = "opt/cni/lib/pycni"  # below a node's root, as in install/bundle.sh
UNPACKED = f"/{LIBRARY}/.stage.kind"  # on a node: beside its place, where it gets by rename
LOAD_BALANCER = "-external-load-balancer"  # kind's name for a container that is no node of the cluster


class NodeError(Exception):
    """A command that failed, or something that is not there, in words."""


class Node(NamedTuple):
    """A node as the cluster describes it."""

    name: str
    pods: list[str]
    addresses: list[str]


class Runner:
    """Runs commands, or prints those that change something and does not run them."""

    def __init__(self, dry: bool) -> None:
        self._dry = dry

    def ask(self, *command: str) -> str:
        """The stdout of a command that changes nothing. Raises NodeError."""
        return _run(command, None).stdout

    def act(self, node: str, *command: str, stdin: Path | None = None) -> None:
        """Run a command that changes something, on a node where one is named; it has to succeed. Raises NodeError."""
        if self._dry:
            print(shlex.join(command) + (f" <{stdin}" if stdin else ""))
            return
        result = _run(command, stdin)
        for text, stream in ((result.stdout, sys.stdout), (result.stderr, sys.stderr)):
            for line in text.splitlines():
                print(f"{node}: {line}" if node else line, file=stream, flush=True)


class Means(NamedTuple):
    """How nodes are reached, and what goes there: an archive, and the directory of code in it."""

    runner: Runner
    docker: str
    bundle: Path
    code: str


def main() -> int:
    """Set the nodes up. Returns the exit status."""
    options, further = parse_options()
    runner = Runner(options.dry_run)
    kubectl = ["kubectl", "--context", f"kind-{options.name}"]
    failures = {}
    try:
        docker, code = find_programs(), find_id(Path(options.bundle))
        if options.dry_run and not Path(options.bundle).exists():
            print(f"./install.sh --bundle {options.bundle}")
        names = list_names(runner, options.name)
        nodes = parse_nodes(runner.ask(*kubectl, "get", "nodes", "-o", "json"))
        failures = set_up_all(Means(runner, docker, Path(options.bundle), code), names, nodes, further)
        done = [f"node/{name}" for name in names if name not in failures]
        if done:
            runner.act("", *kubectl, "wait", "--for=condition=Ready", *done, f"--timeout={READY_BOUND}s")
    except NodeError as error:
        print(f"kind: {error}", file=sys.stderr)
        return 1
    finally:
        for name, failure in failures.items():
            print(f"kind: node {name}: {failure}", file=sys.stderr)
    if failures:
        print(
            f"kind: {len(failures)} of {len(names)} nodes failed, the others are set up; run it again", file=sys.stderr
        )
    return 1 if failures else 0


def parse_options() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the options that go on to each node."""
    parser = argparse.ArgumentParser(
        prog="install.sh --kind", description="Set up the nodes of a kind cluster.", allow_abbrev=False
    )
    parser.add_argument("--name", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done to the nodes, and do nothing")
    parser.add_argument("--mtu", metavar="N", help="of the pods' interfaces, in bytes")
    parser.add_argument("--overlay", choices=["vxlan"], help="for nodes that are not on one link")
    options = parser.parse_args()
    further = [f"--{key}={getattr(options, key)}" for key in ("mtu", "overlay") if getattr(options, key)]
    return options, further


def find_programs() -> str:
    """The program that reaches nodes, as kind chooses it. Raises NodeError when one of those needed is missing."""
    docker = os.environ.get("DOCKER") or os.environ.get("KIND_EXPERIMENTAL_PROVIDER") or "docker"
    missing = [name for name in ("kind", docker, "kubectl") if not shutil.which(name)]
    if missing:
        raise NodeError(f"not in PATH: {', '.join(missing)}; install {'it' if len(missing) == 1 else 'them'} first")
    return docker


def list_names(runner: Runner, cluster: str) -> list[str]:
    """The nodes of the cluster, as kind names their containers. Raises NodeError."""
    names = runner.ask("kind", "get", "nodes", "--name", cluster).split()
    names = [name for name in names if not name.endswith(LOAD_BALANCER)]
    if not names:
        raise NodeError(f"kind get nodes --name {cluster}: no nodes; is {cluster} among `kind get clusters`?")
    return names


def parse_nodes(text: str) -> dict[str, Node]:
    """The nodes in the answer of `kubectl get nodes -o json`, by name. Raises NodeError."""
    try:
        items = json.loads(text)["items"]
    except (ValueError, LookupError, TypeError):
        raise NodeError(f"kubectl get nodes -o json printed no list of nodes: {text[:200]!r}") from None
    nodes = {}
    for item in items:
        name, spec = item["metadata"]["name"], item.get("spec", {})
        pods = spec.get("podCIDRs") or [cidr for cidr in [spec.get("podCIDR")] if cidr]
        addresses = item.get("status", {}).get("addresses", [])
        nodes[name] = Node(name, pods, [entry["address"] for entry in addresses if entry["type"] == "InternalIP"])
    return nodes


def set_up_all(how: Means, names: list[str], nodes: dict[str, Node], further: list[str]) -> dict[str, str]:
    """Set up the nodes one after the other. Returns what failed, by node."""
    failures = {}
    for name in names:
        try:
            if name not in nodes:
                raise NodeError("kubectl get nodes does not have it; it has not joined the cluster")
            set_up(how, name, [*node_arguments(nodes[name], list(nodes.values())), *further])
        except NodeError as error:
            failures[name] = str(error)
    return failures


def set_up(how: Means, name: str, arguments: list[str]) -> None:
    """Copy, unpack, render, check. Raises NodeError."""
    act = partial(how.runner.act, name, how.docker, "exec")
    fresh = f"rm -rf {UNPACKED} && mkdir -p {UNPACKED} && tar -xzf - -C {UNPACKED}"
    act("-i", name, "sh", "-c", fresh, stdin=how.bundle)
    code = f"{UNPACKED}/{LIBRARY}/{how.code}"
    act(name, f"{code}/bin/python3", "-ISBXutf8", f"{code}/code/node.pyc", *arguments)
    act(name, "rm", "-rf", UNPACKED)
    act(name, f"/{LIBRARY}/node", "--status")


def node_arguments(node: Node, nodes: list[Node]) -> list[str]:
    """The options of node.py for a node: its pod ranges, and the other nodes with theirs. Raises NodeError."""
    if not node.pods:
        raise NodeError("it has no podCIDRs yet; the controller manager gives them (kubectl get nodes -o json)")
    arguments = [f"--pod-cidr{'6' if ':' in cidr else ''}={cidr}" for cidr in node.pods]
    for other in nodes:
        if other.name == node.name:
            continue
        for cidr in other.pods:
            gateways = [address for address in other.addresses if (":" in address) == (":" in cidr)]
            if not gateways:
                raise NodeError(f"node {other.name} has no InternalIP of the family of its pods {cidr}")
            arguments.append(f"--peer={cidr}={gateways[0]}")
    return arguments


def find_id(bundle: Path) -> str:
    """The name of the directory that a bundle brings; ID for a bundle that is still to be made. Raises NodeError."""
    if not bundle.exists():
        return "ID"
    try:
        with tarfile.open(bundle) as archive:
            first = archive.next()
    except (OSError, tarfile.TarError) as error:
        raise NodeError(f"{bundle} is no bundle: {error}") from None
    if first is None or not first.name.startswith(f"{LIBRARY}/"):
        raise NodeError(f"{bundle} is no bundle of install.sh --bundle")
    return Path(first.name).name


def _run(command: Sequence[str], stdin: Path | None) -> "subprocess.CompletedProcess[str]":
    shown = shlex.join(command)
    with open(stdin or os.devnull, "rb") as file:
        try:
            result = subprocess.run(
                command, stdin=file, capture_output=True, encoding="utf-8", timeout=COMMAND_BOUND, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NodeError(f"{shown}: {error}") from None
    if result.returncode != 0:
        said = (result.stderr.strip() + "\n" + result.stdout.strip()).strip() or "it said nothing"
        raise NodeError(f"{shown} failed with status {result.returncode}: {said}")
    return result


if __name__ == "__main__":
    sys.exit(main())
