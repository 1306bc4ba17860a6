"""install.sh --kind, run whole against stand-ins for kind, docker and kubectl (tests/standins).

The nodes that docker's stand-in reaches are bare nodes: namespaces of their own, no Python.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bare import WRITABLE, BareNode, make_tree, open_bare_node
from tests.conftest import ROOT
from tests.standins import PROGRAMS, describe_node, write_state

RUN_BOUND = 120  # seconds
TOOLS = ("bash", "sh", "sed", "cat", "dirname", "nsenter", "mktemp", "rm", "mkdir", "env", "printf", "id")
NAMES = ("pycni-control-plane", "pycni-worker", "pycni-worker2")
CONFLIST = "etc/cni/net.d/10-pycni.conflist"


class Cluster:
    """Nodes, and the directory that the stand-ins go by."""

    def __init__(self, root: Path, bundle: Path) -> None:
        self.root = root
        self.bundle = bundle
        self.nodes: dict[str, BareNode] = {}
        self.items: dict[str, dict[str, Any]] = {}
        self.programs = root / "programs"
        self.programs.mkdir()
        for name in ("kind", "docker", "kubectl"):
            (self.programs / name).symlink_to(PROGRAMS / name)
        for name in TOOLS:
            found = shutil.which(name)
            assert found
            (self.programs / name).symlink_to(found)

    def add_node(self, name: str, pods: list[str], addresses: list[str]) -> None:
        """A node that has joined the cluster."""
        if name not in self.nodes:
            make_tree(self.root / name)
            self.nodes[name] = node = open_bare_node(self.root / name, (*WRITABLE, "etc/cni"))
            node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")  # the link to the other nodes
            for end in ("eth0", "wire"):
                node.run("ip", "link", "set", end, "up")
            for prefix in ("172.18.0.250/16", "fc00::250/64"):
                node.run("ip", "address", "add", prefix, "dev", "eth0", *(["nodad"] if ":" in prefix else []))
        self.items[name] = describe_node(name, pods, addresses)

    def run(self, *options: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """install.sh --kind as a user calls it, with nothing in PATH but what it needs and the stand-ins."""
        prefixes = {name: node.inside() for name, node in self.nodes.items() if node is not self.lost}
        write_state(self.root, self.nodes, self.items.values(), prefixes)
        command = [str(ROOT / "install.sh"), "--kind", "pycni", "--bundle", str(self.bundle), *options]
        variables = {"PATH": str(self.programs), "STAND_INS": str(self.root), **env}
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=RUN_BOUND, check=False)

    lost: BareNode | None = None

    def log(self) -> list[str]:
        """What the stand-ins were called with."""
        return (self.root / "log").read_text().splitlines()

    def bridge(self, name: str) -> Any:
        """The bridge's part of a node's configuration, None without one."""
        path = self.nodes[name].disk / CONFLIST
        return json.loads(path.read_bytes())["plugins"][0] if path.exists() else None

    def close(self) -> None:
        for node in set(self.nodes.values()):
            node.close()


@pytest.fixture
def cluster(tmp_path: Path, bundle: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, bundle)
    for index, name in enumerate(NAMES):
        made.add_node(name, [f"10.244.{index}.0/24"], [f"172.18.0.{index + 2}"])
    yield made
    made.close()


pytestmark = pytest.mark.kernel


def test_every_node_is_set_up_checked_and_awaited(cluster: Cluster) -> None:
    done = cluster.run()
    assert done.returncode == 0, done.stdout + done.stderr
    for index, name in enumerate(NAMES):
        bridge = cluster.bridge(name)
        assert bridge["ipam"]["ranges"] == [[{"subnet": f"10.244.{index}.0/24"}]]
        others = [other for other in range(3) if other != index]
        assert bridge["nodeRoutes"] == [{"dst": f"10.244.{n}.0/24", "gw": f"172.18.0.{n + 2}"} for n in others]
        assert f"docker exec {name} /opt/cni/lib/pycni/node --status" in cluster.log()
        assert f"node/{name} condition met" in done.stdout
        assert not list((cluster.nodes[name].disk / "opt" / "cni").rglob(".stage*"))
    assert cluster.log()[-4].startswith("kubectl --context kind-pycni wait --for=condition=Ready node/pycni-control")
    assert serves(cluster.nodes[NAMES[1]])


def replace(program: Path, first: str) -> None:
    """Have a line of shell in front of a stand-in."""
    program.unlink()
    program.write_text(f'#!/bin/sh\n{first}\nexec {PROGRAMS}/{program.name} "$@"\n')
    program.chmod(0o755)


def serves(node: BareNode) -> bool:
    """Whether a pod gets an address on a node, as the configuration there says."""
    conflist = json.loads((node.disk / CONFLIST).read_bytes())
    config = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": "1.0.0"}
    return node.plugin("ADD", config, container=node.start_container()).status == 0


def test_dual_stack_and_options_for_all_nodes(cluster: Cluster) -> None:
    for index, name in enumerate(NAMES):
        cluster.add_node(
            name, [f"10.244.{index}.0/24", f"fd00:{index}::/64"], [f"172.18.0.{index + 2}", f"fc00::{index + 2}"]
        )
    assert cluster.run("--mtu", "1400").returncode == 0
    bridge = cluster.bridge(NAMES[0])
    assert bridge["ipam"]["ranges"] == [
        [{"subnet": "10.244.0.0/24"}],
        [{"subnet": "fd00::/64"}],
    ]
    assert bridge["mtu"] == 1400
    assert {"dst": "fd00:2::/64", "gw": "fc00::4"} in bridge["nodeRoutes"]
    assert {"dst": "10.244.2.0/24", "gw": "172.18.0.4"} in bridge["nodeRoutes"]


def test_overlay_for_all_nodes(cluster: Cluster) -> None:
    assert cluster.run("--overlay", "vxlan").returncode == 0
    peers = [{"node": f"172.18.0.{n + 2}", "podCIDR": f"10.244.{n}.0/24"} for n in (1, 2)]
    assert cluster.bridge(NAMES[0])["overlay"]["peers"] == peers


def test_a_second_run_changes_nothing(cluster: Cluster) -> None:
    assert cluster.run().returncode == 0
    before = {name: snapshot(cluster.nodes[name]) for name in NAMES}
    done = cluster.run()
    assert done.returncode == 0
    assert done.stdout.count("is as it should be") == 3
    assert {name: snapshot(cluster.nodes[name]) for name in NAMES} == before


def snapshot(node: BareNode) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file, but for the reservations, which the pod on trial goes through."""
    files = [path for path in node.disk.rglob("*") if path.is_file() and not path.is_relative_to(node.disk / "var")]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_node_that_is_added_is_set_up_and_made_known_to_the_others(cluster: Cluster) -> None:
    assert cluster.run().returncode == 0
    cluster.add_node("pycni-worker3", ["10.244.3.0/24"], ["172.18.0.5"])
    assert cluster.run().returncode == 0
    assert cluster.bridge("pycni-worker3")["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    for name in NAMES:
        assert {"dst": "10.244.3.0/24", "gw": "172.18.0.5"} in cluster.bridge(name)["nodeRoutes"]


def test_a_restarted_node_with_another_address_is_found_there(cluster: Cluster) -> None:
    assert cluster.run().returncode == 0
    cluster.add_node(NAMES[2], ["10.244.2.0/24"], ["172.18.0.99"])
    assert cluster.run().returncode == 0
    routes = cluster.bridge(NAMES[0])["nodeRoutes"]
    assert [route["gw"] for route in routes] == ["172.18.0.3", "172.18.0.99"]


def test_a_node_that_is_not_reached_is_named_and_the_others_are_done(cluster: Cluster) -> None:
    cluster.lost = cluster.nodes[NAMES[1]]
    done = cluster.run()
    assert done.returncode == 1
    assert f"kind: node {NAMES[1]}: docker exec -i {NAMES[1]} sh -c" in done.stderr
    assert "failed with status 1: Error response from daemon: container pycni-worker is not running" in done.stderr
    assert "1 of 3 nodes failed" in done.stderr
    assert cluster.bridge(NAMES[0]) is not None
    assert cluster.bridge(NAMES[1]) is None
    assert cluster.bridge(NAMES[2]) is not None
    assert f"node/{NAMES[1]} " not in done.stdout
    cluster.lost = None
    assert cluster.run().returncode == 0
    assert cluster.bridge(NAMES[1]) is not None


def test_a_node_that_cannot_serve_is_named_with_its_reason(cluster: Cluster) -> None:
    cluster.nodes[NAMES[2]].run("ip", "link", "add", "cni0", "type", "veth")
    done = cluster.run()
    assert done.returncode == 1
    assert f"kind: node {NAMES[2]}: docker exec {NAMES[2]} /opt/cni/lib/pycni/" in done.stderr
    assert "ADD of a pod on trial failed: " in done.stderr
    assert cluster.bridge(NAMES[0]) is not None


def test_a_node_whose_status_refuses_is_named_with_its_reason(cluster: Cluster) -> None:
    """Forwarding goes off behind the node's back, between the two commands."""
    off = (
        'case "$*" in *worker2*--status) echo 0 | docker exec -i pycni-worker2 tee /proc/sys/net/ipv4/ip_forward;; esac'
    )
    replace(cluster.programs / "docker", off.replace(" docker ", f" {PROGRAMS}/docker "))
    done = cluster.run()
    assert done.returncode == 1
    assert f"kind: node {NAMES[2]}: docker exec {NAMES[2]} /opt/cni/lib/pycni/node --status failed" in done.stderr
    assert '"code": 51' in done.stderr
    assert f"node/{NAMES[0]} condition met" in done.stdout


def test_a_node_that_cannot_take_the_files_is_named(cluster: Cluster) -> None:
    node = cluster.nodes[NAMES[0]]
    assert node.call("mount", "-o", "remount,bind,ro", "/opt/cni").status == 0
    done = cluster.run()
    assert done.returncode == 1
    assert f"kind: node {NAMES[0]}: docker exec -i {NAMES[0]} sh -c" in done.stderr
    assert "Read-only file system" in done.stderr


def test_nodes_that_do_not_become_ready_are_named(cluster: Cluster) -> None:
    """A wait that fails is passed on as it is."""
    replace(cluster.programs / "kubectl", 'case "$*" in *wait*) echo "timed out on nodes/x" >&2; exit 1;; esac')
    done = cluster.run()
    assert done.returncode == 1
    assert "kind: kubectl --context kind-pycni wait --for=condition=Ready node/pycni-control-plane" in done.stderr
    assert "timed out on nodes/x" in done.stderr


@pytest.mark.parametrize("missing", [("kubectl",), ("kind",), ("docker",), ("kind", "docker", "kubectl")], ids="+".join)
def test_programs_that_are_missing_are_named_before_anything_is_done(
    cluster: Cluster, missing: tuple[str, ...]
) -> None:
    for name in missing:
        (cluster.programs / name).unlink()
    done = cluster.run()
    assert done.returncode == 1
    assert f"kind: not in PATH: {', '.join(missing)}; install" in done.stderr
    assert [cluster.bridge(name) for name in NAMES] == [None] * 3


def test_podman_reaches_the_nodes_where_kind_uses_it(cluster: Cluster) -> None:
    (cluster.programs / "docker").rename(cluster.programs / "podman")
    replace(cluster.programs / "kubectl", 'case "$*" in *wait*) exit 0;; esac')  # the stand-in's would call docker
    assert cluster.run(KIND_EXPERIMENTAL_PROVIDER="podman").returncode == 0
    assert cluster.bridge(NAMES[0]) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"spec": {}}, "has no podCIDRs yet", id="no pod range"),
        pytest.param({"metadata": {"name": "other"}}, "has not joined the cluster", id="not in the cluster"),
    ],
)
def test_a_node_that_the_cluster_does_not_know_yet_is_named(
    cluster: Cluster, change: dict[str, Any], message: str
) -> None:
    cluster.items[NAMES[1]] |= change
    done = cluster.run()
    assert done.returncode == 1
    assert f"kind: node {NAMES[1]}: " in done.stderr
    assert message in done.stderr
    assert cluster.bridge(NAMES[2]) is not None


