"""Nodes for pycni inspect: emulated ones, whose runtime remembers its pods; and readings of nodes as values."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cni_kernel.values import Link
from cni_node.inspect.values import Inside, Reading, Remembered
from cni_protocol.address import parse_cidr
from cni_protocol.attachment import Attachment
from tests.conftest import ROOT
from tests.kit.host import Host

NETWORK: dict[str, Any] = {
    "type": "cni-bridge",
    "isGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "capabilities": {"portMappings": True},
    "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}


class Node:
    """An emulated node with pods, and what its runtime remembers of them."""

    def __init__(self, host: Host, bin_dir: str, cache: Path) -> None:
        self.host, self.bin_dir, self.cache = host, bin_dir, cache

    def add(self, name: str, port: int) -> dict[str, Any]:
        """Connect a pod, with a host port. Returns the result."""
        self.host.add_container(name)
        mappings = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
        config = {"cniVersion": "1.0.0", "name": "mynet", **NETWORK, "runtimeConfig": {"portMappings": mappings}}
        outcome = self.host.cni(
            "ADD",
            config,
            executable=f"{self.bin_dir}/cni-bridge",
            container_id=name,
            netns=f"/run/netns/{name}",
            path=[self.bin_dir],
        )
        assert outcome.status == 0, outcome.stdout
        self.remember(name, outcome.document)
        result: dict[str, Any] = outcome.document
        return result

    def remember(self, name: str, result: Any) -> None:
        """Write what libcni writes."""
        conflist = {"cniVersion": "1.0.0", "name": "mynet", "plugins": [NETWORK]}
        document = {
            "kind": "cniCacheV1",
            "containerId": name,
            "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
            "ifName": "eth0",
            "networkName": "mynet",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", f"{name}-pod"]],
            "result": result,
        }
        (self.cache / f"mynet-{name}-eth0").write_text(json.dumps(document))

    def inspect(self, *options: str, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """Run it. `before` is a command that runs it."""
        command = (*before, sys.executable, "-m", "cni_node", "inspect", "--results", str(self.cache), *options)
        return self.host.run(*command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)

    def document(self, *options: str) -> Any:
        """What --json says."""
        return json.loads(self.inspect("--json", *options).stdout)

    def dump(self) -> str:
        """All that could have been changed, in the words of other programs."""
        commands = (
            "ip link; ip address | sed 's/ tentative//'; ip route show table main; ip neigh show nud permanent; "
            "bridge fdb; nft -a list ruleset; ip netns; find /var/lib/cni -printf '%p %s %T@ %C@\\n' | sort; "
            "sysctl -a 2>/dev/null | grep -E '^net.*forward|disable_ipv6|accept_ra |arp_|rp_filter'"
        )
        return self.host.run("sh", "-c", commands, check=False).stdout


def link(ifindex: int, name: str, kind: str, **others: Any) -> Link:
    """An interface that is up."""
    plain = Link(ifindex, name, kind, "02:00:00:00:00:01", 1500, *(True, True, False), 0, 0, "", *(False,) * 4)
    return plain._replace(**others)


def reading(pods: int = 0, **others: Any) -> Reading:
    """A node with some pods on cni0, as it was read."""
    remembered, inside = [], {}
    links = [link(1, "lo", ""), link(2, "uplink0", ""), link(3, "cni0", "bridge")]
    for number in range(pods):
        attachment = Attachment("mynet", f"c{number}", "eth0")
        address = f"10.1.{number >> 8}.{number & 255}/16"
        remembered.append(Remembered(*attachment, f"/run/netns/c{number}", f"shop/web-{number}", "cni0", (address,)))
        inside[attachment.owner] = Inside("ok", link(2, "eth0", "veth"), (parse_cidr(address),))
        links.append(link(10 + number, attachment.host_name, "veth", master=3, alias=attachment.owner))
    made = Reading(
        *("node1", links, [], [("uplink0", "192.0.2.1")]),
        remembered=remembered,
        inside=inside,
        reservations=[],
        rules=[],
        exempt=0,
        policies=None,
        peers=[],
        has_links=True,
        has_results=True,
        problems=[],
    )
    return made._replace(**others)
