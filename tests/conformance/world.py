"""The world of one case: a throw-away host, the plugins under test, a stand-in IPAM plugin, and independent oracles.

Nothing here knows one implementation: rules are compared as `nft -j` and `iptables-save` show them, NAT is judged by
what a machine outside sees, reservations by what can be given out and by who is named in files.
"""

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conformance.registry import BRIDGE, IPAM, Mismatch, expect
from tests.kit.calls import call_environment
from tests.kit.host import RUN_BOUND, Host, Outcome, open_host

NETWORK_BRIDGE = "br0"
SUBNET = "10.1.0.0/24"
GATEWAY = "10.1.0.1"
OUTSIDE = "outside"  # a machine on a wire to the host
_OUTSIDE_ADDRESS, _HOST_ADDRESS = "192.0.2.2", "192.0.2.1"
_STATE = "/var/lib/cni"  # where IPAM plugins keep their reservations; the host has its own
_DATAGRAM_BOUND = 3.0  # seconds
_STUB_NAME = "stand-in"
_STUB = """#!/bin/sh
PATH=/usr/bin:/bin
cd '{directory}' || exit 99
echo "$CNI_COMMAND" >>calls
cat >"stdin.$CNI_COMMAND"
tr '\\0' '\\n' </proc/$$/environ | grep '^CNI_' >"variables.$CNI_COMMAND"
cat stderr >&2
cat "answer.$CNI_COMMAND" 2>/dev/null
exit "$(cat "status.$CNI_COMMAND" 2>/dev/null || echo 0)"
"""

Config = dict[str, Any]


class Pair(NamedTuple):
    """The plugins under test: the directories of CNI_PATH, a type for each role (empty: not given), capabilities."""

    path: tuple[str, ...]
    bridge: str
    ipam: str
    capabilities: frozenset[str]

    def roles(self) -> list[str]:
        """The roles that a plugin is given for."""
        return [role for role, kind in ((BRIDGE, self.bridge), (IPAM, self.ipam)) if kind]

    def type_of(self, role: str) -> str:
        """The plugin type that plays a role."""
        return self.bridge if role == BRIDGE else self.ipam

    def executable(self, role: str) -> str:
        """The path of the executable for a role. Raises FileNotFoundError."""
        kind = self.type_of(role)
        for directory in self.path:
            if (Path(directory) / kind).is_file():
                return str(Path(directory) / kind)
        raise FileNotFoundError(f"no plugin {kind!r} in {':'.join(self.path)}")


class Stub:
    """An IPAM plugin that answers as it is told, and keeps what it was asked."""

    def __init__(self, directory: Path, version: str, address: str = "10.1.0.9/24") -> None:
        self.directory = directory
        self.notes = directory / "notes"
        self.notes.mkdir(parents=True)
        executable = directory / _STUB_NAME
        executable.write_text(_STUB.format(directory=self.notes))
        executable.chmod(0o755)
        (self.notes / "stderr").touch()
        self.answer("ADD", plain_result(version, address))

    def answer(self, command: str, document: object, status: int = 0) -> None:
        """What to print for a command, and the exit status."""
        (self.notes / f"answer.{command}").write_text(json.dumps(document))
        (self.notes / f"status.{command}").write_text(str(status))

    def fail(self, command: str, version: str, code: int = 142, msg: str = "the stand-in was told to fail") -> str:
        """Have a command fail with an error object. Returns its message."""
        self.answer(command, {"cniVersion": version, "code": code, "msg": msg, "details": ""}, 1)
        return msg

    def say(self, text: str) -> None:
        """What to print on stderr from now on."""
        (self.notes / "stderr").write_text(text)

    @property
    def calls(self) -> list[str]:
        """The commands so far."""
        path = self.notes / "calls"
        return path.read_text().split() if path.exists() else []

    def stdin(self, command: str) -> bytes:
        """What came in on stdin at the last call of a command."""
        return (self.notes / f"stdin.{command}").read_bytes()

    def variables(self, command: str) -> dict[str, str]:
        """The CNI variables of the last call of a command."""
        lines = (self.notes / f"variables.{command}").read_text().splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}


