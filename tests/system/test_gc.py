"""GC of both plugins: what belongs to attachments that are not in the valid list goes, all else stays as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calls import bare_environment
from tests.kit.host import Host, Outcome
from tests.kit.runtime import Runtime
from tests.system.networks import mapped, network, port_of, refused

pytestmark = pytest.mark.kernel

NETWORK = network(1, ipMasq=True, macspoofchk=True)
OTHER = network(2, ipMasq=True)
KEY, OLD_KEY = "cni.dev/valid-attachments", "cni.dev/attachments"


def attachments(*names: str) -> list[dict[str, str]]:
    return [{"containerID": name, "ifname": "eth0"} for name in names]


def collect(runtime: Runtime, config: Any, **options: Any) -> Outcome:
    """GC as a runtime sends it: nothing but CNI_COMMAND and CNI_PATH."""
    arguments = {"container_id": "", "netns": "", "ifname": "", "path": runtime.path, **options}
    return runtime.host.cni("GC", config, executable=runtime.executable, **arguments)


def stored(host: Host) -> list[str]:
    """Every reservation with its content and its inode: a file that is written again shows."""
    command = "find /var/lib/cni/networks -type f ! -name index -printf '%p %i ' -exec cat '{}' ';' -printf '\\n'"
    return host.run("sh", "-c", command).stdout.splitlines()


def owned(host: Host, name: str) -> list[Any]:
    """All of the rule set that carries a container's name."""
    elements = [
        entry["elem"]
        for objects in host.nft()
        for kind in ("map", "set")
        if kind in objects
        for entry in [item[0] if isinstance(item, list) else item for item in objects[kind].get("elem", [])]
        if isinstance(entry, dict) and "elem" in entry
    ]
    return [entry for entry in elements if f",{name}," in entry.get("comment", "")]


def populate(runtime: Runtime) -> None:
    """Two containers on one network, both with a mapped port, one on another network."""
    for number, name in enumerate(("c1", "c2")):
        runtime.add(name, mapped(NETWORK, {"hostPort": 8080 + number, "containerPort": 80}))
    runtime.add("c3", OTHER)


def test_stale_attachment_goes_and_valid_ones_stay_byte_for_byte(bridge: Runtime) -> None:
    host = bridge.host
    populate(bridge)
    reservations, elements = stored(host), [owned(host, name) for name in ("c2", "c3")]
    assert len(owned(host, "c1")) > 5
    outcome = collect(bridge, {**NETWORK, KEY: attachments("c2")})
    assert outcome == (0, None, "", "")
    assert owned(host, "c1") == []
    assert [owned(host, name) for name in ("c2", "c3")] == elements
    assert host.link_names("c1") == []
    assert port_of(bridge.results["c1"]) not in host.link_names()
    gone = [line for line in reservations if line not in stored(host)]
    assert gone == [line for line in reservations if line.endswith("c1") or "c1\r" in line or " c1" in line]
    assert set(stored(host)) <= set(reservations)
    assert host.reservations("net1") == ["10.1.0.3", "fd00:1::3"]
    for name, config in (("c2", mapped(NETWORK, {"hostPort": 8081, "containerPort": 80})), ("c3", OTHER)):
        bridge.check(name, config)


def test_stale_attachment_goes_after_its_namespace_too(bridge: Runtime) -> None:
    populate(bridge)
    bridge.host.remove_container("c1")
    assert collect(bridge, {**NETWORK, KEY: attachments("c2")}).status == 0
    assert owned(bridge.host, "c1") == []
    assert bridge.host.reservations("net1") == ["10.1.0.3", "fd00:1::3"]


@pytest.mark.parametrize("none", [[], None], ids=["empty", "null"])
def test_empty_list_clears_one_network(bridge: Runtime, none: Any) -> None:
    populate(bridge)
    assert collect(bridge, {**NETWORK, KEY: none, OLD_KEY: none}) == (0, None, "", "")
    assert bridge.host.reservations("net1") == []
    assert bridge.host.reservations("net2") == ["10.2.0.2", "fd00:2::2"]
    assert "net1/" not in str(bridge.host.nft())
    bridge.check("c3", OTHER)
    assert collect(bridge, {**OTHER, KEY: []}).status == 0
    assert bridge.host.nft() == []


def test_everything_valid_changes_nothing(bridge: Runtime, snapshot: Callable[[], Any]) -> None:
    populate(bridge)
    before = snapshot(), stored(bridge.host)
    assert collect(bridge, {**NETWORK, KEY: attachments("c2", "c1", "never-seen")}) == (0, None, "", "")
    assert (snapshot(), stored(bridge.host)) == before


def test_interfaces_of_one_container_are_attachments_each(bridge: Runtime) -> None:
    first = bridge.add("c1", NETWORK)
    bridge.add("c1", NETWORK, ifname="eth1")
    valid = [{"containerID": "c1", "ifname": "eth1"}]
    assert collect(bridge, {**NETWORK, KEY: valid}).status == 0
    assert bridge.host.link_names("c1") == ["eth1"]
    assert port_of(first) not in bridge.host.link_names()
    assert bridge.host.reservations("net1") == ["10.1.0.3", "fd00:1::3"]


@pytest.mark.parametrize("key", [OLD_KEY, KEY])
def test_either_spelling_of_the_list_counts(bridge: Runtime, key: str) -> None:
    populate(bridge)
    assert collect(bridge, {**NETWORK, key: attachments("c1")}).status == 0
    assert bridge.host.reservations("net1") == ["10.1.0.2", "fd00:1::2"]


