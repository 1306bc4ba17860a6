"""Setting up one node: what it renders, what a second run changes, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bare import WRITABLE, BareNode, make_tree, open_bare_node
from tests.conftest import ROOT

RUN_BOUND = 120  # seconds
PROGRAM = (sys.executable, "-ISB", str(ROOT / "scripts" / "lib" / "node.py"))
PODS = "--pod-cidr=10.244.1.0/24"
PODS6 = "--pod-cidr6=fd00:244:1::/64"
PEERS = ("--peer=10.244.2.0/24=192.168.1.12", "--peer=10.244.3.0/24=192.168.1.13")
CONFLIST = "etc/cni/net.d/10-pycni.conflist"
LIBRARY = "opt/cni/lib/pycni"


def run_node(root: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """The program as it stands in the checkout, on a directory; it has no code to put there."""
    command = [*PROGRAM, "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_BOUND, check=False)


def rendered(root: Path, *options: str) -> Any:
    done = run_node(root, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((root / CONFLIST).read_bytes())


def identities(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_node_by_itself(tmp_path: Path) -> None:
    assert rendered(tmp_path, PODS) == {
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "pycni",
        "plugins": [
            {
                "type": "cni-bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "capabilities": {"portMappings": True},
                "nodeRoutes": [],
                "ipam": {
                    "type": "cni-ipam",
                    "ranges": [[{"subnet": "10.244.1.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


IPAM6 = {"ranges": [[{"subnet": "fd00:244:1::/64"}]], "routes": [{"dst": "::/0"}]}
BOTH = {
    "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
PART = ("--node-index=3", "--node-bits=12")
ROUTES = [{"dst": "10.244.2.0/24", "gw": "192.168.1.12"}, {"dst": "10.244.3.0/24", "gw": "192.168.1.13"}]
OVERLAY_PEERS = [{"node": "192.168.1.12", "podCIDR": "10.244.2.0/24"}]


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        pytest.param([PODS6], "ipam", IPAM6, id="IPv6 alone"),
        pytest.param([PODS, PODS6], "ipam", BOTH, id="both families"),
        pytest.param([PODS6, PODS], "ipam", BOTH, id="both, IPv4 first whatever the order"),
        pytest.param([PODS, "--mtu=1400"], "mtu", 1400, id="mtu"),
        pytest.param([PODS], "mtu", None, id="no mtu"),
        pytest.param([PODS], "nodeRoutes", [], id="no peers"),
        pytest.param([PODS, *PEERS], "nodeRoutes", ROUTES, id="peers"),
        pytest.param([PODS, *reversed(PEERS)], "nodeRoutes", ROUTES, id="peers, in order whatever the order"),
        pytest.param([PODS, *PEERS, PEERS[0]], "nodeRoutes", ROUTES, id="a peer twice"),
        pytest.param([PODS, *PEERS, f"--peer{PODS[10:]}=192.168.1.11"], "nodeRoutes", ROUTES, id="itself, by its pods"),
        pytest.param(
            [PODS, *PEERS, "--peer=10.9.0.0/24=192.168.1.11", "--node-ip=192.168.1.11"],
            *("nodeRoutes", ROUTES),
            id="itself, by its address",
        ),
        pytest.param(
            [PODS, PODS6, "--peer=fd00:244:2::/64=fd00::12", PEERS[0]],
            *("nodeRoutes", [ROUTES[0], {"dst": "fd00:244:2::/64", "gw": "fd00::12"}]),
            id="peers of both families",
        ),
        pytest.param([PODS, *PEERS, "--overlay=vxlan"], "nodeRoutes", None, id="no routes beside an overlay"),
        pytest.param([PODS, *PEERS], "overlay", None, id="no overlay beside routes"),
        pytest.param(
            [PODS, PEERS[0], "--overlay=vxlan"],
            *("overlay", {"type": "vxlan", "vni": 1, "port": 4789, "peers": OVERLAY_PEERS}),
            id="overlay",
        ),
        pytest.param(
            [PODS, PEERS[0], "--overlay=vxlan", "--vni=7", "--port=8472", "--device=eth1"],
            *("overlay", {"type": "vxlan", "vni": 7, "port": 8472, "device": "eth1", "peers": OVERLAY_PEERS}),
            id="overlay with everything",
        ),
        pytest.param(
            [PODS, "--overlay=vxlan"],
            *("overlay", {"type": "vxlan", "vni": 1, "port": 4789, "peers": []}),
            id="overlay of a first node",
        ),
    ],
)
def test_options_become_keys(tmp_path: Path, options: list[str], key: str, value: Any) -> None:
    bridge = rendered(tmp_path, *options)["plugins"][0]
    if key == "ipam":
        value = {"type": "cni-ipam", **value}
    assert bridge.get(key) == value


@pytest.mark.parametrize(
    ("cluster", "bits", "index", "pods"),
    [
        ("10.32.0.0/12", 12, 3, "10.32.3.0/24"),
        ("10.32.0.0/12", 12, 0, "10.32.0.0/24"),
        ("10.32.0.0/12", 12, 4095, "10.47.255.0/24"),
        ("10.244.0.0/16", 8, 255, "10.244.255.0/24"),
        ("10.244.0.0/16", 1, 1, "10.244.128.0/17"),
        ("10.244.0.0/16", 14, 5, "10.244.0.20/30"),
        ("fd00:244::/48", 16, 10, "fd00:244:0:a::/64"),
    ],
)
def test_index_and_bits_give_the_pod_range(tmp_path: Path, cluster: str, bits: int, index: int, pods: str) -> None:
    bridge = rendered(tmp_path, f"--cluster-cidr={cluster}", f"--node-bits={bits}", f"--node-index={index}")["plugins"][
        0
    ]
    assert bridge["ipam"]["ranges"] == [[{"subnet": pods}]]


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        pytest.param([], ["one of --pod-cidr, --pod-cidr6 and --cluster-cidr"], id="nothing"),
        pytest.param(["--pod-cidr=10.244.1.0"], ["--pod-cidr: '10.244.1.0' is no address with"], id="no prefix length"),
        pytest.param(["--pod-cidr=10.244.1.5/24"], ["host bits set; the network is 10.244.1.0/24"], id="host bits"),
        pytest.param(["--pod-cidr=10.244.1.0/31"], ["no room for a gateway and a pod; at most /30"], id="too small"),
        pytest.param(["--pod-cidr=fd00::/64"], ["is IPv6; that is said by --pod-cidr6"], id="IPv6 for IPv4"),
        pytest.param(["--pod-cidr6=10.0.0.0/24"], ["is IPv4; that is said by --pod-cidr"], id="IPv4 for IPv6"),
        pytest.param(["--cluster-cidr=10.0.0.0/8"], ["come together"], id="cluster without its parts"),
        pytest.param([PODS, "--node-index=1"], ["come together"], id="index without cluster"),
        pytest.param(["--cluster-cidr=x", *PART], ["--cluster-cidr: 'x' is no IP address"], id="no cluster range"),
        pytest.param(["--cluster-cidr=10.32.0.0/12", "--node-index=4096", "--node-bits=12"], ["0 to 4095"], id="index"),
        pytest.param(["--cluster-cidr=10.32.0.0/12", "--node-index=-1", "--node-bits=12"], ["0 to 4095"], id="below 0"),
        pytest.param(["--cluster-cidr=10.32.0.0/12", "--node-index=0", "--node-bits=19"], ["1 to 18 bits"], id="bits"),
        pytest.param(
            ["--cluster-cidr=10.32.0.0/12", "--node-index=0", "--node-bits=0"], ["1 to 18 bits"], id="no bits"
        ),
        pytest.param([PODS, "--cluster-cidr=10.32.0.0/12", *PART], ["two pod ranges of one family"], id="two ranges"),
        pytest.param([PODS, "--peer=10.244.2.0/24"], ["--peer 10.244.2.0/24: '' is no IP address"], id="no gateway"),
        pytest.param([PODS, "--peer=10.244.2.1/24=192.168.1.12"], ["host bits set"], id="peer with host bits"),
        pytest.param([PODS, "--peer=10.244.2.0/24=fd00::2"], ["needs an IPv4 address (or --overlay)"], id="families"),
        pytest.param([PODS, "--peer=10.244.0.0/16=192.168.1.12"], ["overlaps 10.244.1.0/24"], id="peer around us"),
        pytest.param([PODS, PEERS[0], "--peer=10.244.2.0/25=1.2.3.4"], ["overlaps 10.244.2.0/24"], id="peers overlap"),
        pytest.param(
            [PODS, PEERS[0], "--peer=10.244.2.0/24=1.2.3.4"], ["has the same pods"], id="one range, two nodes"
        ),
        pytest.param([PODS, "--node-ip=x"], ["--node-ip: 'x' is no IP address"], id="no address"),
        pytest.param([PODS, "--mtu=67"], ["--mtu 67 is not in 68 to 65535"], id="mtu"),
        pytest.param([PODS6, "--mtu=1279"], ["--mtu 1279 is not in 1280 to 65535"], id="mtu of IPv6"),
        pytest.param([PODS, "--overlay=vxlan", "--vni=0"], ["--vni 0 is not in 1 to 16777215"], id="vni"),
        pytest.param([PODS, "--overlay=vxlan", "--port=65536"], ["--port 65536 is not in"], id="port"),
        pytest.param([PODS, "--device=eth0"], ["--device is for --overlay"], id="device without overlay"),
        pytest.param([PODS, "--overlay=geneve"], ["invalid choice: 'geneve'"], id="another overlay"),
        pytest.param([PODS, "--mtu=0x5"], ["invalid int value: '0x5'"], id="no number"),
        pytest.param([PODS, "--peers=x"], ["unrecognized arguments: --peers=x"], id="unknown option"),
        pytest.param(["--pod-cidr=x", "--peer=y=z", "--mtu=1"], ["'x'", "'y'", "'z'", "--mtu 1"], id="all at once"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, options: list[str], problems: list[str]
) -> None:
    done = run_node(tmp_path, *options)
    assert done.returncode == 2
    assert [problem for problem in problems if problem not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_touches_nothing(tmp_path: Path) -> None:
    rendered(tmp_path, PODS, *PEERS)
    before = identities(tmp_path)
    done = run_node(tmp_path, PODS, *reversed(PEERS))
    assert "is as it should be" in done.stdout
    assert identities(tmp_path) == before


def test_other_peers_replace_the_old_ones_and_nothing_else_is_touched(tmp_path: Path) -> None:
    rendered(tmp_path, PODS, *PEERS)
    before = identities(tmp_path)
    document = rendered(tmp_path, PODS, "--peer=10.244.4.0/24=192.168.1.14")
    assert document["plugins"][0]["nodeRoutes"] == [{"dst": "10.244.4.0/24", "gw": "192.168.1.14"}]
    changed = {name for name, identity in identities(tmp_path).items() if before[name] != identity}
    assert changed == {CONFLIST}
    assert os.listdir((tmp_path / CONFLIST).parent) == ["10-pycni.conflist"]


def test_configuration_goes_where_it_is_said(tmp_path: Path) -> None:
    assert run_node(tmp_path, PODS, "--conf-dir=/etc/else").returncode == 0
    assert os.listdir(tmp_path / "etc" / "else") == ["10-pycni.conflist"]
    assert not (tmp_path / "etc" / "cni").exists()


@pytest.mark.parametrize(
    ("options", "has_ipv6"), [pytest.param([PODS], False, id="IPv4"), pytest.param([PODS, PODS6], True, id="both")]
)
def test_forwarding_and_bridge_netfilter_are_set_for_the_next_boot(
    tmp_path: Path, options: list[str], has_ipv6: bool
) -> None:
    rendered(tmp_path, *options)
    lines = (tmp_path / "etc" / "sysctl.d" / "99-pycni.conf").read_text().splitlines()
    for key in ("ipv4.ip_forward", "bridge.bridge-nf-call-iptables", "bridge.bridge-nf-call-ip6tables"):
        assert f"net.{key} = 1" in lines
    assert ("net.ipv6.conf.all.forwarding = 1" in lines) == has_ipv6
    assert (tmp_path / "etc" / "modules-load.d" / "pycni.conf").read_text() == "br_netfilter\n"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("in the way")
    done = run_node(tmp_path, PODS)
    assert done.returncode == 1
    assert "etc/cni/net.d" in done.stderr
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


# --- with a bundle: install.sh --node on a directory, and the bundle's own program on a bare node


def install_node(bundle: Path, root: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [str(ROOT / "install.sh"), "--node", "--bundle", str(bundle), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_BOUND, check=False)


def installed(bundle: Path, root: Path, *options: str) -> str:
    done = install_node(bundle, root, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_install_puts_the_bundle_below_a_root_and_renders(bundle: Path, tmp_path: Path) -> None:
    installed(bundle, tmp_path, PODS, *PEERS)
    assert json.loads((tmp_path / CONFLIST).read_bytes())["plugins"][0]["nodeRoutes"] == ROUTES
    (mark,) = (tmp_path / LIBRARY).glob("*/.put-here-by-pycni")
    for name in ("opt/cni/bin/cni-bridge", "opt/cni/bin/cni-ipam", f"{LIBRARY}/node", f"{LIBRARY}/pycni"):
        assert (tmp_path / name).read_text().startswith(f"#!/{LIBRARY}/{mark.parent.name}/bin/python3 ")
        assert os.access(tmp_path / name, os.X_OK)
    assert sorted(path.name for path in (tmp_path / LIBRARY).iterdir()) == sorted([mark.parent.name, "node", "pycni"])


def test_install_once_more_with_other_peers_changes_the_configuration_alone(bundle: Path, tmp_path: Path) -> None:
    installed(bundle, tmp_path, PODS, *PEERS)
    before = identities(tmp_path)
    installed(bundle, tmp_path, PODS, PEERS[0])
    changed = {name for name, identity in identities(tmp_path).items() if before[name] != identity}
    assert changed == {CONFLIST}


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
    assert {"old", "of somebody else", "node"} < names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param([], "one of --pod-cidr", id="no range"),
        pytest.param([PODS, "--nonsense"], "unrecognized arguments: --nonsense", id="unknown option"),
        pytest.param([PODS, "--lib-dir", "/x"], "--lib-dir", id="another directory for the code"),
    ],
)
def test_install_refuses_and_leaves_no_stage(bundle: Path, tmp_path: Path, options: list[str], message: str) -> None:
    done = install_node(bundle, tmp_path, *options)
    assert done.returncode != 0
    assert message in done.stderr
    assert not list(tmp_path.rglob("*.conflist"))
    assert not list(tmp_path.rglob(".stage*"))


def test_install_names_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    done = install_node(tmp_path / "x.tar.gz", tmp_path, PODS)
    assert done.returncode == 1
    assert f"no {tmp_path}/x.tar.gz; make it with: install.sh --bundle" in done.stderr


@pytest.fixture
def node(bundle: Path, tmp_path: Path) -> Iterator[BareNode]:
    """A bare node with the bundle unpacked, whose /etc/cni can be written to, with an address on a link to others."""
    make_tree(tmp_path)
    node = open_bare_node(tmp_path, (*WRITABLE, "etc/cni"))
    assert node.call("tar", "-xzf", "-", "-C", "/", stdin=bundle.read_bytes()).status == 0
    yield node
    node.close()


@pytest.mark.kernel
def test_a_node_without_python_sets_itself_up_and_serves(node: BareNode) -> None:
    done = node.call(f"/{LIBRARY}/node", PODS, PODS6)
    assert done.status == 0, done.stderr
    assert "/etc/sysctl.d/99-pycni.conf cannot be written (Read-only file system)" in done.stderr
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables"):
        assert node.call("cat", f"/proc/sys/{key}").stdout == "1\n"
    assert node.call(f"/{LIBRARY}/node", "--status")[:3] == (0, None, "")
    conflist = json.loads((node.disk / "etc" / "cni" / "net.d" / "10-pycni.conflist").read_bytes())
    config = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": "1.0.0"}
    container = node.start_container()
    added = node.plugin("ADD", config, container=container)
    assert (added.status, added.stderr) == (0, "")
    assert [entry["address"] for entry in added.document["ips"]] == ["10.244.1.3/24", "fd00:244:1::3/64"]
    assert node.ping("10.244.1.3")


@pytest.mark.kernel
def test_a_node_that_cannot_serve_a_pod_is_refused_and_stays_as_it_was(node: BareNode) -> None:
    node.run("ip", "link", "add", "cni0", "type", "veth")
    done = node.call(f"/{LIBRARY}/node", PODS)
    assert done.status == 1
    assert "node: ADD of a pod on trial failed: " in done.stderr
    assert "cni0" in done.stderr
    assert not list((node.disk / "etc" / "cni").rglob("*.conflist"))


@pytest.mark.kernel
def test_the_pod_on_trial_leaves_the_bridge_and_nothing_else(node: BareNode) -> None:
    assert node.call(f"/{LIBRARY}/node", PODS).status == 0
    assert node.link_names() == ["cni0"]
    assert "10.244.1." not in node.call("ls", "/var/lib/cni/networks/pycni").stdout
    assert node.nft() == []


@pytest.mark.kernel
def test_status_says_what_is_wrong_with_the_node(node: BareNode) -> None:
    assert "cannot be read" in node.call(f"/{LIBRARY}/node", "--status").stderr
    node.call(f"/{LIBRARY}/node", PODS)
    node.run("ip", "link", "delete", "cni0")
    node.run("ip", "link", "add", "cni0", "type", "veth")
    done = node.call(f"/{LIBRARY}/node", "--status")
    assert (done.status, done.document["code"]) == (1, 50)


@pytest.mark.kernel
def test_what_the_kernel_refuses_is_a_notice_and_no_failure(node: BareNode) -> None:
    done = node.call("sh", "-c", f"mount -t tmpfs -o ro x /proc/sys && /{LIBRARY}/node {PODS}")
    assert "there is no bridge netfilter" in done.stderr
    assert "net.ipv4.ip_forward cannot be set to 1" in done.stderr
