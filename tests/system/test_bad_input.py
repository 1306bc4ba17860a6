"""Wrong environments, stdins and configurations: one error object each, and the host stays as it was."""

import fcntl
import json
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calls import call_environment
from tests.kit.host import Host, Outcome
from tests.kit.locks import held_elsewhere
from tests.kit.runtime import Runtime, addresses_of, without_bookkeeping

pytestmark = pytest.mark.kernel

Snapshot = Callable[[], dict[str, object]]

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "mynet",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}
PLUGINS = pytest.mark.parametrize("plugin", ["bridge", "ipam"])


def network(**keys: Any) -> dict[str, Any]:
    """The configuration with keys replaced; None takes one away."""
    return {key: value for key, value in {**NETWORK, **keys}.items() if value is not None}


def with_ipam(**keys: Any) -> dict[str, Any]:
    """The configuration with keys of its ipam part replaced; None takes one away."""
    ipam = {key: value for key, value in {**NETWORK["ipam"], **keys}.items() if value is not None}
    return {**NETWORK, "ipam": ipam}


def error_of(outcome: Outcome, version: str = "1.0.0") -> dict[str, Any]:
    """The error object of a call, which has to be one in every respect."""
    assert outcome.status == 1, outcome
    error: dict[str, Any] = outcome.document
    assert set(error) == {"cniVersion", "code", "msg", "details"}
    assert error["cniVersion"] == version
    assert isinstance(error["code"], int)
    assert error["msg"]
    assert isinstance(error["details"], str)
    assert "Traceback" not in outcome.stderr
    return error


def runtime_of(request: pytest.FixtureRequest, plugin: str) -> Runtime:
    runtime: Runtime = request.getfixturevalue(plugin)
    runtime.host.add_container("c1")
    return runtime


@PLUGINS
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        pytest.param({"CNI_COMMAND": ""}, ["CNI_COMMAND"], id="no command"),
        pytest.param({"CNI_COMMAND": "add"}, ["CNI_COMMAND=add"], id="command in small letters"),
        pytest.param({"CNI_COMMAND": "ADD "}, ["CNI_COMMAND"], id="command with a space"),
        pytest.param({"CNI_COMMAND": "REMOVE"}, ["CNI_COMMAND=REMOVE", "ADD, DEL, CHECK"], id="unknown command"),
        pytest.param({"CNI_CONTAINERID": ""}, ["CNI_CONTAINERID"], id="no container id"),
        pytest.param({"CNI_CONTAINERID": "-a"}, ["'-a'"], id="container id with a dash in front"),
        pytest.param({"CNI_CONTAINERID": "a/b"}, ["'a/b'"], id="container id with a slash"),
        pytest.param({"CNI_CONTAINERID": "../a"}, ["'../a'"], id="container id that climbs"),
        pytest.param({"CNI_CONTAINERID": "a\n"}, ["CNI_CONTAINERID"], id="container id with a line feed"),
        pytest.param({"CNI_CONTAINERID": "é"}, ["CNI_CONTAINERID"], id="container id that is not ASCII"),
        pytest.param({"CNI_IFNAME": ""}, ["CNI_IFNAME"], id="no interface name"),
        pytest.param({"CNI_IFNAME": "."}, ["CNI_IFNAME"], id="interface name of one dot"),
        pytest.param({"CNI_IFNAME": ".."}, ["CNI_IFNAME"], id="interface name of two dots"),
        pytest.param({"CNI_IFNAME": "a/b"}, ["CNI_IFNAME"], id="interface name with a slash"),
        pytest.param({"CNI_IFNAME": "a:b"}, ["CNI_IFNAME"], id="interface name with a colon"),
        pytest.param({"CNI_IFNAME": "a b"}, ["CNI_IFNAME"], id="interface name with a space"),
        pytest.param({"CNI_IFNAME": "a\tb"}, ["CNI_IFNAME"], id="interface name with a tab"),
        pytest.param({"CNI_IFNAME": "e" * 16}, ["CNI_IFNAME", "15"], id="interface name of 16 bytes"),
        pytest.param({"CNI_NETNS": ""}, ["CNI_NETNS"], id="no namespace"),
        pytest.param(
            {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""},
            ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            id="all three missing",
        ),
        pytest.param({"CNI_ARGS": "IP"}, ["CNI_ARGS", "IP"], id="argument without a value"),
        pytest.param({"CNI_ARGS": "=x"}, ["CNI_ARGS"], id="argument without a key"),
        pytest.param({"CNI_ARGS": "K8S_POD_NAME=web"}, ["K8S_POD_NAME", "IgnoreUnknown"], id="unknown argument"),
        pytest.param({"CNI_ARGS": "IgnoreUnknown=perhaps"}, ["IgnoreUnknown"], id="IgnoreUnknown of no truth value"),
    ],
)
def test_wrong_environment_is_code_4_and_names_what_is_wrong(
    request: pytest.FixtureRequest, snapshot: Snapshot, plugin: str, variables: dict[str, str], words: list[str]
) -> None:
    runtime = runtime_of(request, plugin)
    before = snapshot()
    error = error_of(runtime.call("ADD", "c1", NETWORK, env=variables))
    assert error["code"] == 4
    assert all(word in error["msg"] for word in words), error["msg"]
    assert snapshot() == before