class World:
    """One host for one case, and the version of the specification that it is judged for."""

    def __init__(self, pair: Pair, version: str, spoken: Sequence[str]) -> None:
        self.pair = pair
        self.version = version
        self.spoken = spoken
        self.host: Host = open_host()
        self.scratch = Path(tempfile.mkdtemp(prefix="cni-conformance-"))
        self._front: list[str] = []

    def close(self) -> None:
        """Let the host and all files go."""
        self.host.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    # Configurations

    def config(self, **keys: Any) -> Config:
        """A network of the bridge plugin with addresses from the IPAM plugin; with `keys` in place of some of it."""
        network = self._network(self.pair.bridge or self.pair.ipam)
        return {**network, "bridge": NETWORK_BRIDGE, "isGateway": True, "ipam": self.ipam_config(), **keys}

    def layer2_config(self, **keys: Any) -> Config:
        """A network of the bridge plugin without addresses."""
        return {**self._network(self.pair.bridge), "bridge": NETWORK_BRIDGE, "ipam": {}, **keys}

    def config_for(self, role: str, **keys: Any) -> Config:
        """A network for the plugin of a role that needs no plugin beside it that is not given."""
        if role == BRIDGE and not self.pair.ipam:
            return self.layer2_config(**keys)
        return self.config(**keys)

    def ipam_config(self, **keys: Any) -> Config:
        """What the IPAM plugin gets."""
        return {"type": self.pair.ipam, "ranges": [[{"subnet": SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}], **keys}

    def pool(self, size: int) -> Config:
        """An `ipam` whose pool has so many addresses, from 10.1.0.11 on."""
        return self.ipam_config(
            ranges=[[{"subnet": SUBNET, "rangeStart": "10.1.0.11", "rangeEnd": f"10.1.0.{10 + size}"}]]
        )

    def _network(self, kind: str) -> Config:
        return {"cniVersion": self.version, "name": "net", "type": kind}

    def stub(self, name: str = "front", address: str = "10.1.0.9/24") -> Stub:
        """A stand-in IPAM plugin, its directory at the end of what stands before CNI_PATH so far."""
        stub = Stub(self.scratch / name, self.version, address)
        self._front.append(str(stub.directory))
        return stub

    def stub_config(self, **keys: Any) -> Config:
        """A network whose IPAM plugin is the stand-in."""
        network = self._network(self.pair.bridge)
        return {**network, "bridge": NETWORK_BRIDGE, "isGateway": True, "ipam": {"type": _STUB_NAME}, **keys}

    # Calls

    def variables(self, command: str, name: str = "cnt-1", ifname: str = "eth0") -> dict[str, str]:
        """The environment of a call."""
        return call_environment(command, name, self.netns(name), ifname, path=[*self._front, *self.pair.path])

    def call(
        self,
        command: str,
        config: Mapping[str, Any] | bytes,
        *,
        role: str = BRIDGE,
        name: str = "cnt-1",
        ifname: str = "eth0",
        env: Mapping[str, str | None] | None = None,
    ) -> Outcome:
        """Call the plugin of a role; what `env` has takes the place of a variable, None takes it away."""
        variables = self.variables(command, name, ifname)
        for key, value in (env or {}).items():
            if value is None:
                variables.pop(key, None)
            else:
                variables[key] = value
        stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
        command_line = self.host.argv(self.pair.executable(role))
        try:
            result = subprocess.run(
                command_line, input=stdin, env=variables, capture_output=True, timeout=RUN_BOUND, check=False
            )
        except subprocess.TimeoutExpired:
            raise Mismatch(f"{command} ends", f"it still ran after {RUN_BOUND} s") from None
        return outcome_of(result, command)

    def start(self, command: str, config: Mapping[str, Any], name: str) -> "subprocess.Popen[bytes]":
        """Start a call of the bridge plugin and leave it running."""
        process = subprocess.Popen(
            self.host.argv(self.pair.executable(BRIDGE)),
            env=self.variables(command, name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def add(self, config: Mapping[str, Any], name: str = "cnt-1", **options: Any) -> Any:
        """An ADD that must succeed, in a fresh container unless that one is there. Returns the result."""
        self.container(name)
        return succeed(self.call("ADD", config, name=name, **options), "ADD").document

    def check(self, config: Mapping[str, Any], result: Any, name: str = "cnt-1", **options: Any) -> Outcome:
        """CHECK with the result of ADD."""
        return self.call("CHECK", {**config, "prevResult": result}, name=name, **options)

    def delete(self, config: Mapping[str, Any], name: str = "cnt-1", **options: Any) -> None:
        """A DEL that must succeed."""
        succeed(self.call("DEL", config, name=name, **options), "DEL", silent=True)

    # The host

    def container(self, name: str = "cnt-1") -> str:
        """The namespace of a container, made unless it is there. Returns its path."""
        if self.host.run("test", "-e", self.netns(name), check=False).returncode:
            self.host.add_container(name)
        return self.netns(name)

    def netns(self, name: str) -> str:
        """The path of a container's namespace."""
        return f"/run/netns/{name}"

    def link(self, ifname: str, name: str | None = None) -> Any:
        """An interface as `ip -j` has it, None when it is not there."""
        links = self.host.ip("link", container=name)
        return next((link for link in links if link["ifname"] == ifname), None)

    def host_end(self, name: str, ifname: str = "eth0") -> str:
        """The name of the host's end of a container's interface."""
        index = self.link(ifname, name)["link_index"]
        return str(next(link["ifname"] for link in self.host.ip("link") if link["ifindex"] == index))

    def interfaces(self) -> list[str]:
        """The host's interfaces, the bridge and the wire to the outside left out."""
        return sorted(set(self.host.link_names()) - {NETWORK_BRIDGE, "uplink"})

    def rules(self) -> list[str]:
        """All packet filter rules and set elements, without counters and handles; empty chains do not count."""
        rules = [_without_counters(entry["rule"]) for entry in self.host.nft() if "rule" in entry]
        for entry in self.host.nft():
            for kind in ("set", "map"):
                elements = entry.get(kind, {}).get("elem", [])
                rules += [_without_counters({entry[kind]["name"]: element}) for element in elements]
        for program in ("iptables-save", "ip6tables-save"):
            if shutil.which(program):
                lines = self.host.run(program).stdout.splitlines()
                rules += [line for line in lines if line.startswith("-A")]
        return sorted(rules)

    def state(self) -> dict[str, object]:
        """All that a container may leave behind on the host."""
        return {
            "interfaces": self.interfaces(),
            "addresses": sorted(
                f"{link['ifname']} {entry['local']}"
                for link in self.host.ip("address")
                for entry in link["addr_info"]
                if entry["scope"] != "link"
            ),
            "rules": self.rules(),
        }

    def mentions(self, name: str) -> list[str]:
        """The files below /var/lib/cni that name a container."""
        found = self.host.run("grep", "-rlw", "--", name, _STATE, check=False).stdout.splitlines()
        return sorted(found)

    def files(self) -> dict[str, str]:
        """The files below /var/lib/cni with their content."""
        listed = self.host.run("find", _STATE, "-type", "f").stdout.split()
        return {path: self.host.run("cat", path, errors="replace").stdout for path in sorted(listed)}

    def connect_outside(self) -> None:
        """Put a machine on a wire to the host. It answers over the host, so only NAT hides a container from it."""
        self.host.add_container(OUTSIDE)
        self.host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", OUTSIDE)
        self.host.run("ip", "address", "add", f"{_HOST_ADDRESS}/24", "dev", "uplink")
        self.host.run("ip", "link", "set", "uplink", "up")
        self.host.run("ip", "-n", OUTSIDE, "address", "add", f"{_OUTSIDE_ADDRESS}/24", "dev", "eth0")
        self.host.run("ip", "-n", OUTSIDE, "link", "set", "eth0", "up")
        self.host.run("ip", "-n", OUTSIDE, "route", "add", "default", "via", _HOST_ADDRESS)

    def source_seen_outside(self, name: str) -> str:
        """The source address that the outside sees of what a container sends to it, empty when nothing comes."""
        with self.host.entered(OUTSIDE):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with self.host.entered(name):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((_OUTSIDE_ADDRESS, 0))
            receiver.settimeout(_DATAGRAM_BOUND)
            sender.sendto(b"who am I", receiver.getsockname())
            try:
                return str(receiver.recvfrom(64)[1][0])
            except TimeoutError:
                return ""


def plain_result(version: str, address: str) -> Config:
    """An IPAM result with one address, in the shape of a version from 0.3.0 on."""
    family = {} if version in ("1.0.0", "1.1.0") else {"version": "4"}
    return {"cniVersion": version, "ips": [{**family, "address": address, "gateway": GATEWAY}], "dns": {}}


def outcome_of(result: "subprocess.CompletedProcess[bytes]", command: str) -> Outcome:
    """A plugin's answer. Raises Mismatch when stdout is neither empty nor one JSON document."""
    stdout = result.stdout.decode("utf-8", "replace")
    try:
        document = json.loads(stdout) if stdout.strip() else None
    except ValueError:
        raise Mismatch(f"{command}: stdout is empty or one JSON document", stdout) from None
    return Outcome(result.returncode, document, stdout, result.stderr.decode("utf-8", "replace"))


def told(outcome: Outcome) -> str:
    """An answer in words."""
    document = outcome.document
    if isinstance(document, dict) and "msg" in document:
        return f"exit status {outcome.status}, code {document.get('code')}: {document['msg']}"
    return f"exit status {outcome.status}, stdout {outcome.stdout.strip() or 'empty'}"


def succeed(outcome: Outcome, what: str, *, silent: bool = False) -> Outcome:
    """The outcome, which must be a success; `silent` one with nothing on stdout."""
    expect(outcome.status == 0, f"{what}: exit status 0", told(outcome))
    if silent:
        expect(outcome.document is None, f"{what}: nothing on stdout", told(outcome))
    return outcome


def refuse(outcome: Outcome, what: str, codes: Sequence[int] = (), naming: Sequence[str] = ()) -> Config:
    """The error object of an outcome, which must be a failure, with one of the codes, and with words in its text."""
    expect(outcome.status != 0, f"{what}: an exit status other than 0", told(outcome))
    document = outcome.document
    expect(isinstance(document, dict), f"{what}: an error object on stdout", told(outcome))
    error: Config = document
    expect(
        isinstance(error.get("code"), int) and isinstance(error.get("msg"), str) and bool(error["msg"]),
        f"{what}: an error object with code and msg",
        told(outcome),
    )
    if codes:
        expect(error["code"] in codes, f"{what}: code {' or '.join(map(str, codes))}", told(outcome))
    text = f"{error['msg']} {error.get('details', '')}"
    missing = [word for word in naming if word not in text]
    expect(not missing, f"{what}: {', '.join(missing)} in the message", told(outcome))
    return error


def addresses_of(result: Any) -> list[str]:
    """The addresses of a result of any version, with their prefix lengths."""
    old = [result[key]["ip"] for key in ("ip4", "ip6") if key in result]
    return [*old, *(entry["address"] for entry in result.get("ips", []))]


def _without_counters(entry: Mapping[str, Any]) -> str:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in ("handle", "counter", "expires")}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(strip(entry), sort_keys=True)