def test_no_such_cluster(cluster: Cluster) -> None:
    cluster.close()
    cluster.nodes.clear()
    done = cluster.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "kind get nodes --name pycni: no nodes; is pycni among `kind get clusters`?" in done.stderr


def test_the_load_balancer_of_kind_is_no_node(cluster: Cluster) -> None:
    cluster.nodes["pycni-external-load-balancer"] = cluster.nodes[NAMES[0]]
    assert cluster.run().returncode == 0
    assert not [line for line in cluster.log() if "load-balancer" in line]


def test_dry_run_says_what_would_be_done_and_does_none_of_it(cluster: Cluster) -> None:
    cluster.bundle = cluster.root / "none.tar.gz"
    done = cluster.run("--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"./install.sh --bundle {cluster.bundle}"
    for name in NAMES:
        assert [line.split()[:3] for line in lines].count(["docker", "exec", name]) == 3
        assert f"docker exec {name} /opt/cni/lib/pycni/node --status" in lines
    assert lines[-1].startswith("kubectl --context kind-pycni wait --for=condition=Ready")
    assert len(lines) == 2 + 4 * len(NAMES)
    assert [line for line in cluster.log() if "get nodes" not in line] == []
    assert [cluster.bridge(name) for name in NAMES] == [None] * 3


def test_what_is_no_bundle_is_refused(cluster: Cluster) -> None:
    cluster.bundle = Path("/etc/hostname")
    done = cluster.run()
    assert done.returncode == 1
    assert "/etc/hostname is no bundle" in done.stderr


def test_dry_run_lines_work_as_commands(cluster: Cluster) -> None:
    printed = cluster.run("--dry-run").stdout
    env = {"PATH": f"{cluster.programs}:{os.environ['PATH']}", "STAND_INS": str(cluster.root)}
    subprocess.run(
        ["bash", "-e"], input=printed, env=env, text=True, check=True, timeout=RUN_BOUND, capture_output=True
    )
    assert serves(cluster.nodes[NAMES[0]])
