"""A node for the doctor: an emulated host with pods of a runtime that remembers them, and files of its own."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cni_node.host.peer_routes import mac_of
from cni_protocol.address import parse_ip
from cni_protocol.attachment import Attachment
from tests.conftest import ROOT
from tests.kit.host import Host
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE_ADDRESSES, connect_outside

NETWORK: dict[str, Any] = {
    "type": "cni-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "mtu": 1450,
    "capabilities": {"portMappings": True},
    "ipam": {"type": "cni-ipam", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]},
}
CACHE = "/var/lib/cni/results"
STORE = "/var/lib/cni/networks/mynet"
PEER, PEER_PODS = OUTSIDE_ADDRESSES[4], "10.2.0.0"


class Patient:
    """A host with pods."""

    def __init__(self, host: Host, root: Path, bin_dir: str) -> None:
        self.host, self.root = host, root
        self.bin_dir = root / "opt/cni/bin"
        self.socket = root / "agent.sock"
        self.conf_dir = root / "etc/cni/net.d"
        for directory in (self.bin_dir, self.conf_dir, root / "etc/sysctl.d", root / "var/lib"):
            directory.mkdir(parents=True)
        (root / "run").symlink_to("/run")
        (root / "var/lib/cni").symlink_to("/var/lib/cni")
        for name in ("cni-bridge", "cni-ipam"):
            shutil.copy2(f"{bin_dir}/{name}", self.bin_dir)
        self._bin = bin_dir
        self.ports: dict[str, int] = {}
        self.name, self.network = "mynet", NETWORK
        self.configure("10-mynet.conflist")
        host.run("mkdir", CACHE)
        connect_outside(host)
        host.run("ip", "route", "add", "default", "via", PEER)

    def configure(self, name: str, **keys: Any) -> None:
        """Write the runtime's configuration of the network."""
        self.network = {**NETWORK, **keys}
        document = {"cniVersion": "1.0.0", "name": self.name, "plugins": [self.network]}
        (self.conf_dir / name).write_text(json.dumps(document))

    def take_configuration(self, name: str) -> None:
        """Have further pods on the network of a configuration that somebody else has written."""
        document = json.loads((self.conf_dir / name).read_text())
        self.name, self.network = document["name"], document["plugins"][0]

    def add(self, name: str, port: int = 0, args: str = "") -> Any:
        """Connect a pod; `args` as CNI_ARGS. Returns the result."""
        self.host.add_container(name)
        mappings = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}] if port else []
        runtime = {"runtimeConfig": {"portMappings": mappings}} if port else {}
        config = {"cniVersion": "1.0.0", "name": self.name, **self.network, **runtime}
        outcome = self.host.cni(
            "ADD",
            config,
            executable=f"{self._bin}/cni-bridge",
            container_id=name,
            netns=f"/run/netns/{name}",
            path=[self._bin],
            args=args,
        )
        assert outcome.status == 0, outcome
        self.remember(name, outcome.document, mappings)
        return outcome.document

    def remember(self, name: str, result: Any, mappings: Any = ()) -> None:
        """Have the runtime remember a pod."""
        self.write(f"{CACHE}/{self.name}-{name}-eth0", self.document(name, result, mappings))

    def document(self, name: str, result: Any, mappings: Any = ()) -> str:
        """What libcni keeps of a pod."""
        conflist = {"cniVersion": "1.0.0", "name": self.name, "plugins": [self.network]}
        document = {
            "kind": "cniCacheV1",
            "containerId": name,
            "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
            "ifName": "eth0",
            "networkName": self.name,
            "capabilityArgs": {"portMappings": list(mappings)},
            "result": result,
        }
        return json.dumps(document)

    def result(self, name: str) -> Any:
        """The result that is kept of a pod."""
        return json.loads(self.host.run("cat", f"{CACHE}/{self.name}-{name}-eth0").stdout)["result"]

    def write(self, path: str, text: str) -> None:
        """Write a file of the host."""
        self.host.run("sh", "-c", 'mkdir -p "$(dirname "$0")"; cat >"$0"', path, input=text)

    def port(self, name: str) -> str:
        """The host's end of a pod's link."""
        return Attachment(self.name, name, "eth0").host_name

    def sh(self, script: str) -> None:
        """Run a script on the host."""
        self.host.run("sh", "-ec", script)

    def index(self, name: str) -> int:
        """The index of an interface."""
        return int(self.host.ip("link", "show", "dev", name)[0]["ifindex"])

    def doctor(
        self, *options: str, before: str = "", prefix: tuple[str, ...] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """Ask; `before` is a script of the process that becomes the doctor."""
        command = [*prefix, sys.executable, "-m", "cni_node", "doctor", "--root", str(self.root)]
        command += ["--socket", str(self.socket), *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return self.host.run(
            "sh", "-ec", f'{before}\nexec "$@"', "sh", *command, check=False, env=environment, cwd=ROOT
        )

    def kinds(self, before: str = "") -> set[str]:
        """The kinds of what is found."""
        done = self.doctor("--json", before=before)
        assert done.stderr == "", done.stderr
        document = json.loads(done.stdout)
        assert document["unreadable"] == [], document
        assert done.returncode == (1 if document["findings"] else 0)
        return {finding["kind"] for finding in document["findings"]}

    def make_overlay(self) -> None:
        """The overlay as the agent makes it, with one peer."""
        mac, far = mac_of(parse_ip(HOST_ADDRESSES[4])), mac_of(parse_ip(PEER))
        self.sh(f"""
        ip link add vxlan.42 mtu 1450 address {mac} type vxlan id 42 \\
            dstport 4789 local {HOST_ADDRESSES[4]} dev uplink nolearning
        ip link set vxlan.42 alias pycni,
        echo 0 >/proc/sys/net/ipv6/conf/vxlan.42/router_solicitations
        echo 1 >/proc/sys/net/ipv6/conf/vxlan.42/disable_ipv6
        echo 2 >/proc/sys/net/ipv4/conf/vxlan.42/rp_filter
        ip link set vxlan.42 up
        ip address add 10.1.0.1/32 dev vxlan.42
        ip neighbour add {PEER_PODS} lladdr {far} nud permanent dev vxlan.42
        bridge fdb add {far} dst {PEER} dev vxlan.42
        ip route add {PEER_PODS}/24 via {PEER_PODS} dev vxlan.42 onlink proto 80 metric 65600
        """)


Fault = tuple[str, Callable[[Patient], None], set[str]]


def worsen(patient: Patient, faults: "list[Fault]") -> None:
    """Healthy first; then one fault after the other, each of which is found beside those before."""
    found = patient.kinds()
    assert found == set()
    for name, make, kinds in faults:
        make(patient)
        before, found = found, patient.kinds()
        assert found == before | kinds, f"{name}: {found ^ (before | kinds)}"
