"""The commands of docs/cluster.md, run as they are written, and what they print compared with what the page shows.

A block of commands follows a line that says where they are given ("On node1:", "In pod1a:", "On the workstation:"); a
block of text behind it is what they print. What happens in between, as when a node is switched on, stands in comments
(<!-- here: ... -->). The workstation is a copy of this checkout, where kind, docker, kubectl and ssh are stand-ins.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.fabric import run_in
from tests.cluster.kind import LINK, KindCluster, kind_place
from tests.cluster.sources import EtcdSource
from tests.cluster.worlds import Parts, open_site, place_behind_router, place_on_lan
from tests.conftest import ROOT
from tests.kit.standins import environment, write_state

pytestmark = pytest.mark.kernel

TEXT = (ROOT / "docs" / "cluster.md").read_text("utf-8")
STEP = re.compile(
    r"^<!-- here: (?P<event>[^\n]*) -->$"
    r"|\b[OoIi]n\s+(?:the\s+)?(?P<place>workstation|node\d|pod\d\w):\n\n"
    r"```sh\n(?P<commands>.*?)^```$(?:\n\n```text\n(?P<shown>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
RUN_BOUND = 200  # seconds for a block; one of them makes a bundle
APPLETS = ("ip", "nslookup", "ping", "sh", "wget")  # what a pod of the page has: busybox's
# What differs from run to run.
RANDOM = (
    (r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC"),
    (r"[0-9a-f]{64}", "CONTAINER"),
    (r"\d+ KiB", "SIZE KiB"),
    (r"veth[0-9a-f]{11}", "VETH"),
    (r"\bpycni [0-9a-f]{8}", "pycni DIGEST"),
    (r"pid \d+, up \d+ s", "pid PID, up TIME"),
    (r"\b[0-9]+ s$", "TIME"),
    (r"\d+\.\d{3}(?=[/ ])", "TIME"),
    (r"[ \t]+$", ""),
)


class Stage:
    """The nodes that the page is at, and the workstation. Close it."""

    def __init__(self, parts: Parts, directory: Path) -> None:
        self._parts = parts
        self._site = ExitStack()
        self.cluster: Cluster | None = None
        self.checkout = directory / "checkout"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
        shutil.copytree(ROOT, self.checkout, ignore=ignored)
        self._stand_ins = directory / "stand-ins"
        self._applets = directory / "applets"
        for made in (self._stand_ins, self._applets):
            made.mkdir()
        for name in APPLETS:
            (self._applets / name).symlink_to("/usr/bin/busybox")
        self.events: dict[str, Callable[[], None]] = {
            "a kind cluster": self._open_kind,
            "three nodes on one link": self._open_lan,
            "pods": self._run_pods,
            "node4 is switched on": lambda: self._there.power_on(place_on_lan(4)),
            "node4 is switched off": lambda: self._there.switch_off("node4"),
            "the nodes are ready": lambda: self._there.settle(),
            "node1 is ready with 10.240.9.0/24": lambda: self._await_range("10.240.9.0/24"),
            "three nodes on one link, and etcd": self._open_etcd,
            "node2 is rebooted": self._reboot,
            "the pods are removed": self._remove_pods,
            "two nodes with a router between": self._open_routed,
        }

    def run(self, place: str, commands: str) -> str:
        """Give commands somewhere. Returns what they print."""
        if place == "workstation":
            done = self._run_at_workstation(commands)
        elif place.startswith("node"):
            done = self._there.nodes[place].run("sh", "-ec", commands, check=False)
        else:
            applets = f"PATH={self._applets}"
            done = run_in(self._there.machine(place).netns, "env", applets, "sh", "-ec", commands, check=False)
        assert done.returncode == 0, f"{place}: {commands}{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Let the nodes go."""
        self._site.close()

    @property
    def _there(self) -> Cluster:
        assert self.cluster is not None, "no event has said which nodes there are"
        return self.cluster

    def _run_at_workstation(self, commands: str) -> "subprocess.CompletedProcess[str]":
        if self.cluster is not None and not isinstance(self.cluster, KindCluster):
            write_state(self._stand_ins, {name: node.argv() for name, node in self.cluster.nodes.items()})
        options: dict[str, Any] = {"env": environment(self._stand_ins), "cwd": self.checkout, "timeout": RUN_BOUND}
        command = ("bash", "-eo", "pipefail", "-c", commands)
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    def _open(self, *arguments: Any, **options: Any) -> Cluster:
        self._site.close()
        self.cluster = self._site.enter_context(open_site(self._parts, *arguments, **options)).cluster
        return self.cluster

    def _open_kind(self) -> None:
        made = self._open({LINK}, KindCluster, directory=self._stand_ins)
        assert isinstance(made, KindCluster)
        made.power_on(*map(kind_place, range(3)))
        made.describe()

    def _open_etcd(self) -> None:
        places = [place_on_lan(number)._replace(pod_cidrs=()) for number in (1, 2, 3)]
        self._open({"lan"}, knows=EtcdSource).power_on(*places)

    def _open_lan(self) -> None:
        self._open({"lan"}).power_on(*map(place_on_lan, (1, 2, 3)))

    def _open_routed(self) -> None:
        self._open({"lan1", "lan2"}).power_on(*map(place_behind_router, (1, 2)))

    def _run_pods(self) -> None:
        """As the page has them, on those of their nodes that are there."""
        nodes = {"pod1a": "node1", "pod1b": "node1", "pod2a": "node2"}
        self._there.start_runtimes(list(self._there.nodes))
        for pod, node in nodes.items():
            self._there.run_pod(node, pod)

    def _remove_pods(self) -> None:
        for pod in list(self._there.pods):
            self._there.remove_pod(self._there.node_of(pod), pod)

    def _await_range(self, cidr: str) -> None:
        self._there.agents["node1"].await_report(lambda report: report["pods"] == [cidr] and report["ready"])
        self._there.settle()

    def _reboot(self) -> None:
        self._there.halt("node2")
        self._there.boot("node2")  # and its agent knows the others


@pytest.fixture
def stage(parts: Parts, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(parts, tmp_path)
    yield made
    made.close()


def normalized(text: str) -> str:
    for pattern, replacement in RANDOM:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.strip()


def test_every_block_of_commands_says_where_it_is_given() -> None:
    given = [step["commands"] for step in STEP.finditer(TEXT) if step["commands"]]
    assert given == re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    shown = [step["shown"] for step in STEP.finditer(TEXT) if step["shown"]]
    assert shown == re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_commands_run_as_written_and_print_what_is_shown(stage: Stage) -> None:
    for step in STEP.finditer(TEXT):
        if step["event"]:
            stage.events[step["event"]]()
            continue
        printed = stage.run(step["place"], step["commands"])
        if step["shown"] is not None:
            assert normalized(printed) == normalized(step["shown"]), step["commands"]