@pytest.mark.parametrize(
    "path",
    ["/run/netns/none", "/etc/hostname", "/proc/self/ns/mnt", "/proc/self/ns/net", "/run", "/dev/null", "relative"],
)
def test_path_that_is_no_namespace_of_a_container_is_code_4(bridge: Runtime, snapshot: Snapshot, path: str) -> None:
    before = snapshot()
    error = error_of(bridge.call("ADD", "c1", NETWORK, netns=path))
    assert error["code"] == 4
    assert path in error["msg"]
    assert snapshot() == before, "also no bridge was made"


NOT_JSON = {
    "nothing": b"",
    "white space": b" \n",
    "half an object": b'{"cniVersion": "1.0.0", "name": "my',
    "two objects": b"{}{}",
    "single quotes": b"{'name': 'mynet'}",
    "a list": b"[]",
    "a string": b'"mynet"',
    "a number": b"7",
    "null": b"null",
    "bytes that are no text": b'{"name": "\xff\xfe"}',
    "binary": bytes(range(256)),
    "a deep hole": b"[" * 100_000,
    "a deep hole in a key": b'{"a":' * 100_000,
}


@PLUGINS
@pytest.mark.parametrize("stdin", NOT_JSON.values(), ids=NOT_JSON)
def test_stdin_that_is_no_json_object_is_code_6(
    request: pytest.FixtureRequest, snapshot: Snapshot, plugin: str, stdin: bytes
) -> None:
    runtime = runtime_of(request, plugin)
    before = snapshot()
    assert error_of(runtime.call("ADD", "c1", stdin), "1.1.0")["code"] == 6
    assert snapshot() == before


@PLUGINS
@pytest.mark.parametrize("command", ["CHECK", "DEL", "VERSION"])
def test_stdin_that_is_no_json_object_is_code_6_for_every_command(
    request: pytest.FixtureRequest, plugin: str, command: str
) -> None:
    runtime = runtime_of(request, plugin)
    for stdin in (b"{", b"[]", b"\xff"):
        assert error_of(runtime.call(command, "c1", stdin), "1.1.0")["code"] == 6


def test_configuration_without_end_is_refused_and_not_swallowed(bridge: Runtime, snapshot: Snapshot) -> None:
    bridge.host.add_container("c1")
    before = snapshot()
    done = bridge.host.run("sh", "-c", f"yes ' ' | {bridge.executable}", env=call_environment("ADD"), check=False)
    error = error_of(Outcome(done.returncode, json.loads(done.stdout), done.stdout, done.stderr), "1.1.0")
    assert error["code"] == 5
    assert snapshot() == before


