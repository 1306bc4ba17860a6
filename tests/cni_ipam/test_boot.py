"""Which boot of which host this is, and what is no proof of another one."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_ipam import boot
from cni_ipam.boot import Boot, is_same_host, parse_boot, read_boot


def test_a_boot_is_named_by_the_kernel_the_host_and_the_network_namespace() -> None:
    found = read_boot()
    assert found.kernel == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert int(found.instance) > 0
    assert read_boot() == found == parse_boot(str(found))


@pytest.mark.kernel
def test_another_network_namespace_has_another_number() -> None:
    code = f"import sys; sys.path.insert(0, {os.getcwd()!r}); from cni_ipam.boot import read_boot; print(read_boot())"
    command = ["unshare", "--net", sys.executable, "-c", code]
    there = parse_boot(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip())
    assert there.instance not in ("", read_boot().instance)
    assert there[:2] == read_boot()[:2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("k,m1-u1,7", Boot("k", "m1-u1", "7")),
        ("k,-,", Boot("k", "-", "")),
        ("k", Boot("k", "", "")),
        ("k,100,7", Boot("k", "", "7")),
        ("k,100,", Boot("k", "", "")),
        ("k,,7", Boot("k", "", "7")),
        ("", Boot("", "", "")),
    ],
)
def test_a_directory_of_any_name_is_of_some_boot(name: str, expected: Boot) -> None:
    assert parse_boot(name) == expected


def test_a_kernel_without_numbers_of_network_namespaces_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_SO_NETNS_COOKIE", 9999)
    assert read_boot().instance == ""


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The files of the machine id and the product's UUID, which are not there yet."""
    paths = tmp_path / "machine-id", tmp_path / "product_uuid"
    monkeypatch.setattr(boot, "_MACHINE_ID", str(paths[0]))
    monkeypatch.setattr(boot, "_PRODUCT_UUID", str(paths[1]))
    return paths


MACHINE, UUID = "3d1219c7c4c5404aaa1f6d2a48adfda4\n", "4C4C4544-0042-3510-8054-B6C04F4E3732\n"


def test_a_host_is_known_by_digests_of_its_ids_and_shows_none_of_them(ids: tuple[Path, Path]) -> None:
    assert read_boot().host == "-"
    ids[0].write_text(MACHINE)
    machine, _, nothing = read_boot().host.partition("-")
    ids[1].write_text(UUID)
    assert read_boot().host.partition("-")[0] == machine
    assert len(read_boot().host) == 33
    assert nothing == ""
    assert machine not in MACHINE
    before = read_boot().host
    ids[1].write_text(UUID.lower().strip())  # as another kernel spells it
    assert read_boot().host == before


@pytest.mark.parametrize(
    "content",
    [
        *("", "\n", "uninitialized\n", "0" * 32, "00000000-0000-0000-0000-000000000000\n"),
        *("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n", "03000200-0400-0500-0006-000700080009\n"),
    ],
)
def test_what_many_hosts_have_tells_nothing(content: str, ids: tuple[Path, Path]) -> None:
    for path in ids:
        path.write_text(content)
    assert read_boot().host == "-"


def test_ids_that_cannot_be_read_just_now_are_no_missing_ones(
    ids: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids[0].write_text(MACHINE)

    real = os.open

    def fail(path: str, *rest: Any, **options: Any) -> int:
        if path == str(ids[0]):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *rest, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        patch.setattr(os, "open", fail)
        read_boot()


@pytest.mark.parametrize(
    ("host", "other", "same"),
    [
        ("m1-u1", "m1-u1", True),
        ("m1-u1", "m1-u2", False),  # a clone
        ("m1-u1", "m2-u1", True),  # a machine id that is made anew at each start
        ("m1-u1", "m2-u2", False),
        ("m1-", "m1-", True),
        ("m1-", "m2-", False),
        ("-u1", "-u1", True),
        ("-u1", "-u2", False),
        ("-", "-", True),
        ("m1-u1", "m1-", True),
        ("m1-u1", "m2-", False),
        ("m1-u1", "-u2", False),
        ("m1-", "-u1", False),
        ("m1-", "-", False),
        ("m1-u1", "", True),  # of an older version
    ],
)
def test_who_is_the_same_host(host: str, other: str, same: bool) -> None:
    assert is_same_host(host, other) == is_same_host(other, host) == same
