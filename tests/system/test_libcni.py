"""Every configuration in conf/, as it stands, through libcni: the library of cnitool, containerd, podman and CRI-O."""

import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REFERENCE_DIR, ROOT
from tests.kit.calls import PATH
from tests.kit.host import Host
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE, addresses_of, connect_outside, find_source

pytestmark = pytest.mark.kernel

CONFIGURATIONS = sorted((ROOT / "conf").glob("*.conflist"))
HOST_PORT, CONTAINER_PORT = 8080, 80
# For networks of layer 2 only: what the test, in the role of somebody's DHCP, gives to its two containers.
OWN_ADDRESSES = {"c1": "172.31.0.1/24", "c2": "172.31.0.2/24"}


class Client:
    """libcni's client on a host, for one configuration file."""

    def __init__(self, host: Host, program: str, path: str, cache: Path) -> None:
        self.host = host
        self.program = program
        self.path = path
        self.cache = cache

    def call(self, command: str, file: Path, name: str, **arguments: Any) -> "subprocess.CompletedProcess[str]":
        """One command, as it comes out; `capabilities` and `args` are the runtime's, `netns` stands in for its own."""
        netns = arguments.get("netns", f"/run/netns/{name}")
        env = {
            "CNI_PATH": self.path,
            "PATH": PATH,
            "LIBCNI_CAPABILITIES": json.dumps(arguments.get("capabilities", {})),
            "LIBCNI_ARGS": json.dumps(arguments.get("args", [])),
        }
        command_line = (self.program, command, str(file), name, netns, "eth0", str(self.cache))
        return self.host.run(*command_line, env=env, check=False)

    def succeed(self, command: str, file: Path, name: str, **arguments: Any) -> Any:
        """One command that has to work. Returns the result of add, None of the others."""
        done = self.call(command, file, name, **arguments)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert done.stderr == ""
        return json.loads(done.stdout) if done.stdout else None


@pytest.fixture
def client(host: Host, libcni_client: str, bin_dir: str, tmp_path: Path) -> Iterator[Client]:
    connect_outside(host)
    yield Client(host, libcni_client, f"{bin_dir}:{REFERENCE_DIR}", tmp_path)


def capabilities_of(file: Path) -> set[str]:
    plugins = json.loads(file.read_text())["plugins"]
    return {name for plugin in plugins for name, wanted in plugin.get("capabilities", {}).items() if wanted}


def bridge_of(file: Path) -> Mapping[str, Any]:
    first: Mapping[str, Any] = json.loads(file.read_text())["plugins"][0]
    return first


def assert_nothing_left(host: Host, file: Path) -> None:
    """The bridge remains; every container's link, reservation and rule of ours is gone."""
    config = json.loads(file.read_text())
    assert host.link_names() == ["uplink", bridge_of(file)["bridge"]]
    assert host.reservations(config["name"]) == []
    assert [entry for entry in host.nft() if entry.get("table", {}).get("name") == "pycni"] == []
    assert "c1" not in host.run("iptables-save").stdout


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_configuration_connects_two_containers_and_leaves_nothing(client: Client, file: Path) -> None:
    host = client.host
    client.succeed("validate", file, "none", netns="none")
    results = {}
    for name in ("c1", "c2"):
        host.add_container(name)
        results[name] = client.succeed("add", file, name)
        client.succeed("check", file, name)
    for name, result in results.items():
        configured = host.addresses("eth0", name)
        assert configured == [entry["address"] for entry in result.get("ips", ())]
        if not configured:
            host.run("ip", "-n", name, "address", "add", OWN_ADDRESSES[name], "dev", "eth0")
    for name, other in (("c1", "c2"), ("c2", "c1")):
        for address in host.addresses("eth0", other):
            plain = address.partition("/")[0]
            assert host.ping(plain, name), f"{name} does not reach {plain}"
            source = find_source(host, name, other, (plain, CONTAINER_PORT))
            assert source in [own.partition("/")[0] for own in host.addresses("eth0", name)]
    for name in results:
        client.succeed("check", file, name)
        client.succeed("del", file, name)
        assert host.link_names(name) == []
        client.succeed("del", file, name)
        client.succeed("del", file, name, netns="")
    assert_nothing_left(host, file)


@pytest.mark.parametrize(
    "file", [file for file in CONFIGURATIONS if bridge_of(file).get("ipMasq")], ids=lambda file: file.name
)
def test_masquerading_configuration_reaches_the_outside(client: Client, file: Path) -> None:
    host = client.host
    host.add_container("c1")
    result = client.succeed("add", file, "c1")
    versions = {6 if ":" in address else 4 for address in addresses_of(result)}
    assert versions
    for version in versions:
        outside = {4: "192.0.2.2", 6: "2001:db8::2"}[version]
        assert host.ping(outside, "c1")
        assert find_source(host, "c1", OUTSIDE, (outside, 80)) == HOST_ADDRESSES[version]


