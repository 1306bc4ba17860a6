"""What the agent does when the cluster, the node or the agent itself changes, and what it leaves alone."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_node.agent.status import fetch
from tests.cni_node.agents import NODES, PODS, Agent, line, state_of
from tests.conftest import ROOT
from tests.kit.host import wait_until
from tests.kit.runtime import Runtime

pytestmark = pytest.mark.kernel

OTHER_PODS = "10.240.9.0/24"


def ranges_of(agent: Agent) -> list[str]:
    """The pod ranges that the runtime is told, none without a configuration."""
    if not agent.configuration.exists():
        return []
    [plugin] = json.loads(agent.configuration.read_text())["plugins"]
    return [each[0]["subnet"] for each in plugin["ipam"]["ranges"]]


def log_after(agent: Agent, size: int) -> str:
    return agent.log.read_text()[size:]


def test_a_peer_that_comes_and_goes(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.write_nodes(line(0, 4))
    first.start()
    first.await_ready()
    assert (first.routes(), first.exempt()) == ({}, [])
    first.write_nodes(line(0, 4), line(1, 4))
    first.await_true(lambda: first.routes() == {PODS[4][1]: NODES[4][1]})
    first.await_true(lambda: first.exempt() == ["10.240.2.0/24", "192.168.1.12"])
    first.write_nodes(line(0, 4), line(1, 4, pods=OTHER_PODS))
    first.await_true(lambda: first.routes() == {OTHER_PODS: NODES[4][1]})
    first.write_nodes(line(0, 4))
    first.await_true(lambda: first.routes() == {} and first.exempt() == [])


@pytest.mark.parametrize("text", ["", "nonsense\n", "10.240.2.0/24 192.168.1.12\n10.240.2.0/25 192.168.1.13\n", None])
def test_a_source_that_says_nothing_or_nonsense_takes_nothing_away(pair: tuple[Agent, Agent], text: str | None) -> None:
    first = pair[0]
    first.start()
    first.await_ready()
    before = state_of(first)
    if text is None:
        first.nodes.unlink()
    else:
        first.write_nodes(text)
    first.await_report(
        lambda report: any(str(first.nodes) in problem or "10.240.2.0" in problem for problem in report["problems"])
    )
    assert state_of(first) == before
    first.stop()
    first.start()
    first.await_report(lambda report: report["state"] == "waiting for the source" and bool(report["problems"]))
    assert state_of(first) == before
    first.write_nodes(line(0), line(1))
    first.await_report(lambda report: bool(report["ready"]) and report["problems"] == [])
    assert state_of(first) == before


def test_a_node_is_not_ready_before_its_peers_answer(pair: tuple[Agent, Agent]) -> None:
    first, second = pair
    first.write_nodes(line(0))
    first.start()
    first.await_ready()
    second.start()
    second.await_true(lambda: len(second.routes()) == 2, 10)
    assert ranges_of(second) == []
    with pytest.raises(ValueError, match="503"):
        fetch(second.socket, "/readyz")
    first.write_nodes(line(0), line(1))
    assert second.await_ready()["silent"] == []
    assert ranges_of(second) == [PODS[4][1], PODS[6][1]]
    assert fetch(second.socket, "/readyz").startswith("ready")


def test_a_peer_that_is_down_holds_nobody_up_for_ever(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.start()
    assert first.await_ready()["silent"] == ["node2"]


def test_a_start_adopts_what_stands_and_the_end_leaves_it(pair: tuple[Agent, Agent]) -> None:
    for agent in pair:
        agent.start("--overlay=vxlan", "--vni=42")
    for agent in pair:
        agent.await_ready()
    first = pair[0]
    before, size = state_of(first), len(first.log.read_text())
    ping = first.host.start("busybox", "ping", "-i", "0.02", "-w", "4", "-q", "10.240.2.1", stdout=-1)
    for kill in (False, True):
        first.stop(kill=kill)
        assert state_of(first) == before
        first.start("--overlay=vxlan", "--vni=42")
        first.await_ready()
    assert state_of(first) == before
    assert " 0% packet loss" in ping.communicate(timeout=30)[0]
    assert "event=changed" not in log_after(first, size)
    assert "event=repaired" not in log_after(first, size)


def test_an_overlay_that_is_given_up_leaves_nothing(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.start("--overlay=vxlan", "--vni=42")
    first.await_ready()
    assert set(first.routes().values()) == {"10.240.2.0", "fd00:2::"}
    first.stop()
    first.start("--overlay=vxlan", "--vni=43")
    first.await_true(lambda: "vxlan.43" in first.host.link_names() and "vxlan.42" not in first.host.link_names(), 10)
    first.await_ready()
    first.stop()
    first.start()
    first.await_true(lambda: first.routes() == {PODS[version][1]: NODES[version][1] for version in (4, 6)}, 10)
    first.await_true(lambda: "vxlan.43" not in first.host.link_names())


def test_peers_on_a_link_are_reached_without_the_overlay(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    far = "10.240.3.0/24,fd00:3::/64 192.168.7.13 node3\n"
    first.write_nodes(line(0), line(1), far)
    first.start("--overlay=vxlan", "--direct")
    wanted = {PODS[version][1]: NODES[version][1] for version in (4, 6)}
    first.await_true(lambda: first.routes() == {**wanted, "10.240.3.0/24": "10.240.3.0", "fd00:3::/64": "fd00:3::"}, 10)
    assert first.await_ready()["mtu"] == 1450


def test_an_interface_of_others_is_not_touched(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.host.run("ip", "link", "add", "vxlan.42", "type", "bridge")
    first.start("--overlay=vxlan", "--vni=42")
    report = first.await_report(lambda report: any("vxlan.42" in problem for problem in report["problems"]))
    assert "choose another --vni, or remove it" in report["problems"][0]
    assert (report["ready"], ranges_of(first)) == (False, [])
    first.host.run("ip", "link", "del", "vxlan.42")
    first.await_ready()


def test_a_gateway_on_no_network_is_one_sentence_and_the_others_go_on(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.write_nodes(line(0), line(1), "10.240.3.0/24 172.31.0.1 node3\n")
    first.start()
    report = first.await_ready()
    assert report["missing"] == 1
    assert any("172.31.0.1 is on no network of this node" in problem for problem in report["problems"])
    assert PODS[4][1] in first.routes()
    first.host.run("ip", "address", "add", "172.31.0.9/24", "dev", "uplink")
    first.await_true(lambda: "10.240.3.0/24" in first.routes())


def test_a_changed_range_is_taken_over_and_who_has_an_old_address_is_named(
    pair: tuple[Agent, Agent], bin_dir: str
) -> None:
    first = pair[0]
    first.write_nodes(line(0, 4))
    first.start()
    first.await_ready()
    first.host.run("mkdir", "-p", str(first.root / "var/lib/cni"))
    first.host.run("mount", "--bind", "/var/lib/cni", str(first.root / "var/lib/cni"))
    [plugin] = json.loads(first.configuration.read_text())["plugins"]
    config = {**plugin, "cniVersion": "1.0.0", "name": "pycni"}
    runtime = Runtime(first.host, f"{bin_dir}/cni-bridge", (bin_dir,))
    result = runtime.add("old", config)
    address = result["ips"][0]["address"].partition("/")[0]
    first.write_nodes(line(0, 4, pods=OTHER_PODS))
    first.await_true(lambda: ranges_of(first) == [OTHER_PODS], 15)
    assert first.host.addresses("cni0") == ["10.240.9.1/24"]
    copied = first.host.run("ls", str(first.root / "var/lib/cni/networks/pycni")).stdout
    assert address in copied
    report = first.await_report(lambda report: bool(report["strangers"]))
    assert report["strangers"] == [f"{address} (old)"]
    assert f'event=old-address pod="{address} (old)"' in first.log.read_text()
    runtime.delete("old", config)
    first.await_report(lambda report: report["strangers"] == [])


def test_a_configuration_that_somebody_changes_is_put_back(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.start()
    first.await_ready()
    before = first.configuration.read_bytes()
    for change in (lambda: first.configuration.unlink(), lambda: first.configuration.write_text("{}")):
        change()
        assert wait_until(lambda: first.configuration.exists() and first.configuration.read_bytes() == before, 10)


def test_a_node_that_cannot_serve_is_not_told_ready(pair: tuple[Agent, Agent], tmp_path: Path) -> None:
    first = pair[0]
    first.bin_dir = str(tmp_path / "nothing")
    first.start()
    report = first.await_report(
        lambda report: any("cannot be run for ADD" in problem for problem in report["problems"])
    )
    assert (report["ready"], ranges_of(first)) == (False, [])


def test_a_second_agent_is_refused(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.start()
    first.await_ready()
    done = first.host.run(*first.argv(), check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "another agent runs" in done.stderr
    assert first.report()["ready"]


BROKEN = """
import sys
from cni_node.__main__ import main
from cni_node.sources.static import StaticSource

