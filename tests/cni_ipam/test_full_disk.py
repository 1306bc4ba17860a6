"""A disk with no room at all: giving back goes on, and an ADD that fails leaves nothing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_protocol.errors import IO_FAILURE
from tests.cni_ipam import Network, snapshot

SMALL = {"subnet": "10.1.0.0/29"}
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/125"}]]}


def fill_disk(patch: pytest.MonkeyPatch, number: int, functions: tuple[str, ...]) -> None:
    """Let every call that needs room fail; opening fails where it would make a file."""
    real = os.open

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    def open_existing(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        directory = options.get("dir_fd")
        missing = not os.access(path, os.F_OK, dir_fd=directory, follow_symlinks=False)
        if flags & os.O_TMPFILE == os.O_TMPFILE or (flags & os.O_CREAT and missing):
            fail()
        return real(path, flags, *rest, **options)

    for name in functions:
        patch.setattr(os, name, open_existing if name == "open" else fail)


EVERYTHING = ("open", "write", "pwrite", "link", "mkdir")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize(
    ("state", "functions"),
    [
        (state, functions)
        for state in ("new", "used", "rebooted")
        for functions in (*((name,) for name in EVERYTHING), EVERYTHING)
        if (state, functions) != ("used", ("mkdir",))  # no directory is to be made then
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_an_add_names_the_path_and_leaves_nothing(
    state: str, functions: tuple[str, ...], number: int, network: Network, reboot: Callable[[], None]
) -> None:
    if state != "new":
        network.add(DUAL, "c7")
    if state == "rebooted":
        reboot()
    before = {} if state == "new" else network.reserved()
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, number, functions)
        error = network.refusal("ADD", DUAL)
    assert error.code == IO_FAILURE
    assert str(network.data_dir) in error.msg
    assert os.strerror(number) in error.msg
    left = network.reserved() if network.directory.exists() else {}
    assert left == (before if state == "used" else {})
    assert len(network.add(DUAL)) == 2


@pytest.mark.parametrize("state", ["known", "adopted", "damaged", "rebooted"])
@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_giving_back_needs_no_room(
    command: str, state: str, network: Network, reboot: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    network.add(DUAL, "c7")
    network.add(DUAL)
    if state == "adopted":
        network.call("DEL", DUAL)
        network.put("10.1.0.6", "c1\r\neth0")
        network.put("2001:db8::7", "c1")
    elif state == "damaged":
        network.put("10.1.0.3", "")
        network.put("10.1.0.2", "")
    elif state == "rebooted":
        reboot()
    with monkeypatch.context() as patch:
        fill_disk(patch, errno.ENOSPC, EVERYTHING)
        if command == "DEL":
            assert network.call("DEL", DUAL) is None
        else:
            network.collect([("c7", "eth0")])
    assert set(network.reserved()) == (set() if state == "rebooted" else {"10.1.0.2", "2001:db8::2"})
    network.call("DEL", DUAL, "c7")
    assert network.reserved() == {}
    assert network.records() == set()


def test_nothing_is_given_back_while_the_records_cannot_be_read(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.add(SMALL)
    network.put("10.1.0.2", "")
    real = os.open

    def fail(path: Any, *rest: Any, **options: Any) -> int:
        if ".pycni" in str(path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        assert network.refusal("DEL", SMALL, "c2").code == IO_FAILURE
    assert network.exhaust(SMALL) == [f"10.1.0.{i}" for i in (3, 4, 5, 6)]
    network.call("CHECK", SMALL)
    assert network.reserved()["10.1.0.2"] == "c1\r\neth0"


def test_a_directory_that_cannot_be_made_leaves_nothing_behind(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path)
    with monkeypatch.context() as patch:
        fill_disk(patch, errno.ENOSPC, ("mkdir",))
        assert network.refusal("ADD", DUAL).code == IO_FAILURE
    assert snapshot(tmp_path) == before