def test_dual_stack_configuration_connects_in_both_families(client: Client) -> None:
    file = ROOT / "conf" / "30-dual-stack.conflist"
    host = client.host
    results = {}
    for name in ("c1", "c2"):
        host.add_container(name)
        results[name] = addresses_of(client.succeed("add", file, name))
    assert [[":" in address for address in addresses] for addresses in results.values()] == [[False, True]] * 2
    for address in results["c2"]:
        assert host.ping(address, "c1")
        assert find_source(host, "c1", "c2", (address, 80)) in results["c1"]


def test_layer_2_configuration_gives_no_addresses_and_connects_what_gets_some(client: Client) -> None:
    file = ROOT / "conf" / "40-layer-2.conflist"
    host = client.host
    for name in ("c1", "c2"):
        host.add_container(name)
        assert "ips" not in client.succeed("add", file, name)
    assert not host.ping("172.31.0.2", "c1")
    for name, address in OWN_ADDRESSES.items():
        host.run("ip", "-n", name, "address", "add", address, "dev", "eth0")
    assert host.ping("172.31.0.2", "c1")
    assert find_source(host, "c1", "c2", ("172.31.0.2", 80)) == "172.31.0.1"


@pytest.mark.parametrize(
    "file", [file for file in CONFIGURATIONS if "portMappings" in capabilities_of(file)], ids=lambda file: file.name
)
def test_mapped_port_is_reached_from_the_outside_until_the_container_goes(client: Client, file: Path) -> None:
    host = client.host
    mapping = {"hostPort": HOST_PORT, "containerPort": CONTAINER_PORT, "protocol": "tcp"}
    capabilities = {"portMappings": [mapping]}
    for name in ("c1", "c2"):
        host.add_container(name)
    address = addresses_of(client.succeed("add", file, "c1", capabilities=capabilities))[0]
    client.succeed("add", file, "c2")
    # no CHECK here: portmap's looks for its chain in both families, and fails where a container has but one

    def ask(asking: str | None, host_address: str) -> str:
        return find_source(host, asking, "c1", (address, CONTAINER_PORT), (host_address, HOST_PORT))

    assert ask(OUTSIDE, HOST_ADDRESSES[4]) == "192.0.2.2"
    gateway = host.addresses(bridge_of(file)["bridge"])[0].partition("/")[0]
    assert [ask("c2", gateway), ask("c1", gateway)] == [gateway, gateway], "a neighbour, and itself through hairpin"
    client.succeed("del", file, "c1", capabilities=capabilities)
    with host.entered(OUTSIDE), pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST_ADDRESSES[4], HOST_PORT), timeout=5)
    client.succeed("del", file, "c1", capabilities=capabilities)
    client.succeed("del", file, "c2")
    assert_nothing_left(host, file)
    assert str(HOST_PORT) not in host.run("iptables-save").stdout


def test_capabilities_reach_the_plugins(client: Client) -> None:
    file = ROOT / "conf" / "30-dual-stack.conflist"
    host = client.host
    host.add_container("c1")
    wanted = {"ips": ["10.246.7.7", "fd00:246::77/64"], "mac": "0a:58:0a:f6:07:07"}
    result = client.succeed("add", file, "c1", capabilities=wanted)
    assert host.addresses("eth0", "c1") == ["10.246.7.7/16", "fd00:246::77/64"]
    assert host.ip("link", "show", "eth0", container="c1")[0]["address"] == wanted["mac"]
    assert addresses_of(result) == ["10.246.7.7", "fd00:246::77"]


def test_cni_args_reach_the_plugins(client: Client) -> None:
    file = ROOT / "conf" / "10-mynet.conflist"
    host = client.host
    host.add_container("c1")
    args = [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "web"], ["IP", "10.244.9.9"], ["MAC", "0a:58:0a:f4:09:09"]]
    client.succeed("add", file, "c1", args=args)
    assert host.addresses("eth0", "c1") == ["10.244.9.9/16"]
    assert host.ip("link", "show", "eth0", container="c1")[0]["address"] == "0a:58:0a:f4:09:09"


def test_check_fails_through_libcni_when_the_interface_lost_its_address(client: Client) -> None:
    file = ROOT / "conf" / "10-mynet.conflist"
    host = client.host
    host.add_container("c1")
    client.succeed("add", file, "c1")
    host.run("ip", "-n", "c1", "address", "flush", "dev", "eth0", "scope", "global")
    failed = client.call("check", file, "c1")
    assert failed.returncode == 1
    assert "10.244.0.2/16" in failed.stderr


def test_failed_add_tells_the_operator_through_libcni_what_to_change(client: Client) -> None:
    file = ROOT / "conf" / "10-mynet.conflist"
    client.host.add_container("c1")
    client.succeed("add", file, "c1")
    failed = client.call("add", file, "c1")
    assert failed.returncode == 1
    assert "eth0 exists already in the container" in failed.stderr
    client.succeed("check", file, "c1")


def test_delete_after_the_namespace_is_gone(client: Client) -> None:
    file = ROOT / "conf" / "10-mynet.conflist"
    client.host.add_container("c1")
    client.succeed("add", file, "c1")
    client.host.remove_container("c1")
    client.succeed("del", file, "c1", netns="")
    assert_nothing_left(client.host, file)