def follow(*_):
    raise ValueError("odd")

StaticSource.follow = follow
sys.exit(main(sys.argv[1:]))
"""


def test_an_agent_that_has_lost_a_thread_ends(pair: tuple[Agent, Agent]) -> None:
    """So whoever watches it starts another one, which has all of them."""
    first = pair[0]
    command = [sys.executable, "-c", BROKEN, *first.argv()[3:]]
    done = first.host.run(*command, check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert "event=problem what=\"the thread source has ended, and so the agent does: ValueError('odd')\"" in done.stderr


def test_systemd_is_told(pair: tuple[Agent, Agent], tmp_path: Path) -> None:
    first = pair[0]
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(20)
        first.start(env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"})
        told = ""
        while "STATUS=ready" not in told:
            told += sock.recv(4096).decode()
        first.stop()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                told += sock.recv(4096).decode()
    assert told.startswith("READY=1\n")
    assert told.count("WATCHDOG=1") >= 2
    assert told.endswith("STOPPING=1\n")


def test_the_socket_is_roots_and_answers(pair: tuple[Agent, Agent]) -> None:
    first = pair[0]
    first.start("--metrics-port=9464")
    first.await_ready()
    assert first.socket.stat().st_mode & 0o777 == 0o600
    assert fetch(first.socket, "/healthz") == "ok\n"
    metrics = first.host.run("busybox", "wget", "-qO-", "http://127.0.0.1:9464/metrics").stdout
    assert "\npycni_ready 1\n" in metrics
    assert "\npycni_peers 1\n" in metrics
    command = [sys.executable, "-m", "cni_node", "status", "--socket", str(first.socket)]
    done = first.host.run(*command, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("agent      ready (pid ")
    assert len(done.stdout.splitlines()) <= 25
    done = first.host.run(*command, "--json", env={"PYTHONPATH": str(ROOT)})
    assert json.loads(done.stdout)["ready"] is True


@pytest.fixture
def roots_files(pair: tuple[Agent, Agent]) -> Agent:
    """The first node with directories of its own where the files of a real one are."""
    host = pair[0].host
    for directory in ("/etc/cni", "/etc/sysctl.d", "/etc/modules-load.d"):
        host.run("mkdir", "-p", directory)
        host.run("mount", "-t", "tmpfs", "own", directory)
    return pair[0]


def test_once_sets_a_node_up_and_ends(roots_files: Agent) -> None:
    agent = roots_files
    options = ["--bin-dir", agent.bin_dir, f"--pod-cidr={PODS[4][0]}", f"--peer={PODS[4][1]}={NODES[4][1]}", "--once"]
    command = [sys.executable, "-m", "cni_node", "agent", *options]
    environment: dict[str, Any] = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = agent.host.run(*command, env=environment)
    assert done.stdout == f"/etc/cni/net.d/10-pycni.conflist is written: {PODS[4][0]}\n"
    assert agent.routes() == {PODS[4][1]: NODES[4][1]}
    assert agent.exempt() == ["10.240.2.0/24", "192.168.1.12"]
    sysctls = agent.host.run("cat", "/etc/sysctl.d/99-pycni.conf").stdout
    assert sysctls == "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n"
    again = agent.host.run(*command, env=environment)
    assert again.stdout == f"/etc/cni/net.d/10-pycni.conflist is as it should be: {PODS[4][0]}\n"
    refused = agent.host.run(*command, "--mtu=1", check=False, env=environment)
    assert (refused.returncode, refused.stderr) == (2, "pycni: --mtu 1 is not in 68 to 65535\n")
