"""What each command loads, module by module: loading is most of what a call costs.

A module that is new here makes every call slower. Where it is worth that, put it into the list; `scripts/bench` tells
the price.
"""

import json
from typing import Any

import pytest

from tests.host import Host
from tests.system.runtime import Runtime

pytestmark = pytest.mark.kernel

C_MODULES = {"_collections", "_json", "_sha256", "_socket", "gc", "select"}
FROZEN = {
    "__future__",
    "_collections_abc",
    "_stat",
    "genericpath",
    "os",
    "posixpath",
    "stat",
}  # the interpreter has them
STANDARD = C_MODULES | FROZEN
FILES = {"errno", "fcntl", "itertools"}
NETLINK = {"_struct", "struct"}
FOREIGN_FUNCTIONS = {"_ctypes"}  # setns(2); a lean tenth of ctypes

PROTOCOL = {
    *("", ".address", ".errors", ".fields", ".light", ".light.json_text", ".light.standard", ".plugin", ".request"),
    *(".result", ".typos", ".valid_attachments", ".version"),
}
DELEGATION = {".attachment", ".delegate", ".sibling"}
LOCKS = {".light.locks"}
BRIDGE = {
    *("", ".__main__", ".attachment_rules", ".commands", ".config", ".masquerade", ".nodes", ".plan", ".portmap"),
    *(".refusals", ".spoofcheck", ".undo", ".verify"),
}
VALUES = {"", ".errors", ".expressions", ".values"}
BRIDGE_AT_WORK = {".bridge", ".locks", ".removal", ".sandbox", ".sync", ".wiring"}
KERNEL = {
    *(".attributes", ".kernel", ".namespace", ".netlink", ".nft_attributes", ".nftables", ".rtnetlink", ".sysctl"),
}
IPAM = {
    *("", ".__main__", ".boot", ".commands", ".config", ".files", ".index", ".ranges", ".records", ".resolvconf"),
    *(".stamp", ".store"),
}


def named(package: str, *parts: set[str]) -> set[str]:
    return {package + module for part in parts for module in part}


BRIDGE_VERSION = (
    STANDARD
    | {"errno"}
    | named("cni_protocol", PROTOCOL, DELEGATION)
    | named("cni_kernel", VALUES)
    | named("cni_bridge", BRIDGE)
)
BRIDGE_GC = (
    BRIDGE_VERSION
    | (FILES | NETLINK)
    | named("cni_protocol", LOCKS)
    | named("cni_kernel", KERNEL)
    | named("cni_bridge", BRIDGE_AT_WORK)
    | named("cni_ipam", IPAM)
)
BRIDGE_ADD = (BRIDGE_GC | FOREIGN_FUNCTIONS | {"cni_protocol.light.libc"}) - {"cni_bridge.removal"}
BRIDGE_DEL = BRIDGE_ADD | {"cni_bridge.removal"}
BRIDGE_STATUS = BRIDGE_GC - named("cni_bridge", {".removal", ".sandbox"}) | {
    *("cni_bridge.overlap", "cni_bridge.status", "cni_ipam.peek"),
}
WIRING = {"cni_bridge.bridge", "cni_bridge.wiring", "cni_kernel.sysctl"}
IPAM_ADD = STANDARD | FILES | named("cni_protocol", PROTOCOL, LOCKS) | named("cni_ipam", IPAM)
BUDGET = {
    ("cni-bridge", "VERSION"): BRIDGE_VERSION,
    ("cni-bridge", "ADD"): BRIDGE_ADD | {"cni_bridge.overlap"},  # as the first on its bridge
    ("cni-bridge", "CHECK"): BRIDGE_ADD | {"cni_bridge.claims", "cni_bridge.waiting_ports"},
    ("cni-bridge", "STATUS"): BRIDGE_STATUS,
    ("cni-bridge", "DEL"): BRIDGE_DEL - WIRING,
    ("cni-bridge", "GC"): BRIDGE_GC - WIRING,
    ("cni-ipam", "VERSION"): IPAM_ADD,
    ("cni-ipam", "ADD"): IPAM_ADD,
    ("cni-ipam", "CHECK"): IPAM_ADD,
    ("cni-ipam", "STATUS"): IPAM_ADD | {"cni_ipam.peek"},
    ("cni-ipam", "DEL"): IPAM_ADD,
    ("cni-ipam", "GC"): IPAM_ADD,
}
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "type": "cni-bridge",
    "isGateway": True,
    "ipMasq": True,
    "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
    "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}


def loaded(host: Host, executable: str, env: dict[str, str], stdin: str) -> tuple[set[str], Any]:
    """The modules that a call loads, and its answer. `executable` "" is an interpreter that does nothing."""
    command = ["/usr/bin/python3", "-ISBXutf8", "-Ximporttime", *([executable] if executable else ["-c", "pass"])]
    called = host.run("env", *(f"{key}={value}" for key, value in env.items()), *command, input=stdin)
    rows = [line.split("|") for line in called.stderr.splitlines() if line.startswith("import time:")]
    return {row[2].strip() for row in rows[1:]}, json.loads(called.stdout) if called.stdout else None


@pytest.mark.parametrize("executable", ["cni-bridge", "cni-ipam"])
def test_every_command_loads_what_is_listed_and_no_more(host: Host, bin_dir: str, executable: str) -> None:
    netns = host.add_container("c1")
    env = {"CNI_CONTAINERID": "c1", "CNI_NETNS": netns, "CNI_IFNAME": "eth0", "CNI_PATH": bin_dir}
    bare, _ = loaded(host, "", {}, "")
    config = CONFIG
    for command in ("VERSION", "ADD", "CHECK", "STATUS", "GC", "DEL"):
        call = {**env, "CNI_COMMAND": command}
        modules, answer = loaded(host, f"{bin_dir}/{executable}", call, json.dumps(config))
        assert modules - bare == BUDGET[executable, command], command
        config = {**CONFIG, "prevResult": answer} if command == "ADD" else config


def test_a_network_with_vlans_or_an_overlay_loads_pyroute2_when_it_is_needed(bridge: Runtime) -> None:
    """And that without the package's own __init__, which would load hundreds of modules."""
    bridge.host.add_container("c1")
    env = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0", "CNI_PATH": bridge.path[0]}
    bridge.host.run("ip", "address", "add", "192.168.1.11/24", "dev", "lo")
    peers = [{"node": "192.168.1.12", "podCIDR": "10.2.0.0/16"}]
    config = {**CONFIG, "overlay": {"type": "vxlan", "vni": 42, "device": "lo", "peers": peers}}
    modules, _ = loaded(bridge.host, bridge.executable, {**env, "CNI_COMMAND": "ADD"}, json.dumps(config))
    assert {"pyroute2.netlink.rtnl.ifinfmsg", "cni_bridge.vxlan", "cni_bridge.nodewiring"} <= modules
    assert not modules & {"pyroute2.iproute", "asyncio", "sqlite3", "ssl"}
    modules, _ = loaded(bridge.host, bridge.executable, {**env, "CNI_COMMAND": "DEL"}, json.dumps(config))
    assert not {name for name in modules if name.startswith("pyroute2")}
