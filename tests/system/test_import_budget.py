"""What each command loads, module by module: loading is most of what a call costs.

A module that is new here makes every call slower. Where it is worth that, put it into the list; `scripts/bench` tells
the price.
"""

import json
from typing import Any

import pytest

from tests.kit.calls import call_environment
from tests.kit.host import Host
from tests.kit.linked import linked_file, read_linked

pytestmark = pytest.mark.kernel

STANDARD = {"_collections", "_json", "_sha256", "_socket", "_struct", "gc", "select"}  # in C
FILES = {"errno", "fcntl"}
FOREIGN_FUNCTIONS = {"_ctypes"}  # setns(2); a lean tenth of ctypes

PROTOCOL = {
    *(
        "",
        ".address",
        ".errors",
        ".fields",
        ".light",
        ".light.json_text",
        ".light.standard",
        ".light.system",
        ".plugin",
        ".request",
    ),
    *(".result", ".typos", ".valid_attachments", ".version"),
}
DELEGATION = {".attachment", ".delegate", ".sibling"}
LOCKS = {".light.locks"}
BRIDGE = {
    *("", ".__main__", ".attachment_rules", ".commands", ".config", ".masquerade", ".plan", ".portmap"),
    *(".refusals", ".spoofcheck", ".undo", ".verify"),
}
VALUES = {"", ".connections", ".errors", ".expressions", ".values"}
BRIDGE_AT_WORK = {".locks", ".sandbox", ".sync"}
KERNEL = {
    *(".attributes", ".kernel", ".namespace", ".netlink", ".nft_attributes", ".nft_presence", ".nftables"),
    ".rtnetlink",
}
IPAM = {
    *("", ".__main__", ".boot", ".commands", ".data_dir", ".directory", ".files", ".index", ".records", ".stamp"),
    ".store",
}
RANGES = {".config", ".range_objects", ".ranges"}
LOOK = {".boots", ".filesystems", ".origin", ".recovery"}  # at everything: when there is no index yet, and by GC


def named(package: str, *parts: set[str]) -> set[str]:
    return {package + module for part in parts for module in part}


BRIDGE_VERSION = (
    STANDARD
    | {"errno"}
    | named("cni_protocol", PROTOCOL, DELEGATION)
    | named("cni_kernel", VALUES)
    | named("cni_bridge", BRIDGE)
)
BRIDGE_BASE = (
    BRIDGE_VERSION
    | FILES
    | named("cni_protocol", LOCKS)
    | named("cni_kernel", KERNEL)
    | named("cni_bridge", BRIDGE_AT_WORK)
    | named("cni_ipam", IPAM)
)
INSIDE = FOREIGN_FUNCTIONS | {"cni_protocol.light.libc"}
REMOVAL = {"cni_bridge.removal", "cni_kernel.departure"}
WIRING = {"cni_bridge.bridge", "cni_bridge.wiring", "cni_kernel.sysctl"}
BRIDGE_CHECK = BRIDGE_BASE | INSIDE | WIRING | named("cni_ipam", RANGES)
BRIDGE_ADD = BRIDGE_CHECK | {"cni_ipam.host_addresses"}
IN_SANDBOXES = {"cni_bridge.sandbox", "cni_bridge.wiring", "cni_kernel.namespace"}
BRIDGE_STATUS = (BRIDGE_BASE | WIRING | {"cni_bridge.overlap", "cni_bridge.status"}) - IN_SANDBOXES
OF_PROTOCOL = named("cni_protocol", PROTOCOL - {".typos"}, {".attachment"}, LOCKS)
IPAM_BASE = STANDARD | FILES | OF_PROTOCOL | named("cni_ipam", IPAM)
IPAM_CHECK = IPAM_BASE | {"cni_protocol.typos"} | named("cni_ipam", RANGES)
REAL_PATHS = {"_collections_abc", "_stat", "genericpath", "os", "posixpath", "stat"}  # the interpreter has them
PEEK = named("cni_ipam", RANGES, LOOK, {".peek"}) | REAL_PATHS
BUDGET = {
    ("cni-bridge", "VERSION"): BRIDGE_VERSION,
    ("cni-bridge", "ADD"): BRIDGE_ADD,
    ("cni-bridge", "CHECK"): BRIDGE_CHECK | {"cni_bridge.claims", "cni_bridge.waiting_ports"},
    ("cni-bridge", "STATUS"): BRIDGE_STATUS | PEEK,
    ("cni-bridge", "DEL"): BRIDGE_BASE | REMOVAL,
    ("cni-bridge", "GC"): BRIDGE_BASE | REMOVAL | named("cni_ipam", LOOK),
    ("cni-ipam", "VERSION"): IPAM_BASE,
    ("cni-ipam", "ADD"): IPAM_CHECK | {"cni_ipam.host_addresses"},
    ("cni-ipam", "CHECK"): IPAM_CHECK,
    ("cni-ipam", "STATUS"): IPAM_CHECK | PEEK,
    ("cni-ipam", "DEL"): IPAM_BASE,
    ("cni-ipam", "GC"): IPAM_BASE | named("cni_ipam", LOOK),
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


def imported(host: Host, executable: str, env: dict[str, str], stdin: str) -> tuple[set[str], Any]:
    """The modules that a call imports, and its answer. `executable` "" is an interpreter that does nothing."""
    command = ["/usr/bin/python3", "-ISBXutf8", "-Ximporttime", *([executable] if executable else ["-c", "pass"])]
    called = host.run("env", *(f"{key}={value}" for key, value in env.items()), *command, input=stdin)
    rows = [line.split("|") for line in called.stderr.splitlines() if line.startswith("import time:")]
    return {row[2].strip() for row in rows[1:]}, json.loads(called.stdout) if called.stdout else None


@pytest.mark.parametrize("executable", ["cni-bridge", "cni-ipam"])
def test_every_command_loads_what_is_listed_and_no_more(host: Host, bin_dir: str, executable: str) -> None:
    netns = host.add_container("c1")
    bare, _ = imported(host, "", {}, "")
    config = CONFIG
    for command in ("ADD", "DEL"):  # the first command of a boot looks at everything, and the first ADD at overlaps
        call = call_environment(command, netns=netns, path=[bin_dir])
        imported(host, f"{bin_dir}/{executable}", call, json.dumps(config))
    for command in ("VERSION", "ADD", "CHECK", "STATUS", "GC", "DEL"):
        call = call_environment(command, netns=netns, path=[bin_dir])
        modules, answer = imported(host, f"{bin_dir}/{executable}", call, json.dumps(config))
        linked = read_linked(linked_file(bin_dir, executable, command))
        assert (modules - bare) | set(linked.always) == BUDGET[executable, command], command
        alone = {name for name in modules if name.startswith("cni_")} - set(linked.late)
        assert alone == set(), f"{command}: install/link.py does not list what leads to these"
        config = {**CONFIG, "prevResult": answer} if command == "ADD" else config
