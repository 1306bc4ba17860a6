"""The runtime's files, plugins and the store, read from trees that are made up."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from cni_node.doctor.configurations import parse_network, read_configurations, read_plugin, read_reservations
from cni_node.doctor.facts import Configuration, Network, Reservation
from cni_protocol.address import parse_cidr, parse_ip

STORE = "/var/lib/cni/networks"
PLUGIN: dict[str, Any] = {"type": "cni-bridge", "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/24"}}
PLAIN = Network(
    "net",
    "cni0",
    gateways=(parse_cidr("10.1.0.1/24"),),
    subnets=(parse_cidr("10.1.0.0/24"),),
    pools=(((parse_ip("10.1.0.1"), parse_ip("10.1.0.254")),),),
    store=STORE,
)


def test_configurations_are_in_the_runtime_s_order(tmp_path: Path) -> None:
    files = {
        "20-b.conf": {"name": "b", "type": "cni-bridge"},
        "10-a.conflist": {"name": "a", "plugins": [PLUGIN, {"type": "portmap"}, {"type": "portmap"}]},
        "30-c.json": {"name": "c", "type": "flannel", "ipam": {}},
        "40-d.conf": {"name": "d"},
        "50-e.txt": {"name": "e", "type": "cni-bridge"},
    }
    for name, document in files.items():
        (tmp_path / name).write_text(json.dumps(document))
    (tmp_path / "60-f.conf").mkdir()
    found, networks = read_configurations(tmp_path)
    assert found == [
        Configuration(f"{tmp_path}/10-a.conflist", ("cni-bridge", "portmap", "cni-ipam"), ours=True),
        Configuration(f"{tmp_path}/20-b.conf", ("cni-bridge",), ours=True),
        Configuration(f"{tmp_path}/30-c.json", ("flannel",)),
        Configuration(f"{tmp_path}/40-d.conf", error="KeyError: 'type'"),
        Configuration(f"{tmp_path}/60-f.conf", error="Is a directory"),
    ]
    assert [network.name for network in networks] == ["a", "b"]


def changed(**keys: Any) -> dict[str, Any]:
    return {**PLUGIN, "ipam": {**PLUGIN["ipam"], **keys}}


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        pytest.param(PLUGIN, PLAIN, id="plain"),
        pytest.param({**PLUGIN, "bridge": "br1"}, PLAIN._replace(bridge="br1"), id="bridge"),
        pytest.param({**PLUGIN, "isGateway": True}, PLAIN._replace(is_gateway=True), id="gateway"),
        pytest.param({**PLUGIN, "isDefaultGateway": True}, PLAIN._replace(is_gateway=True), id="default gateway"),
        pytest.param({**PLUGIN, "isGateway": True, "vlan": 7}, PLAIN, id="a VLAN has no gateway"),
        pytest.param({**PLUGIN, "hairpinMode": True}, PLAIN._replace(hairpin=True), id="hairpin"),
        pytest.param({**PLUGIN, "portIsolation": True}, PLAIN._replace(isolated=True), id="isolated"),
        pytest.param({**PLUGIN, "agent": "/run/a"}, PLAIN._replace(agent="/run/a"), id="agent"),
        pytest.param(changed(dataDir="/store"), PLAIN._replace(store="/store"), id="store"),
        pytest.param(
            changed(gateway="10.1.0.9"), PLAIN._replace(gateways=(parse_cidr("10.1.0.9/24"),)), id="another gateway"
        ),
        pytest.param(
            changed(rangeStart="10.1.0.5", rangeEnd="10.1.0.6"),
            PLAIN._replace(pools=(((parse_ip("10.1.0.5"), parse_ip("10.1.0.6")),),)),
            id="bounds",
        ),
        pytest.param(changed(exclude=["10.1.0.7/32"]), PLAIN._replace(pools=()), id="not counted with exceptions"),
        pytest.param(changed(type="host-local"), Network("net", "cni0"), id="another address plugin"),
        pytest.param({"type": "cni-bridge"}, Network("net", "cni0"), id="none"),
    ],
)
def test_networks(plugin: dict[str, Any], expected: Network) -> None:
    assert parse_network("net", plugin) == expected


def test_ranges_of_both_families() -> None:
    sets = [[{"subnet": "10.1.0.5/24"}, {"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
    found = parse_network("net", {"type": "cni-bridge", "ipam": {"type": "cni-ipam", "ranges": sets}})
    assert found.subnets == (parse_cidr("10.1.0.0/24"), parse_cidr("fd00:1::/64"))
    assert found.gateways == tuple(map(parse_cidr, ("10.1.0.1/24", "10.1.0.1/24", "fd00:1::1/64")))
    whole = (parse_ip("10.1.0.1"), parse_ip("10.1.0.254"))
    assert found.pools == ((whole, whole), ((parse_ip("fd00:1::1"), parse_ip("fd00:1::ffff:ffff:ffff:ffff")),))


ELF = b"\x7fELF\x02\x01" + bytes(12)


def make(path: Path, content: bytes, mode: int = 0o755) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run on one machine for all."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"#!/bin/sh\n", "", id="script"),
        pytest.param(ELF + b"\xb7\0", "", id="program"),
        pytest.param(b"\x7fELF\x02\x02" + bytes(12) + b"\0\xb7", "", id="big-endian program"),
        pytest.param(ELF + b"\x3e\0", "{} is for another kind of machine than aarch64", id="another machine's"),
        pytest.param(ELF[:-1], "", id="a program that is cut off"),
        pytest.param(b"", "{} is no program (0 bytes)", id="empty"),
        pytest.param(b"text", "{} is no program (4 bytes)", id="text"),
    ],
)
def test_plugins(tmp_path: Path, content: bytes, said: str) -> None:
    make(tmp_path / "p", content)
    assert read_plugin([tmp_path], "p") == said.format(tmp_path / "p")


@pytest.mark.parametrize(("name", "number"), [("x86_64", 62), ("ppc64le", 21), ("s390x", 22), ("riscv64", 243)])
def test_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    monkeypatch.setattr(platform, "machine", lambda: name)
    make(tmp_path / "p", ELF + bytes([number, 0]))
    assert read_plugin([tmp_path], "p") == ""


def test_plugins_are_looked_for_in_all_directories(tmp_path: Path) -> None:
    directories = [tmp_path / "none", tmp_path / "a", tmp_path / "b"]
    assert read_plugin(directories, "p") == f"it is not in {tmp_path}/none, {tmp_path}/a, {tmp_path}/b"
    make(tmp_path / "b/p", b"#!/bin/sh\n", 0o644)
    assert read_plugin(directories, "p") == f"{tmp_path}/b/p is not executable"
    make(tmp_path / "a/p", b"#!/bin/sh\n")
    assert read_plugin(directories, "p") == ""
    (tmp_path / "a/p").unlink()
    (tmp_path / "a/p").symlink_to("nowhere")
    assert read_plugin(directories, "p") == f"{tmp_path}/a/p leads nowhere"
    (tmp_path / "a/p").unlink()
    (tmp_path / "a/p").mkdir()
    assert read_plugin(directories, "p") == f"{tmp_path}/a/p is not executable"


def test_reservations(tmp_path: Path) -> None:
    assert list(read_reservations(tmp_path, PLAIN)) == []
    directory = tmp_path / "var/lib/cni/networks/net"
    directory.mkdir(parents=True)
    texts = {"10.1.0.2": b"c1\r\neth0", "10.1.0.3": b"c2", "10.1.0.4": b"", "10.1.0.5": b"\xff", "lock": b"x"}
    for name, text in texts.items():
        (directory / name).write_bytes(text)
    os.mkdir(directory / "10.1.0.6")

    def expected(ip: str, container_id: str, ifname: str = "", error: str = "") -> Reservation:
        return Reservation("net", parse_ip(ip), container_id, ifname, f"{directory}/{ip}", error)

    *found, no_text, no_file = read_reservations(tmp_path, PLAIN)
    assert found == [
        expected("10.1.0.2", "c1", "eth0"),
        expected("10.1.0.3", "c2"),
        expected("10.1.0.4", "", error="it names no container"),
    ]
    assert (no_text._replace(error=""), no_file._replace(error="")) == (
        expected("10.1.0.5", ""),
        expected("10.1.0.6", ""),
    )
    assert ("utf-8" in no_text.error, "Is a directory" in no_file.error) == (True, True)