@PLUGINS
@pytest.mark.parametrize(
    ("config", "code", "words", "version"),
    [
        pytest.param(network(cniVersion="0.5.0"), 1, ["'0.5.0'", "1.0.0"], "1.1.0", id="unknown version"),
        pytest.param(network(cniVersion="1.0"), 1, ["'1.0'"], "1.1.0", id="incomplete version"),
        pytest.param(network(cniVersion=1), 7, ["cniVersion", "1"], "1.1.0", id="version of a number"),
        pytest.param(network(name=None), 7, ["name"], "1.0.0", id="no name"),
        pytest.param(network(name=""), 7, ["name"], "1.0.0", id="empty name"),
        pytest.param(network(name="../x"), 7, ["../x"], "1.0.0", id="name that climbs"),
        pytest.param(network(name="a b"), 7, ["a b"], "1.0.0", id="name with a space"),
        pytest.param(network(name=["mynet"]), 7, ["name"], "1.0.0", id="name of a list"),
        pytest.param(network(ipam=[]), 7, ["ipam"], "1.0.0", id="ipam of a list"),
        pytest.param(network(runtimeConfig=7), 7, ["runtimeConfig"], "1.0.0", id="runtimeConfig of a number"),
        pytest.param(network(args="IP=10.1.0.9"), 7, ["args"], "1.0.0", id="args of a string"),
    ],
)
def test_wrong_envelope_is_refused_by_both_plugins(
    request: pytest.FixtureRequest,
    snapshot: Snapshot,
    plugin: str,
    config: Mapping[str, Any],
    code: int,
    words: list[str],
    version: str,
) -> None:
    runtime = runtime_of(request, plugin)
    before = snapshot()
    error = error_of(runtime.call("ADD", "c1", config), version)
    assert error["code"] == code
    assert all(word in error["msg"] for word in words), error["msg"]
    assert snapshot() == before


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param(network(bridge="a/b"), ["bridge", "a/b"], id="bridge with a slash"),
        pytest.param(network(bridge="b" * 16), ["bridge", "15"], id="bridge of 16 bytes"),
        pytest.param(network(bridge=7), ["bridge", "7"], id="bridge of a number"),
        pytest.param(network(bridge="lo"), ["bridge", "lo"], id="bridge that is another kind of link"),
        pytest.param(network(isGateway="true"), ["isGateway", '"true"'], id="flag of a string"),
        pytest.param(network(mtu=-1), ["mtu", "-1"], id="negative mtu"),
        pytest.param(network(mtu=65536), ["mtu", "65536"], id="mtu above the largest"),
        pytest.param(network(mtu="1500"), ["mtu", '"1500"'], id="mtu of a string"),
        pytest.param(network(mtu=1500.5), ["mtu", "1500.5"], id="mtu of a fraction"),
        pytest.param(network(hairpinMode=True, promiscMode=True), ["hairpinMode", "promiscMode"], id="both modes"),
        pytest.param(network(dns=["192.0.2.53"]), ["dns"], id="dns of a list"),
        pytest.param(network(runtimeConfig={"mac": "zz"}), ["runtimeConfig.mac", "zz"], id="mac that is none"),
        pytest.param(network(args={"cni": {"mac": "01:00:5e:00:00:01"}}), ["args.cni.mac"], id="mac of a group"),
        pytest.param(with_ipam(type=None), ["ipam.type"], id="ipam without type"),
        pytest.param(with_ipam(type="../cni-ipam"), ["'../cni-ipam'"], id="ipam type that climbs"),
        pytest.param(with_ipam(type="/bin/true"), ["'/bin/true'"], id="ipam type of a path"),
        pytest.param(with_ipam(type="nobody"), ["'nobody'", "CNI_PATH"], id="ipam type that is not installed"),
        pytest.param(network(prevResult={"ips": 1}), ["prevResult", "ips"], id="previous result that is none"),
        pytest.param(
            network(mtu=-1, bridge="a/b", isGateway=1, dns=7), ["mtu", "bridge", "isGateway", "dns"], id="four problems"
        ),
    ],
)
def test_wrong_configuration_of_the_bridge_is_refused(
    bridge: Runtime, snapshot: Snapshot, config: Mapping[str, Any], words: list[str]
) -> None:
    bridge.host.add_container("c1")
    before = snapshot()
    error = error_of(bridge.call("ADD", "c1", config))
    assert error["code"] in (6, 7)
    assert all(word in error["msg"] for word in words), error["msg"]
    assert without_bookkeeping(snapshot()) == without_bookkeeping(before)


