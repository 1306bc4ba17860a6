"""An index that is damaged, cannot be written, or is not that of now: nobody is misled."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_ipam.index import Index
from cni_ipam.peek import peek
from cni_protocol.address import parse_ip
from cni_protocol.errors import NOT_AVAILABLE
from tests.cni_ipam import Network, looks

SMALL = {"subnet": "10.1.0.0/28"}  # gives .2 to .14
POOL = [f"10.1.0.{i}" for i in range(2, 15)]


def write_part(at: int, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(content)

    return damage


def truncate(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def make_older(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"pycni-index-2", b"pycni-index-0"))


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES = {
    "missing": os.unlink,
    "empty": truncate(0),
    "head-only": truncate(512),
    "half": truncate(900),
    "garbage": write_part(0, os.urandom(1 << 14)),
    "garbage-in-head": write_part(20, b"99"),
    "garbage-behind-head": write_part(600, b"garbage"),
    "zeros": write_part(512, bytes(1 << 12)),
    "other-version": make_older,
    "link": replace_by(lambda path: path.symlink_to("/nowhere")),
    "fifo": replace_by(os.mkfifo),
    "directory": replace_by(Path.mkdir),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
def test_an_index_that_is_damaged_misleads_nobody(
    damage: Callable[[Path], None], command: str, network: Network
) -> None:
    for i in range(3):
        network.add(SMALL, f"c{i}")
    damage(network.index)
    expected = {f"10.1.0.{i + 2}": f"c{i}\r\neth0" for i in range(3)}
    if command == "ADD":
        assert network.add(SMALL, "c9") == ["10.1.0.5/28"]
        expected["10.1.0.5"] = "c9\r\neth0"
    elif command == "GC":
        network.collect([("c0", "eth0"), ("c2", "eth0")])
        del expected["10.1.0.3"]
    else:
        assert network.call(command, SMALL, "c1", cniVersion="1.1.0", prevResult={"ips": []}) is None
        if command == "DEL":
            del expected["10.1.0.3"]
    assert network.reserved() == expected
    assert sorted(network.exhaust(SMALL)) == sorted(set(POOL) - set(expected))
    network.call("DEL", SMALL, "c0")
    assert "c0\r\neth0" not in network.reserved().values()
    if not network.index.is_dir():
        assert not looks(network)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO], ids=errno.errorcode.__getitem__
)
@pytest.mark.parametrize("function", ["open", "pwrite", "utime", "unlink"])
def test_an_index_that_cannot_be_written_is_done_without(
    function: str, number: int, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.add(SMALL, "c0")
    real = getattr(os, function)

    def fail(what: Any, *rest: Any, **options: Any) -> Any:
        index = os.fstat(what).st_size > 500 if function == "pwrite" else what == "index" or function == "utime"
        if index:
            raise OSError(number, os.strerror(number))
        return real(what, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        assert network.add(SMALL, "c1") == ["10.1.0.3/28"]
        assert network.add(SMALL, "c2") == ["10.1.0.4/28"]
        network.call("DEL", SMALL, "c0")
        assert network.add(SMALL, "c3") == ["10.1.0.5/28"]
    assert set(network.reserved()) == {"10.1.0.3", "10.1.0.4", "10.1.0.5"}
    network.call("DEL", SMALL, "c1")
    assert not looks(network)
    assert len(network.exhaust(SMALL)) == len(POOL) - 2


def test_an_index_of_earlier_is_not_taken_for_that_of_now(network: Network) -> None:
    network.add(SMALL, "c1")
    old = network.index.read_bytes()
    network.add(SMALL, "c2")
    network.call("DEL", SMALL, "c1")
    network.index.write_bytes(old)
    assert looks(network)
    network.call("DEL", SMALL, "c2")
    assert network.reserved() == {}


def test_an_index_of_another_network_is_not_taken_for_its_own(network: Network) -> None:
    network.add(SMALL, "c1")
    network.call("ADD", SMALL, "c1", name="othernet")
    (other,) = network.data_dir.glob(".pycni/othernet/*/index")
    network.call("ADD", SMALL, "c2", name="othernet")
    network.index.write_bytes(other.read_bytes())
    assert network.add(SMALL, "c2") == ["10.1.0.3/28"]


def test_status_asks_again_when_somebody_wrote_in_the_meanwhile(network: Network) -> None:
    network.add(SMALL, "c1")
    asked = []

    def question(index: Index) -> bool:
        asked.append(index.is_taken(parse_ip("10.1.0.3")))
        if len(asked) == 1:
            network.add(SMALL, "c2")
        return asked[-1]

    assert peek(str(network.data_dir), "mynet", question) == (True, "")
    assert asked == [False, True]


def test_status_counts_no_file_that_add_would_remove(network: Network) -> None:
    tiny = {"subnet": "10.1.0.0/29"}
    network.exhaust(tiny)
    network.call("DEL", tiny, "exhausting0")
    network.put("10.1.0.2", "")
    assert network.call("STATUS", tiny, cniVersion="1.1.0") is None
    network.put("10.1.0.2", "theirs")
    assert network.refusal("STATUS", tiny, cniVersion="1.1.0").code == NOT_AVAILABLE
    (network.directory / "10.1.0.3").write_bytes(b"")  # ours: the record knows whose it is
    assert network.refusal("STATUS", tiny, cniVersion="1.1.0").code == NOT_AVAILABLE
