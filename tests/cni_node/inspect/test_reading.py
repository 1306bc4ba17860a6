"""Reading goes on past whatever refuses to be read, and says so."""

import errno
from pathlib import Path
from typing import Any

import pytest

from cni_kernel.errors import KernelError
from cni_kernel.nft_tables import TableSocket
from cni_kernel.nftables import Nftables
from cni_node.inspect import reading
from cni_node.inspect.join import join
from cni_node.inspect.svg import draw
from cni_node.inspect.text import render


def test_nothing_that_cannot_be_read_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise KernelError(errno.EPERM, "this cannot be had")

    def refuse_plainly(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(reading, "Kernel", refuse)
    monkeypatch.setattr(reading, "Entries", refuse)
    monkeypatch.setattr(Nftables, "__init__", refuse_plainly)
    monkeypatch.setattr(TableSocket, "__init__", refuse_plainly)
    (tmp_path / "file").write_text("")
    found = reading.read_node(reading.Places(tmp_path / "file", tmp_path / "file"))
    assert (found.links, found.rules, found.exempt, found.policies, found.peers) == ([], None, None, None, [])
    assert (found.has_links, found.has_results) == (False, False)
    text = render(join(found))
    for said in (
        f"{tmp_path}/file cannot be read: Not a directory",
        f"reservations in {tmp_path}/file cannot be read: Not a directory",
        "this cannot be had: Operation not permitted",
        "rules cannot be read: Operation not permitted",
        "policies cannot be read: Operation not permitted",
    ):
        assert f"\n  {said}\n" in text
    assert draw(join(found))