@PLUGINS
@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param(with_ipam(subnet=None), ["ipam.ranges"], id="no range"),
        pytest.param(with_ipam(subnet="10.1.0.0"), ["ipam.subnet", "10.1.0.0"], id="subnet without prefix"),
        pytest.param(with_ipam(subnet="10.1.0.0/33"), ["ipam.subnet", "/33"], id="prefix too long"),
        pytest.param(with_ipam(subnet="10.1.0.1/16"), ["ipam.subnet", "host bits"], id="host bits"),
        pytest.param(with_ipam(rangeStart="10.2.0.1"), ["ipam.rangeStart", "10.2.0.1"], id="start outside"),
        pytest.param(with_ipam(rangeEnd="10.2.0.1"), ["ipam.rangeEnd", "10.2.0.1"], id="end outside"),
        pytest.param(with_ipam(rangeStart="10.1.0.9", rangeEnd="10.1.0.5"), ["ipam.rangeEnd"], id="reversed"),
        pytest.param(with_ipam(gateway="10.2.0.1"), ["ipam.gateway", "10.2.0.1"], id="gateway outside"),
        pytest.param(with_ipam(ranges=[[]]), ["ipam.ranges[0]", "empty"], id="empty set"),
        pytest.param(with_ipam(ranges=[{"subnet": "10.3.0.0/16"}]), ["ipam.ranges[0]"], id="set of an object"),
        pytest.param(
            with_ipam(ranges=[[{"subnet": "10.3.0.0/16"}, {"subnet": "fd00::/64"}]]), ["mixes"], id="mixed families"
        ),
        pytest.param(with_ipam(ranges=[[{"subnet": "10.1.8.0/24"}]]), ["overlap"], id="overlapping sets"),
        pytest.param(with_ipam(routes=[{"dst": "nowhere"}]), ["ipam.routes[0].dst", "nowhere"], id="malformed route"),
        pytest.param(with_ipam(routes=[{"gw": "10.1.0.1"}]), ["ipam.routes[0].dst"], id="route without dst"),
        pytest.param(with_ipam(dataDir="here"), ["ipam.dataDir", "here"], id="relative dataDir"),
        pytest.param(network(runtimeConfig={"ips": ["x"]}), ["runtimeConfig.ips[0]", "x"], id="malformed address"),
        pytest.param(network(runtimeConfig={"ips": ["10.9.0.1"]}), ["10.9.0.1"], id="requested address outside"),
        pytest.param(network(runtimeConfig={"ips": ["10.1.0.1"]}), ["10.1.0.1", "gateway"], id="requested gateway"),
        pytest.param(
            with_ipam(subnet="10.1.0.1/16", gateway="x", dataDir="here", routes=7),
            ["ipam.subnet", "ipam.gateway", "ipam.dataDir", "ipam.routes"],
            id="four problems",
        ),
    ],
)
def test_wrong_configuration_of_the_ipam_is_refused_directly_and_through_the_bridge(
    request: pytest.FixtureRequest, snapshot: Snapshot, plugin: str, config: Mapping[str, Any], words: list[str]
) -> None:
    runtime = runtime_of(request, plugin)
    before = snapshot()
    error = error_of(runtime.call("ADD", "c1", config))
    assert error["code"] == 7
    assert all(word in error["msg"] for word in words), error["msg"]
    assert snapshot() == before, "also the bridge that was made for it is gone"


