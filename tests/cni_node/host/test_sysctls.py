"""Which sysctls a node needs, and what is done about each, on files that stand for them."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from cni_node.host import sysctls
from cni_node.host.sysctls import NETFILTER, ensure_sysctls, load_module, read_sysctl, wanted_sysctls
from tests.conftest import ROOT
from tests.kit.host import Host

FORWARD, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
BRIDGED, BRIDGED6 = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /proc/sys: forwarding is off, and there is no bridge netfilter."""
    monkeypatch.setattr(sysctls, "ROOT", tmp_path)
    monkeypatch.setattr(sysctls, "keep_listening", lambda _, before: before("up0"))
    monkeypatch.setattr(sysctls, "Kernel", nullcontext)
    for name in (FORWARD, FORWARD6):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("versions", "names"),
    [
        ((), []),
        ((4,), [FORWARD, BRIDGED]),
        ((6,), [FORWARD6, BRIDGED, BRIDGED6]),
        ((6, 4, 4), [FORWARD, FORWARD6, BRIDGED, BRIDGED6]),
    ],
)
def test_what_is_wanted(versions: tuple[int, ...], names: list[str]) -> None:
    assert list(wanted_sysctls(versions).items()) == [(name, "1") for name in names]


def test_what_is_otherwise_is_set_and_what_the_kernel_lacks_is_one_problem(root: Path) -> None:
    (root / FORWARD6).write_text("1\n")
    outcome = ensure_sysctls(wanted_sysctls((4, 6)))
    assert outcome == (["sysctl net.ipv4.ip_forward set to 1, which was 0"], [NETFILTER])
    assert (root / FORWARD).read_text() == "1"
    assert ensure_sysctls(wanted_sysctls((4, 6))) == ([], [NETFILTER])


def test_bridge_netfilter_that_is_off_is_set(root: Path) -> None:
    (root / BRIDGED).parent.mkdir()
    (root / BRIDGED).write_text("0\n")
    assert ensure_sysctls({BRIDGED: "1"}) == ([f"sysctl {BRIDGED.replace('/', '.')} set to 1, which was 0"], [])


def test_what_cannot_be_set_is_named_and_the_next_is_set(root: Path) -> None:
    (root / FORWARD).unlink()
    (root / FORWARD).mkdir()
    outcome = ensure_sysctls({FORWARD: "1", "net/none/x": "1", FORWARD6: "1"})
    assert outcome.done == [
        "sysctl net.ipv6.conf.up0.accept_ra set to 2, which was 1",
        "sysctl net.ipv6.conf.all.forwarding set to 1, which was 0",
    ]
    assert [problem.partition(";")[0] for problem in outcome.problems] == [
        "sysctl net.ipv4.ip_forward cannot be set to 1 (Is a directory)",
        "sysctl net.none.x cannot be set to 1 (No such file or directory)",
    ]


def test_reading_a_value_leaves_nothing_open(root: Path) -> None:
    (root / "long").write_text("x" * 100)
    (root / "directory").mkdir()
    before = os.listdir("/proc/self/fd")
    assert [read_sysctl(name) for name in (FORWARD, "long", "none", "directory")] == ["0", "x" * 64, None, None]
    assert os.listdir("/proc/self/fd") == before


def test_the_module_is_loaded_where_it_is_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = root / "said"
    (root / "modprobe").write_text(f'#!/bin/sh\necho "$*" >>{said}\n')
    (root / "modprobe").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
    load_module()
    assert said.read_text() == "-q br_netfilter\n"
    (root / "net/bridge").mkdir()
    load_module()
    assert said.read_text() == "-q br_netfilter\n"
    (root / "net/bridge").rmdir()
    monkeypatch.setenv("PATH", str(root / "nowhere"))
    load_module()


@pytest.mark.kernel
def test_uplinks_go_on_listening_to_routers_when_forwarding_is_switched_on(host: Host) -> None:
    for command in (
        "ip link add up0 type veth peer name far",
        "ip link set up0 up",
        "ip addr add 192.0.2.1/24 dev up0",
    ):
        host.run(*command.split())
    host.run("ip", "route", "add", "default", "via", "192.0.2.2")
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding")
    program = f"from cni_node.host.sysctls import ensure_sysctls; print(ensure_sysctls({{{FORWARD6!r}: '1'}}).done)"
    told = host.run(sys.executable, "-c", program, env={"PYTHONPATH": str(ROOT)}).stdout
    assert "net.ipv6.conf.up0.accept_ra set to 2" in told
    values = [host.run("cat", f"/proc/sys/net/ipv6/conf/{name}").stdout for name in ("up0/accept_ra", "all/forwarding")]
    assert values == ["2\n", "1\n"]
