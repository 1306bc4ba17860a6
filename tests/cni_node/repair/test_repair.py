"""pycni repair: the rules of what runs come back after a flush, and of nothing else."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_node.results import list_attachments
from tests.cni_node.agents import Agent
from tests.conftest import ROOT
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
NETWORK: dict[str, Any] = {
    "type": "cni-bridge",
    "isGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "capabilities": {"portMappings": True},
    "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}
CONFLIST = {"cniVersion": "1.0.0", "name": "mynet"}


class Runtime:
    """A runtime that remembers what it has connected, as libcni does."""

    def __init__(self, host: Host, bin_dir: str, cache: Path) -> None:
        self.host, self.bin_dir, self.cache = host, bin_dir, cache

    def add(self, name: str, port: int, **keys: Any) -> dict[str, Any]:
        """Connect a container, with a host port. Returns what CHECK and DEL get."""
        network = {**NETWORK, **keys}
        self.host.add_container(name)
        mappings = [{**PORTS[0], "hostPort": port}]
        config = {"cniVersion": "1.0.0", "name": "mynet", **network, "runtimeConfig": {"portMappings": mappings}}
        result = self.call("ADD", name, config).document
        document = {
            "kind": "cniCacheV1",
            "containerId": name,
            "config": base64.b64encode(json.dumps({**CONFLIST, "plugins": [network]}).encode()).decode(),
            "ifName": "eth0",
            "networkName": "mynet",
            "capabilityArgs": {"portMappings": mappings, "dns": {}},
            "result": result,
        }
        (self.cache / f"mynet-{name}-eth0").write_text(json.dumps(document))
        return {**config, "prevResult": result}

    def call(self, command: str, name: str, config: dict[str, Any]) -> Any:
        return self.host.cni(
            command,
            config,
            executable=f"{self.bin_dir}/cni-bridge",
            container_id=name,
            netns=f"/run/netns/{name}",
            path=[self.bin_dir],
        )

    def repair(self, *options: str) -> "subprocess.CompletedProcess[str]":
        command = (sys.executable, "-m", "cni_node", "repair", "--results", str(self.cache), *options)
        return self.host.run(*command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)


@pytest.fixture
def runtime(host: Host, bin_dir: str, tmp_path: Path) -> Runtime:
    return Runtime(host, bin_dir, tmp_path)


def test_what_a_flush_took_is_named_and_put_back_with_apply(runtime: Runtime) -> None:
    configs = {name: runtime.add(name, 8080 + number) for number, name in enumerate(("c1", "c2"))}
    assert (runtime.repair().returncode, runtime.repair().stdout) == (0, "")
    runtime.host.run("nft", "flush", "ruleset")
    said = runtime.repair()
    assert said.returncode == 1
    assert "missing: container c1 interface eth0 of network mynet: " in said.stdout
    assert "nothing was changed; --apply puts it back" in said.stderr
    assert runtime.host.nft() == []
    done = runtime.repair("--apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert "put back: container c2 interface eth0 of network mynet: " in done.stdout
    for name, config in configs.items():
        assert runtime.call("CHECK", name, config).status == 0
    assert (runtime.repair().returncode, runtime.repair().stdout) == (0, "")


def test_nothing_is_put_back_for_what_does_not_run(runtime: Runtime) -> None:
    config = runtime.add("c1", 8080)
    kept = (runtime.cache / "mynet-c1-eth0").read_text()
    assert runtime.call("DEL", "c1", config).status == 0
    (runtime.cache / "mynet-c1-eth0").write_text(kept)
    done = runtime.repair("--apply")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert runtime.host.nft() == []


def test_what_is_no_result_is_named_and_the_others_are_repaired(runtime: Runtime) -> None:
    config = runtime.add("c1", 8080)
    (runtime.cache / "broken").write_text("{")
    (runtime.cache / "strange").write_text('{"kind": "cniCacheV1"}')
    (runtime.cache / "other").write_text('{"kind": "somebody else\'s"}')
    runtime.host.run("nft", "flush", "ruleset")
    done = runtime.repair("--apply")
    assert done.returncode == 1
    assert f"{runtime.cache}/broken is no result of libcni" in done.stderr
    assert f"{runtime.cache}/strange is no result of libcni" in done.stderr
    assert "other" not in done.stderr
    assert runtime.call("CHECK", "c1", config).status == 0


def test_the_agent_puts_them_back_by_itself(pair: tuple[Agent, Agent], bin_dir: str) -> None:
    agent = pair[0]
    cache = agent.root / "var/lib/cni/results"
    cache.mkdir(parents=True)
    agent.start()
    agent.await_ready()
    runtime = Runtime(agent.host, bin_dir, cache)
    config = runtime.add("c1", 8080, bridge="br1")
    agent.host.run("nft", "flush", "ruleset")
    agent.await_true(lambda: bool(runtime.call("CHECK", "c1", config).status == 0))
    agent.await_report(lambda report: bool(report["repairs"].get("rules")))


def test_a_host_without_results_has_nothing_to_repair(tmp_path: Path) -> None:
    assert list_attachments(tmp_path / "none") == ([], [])


def state_of(runtime: Runtime) -> Any:
    """The ways of a node and of a container, and the gateway's addresses."""
    found = [runtime.host.ip("route"), runtime.host.ip("route", container="c1")]
    ways = [{(each["dst"], each.get("gateway", ""), each["dev"]) for each in routes} for routes in found]
    return ways, runtime.host.addresses("cni0")


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("ip -n c1 route delete default", "eth0 of network mynet: route 0.0.0.0/0 via 10.1.0.1 in the container"),
        ("ip route delete 10.1.0.0/16 dev cni0", "route 10.1.0.0/16 through cni0"),
        ("ip address delete 10.1.0.1/16 dev cni0", "gateway address 10.1.0.1/16 on cni0"),
        ("echo 0 >/proc/sys/net/ipv4/ip_forward", "sysctl net.ipv4.ip_forward"),
        ("echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables", "sysctl net.bridge.bridge-nf-call-iptables"),
    ],
    ids=["route", "bridge", "gateway", "forwarding", "bridge netfilter"],
)
def test_routes_and_sysctls_are_put_back(runtime: Runtime, script: str, missing: str) -> None:
    runtime.add("c1", 8080, requireBridgeNetfilter=True)
    runtime.add("c2", 8081)
    runtime.host.run("sh", "-c", "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables")
    before = state_of(runtime)
    assert (runtime.repair().returncode, runtime.repair().stdout) == (0, "")
    runtime.host.run("sh", "-ec", script)
    harmed = state_of(runtime)
    said = runtime.repair()
    assert (said.returncode, len(said.stdout.splitlines())) == (1, said.stdout.count("missing: "))
    assert missing in said.stdout
    assert state_of(runtime) == harmed
    done = runtime.repair("--apply")
    assert (done.returncode, done.stderr) == (0, "")
    assert missing in done.stdout
    assert state_of(runtime) == before
    assert (runtime.repair().returncode, runtime.repair().stdout) == (0, "")


def test_what_stands_is_not_touched_and_a_pod_that_is_gone_needs_nothing(runtime: Runtime) -> None:
    runtime.add("c1", 8080)
    runtime.host.run("ip", "-n", "c1", "route", "replace", "default", "via", "10.1.0.1", "metric", "7")
    runtime.host.run("ip", "-n", "c1", "link", "set", "eth0", "down")
    assert runtime.repair("--apply").stdout == ""
    runtime.host.remove_container("c1")
    assert (runtime.repair("--apply").returncode, runtime.repair("--apply").stdout) == (0, "")