STUBS = {
    "says nothing and fails": ("exit 3", 104, "status 3"),
    "is killed": ("kill -9 $$", 104, "signal 9"),
    "prints garbage": ("echo hello", 104, "no JSON"),
    "prints garbage and fails": ("echo hello; exit 1", 104, "status 1"),
    "gives no address": ('echo \'{"cniVersion": "1.0.0"}\'', 104, "no address"),
    "gives a malformed address": (
        'echo \'{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2"}]}\'',
        6,
        "ips[0].address",
    ),
    "gives a result of an unknown version": ('echo \'{"cniVersion": "7.0.0"}\'', 1, "7.0.0"),
    "fails with an error object": (
        'echo \'{"cniVersion": "1.0.0", "code": 142, "msg": "full", "details": "quite"}\'; exit 1',
        142,
        "full",
    ),
    "gives a gateway that the kernel refuses": (
        'echo \'{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/16"}],'
        ' "routes": [{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]}\'',
        100,
        "10.9.0.0/16",
    ),
    "prints without end": ("yes", 104, "more than"),
}


@pytest.mark.parametrize(("program", "code", "words"), STUBS.values(), ids=STUBS)
def test_ipam_plugin_that_fails_leaves_the_host_as_it_was(
    bridge: Runtime, snapshot: Snapshot, tmp_path: Path, program: str, code: int, words: str
) -> None:
    calls = tmp_path / "calls"
    stub = tmp_path / "stub"
    stub.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{calls}\n[ $CNI_COMMAND = ADD ] || exit 0\n{program}\n")
    stub.chmod(0o755)
    bridge.host.add_container("c1")
    before = snapshot()
    error = error_of(bridge.call("ADD", "c1", network(ipam={"type": "stub"}), path=(str(tmp_path),)))
    assert error["code"] == code
    assert words in error["msg"]
    assert snapshot() == before
    assert calls.read_text().split() == ["ADD", "DEL"], "a failed ADD of the IPAM plugin is followed by its DEL"


def test_failed_add_leaves_a_bridge_that_was_there(bridge: Runtime) -> None:
    host = bridge.host
    host.run("ip", "link", "add", "cni0", "address", "02:00:00:00:00:01", "type", "bridge")
    host.run("ip", "address", "add", "172.31.0.1/24", "dev", "cni0")
    host.add_container("c1")
    error = error_of(bridge.call("ADD", "c1", NETWORK))
    assert error["code"] == 7
    assert all(word in error["msg"] for word in ("172.31.0.1/24", "10.1.0.1/16", "forceAddress"))
    assert host.link_names() == ["cni0"]
    assert host.addresses("cni0") == ["172.31.0.1/24"]
    assert host.ip("link", "show", "cni0")[0]["address"] == "02:00:00:00:00:01"
    assert host.link_names("c1") == []
    assert host.nft() == []
    assert host.reservations("mynet") == []