def test_lists_in_both_spellings_are_joined(bridge: Runtime, snapshot: Callable[[], Any]) -> None:
    populate(bridge)
    before = snapshot()
    assert collect(bridge, {**NETWORK, KEY: attachments("c1"), OLD_KEY: attachments("c2")}).status == 0
    assert snapshot() == before


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
def test_missing_list_removes_nothing_and_says_so(
    request: pytest.FixtureRequest, bridge: Runtime, snapshot: Callable[[], Any], plugin: str
) -> None:
    populate(bridge)
    before = snapshot(), stored(bridge.host)
    outcome = collect(request.getfixturevalue(plugin), NETWORK)
    assert outcome[:3] == (0, None, "")
    assert f"cni-{plugin}: GC without a list of valid attachments: nothing was removed" in outcome.stderr
    assert (snapshot(), stored(bridge.host)) == before


@pytest.mark.parametrize(
    "valid",
    [
        "c1",
        {"containerID": "c1", "ifname": "eth0"},
        ["c1"],
        [{}],
        [{"containerID": "c1"}],
        [{"ifname": "eth0"}],
        [{"containerID": "c1", "ifname": ""}],
        [{"containerID": 1, "ifname": "eth0"}],
        [*attachments("c1"), None],
        0,
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
def test_malformed_list_removes_nothing(
    request: pytest.FixtureRequest, bridge: Runtime, snapshot: Callable[[], Any], plugin: str, valid: Any
) -> None:
    bridge.add("c1", NETWORK)
    before = snapshot()
    outcome = collect(request.getfixturevalue(plugin), {**NETWORK, KEY: valid})
    assert outcome.status == 1
    assert outcome.document["code"] == 7
    assert KEY in outcome.document["msg"]
    assert snapshot() == before


def make_ipam(directory: Path, script: str) -> str:
    """A plugin of the test's own, found in CNI_PATH. Returns its type."""
    plugin = directory / "watcher"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    return plugin.name


def test_failing_address_plugin_does_not_stop_the_rest_and_is_reported(bridge: Runtime, tmp_path: Path) -> None:
    populate(bridge)
    error = '{"cniVersion": "1.1.0", "code": 5, "msg": "the disk is gone"}'
    kind = make_ipam(tmp_path, f"echo '{error}'; exit 1")
    outcome = collect(bridge, {**NETWORK, "ipam": {"type": kind}, KEY: attachments("c2")}, path=(str(tmp_path),))
    assert outcome.status == 1
    assert "the disk is gone" in outcome.document["msg"]
    assert owned(bridge.host, "c1") == []
    assert port_of(bridge.results["c1"]) not in bridge.host.link_names()
    assert port_of(bridge.results["c2"]) in bridge.host.link_names()


def test_missing_address_plugin_does_not_stop_the_rest_and_is_reported(bridge: Runtime) -> None:
    populate(bridge)
    outcome = collect(bridge, {**NETWORK, "ipam": {"type": "nowhere"}, KEY: []})
    assert outcome.status == 1
    assert "nowhere" in outcome.document["msg"]
    assert owned(bridge.host, "c1") == owned(bridge.host, "c2") == []


@pytest.mark.parametrize("valid", [{KEY: attachments("c1")}, {}], ids=["list", "no-list"])
def test_address_plugin_gets_the_same_stdin_and_variables(
    bridge: Runtime, tmp_path: Path, valid: dict[str, Any]
) -> None:
    kind = make_ipam(tmp_path, f"cat > {tmp_path}/stdin; env > {tmp_path}/env")
    config = {**NETWORK, "ipam": {"type": kind}, **valid}
    stdin = json.dumps(config, indent=3).encode() + b"  \n"
    assert collect(bridge, stdin, path=("/nowhere", str(tmp_path))).status == 0
    assert (tmp_path / "stdin").read_bytes() == stdin
    variables = (tmp_path / "env").read_text().splitlines()
    assert "CNI_COMMAND=GC" in variables
    assert f"CNI_PATH=/nowhere:{tmp_path}" in variables


def test_only_command_and_path_are_needed(bridge: Runtime) -> None:
    populate(bridge)
    env = bare_environment("GC", bridge.path)
    text = json.dumps({**NETWORK, KEY: []})
    done = bridge.host.run(bridge.executable, env=env, input=text)
    assert (done.stdout, done.stderr) == ("", "")
    assert bridge.host.reservations("net1") == []


def test_interfaces_of_others_stay(bridge: Runtime) -> None:
    host = bridge.host
    bridge.add("c1", NETWORK)
    host.run("ip", "link", "add", "veth-theirs", "type", "veth", "peer", "name", "their-end")
    host.run("ip", "link", "set", "veth-theirs", "master", "br1")
    host.run("ip", "link", "set", "their-end", "alias", "net10,c1,eth0")  # begins like ours, and is not
    assert collect(bridge, {**NETWORK, KEY: []}).status == 0
    assert sorted(host.link_names()) == ["br1", "their-end", "veth-theirs"]


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
def test_versions_without_gc_refuse_it(
    request: pytest.FixtureRequest, bridge: Runtime, plugin: str, version: str
) -> None:
    bridge.add("c1", NETWORK)
    runtime: Runtime = request.getfixturevalue(plugin)
    config = {**NETWORK, "cniVersion": version, KEY: []}
    assert refused(runtime, "GC", "", config, netns="", ifname="")["code"] == 1
    bridge.check("c1", NETWORK)
