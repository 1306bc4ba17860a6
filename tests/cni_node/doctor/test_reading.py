"""Facts of a node whose files are made up, and whose kernel says nothing."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel.errors import KernelError
from cni_node.doctor import kernel_facts, reading
from cni_node.doctor.facts import Facts, Link, Pod, Room
from cni_node.doctor.reading import Places, Reader, read_facts
from cni_protocol.address import parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError

OWNER = Attachment("mynet", "c1", "eth0")
PLUGIN: dict[str, Any] = {"type": "cni-bridge", "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/24"}}
PORTS = [{"hostPort": 80, "containerPort": 8080, "protocol": "UDP"}, {"hostPort": 81}, {"containerPort": 82}]


def remember(root: Path, network: str, plugin: dict[str, Any], netns: str = "/run/netns/c1") -> None:
    """What libcni keeps of an attachment."""
    interfaces = [{"name": "veth1"}, {"name": "eth0", "mac": "02:00:00:00:00:07", "sandbox": netns}]
    conflist = {"cniVersion": "1.0.0", "name": network, "plugins": [plugin]}
    document = {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
        "ifName": "eth0",
        "networkName": network,
        "capabilityArgs": {"portMappings": PORTS},
        "result": {"interfaces": interfaces if netns else [], "ips": [{"address": "10.1.0.2/24"}, {}]},
    }
    directory = root / "var/lib/cni/results"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{network}-c1-eth0").write_text(json.dumps(document))


@pytest.fixture
def read(tmp_path: Path, mocker: MockerFixture) -> Callable[[], Facts]:
    """Reads the facts of the node below tmp_path, on which the pod c1 of mynet runs."""
    mocker.patch.object(kernel_facts, "read_links", return_value=[Link(7, OWNER.host_name)])
    for name in ("read_addresses", "read_routes", "read_neighbours"):
        mocker.patch.object(kernel_facts, name, return_value=[])
    mocker.patch.object(kernel_facts, "read_filter", return_value=([], frozenset()))
    mocker.patch.object(reading, "wanted_rules", return_value=[])
    (tmp_path / "etc/cni/net.d").mkdir(parents=True)
    return lambda: read_facts(Places(tmp_path, "/etc/cni/net.d", "/opt/cni/bin", tmp_path / "agent.sock"))


def test_a_pod_is_what_the_runtime_remembers(tmp_path: Path, read: Callable[[], Facts]) -> None:
    remember(tmp_path, "mynet", {**PLUGIN, "capabilities": {"portMappings": True}})
    remember(tmp_path, "away", PLUGIN)  # it has no interface here
    ports = (("udp", 80), ("tcp", 81))
    pod = Pod(OWNER, (parse_ip("10.1.0.2"),), "02:00:00:00:00:07", "/run/netns/c1", netns_gone=True, ports=ports)
    found = read()
    assert (found.pods, found.unreadable, found.report) == ((pod,), (), None)
    (tmp_path / "run/netns").mkdir(parents=True)
    (tmp_path / "run/netns/c1").touch()
    assert read().pods == (pod._replace(netns_gone=False),)
    remember(tmp_path, "mynet", PLUGIN, "")
    assert read().pods == (Pod(OWNER, (parse_ip("10.1.0.2"),)),)


def test_networks_are_those_of_files_and_of_pods(tmp_path: Path, read: Callable[[], Facts]) -> None:
    conf = tmp_path / "etc/cni/net.d/10.conf"
    conf.write_text(json.dumps({**PLUGIN, "name": "mynet", "mtu": 9, "agent": "/run/a"}))
    remember(tmp_path, "mynet", PLUGIN)
    remember(tmp_path, "former", {**PLUGIN, "bridge": "br1"})
    assert [(each.name, each.bridge, each.agent) for each in read().networks] == [
        ("mynet", "cni0", "/run/a"),
        ("former", "br1", ""),
    ]


def test_plugins_of_our_networks_are_looked_at(tmp_path: Path, read: Callable[[], Facts]) -> None:
    conf = tmp_path / "etc/cni/net.d"
    (conf / "20-other.conf").write_text('{"name": "other", "type": "flannel"}')
    assert read().plugins == {}
    (conf / "10-ours.conf").write_text(json.dumps({**PLUGIN, "name": "mynet"}))
    assert read().plugins == dict.fromkeys(("cni-bridge", "cni-ipam"), f"it is not in {tmp_path}/opt/cni/bin")
    (tmp_path / "run/containerd").mkdir(parents=True)
    (tmp_path / "run/containerd/containerd.sock").touch()
    assert set(read().plugins) == {"cni-bridge", "cni-ipam", "loopback"}


def test_rooms_are_parts_of_a_whole(tmp_path: Path, read: Callable[[], Facts], mocker: MockerFixture) -> None:
    (tmp_path / "run").mkdir()
    flags = os.ST_RDONLY | os.ST_NOEXEC
    whole = mocker.Mock(f_blocks=100, f_bavail=25, f_files=10, f_favail=5, f_flag=0)
    rooms = {"run": whole, "etc/cni/net.d": mocker.Mock(f_blocks=4, f_bavail=1, f_files=0, f_favail=0, f_flag=flags)}
    empty = mocker.Mock(f_blocks=0)

    def statvfs(path: Path) -> Any:
        name = str(path.relative_to(tmp_path))
        if name == "var/lib/cni":
            raise FileNotFoundError
        return rooms.get(name, empty)

    mocker.patch.object(os, "statvfs", statvfs)
    found = read()
    assert found.rooms == (
        Room(f"{tmp_path}/run", 0.25, 0.5),
        Room(f"{tmp_path}/etc/cni/net.d", 0.25, 1.0, read_only=True, no_exec=True),
    )
    assert found.unreadable == ()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(1, "Operation not permitted"), "Operation not permitted"),
        (KernelError(1, "links", "no"), "links: no"),
        (CNIError(7, "a range is wrong"), "a range is wrong"),
        (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
        (OSError(), "OSError"),
    ],
)
def test_what_cannot_be_read_is_said_and_the_rest_is_read(error: Exception, said: str) -> None:
    def fail() -> list[int]:
        raise error

    reader = Reader()
    assert (reader.ask("it", fail), reader.ask_all("all", fail), reader.ask_all("this", lambda: [7])) == (
        None,
        (),
        (7,),
    )
    assert [text.partition(" cannot be read: ")[0] for text in reader.problems] == ["it", "all"]
    assert reader.problems[0].endswith(said)


def test_what_may_lack_is_no_problem() -> None:
    reader = Reader()
    assert reader.ask("it", Path("/nowhere/at/all").read_text, may_lack=True) is None
    assert reader.problems == []
    assert reader.ask("it", Path("/").read_text, may_lack=True) is None
    assert reader.problems == ["it cannot be read: Is a directory"]
