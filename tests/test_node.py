"""install.sh --node: the bundle on a directory, on a bare node, and as a service."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.kit.bare import WRITABLE, BareNode, make_tree, open_bare_node

RUN_BOUND = 120  # seconds
PODS = "--pod-cidr=10.244.1.0/24"
PODS6 = "--pod-cidr6=fd00:244:1::/64"
PEERS = ("--peer=10.244.2.0/24=192.168.1.12", "--peer=10.244.3.0/24=192.168.1.13")
CONFLIST = "etc/cni/net.d/10-pycni.conflist"
LIBRARY = "opt/cni/lib/pycni"
UNIT = "etc/systemd/system/pycni-agent.service"


def identities(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def install_node(bundle: Path, root: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [str(ROOT / "install.sh"), "--node", "--bundle", str(bundle), "--root", str(root), *options]
    socket = f"--socket={root}/run/agent.sock"
    return subprocess.run([*command, socket], capture_output=True, text=True, timeout=RUN_BOUND, check=False)


def installed(bundle: Path, root: Path, *options: str) -> str:
    done = install_node(bundle, root, *options)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("pycni: ") for line in done.stderr.splitlines()), done.stderr
    return done.stdout


def test_the_bundle_is_put_below_a_root_with_a_configuration(bundle: Path, tmp_path: Path) -> None:
    installed(bundle, tmp_path, PODS, PODS6, *PEERS)
    ipam = json.loads((tmp_path / CONFLIST).read_bytes())["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:1::/64"}]]
    (mark,) = (tmp_path / LIBRARY).glob("*/.put-here-by-pycni")
    for name in ("opt/cni/bin/cni-bridge", "opt/cni/bin/cni-ipam", f"{LIBRARY}/pycni"):
        assert (tmp_path / name).read_text().startswith(f"#!/{LIBRARY}/{mark.parent.name}/bin/python3 ")
        assert os.access(tmp_path / name, os.X_OK)
    assert sorted(path.name for path in (tmp_path / LIBRARY).iterdir()) == sorted([mark.parent.name, ".lock", "pycni"])


def test_once_more_with_other_peers_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    installed(bundle, tmp_path, PODS, *PEERS)
    before = identities(tmp_path)
    installed(bundle, tmp_path, PODS, PEERS[0])
    changed = {name for name, identity in identities(tmp_path).items() if before[name] != identity}
    assert changed <= {"run/agent.lock"}


def test_damaged_code_is_replaced(bundle: Path, tmp_path: Path) -> None:
    installed(bundle, tmp_path, PODS)
    (damaged,) = (tmp_path / LIBRARY).glob("*/code/cni_bridge/plan.pyc")
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    installed(bundle, tmp_path, PODS)
    assert damaged.read_bytes() == whole


def test_of_older_code_one_directory_stays(bundle: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("older", "old")):
        mark = tmp_path / LIBRARY / name / ".put-here-by-pycni"
        mark.parent.mkdir(parents=True)
        mark.touch()
        os.utime(mark.parent, (number, number))
    (tmp_path / LIBRARY / "of somebody else").mkdir()
    installed(bundle, tmp_path, PODS)
    names = {path.name for path in (tmp_path / LIBRARY).iterdir()}
    assert "older" not in names
    assert {"old", "of somebody else", "pycni"} < names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--pod-cidr=x"], "--pod-cidr: 'x' is no IP address", id="no range"),
        pytest.param([PODS, "--nonsense"], "unrecognized arguments: --nonsense", id="unknown option"),
        pytest.param([PODS, "--lib-dir", "/x"], "--lib-dir", id="another directory for the code"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_stage(
    bundle: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = install_node(bundle, tmp_path, *options)
    assert done.returncode != 0
    assert message in done.stderr
    assert not list(tmp_path.rglob("*.conflist"))
    assert not list(tmp_path.rglob(".stage*"))


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = install_node(tmp_path / "x.tar.gz", tmp_path, PODS)
    assert done.returncode == 1
    assert f"no {tmp_path}/x.tar.gz; make it with: install.sh --bundle" in done.stderr


def test_as_a_service_the_unit_and_its_options_are_put_there(bundle: Path, tmp_path: Path) -> None:
    options = ("--source=etcd", "--etcd=https://192.168.1.10:2379")
    done = install_node(bundle, tmp_path, "--service", *options)
    assert done.returncode == 0, done.stderr
    assert (
        f"systemd does not run here; start it by other means: /{LIBRARY}/pycni agent {' '.join(options)}" in done.stderr
    )
    assert (tmp_path / "etc/pycni/agent.conf").read_text().startswith(f"PYCNI_AGENT={' '.join(options)}")
    assert (tmp_path / UNIT).read_text() == (ROOT / "conf" / "pycni-agent.service").read_text()
    assert (tmp_path / "opt/cni/bin/cni-bridge").exists()
    assert not list(tmp_path.rglob("*.conflist")), "which the agent writes when the node can serve"


@pytest.mark.parametrize("option", ["--etcd-prefix=/a b", "--etcd-prefix='x'", "--etcd-prefix=\\x"])
def test_an_option_that_a_unit_would_take_apart_is_refused(bundle: Path, tmp_path: Path, option: str) -> None:
    done = install_node(bundle, tmp_path, "--service", option)
    assert done.returncode == 1
    assert "no white space and no quotes" in done.stderr
    assert not (tmp_path / UNIT).exists()


@pytest.fixture
def node(bundle: Path, tmp_path: Path) -> Iterator[BareNode]:
    """A bare node with the bundle unpacked, whose /etc/cni can be written to."""
    make_tree(tmp_path)
    node = open_bare_node(tmp_path, (*WRITABLE, "etc/cni"))
    assert node.call("tar", "-xzf", "-", "-C", "/", stdin=bundle.read_bytes()).status == 0
    yield node
    node.close()


def set_up(node: BareNode, *options: str) -> Any:
    return node.call(f"/{LIBRARY}/pycni", "agent", "--once", *options)


@pytest.mark.kernel
def test_a_node_without_python_sets_itself_up_and_serves(node: BareNode) -> None:
    done = set_up(node, PODS, PODS6)
    assert done.status == 0, done.stderr
    assert "/etc/sysctl.d/99-pycni.conf cannot be written (Read-only file system)" in done.stderr
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables"):
        assert node.call("cat", f"/proc/sys/{key}").stdout == "1\n"
    conflist = json.loads((node.disk / "etc" / "cni" / "net.d" / "10-pycni.conflist").read_bytes())
    config = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": "1.0.0"}
    assert "agent" not in config, "nobody watches after --once"
    container = node.start_container()
    added = node.plugin("ADD", config, container=container)
    assert (added.status, added.stderr) == (0, "")
    assert [entry["address"] for entry in added.document["ips"]] == ["10.244.1.3/24", "fd00:244:1::3/64"]
    assert node.ping("10.244.1.3")


@pytest.mark.kernel
def test_a_node_that_cannot_serve_a_pod_is_refused_and_stays_as_it_was(node: BareNode) -> None:
    node.run("ip", "link", "add", "cni0", "type", "veth")
    done = set_up(node, PODS)
    assert done.status == 1
    assert "cni0" in done.stderr
    assert not list((node.disk / "etc" / "cni").rglob("*.conflist"))


@pytest.mark.kernel
def test_what_the_kernel_refuses_is_named(node: BareNode) -> None:
    done = node.call("sh", "-c", f"mount -t tmpfs -o ro x /proc/sys && /{LIBRARY}/pycni agent --once {PODS}")
    assert "net/ipv4/ip_forward" in done.stderr.replace("net.ipv4.ip_forward", "net/ipv4/ip_forward")