def test_interface_that_is_there_is_an_error_and_stays_untouched(bridge: Runtime, snapshot: Snapshot) -> None:
    host = bridge.host
    host.add_container("c1")
    host.run("ip", "-n", "c1", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    before = snapshot()
    assert error_of(bridge.call("ADD", "c1", NETWORK))["code"] == 102
    assert snapshot() == before


def test_second_add_is_an_error_and_the_first_goes_on(bridge: Runtime, snapshot: Snapshot) -> None:
    host = bridge.host
    result = bridge.add("c1", NETWORK)
    before = snapshot()
    assert error_of(bridge.call("ADD", "c1", NETWORK))["code"] == 102
    assert snapshot() == before
    host.add_container("c2")
    assert error_of(bridge.call("ADD", "c1", NETWORK, netns="/run/netns/c2"))["code"] == 102
    assert host.ping(addresses_of(result)[0])
    assert host.link_names("c2") == []
    bridge.check("c1", NETWORK)


def test_exhausted_range_is_an_error_and_leaves_nothing(bridge: Runtime, snapshot: Snapshot) -> None:
    config = with_ipam(subnet="10.1.0.0/30")
    bridge.add("c1", config)
    bridge.host.add_container("c2")
    before = snapshot()
    error = error_of(bridge.call("ADD", "c2", config))
    assert error["code"] == 101
    assert "no IP addresses available in range set: 10.1.0.1-10.1.0.2" in error["msg"]
    assert snapshot() == before


def test_exhausted_second_range_takes_nothing_of_the_first(bridge: Runtime, snapshot: Snapshot) -> None:
    config = network(ipam={"type": "cni-ipam", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/126"}]]})
    for name in ("c1", "c2"):  # of the four addresses the first is the network's, the second the gateway's
        bridge.add(name, config)
    bridge.host.add_container("c3")
    before = snapshot()
    assert error_of(bridge.call("ADD", "c3", config))["code"] == 101
    assert snapshot() == before
    assert len(bridge.host.reservations("mynet")) == 4


@pytest.mark.parametrize("config", [NETWORK, {**NETWORK, "ipam": {}}], ids=["with ipam", "layer 2"])
def test_check_without_previous_result_is_refused(bridge: Runtime, config: Mapping[str, Any]) -> None:
    bridge.add("c1", config)
    error = error_of(bridge.call("CHECK", "c1", config))
    assert error["code"] == 7
    assert "prevResult" in error["msg"]


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        pytest.param({"CNI_CONTAINERID": ""}, 4, id="no container id"),
        pytest.param({"CNI_IFNAME": "a/b"}, 4, id="malformed interface name"),
    ],
)
@PLUGINS
def test_delete_with_a_wrong_environment_touches_nothing(
    request: pytest.FixtureRequest,
    bridge: Runtime,
    snapshot: Snapshot,
    plugin: str,
    variables: dict[str, str],
    code: int,
) -> None:
    bridge.add("c1", NETWORK)
    before = snapshot()
    runtime: Runtime = request.getfixturevalue(plugin)
    assert error_of(runtime.call("DEL", "c1", NETWORK, env=variables))["code"] == code
    assert snapshot() == before


@pytest.mark.parametrize("command", ["STATUS", "GC"])
@PLUGINS
def test_command_that_the_version_does_not_have_is_code_1(
    request: pytest.FixtureRequest, plugin: str, command: str
) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    error = error_of(runtime.call(command, "c1", NETWORK))
    assert error["code"] == 1
    assert "1.1.0" in error["msg"]


@PLUGINS
def test_layer_2_needs_no_plugin_path_and_an_ipam_does(request: pytest.FixtureRequest, plugin: str) -> None:
    runtime = runtime_of(request, plugin)
    config = {**NETWORK, "ipam": {}} if plugin == "bridge" else NETWORK
    assert runtime.call("ADD", "c1", config, path=()).status == 0
    if plugin == "bridge":
        runtime.host.add_container("c2")
        error = error_of(runtime.call("ADD", "c2", NETWORK, path=()))
        assert error["code"] == 4
        assert "CNI_PATH" in error["msg"]


def test_locks_that_are_not_released_are_code_11_and_change_nothing(
    host: Host, bridge: Runtime, ipam: Runtime, snapshot: Snapshot
) -> None:
    for name in ("c1", "c2"):
        host.add_container(name)
    directory = "/var/lib/cni/networks/mynet"
    host.run("sh", "-c", f"mkdir -p {directory} && touch {directory}/lock")
    before = snapshot()
    with (
        open(f"/proc/{host.pid}/root{directory}/lock", "w") as store,
        held_elsewhere(host),
        ThreadPoolExecutor(3) as pool,
    ):
        fcntl.flock(store, fcntl.LOCK_EX)
        calls = [pool.submit(bridge.call, "ADD", "c1", NETWORK), pool.submit(ipam.call, "ADD", "c2", NETWORK)]
        errors = [error_of(call.result()) for call in calls]
    assert [error["code"] for error in errors] == [11, 11]
    assert "lock" in errors[0]["msg"]
    assert f"{directory}/lock" in errors[1]["msg"]
    assert snapshot() == before


@pytest.mark.parametrize("name", ["cni-bridge", "cni-ipam"])
def test_person_at_a_terminal_is_told_what_the_executable_is_for(bin_dir: str, name: str) -> None:
    told = subprocess.run([f"{bin_dir}/{name}", "--help"], capture_output=True, text=True, timeout=30, check=True)
    assert "CNI_COMMAND" in told.stdout
    assert told.stdout.startswith(f"{name}: ")
    refused = subprocess.run([f"{bin_dir}/{name}", "ADD"], capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "CNI_COMMAND" in refused.stderr
