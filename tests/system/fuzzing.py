"""Calls with mutated configurations and environments, answered in this process: `python -m tests.system.fuzzing`.

Runs inside a throw-away host (network and mount namespace), since a mutated configuration may well be a good one.
Arguments: the directory of the executables, the path of a container's namespace, the seed, the number of cases.
Prints a JSON object: how often each outcome came, and what went wrong.
"""

import copy
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from cni_bridge.__main__ import PLUGIN as BRIDGE
from cni_ipam.__main__ import PLUGIN as IPAM
from cni_protocol.plugin import Plugin, answer
from tests.kit.calls import call_environment

CASE_BOUND = 20.0  # seconds; the lock's bound is 15
PLUGINS = {"cni-bridge": BRIDGE, "cni-ipam": IPAM}

_IPAM = {
    "type": "cni-ipam",
    "ranges": [[{"subnet": "10.7.0.0/24", "rangeStart": "10.7.0.9", "gateway": "10.7.0.1"}], [{"subnet": "fd07::/64"}]],
    "routes": [{"dst": "192.0.2.0/24", "gw": "10.7.0.1", "mtu": 1300, "priority": 5, "table": 100, "scope": 0}],
    "resolvConf": "/etc/resolv.conf",
}
_COMMON = {
    "cniVersion": "1.1.0",
    "name": "fuzz",
    "args": {"cni": {"ips": ["10.7.0.20"], "mac": "02:00:00:00:00:05"}},
    "runtimeConfig": {
        "ips": ["10.7.0.21/24"],
        "mac": "02:00:00:00:00:06",
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "10.7.0.1"}],
        "ipRanges": [[{"subnet": "10.8.0.0/24"}]],
    },
    "cni.dev/valid-attachments": [{"containerID": "fuzz", "ifname": "eth0"}],
    "prevResult": {
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1", "mtu": 1500, "mac": "02:00:00:00:00:05"}],
        "ips": [{"interface": 0, "address": "10.7.0.9/24", "gateway": "10.7.0.1"}],
        "routes": [{"dst": "192.0.2.0/24", "gw": "10.7.0.1"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    },
}
_LAYER_2 = {
    "bridge": "brf",
    "mtu": 1400,
    "hairpinMode": True,
    "promiscMode": False,
    "portIsolation": True,
    "macspoofchk": True,
    "preserveDefaultVlan": False,
    "vlan": 0,
    "vlanTrunk": [],
    "enabledad": False,
    "disableContainerInterface": False,
    "ipMasqBackend": "nftables",
    "strict": False,
    "dns": {"nameservers": ["192.0.2.53"], "search": ["example"], "options": [], "domain": "example"},
}
_WITHOUT_MAPPINGS = {**_COMMON, "runtimeConfig": {"mac": "02:00:00:00:00:06"}}
_LAYER_3 = {**_COMMON, **_LAYER_2, "isDefaultGateway": True, "forceAddress": False, "ipMasq": True, "ipam": _IPAM}
BASES: list[tuple[str, dict[str, Any]]] = [
    *[("cni-bridge", {**_WITHOUT_MAPPINGS, **_LAYER_2})] * 4,
    *[("cni-bridge", _LAYER_3)] * 2,
    *[("cni-ipam", {**_COMMON, "ipam": _IPAM})] * 4,
]

_COMMANDS = ("ADD", "ADD", "ADD", "ADD", "CHECK", "DEL", "STATUS", "GC", "VERSION")
_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**64,
    10**400,
    1.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\0",
    "a\0b",
    "\ud800",
    "../x",
    "/dev/null",
    "/proc/self",
    "é" * 20,
    "y" * 70000,
    "0.0.0.0/0",
    "::/0",
    "::",
    "255.255.255.255",
    "fd07::1/128",
    "10.7.0.5/24",
    "ff:ff:ff:ff:ff:ff",
    "1" * 5000,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": {}},
    {"type": "cni-ipam"},
]
_ENVIRONMENT = [
    None,
    "",
    "x",
    ".",
    "..",
    "../x",
    "a/b",
    "a b",
    "-a",
    "lo",
    "eth0:1",
    "é" * 8,
    "y" * 300,
    "z" * 100000,
    "\udcff\udcfe",
    "\n",
    "%s%n",
    "K=V",
    "K=V;IgnoreUnknown=1",
    "IgnoreUnknown=maybe",
    ";;=;",
    "IP=10.7.0.300",
    "MAC=zz",
    "/dev/null",
    "/proc/self/ns/net",
    "/proc/self/ns/mnt",
    "/nowhere",
    "relative/path",
    "ADD",
    "add",
    "GC",
]
_VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


class Case(NamedTuple):
    """One call: the plugin's name, its environment and its stdin."""

    plugin: str
    env: dict[str, str]
    stdin: bytes


def make_cases(bin_dir: str, netns: str, seed: int, count: int) -> Iterator[Case]:
    """The cases of a seed, always the same ones."""
    source = random.Random(seed)
    for _ in range(count):
        name, base = source.choice(BASES)
        config = copy.deepcopy(base)
        env = call_environment(source.choice(_COMMANDS), "fuzz", netns, path=[bin_dir])
        if env["CNI_COMMAND"] == "ADD":
            del config["prevResult"]
        for _ in range(source.choice((1, 1, 1, 2, 3))):
            if source.random() < 0.15:
                _mutate_environment(source, env)
            else:
                _mutate_object(source, config)
        stdin = json.dumps(config).encode("utf-8", "surrogatepass")
        yield Case(name, env, _mutate_text(source, stdin) if source.random() < 0.2 else stdin)


