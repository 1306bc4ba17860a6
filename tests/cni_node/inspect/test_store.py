"""Reading reservations: what is damaged is named, and the rest is read."""

import os
from pathlib import Path

from cni_node.inspect.store import list_reservations


def test_reservations_are_read_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    network = tmp_path / "mynet"
    network.mkdir()
    (tmp_path / ".pycni").mkdir()
    (tmp_path / "stray").write_text("")
    (network / "lock").write_text("")
    (network / "last_reserved_ip.0").write_text("10.1.0.2")
    (network / "10.1.0.2").write_bytes(b"c1\r\neth0")
    (network / "10.1.0.3").write_bytes(b"old")
    (network / "10.1.0.4").write_bytes(b"")
    (network / "10.1.0.5").write_bytes(b"\xff\xfe")
    (network / "10.1.0.6").write_bytes(b"a\x1b[2J\r\neth0")
    (network / "10.1.0.7").mkdir()
    (network / "10.1.0.8").symlink_to(network / "10.1.0.2")
    os.mkfifo(network / "10.1.0.9")
    (network / "fd00::2").write_bytes(b"c1\r\neth0")
    found, problems = list_reservations([tmp_path, tmp_path / "none"])
    assert [(str(one.ip), one.container_id, one.ifname) for one in found] == [
        ("10.1.0.2", "c1", "eth0"),
        ("10.1.0.3", "old", ""),
        ("10.1.0.4", "", ""),
        ("10.1.0.9", "", ""),
        ("fd00::2", "c1", "eth0"),
    ]
    said = "\n".join(problems)
    for name in ("stray", "mynet/10.1.0.4", "mynet/10.1.0.5", "mynet/10.1.0.6", "mynet/10.1.0.7", "mynet/10.1.0.8"):
        assert f"{tmp_path}/{name} " in said
    assert len(problems) == 7


def test_a_store_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "networks").write_text("")
    assert list_reservations([tmp_path / "networks"]) == (
        [],
        [f"reservations in {tmp_path}/networks cannot be read: Not a directory"],
    )
