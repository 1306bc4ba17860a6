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
    *("", ".address", ".errors", ".fields", ".light", ".light.json_text", ".light.standard", ".light.system"),
    *(".plugin", ".request", ".result", ".typos", ".version"),
}
VALID = {"cni_protocol.valid_attachments"}
DELEGATION = {".attachment", ".delegate", ".sibling"}
LOCKS = {".light.locks"}
BRIDGE = {"", ".__main__", ".commands", ".config", ".mappings", ".plan", ".refusals", ".undo"}
RULES = {".attachment_rules", ".masquerade", ".portmap", ".spoofcheck", ".sync"}
VALUES = {"", ".errors", ".values"}
BRIDGE_AT_WORK = {".locks", ".sandbox"}
KERNEL = {".attributes", ".kernel", ".namespace", ".netlink", ".nft_presence", ".rtnetlink"}
NFTABLES = {".connections", ".expressions", ".nft_attributes", ".nftables"}
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
PACKET_FILTER = named("cni_kernel", NFTABLES) | named("cni_bridge", RULES)
INSIDE = FOREIGN_FUNCTIONS | {"cni_protocol.light.libc"}
COMPARISON = {".claims", ".observation", ".verify", ".waiting_ports"}
REMOVAL = {"cni_bridge.removal", "cni_kernel.departure"}
WIRING = {"cni_bridge.bridge", "cni_bridge.wiring", "cni_kernel.sysctl", "cni_kernel.waits"}
BRIDGE_CHANGE = BRIDGE_BASE | PACKET_FILTER | INSIDE | WIRING | named("cni_ipam", RANGES)
IN_SANDBOXES = {"cni_bridge.sandbox", "cni_bridge.wiring", "cni_kernel.namespace", "cni_kernel.waits"}
BRIDGE_STATUS = (BRIDGE_BASE | PACKET_FILTER | WIRING | {"cni_bridge.overlap", "cni_bridge.status"}) - IN_SANDBOXES
OF_PROTOCOL = named("cni_protocol", PROTOCOL - {".typos"}, {".attachment"}, LOCKS)
IPAM_BASE = STANDARD | FILES | OF_PROTOCOL | named("cni_ipam", IPAM)
IPAM_CHECK = IPAM_BASE | {"cni_protocol.typos"} | named("cni_ipam", RANGES)
PEEK = named("cni_ipam", RANGES, LOOK, {".peek"})
BUDGET = {
    ("cni-bridge", "VERSION"): BRIDGE_VERSION,
    ("cni-bridge", "ADD"): BRIDGE_CHANGE | {"cni_ipam.host_addresses"},
    ("cni-bridge", "CHECK"): BRIDGE_CHANGE | named("cni_bridge", COMPARISON),
    ("cni-bridge", "STATUS"): BRIDGE_STATUS | PEEK | {"cni_ipam.host_addresses"},
    ("cni-bridge", "DEL"): BRIDGE_BASE | PACKET_FILTER | REMOVAL,
    ("cni-bridge", "GC"): BRIDGE_BASE | PACKET_FILTER | REMOVAL | VALID | named("cni_ipam", LOOK),
    ("cni-ipam", "VERSION"): IPAM_BASE,
    ("cni-ipam", "ADD"): IPAM_CHECK | {"cni_ipam.host_addresses"},
    ("cni-ipam", "CHECK"): IPAM_CHECK,
    ("cni-ipam", "STATUS"): IPAM_CHECK | PEEK | {"cni_ipam.host_addresses"},
    ("cni-ipam", "DEL"): IPAM_BASE,
    ("cni-ipam", "GC"): IPAM_BASE | VALID | named("cni_ipam", LOOK),
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


def test_a_network_without_rules_loads_nothing_that_knows_them(host: Host, bin_dir: str) -> None:
    netns = host.add_container("c1")
    config = json.dumps({key: value for key, value in CONFIG.items() if key != "ipMasq"})
    for command in ("ADD", "DEL"):
        call = call_environment(command, netns=netns, path=[bin_dir])
        modules, _ = imported(host, f"{bin_dir}/cni-bridge", call, config)
        always = set(read_linked(linked_file(bin_dir, "cni-bridge", command)).always)
        assert (modules | always) & PACKET_FILTER == set(), command
