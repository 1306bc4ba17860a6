"""Agents on throw-away hosts: two nodes on a link, a file of nodes, and what `pycni status --json` says."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cni_node.agent.status import fetch
from tests.conftest import ROOT
from tests.kit.host import RUN_BOUND, Host, wait_until

NODES = {4: ("192.168.1.11", "192.168.1.12"), 6: ("fd00:a::11", "fd00:a::12")}  # what the nodes have on the link
PODS = {4: ("10.240.1.0/24", "10.240.2.0/24"), 6: ("fd00:1::/64", "fd00:2::/64")}
SETTLE_BOUND = 20.0  # seconds for an agent to get ready; a few are usual
REPAIR_BOUND = 20.0  # seconds; 1 is promised, and measured by scripts/cluster on a machine that does nothing else
_NODES_LINE = "{pods} {addresses} {name}\n"


def link_hosts(first: Host, second: Host) -> None:
    """A wire between two hosts, with addresses of both families."""
    first.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "uplink", "netns", str(second.pid))
    for i, host in enumerate((first, second)):
        for version, prefix in ((4, 24), (6, 64)):
            nodad = ["nodad"] if version == 6 else []
            host.run("ip", "address", "add", f"{NODES[version][i]}/{prefix}", "dev", "uplink", *nodad)
        # else an interface that goes down loses them
        host.run("sysctl", "-qw", "net.ipv6.conf.uplink.keep_addr_on_down=1")
        host.run("ip", "link", "set", "uplink", "up")


def line(index: int, *versions: int, pods: str = "", name: str = "") -> str:
    """The line of a nodes file for one of the two nodes."""
    versions = versions or (4, 6)
    return _NODES_LINE.format(
        pods=pods or ",".join(PODS[version][index] for version in versions),
        addresses=",".join(NODES[version][index] for version in versions),
        name=name or f"node{index + 1}",
    )


class Agent:
    """An agent of one host, with a root directory of its own for the files that it writes."""

    def __init__(self, host: Host, root: Path, bin_dir: str, index: int) -> None:
        self.host, self.root, self.bin_dir, self.index = host, root, bin_dir, index
        self.socket = root / "run" / "agent.sock"
        self.nodes = root / "nodes"
        self.configuration = root / "etc/cni/net.d/10-pycni.conflist"
        self.log = root / "log"
        self._process: subprocess.Popen[str] | None = None

    def argv(self, *options: str) -> list[str]:
        """The command line, to be run on the host; --node-ip is there unless it is among the options."""
        places = ["--root", str(self.root), "--bin-dir", self.bin_dir, "--socket", str(self.socket)]
        given = any(option.startswith("--node-ip") for option in options)
        addresses = [] if given else [f"--node-ip={NODES[version][self.index]}" for version in (4, 6)]
        return [sys.executable, "-m", "cni_node", "agent", *places, *addresses, f"--nodes-file={self.nodes}", *options]

    def write_nodes(self, *lines: str) -> None:
        """Replace the file of nodes, as an operator should: by rename."""
        new = self.nodes.with_suffix(".new")
        new.write_text("".join(lines))
        new.rename(self.nodes)

    def start(self, *options: str, env: dict[str, str] | None = None, before: tuple[str, ...] = ()) -> None:
        """Start it; `before` goes in front of the command line."""
        with open(self.log, "a") as log:
            self._process = self.host.start(
                *before, *self.argv(*options), stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
            )

    def stop(self, *, kill: bool = False) -> None:
        """End it, and wait."""
        process, self._process = self._process, None
        if process is not None:
            (process.kill if kill else process.terminate)()
            process.wait(RUN_BOUND)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit status, if it has ended."""
        return self._process.poll() if self._process else None

    def report(self) -> dict[str, Any]:
        """What it says of itself, as `pycni status --json` prints it; nothing while it does not answer."""
        try:  # in this process: it is asked until it is ready, and an interpreter would start for each time
            return dict(json.loads(fetch(self.socket, "/status")))
        except (OSError, ValueError):
            return {}

    def await_report(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float = SETTLE_BOUND
    ) -> dict[str, Any]:
        """The first report with which a condition holds."""
        deadline = time.monotonic() + seconds
        while True:
            report = self.report()
            if report and condition(report):
                return report
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {report}\n{self.log.read_text()}")
            time.sleep(0.02)

    def await_ready(self) -> dict[str, Any]:
        """The report of a node that is ready."""
        return self.await_report(lambda report: bool(report["ready"]))

    def routes(self) -> dict[str, str]:
        """Our routes: where to, and by which gateway."""
        found = [*self.host.ip("route", "show", "proto", "80"), *self.host.ip("-6", "route", "show", "proto", "80")]
        return {entry["dst"]: entry["gateway"] for entry in found}

    def exempt(self, version: int = 4) -> list[str]:
        """The elements of the exemption set, as nft has them."""
        for entry in self.host.nft():
            if entry.get("set", {}).get("name") == f"exempt{version}":
                return sorted(_element_text(element) for element in entry["set"].get("elem", []))
        return []

    def await_true(self, condition: Callable[[], bool], seconds: float = REPAIR_BOUND) -> None:
        """Wait for something in the kernel."""
        assert wait_until(condition, seconds), f"not within {seconds} s\n{self.log.read_text()}"


def agents_on(hosts: tuple[Host, Host], bin_dir: str, directory: Path) -> Iterator[tuple[Agent, Agent]]:
    """Two agents, not started, with a file of both nodes each."""
    link_hosts(*hosts)
    agents = []
    for i, host in enumerate(hosts):
        root = directory / f"node{i + 1}"
        root.mkdir()
        agents.append(Agent(host, root, bin_dir, i))
        agents[-1].write_nodes(line(0), line(1))
    yield agents[0], agents[1]
    for agent in agents:
        agent.stop()


def state_of(agent: Agent) -> dict[str, Any]:
    """All that an agent answers for."""
    host = agent.host
    keys = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/vxlan.42/rp_filter")
    return {
        "routes": agent.routes(),
        "exempt": (agent.exempt(), agent.exempt(6)),
        "sysctls": [host.run("cat", f"/proc/sys/net/{key}", check=False).stdout for key in keys],
        "devices": {
            link["ifname"]: (link["address"], "UP" in link["flags"], link["mtu"], link.get("ifalias"))
            for link in host.ip("link")
            if link["ifname"] != "uplink"
        },
        "addresses": {name: sorted(host.addresses(name)) for name in ("cni0", "vxlan.42") if name in host.link_names()},
        "neighbours": sorted(
            (entry["dst"], entry["lladdr"])
            for family in ("-4", "-6")
            for entry in host.ip(family, "neighbour", "show", "nud", "permanent")
        ),
        "forwards": host.run("bridge", "fdb", "show", "dev", "vxlan.42", check=False).stdout,
    }


def _element_text(element: Any) -> str:
    value = element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
    if isinstance(value, dict):
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)
