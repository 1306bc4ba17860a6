"""Which boot this is, and what is no proof of another one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_ipam import boot
from cni_ipam.boot import Boot, parse_boot, read_boot
from tests.cni_ipam import Network

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
HERE = Boot("k", "100", "7")


def test_a_boot_is_named_by_the_kernel_process_1_and_the_network_namespace() -> None:
    found = read_boot()
    assert found.kernel == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.start == Path("/proc/1/stat").read_text().rpartition(") ")[2].split()[19]
    assert int(found.network) > 0
    assert read_boot() == found == parse_boot(str(found))


@pytest.mark.kernel
def test_another_network_namespace_has_another_number() -> None:
    code = f"import sys; sys.path.insert(0, {os.getcwd()!r}); from cni_ipam.boot import read_boot; print(read_boot())"
    command = ["unshare", "--net", sys.executable, "-c", code]
    there = parse_boot(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip())
    assert there.network not in ("", read_boot().network)
    assert there[:2] == read_boot()[:2]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (HERE, True),
        (Boot("other", "100", "7"), False),
        (Boot("k", "200", "7"), True),
        (Boot("k", "100", "8"), True),
        (Boot("k", "200", "8"), False),
        (Boot("k", "", "8"), True),
        (Boot("k", "200", ""), True),
        (Boot("k", "", ""), True),
        (Boot("other", "", ""), False),
    ],
    ids=str,
)
def test_a_boot_is_over_with_the_kernel_or_with_both_process_1_and_the_network(other: Boot, same: bool) -> None:
    assert HERE.may_be(other) == other.may_be(HERE) == same


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("k,100,7", HERE),
        ("k", Boot("k", "", "")),
        ("k,100", Boot("k", "100", "")),
        ("k,100,7,x", HERE),
        ("", Boot("", "", "")),
    ],
)
def test_a_directory_of_any_name_is_of_some_boot(name: str, expected: Boot) -> None:
    assert parse_boot(name) == expected


@pytest.mark.parametrize(
    "content", [None, "", "1 (init) S 0", "1 (a) b) S " + " ".join(map(str, range(4, 22))) + " 77 0"]
)
def test_what_cannot_be_read_of_process_1_is_empty(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stat"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(boot, "_PROCESS_1", str(path))
    assert read_boot().start == ("77" if content and "77" in content else "")


def test_a_kernel_without_numbers_of_network_namespaces_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_SO_NETNS_COOKIE", 9999)
    assert read_boot().network == ""


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """What brings this process to another process 1 and another network namespace."""

    def go(start: str, network: str) -> None:
        monkeypatch.setattr(boot, "_read_start", lambda: start)
        monkeypatch.setattr(boot, "_read_network", lambda: network)

    go("100", "7")
    return go


def boots(network: Network) -> set[str]:
    return {path.name.partition(",")[2] for path in (network.data_dir / ".pycni" / "mynet").iterdir()}


def test_a_node_that_came_back_has_all_addresses_again(network: Network, move: Callable[[str, str], None]) -> None:
    given = network.exhaust(SMALL)
    move("200", "8")
    assert network.call("STATUS", SMALL, cniVersion="1.1.0") is None
    assert network.add(SMALL, "exhausting0") == [f"{given[0]}/29"]
    assert set(network.reserved()) == {given[0]}
    assert boots(network) == {"200,8", ""}


@pytest.mark.parametrize("place", [("200", "7"), ("100", "8"), ("", "8"), ("200", ""), ("", "")], ids=str)
def test_who_calls_from_another_namespace_takes_nothing_back(
    place: tuple[str, str], network: Network, move: Callable[[str, str], None]
) -> None:
    given = network.add(SMALL, "c1")
    before = network.reserved()
    move(*place)
    second = network.add(SMALL, "c2")
    assert network.reserved().items() >= before.items()
    assert boots(network) == {"100,7"}
    network.call("DEL", SMALL, "c1")
    move("100", "7")
    assert sorted(network.exhaust(SMALL)) == [f"10.1.0.{i}" for i in range(2, 7) if f"10.1.0.{i}/29" not in second]
    assert given != second


def test_records_of_the_version_before_which_have_the_boot_id_alone_go_on(
    network: Network, move: Callable[[str, str], None]
) -> None:
    network.add(SMALL, "c1")
    (directory,) = (network.data_dir / ".pycni" / "mynet").iterdir()
    directory.rename(directory.with_name(directory.name.partition(",")[0]))
    move("200", "8")
    network.add(SMALL, "c2")
    assert network.records() == {"10.1.0.2,c1,eth0", "10.1.0.3,c2,eth0"}
    assert boots(network) == {""}