def _mutate_environment(source: random.Random, env: dict[str, str]) -> None:
    variable, value = source.choice(_VARIABLES), source.choice(_ENVIRONMENT)
    if value is None:
        env.pop(variable, None)
    else:
        env[variable] = value


def _mutate_object(source: random.Random, config: dict[str, Any]) -> None:
    """Change the value of any key at any depth, take it away, or spell it differently."""
    holder, key = source.choice(list(_places(config)))
    how = source.random()
    if how < 0.7:
        holder[key] = copy.deepcopy(source.choice(_VALUES))
    elif how < 0.8:
        del holder[key]
    elif how < 0.9 and isinstance(holder, dict):
        holder[source.choice((key.upper(), key + "x", key[1:], "é" + key))] = holder.pop(key)
    else:
        nested = holder[key]
        for _ in range(source.choice((1, 30, 200))):
            nested = [nested] if source.random() < 0.5 else {"x": nested}
        holder[key] = nested


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, below in entries:
        yield value, key
        if isinstance(below, (dict, list)):
            yield from _places(below)


def _mutate_text(source: random.Random, text: bytes) -> bytes:
    place = source.randrange(len(text) + 1)
    before, after = text[:place], text[place:]
    return source.choice(
        (
            before,
            before + b"\0" + after,
            before + b"\xff\xfe" + after,
            before + bytes([source.randrange(256)]) + after[1:],
            before + b" " * (1 << 20) + after,
            text + b" " * (1 << 20),
            b"\xef\xbb\xbf" + text,
            text.decode("utf-8", "replace").encode("utf-16"),
            text + text,
            text[:-1] + b", " + text[1:],  # every key twice
            text[:-1] + b', "x": ' + b"[" * 100000 + b"]" * 100000 + b"}",
            text[:-1] + b', "mtu": ' + b"9" * 5000 + b"}",
            text[:-1] + b', "big": "' + b"b" * (1 << 20) + b'"}',
            b"[" * 100000,
            b"",
            b"null",
            b'"text"',
            os.fsencode("".join(chr(source.randrange(1, 128)) for _ in range(200))),
        )
    )


def judge(case: Case, status: int, stdout: bytes) -> str:
    """What is wrong with an answer; empty for nothing."""
    try:
        document = json.loads(stdout) if stdout else None
    except ValueError:
        return f"no JSON on stdout: {stdout[:200]!r}"
    if status == 0:
        if case.env.get("CNI_COMMAND") in ("ADD", "VERSION"):
            return "" if isinstance(document, dict) and "code" not in document else f"no result: {document}"
        return "" if document is None else f"output on success: {stdout[:200]!r}"
    if not isinstance(document, dict):
        return f"status {status} without an error object"
    if sorted(document) != ["cniVersion", "code", "details", "msg"]:
        return f"an error object of another shape: {document}"
    if document["code"] == 199 or not document["code"] or not document["msg"]:
        return f"code {document['code']}: {document['msg']}"
    return ""


def find_leftovers() -> str:
    """What plugins left on the host that this process is in; empty for nothing."""
    links = [name for _, name in socket.if_nameindex() if name.startswith("veth")]
    files = [
        f"{directory}/{name}"
        for directory, _, names in os.walk("/var/lib/cni")
        for name in names
        if not name.startswith(("lock", "index", "origin", "last_reserved_ip."))
    ]
    return ", ".join(links + files)


def main(bin_dir: str, netns: str, seed: str, count: str) -> None:
    """Run all cases and print what came of them."""
    outcomes: dict[str, int] = {}
    problems: list[str] = []
    for number, case in enumerate(make_cases(bin_dir, netns, int(seed), int(count))):
        begun = time.monotonic()
        status, stdout = _ask(PLUGINS[case.plugin], case.env, case.stdin)
        problem = judge(case, status, stdout)
        outcome = "success" if status == 0 else f"code {json.loads(stdout)['code']}"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if status == 0 and case.env.get("CNI_COMMAND") == "ADD":
            outcomes["ADD"] = outcomes.get("ADD", 0) + 1
            undone, answered = _ask(PLUGINS[case.plugin], {**case.env, "CNI_COMMAND": "DEL"}, case.stdin)
            problem = problem or (f"DEL: {answered[:300]!r}" if undone else "")
        problem = problem or find_leftovers()
        if time.monotonic() - begun > CASE_BOUND:
            problem = problem or f"took {time.monotonic() - begun:.0f} s"
        if problem:
            problems.append(f"case {number} ({case.plugin} {case.env}): {problem}; stdin {case.stdin[:2000]!r}")
    print(json.dumps({"outcomes": outcomes, "problems": problems}))


def _ask(plugin: Plugin, env: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
    return answer(plugin, env, lambda: stdin)


if __name__ == "__main__":
    main(*sys.argv[1:])
