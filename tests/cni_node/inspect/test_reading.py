"""Reading goes on past whatever refuses to be read, and says so."""

import base64
import errno
import json
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


def test_stores_that_networks_name_are_read_beside_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise KernelError(errno.EPERM, "this cannot be had")

    for name in ("Kernel", "Entries"):
        monkeypatch.setattr(reading, name, refuse)
    monkeypatch.setattr(reading, "read_filter", lambda _: None)
    monkeypatch.setattr(reading, "read_policies", lambda _: None)
    results, usual, named = tmp_path / "results", tmp_path / "usual", tmp_path / "named"
    results.mkdir()
    for number, ipam in enumerate(({"dataDir": str(named)}, {"dataDir": str(named)}, {"dataDir": 7}, {}, "text")):
        plugin = {"type": "cni-bridge", "ipam": ipam}
        document = {
            "kind": "cniCacheV1",
            "containerId": f"c{number}",
            "config": base64.b64encode(json.dumps({"name": "net", "plugins": [plugin]}).encode()).decode(),
            "ifName": "eth0",
            "networkName": "net",
            "result": {"ips": [{"address": "10.1.0.2/24"}]},
        }
        (results / f"net-c{number}-eth0").write_text(json.dumps(document))
    for store, ip in ((usual, "10.1.0.2"), (named, "10.1.0.3")):
        (store / "net").mkdir(parents=True)
        (store / "net" / ip).write_text("c1\r\neth0")
    found = reading.read_node(reading.Places(results, usual))
    assert [(one.directory, str(one.ip)) for one in found.reservations] == [
        (str(usual), "10.1.0.2"),
        (str(named), "10.1.0.3"),
    ]
    assert [one.addresses for one in found.remembered] == [("10.1.0.2/24",)] * 5
    assert [one.bridge for one in found.remembered] == ["cni0"] * 5
    assert found.has_results
