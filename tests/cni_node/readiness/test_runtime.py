"""The runtime's configuration, and the reservations of a former range, as files."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from cni_node.readiness.runtime import CONFIGURATION, has_file, list_strangers, put_file, read_ranges, render
from cni_protocol.address import CIDR, parse_cidr

PODS = (parse_cidr("10.1.0.0/24"), parse_cidr("fd00:1::/64"))


def bridge_of(text: str) -> dict[str, Any]:
    [plugin] = json.loads(text)["plugins"]
    return dict(plugin)


def test_the_whole_configuration() -> None:
    assert CONFIGURATION == "10-pycni.conflist"
    assert json.loads(render(PODS, 1450, "/run/agent.sock", policies=True)) == {
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "pycni",
        "plugins": [
            {
                "type": "cni-bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "capabilities": {"portMappings": True},
                "mtu": 1450,
                "agent": "/run/agent.sock",
                "requireBridgeNetfilter": True,
                "ipam": {
                    "type": "cni-ipam",
                    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            }
        ],
    }


def test_what_is_not_wanted_is_left_out() -> None:
    assert not {"mtu", "agent", "requireBridgeNetfilter"} & set(bridge_of(render(PODS[:1], 0)))


def test_a_file_is_written_once_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "net.d" / "file"
    assert not has_file(path, b"x")
    assert [put_file(path, b"x") for _ in range(2)] == [True, False]
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"x", 0o644)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert put_file(path, b"y")
    assert has_file(path, b"y")
    path.chmod(0o600)
    assert not has_file(path, b"y")
    assert put_file(path, b"y")


def test_a_leftover_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("a longer leftover")
    assert put_file(tmp_path / "file", b"x", 0o600)
    assert has_file(tmp_path / "file", b"x", 0o600)


def test_ranges_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / CONFIGURATION
    assert read_ranges(path) == ()
    path.write_text(render(PODS, 0))
    assert read_ranges(path) == PODS


@pytest.mark.parametrize("text", ["", "7", "{}", '{"plugins": []}', '{"plugins": [{"ipam": {"ranges": [[{}]]}}]}'])
def test_another_configuration_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    assert read_ranges(tmp_path / "file") == ()


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        (PODS, ["10.2.0.2 (c2)", "10.2.0.3 (?)"]),
        (PODS[1:], ["10.1.0.2 (c1)", "10.2.0.2 (c2)", "10.2.0.3 (?)"]),
    ],
)
def test_pods_with_a_former_range_are_listed(tmp_path: Path, pods: tuple[CIDR, ...], expected: list[str]) -> None:
    store = tmp_path / "var/lib/cni/networks/pycni"
    assert list_strangers(tmp_path, pods) == []
    store.mkdir(parents=True)
    for name, text in {"10.1.0.2": "c1\r\neth0", "10.2.0.2": "c2 \r\neth0", "10.2.0.3": "", "lock": "x"}.items():
        (store / name).write_text(text, newline="")
    assert list_strangers(tmp_path, pods) == expected
