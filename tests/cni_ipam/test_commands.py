"""ADD, DEL and CHECK of the address plugin, on a store in a directory of the test's own."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_ipam import commands, data_dir, store
from cni_ipam.__main__ import PLUGIN
from cni_protocol.address import IP
from cni_protocol.errors import (
    ALREADY_EXISTS,
    CHECK_FAILED,
    DECODING_FAILURE,
    INTERNAL,
    INVALID_CONFIG,
    IO_FAILURE,
    NO_ADDRESS,
    TRY_AGAIN_LATER,
    CNIError,
)
from cni_protocol.plugin import answer
from tests.cni_ipam import Network, held_elsewhere
from tests.kit.calls import call_environment

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/126"}]]}  # the second gives ::2 and ::3


# ADD


def test_add_gives_the_result_of_the_specification(network: Network) -> None:
    ipam = {"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "2001:db8::/64"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    assert network.call("ADD", ipam) == {
        "cniVersion": "1.0.0",
        "ips": [
            {"address": "10.1.0.2/16", "gateway": "10.1.0.1"},
            {"address": "2001:db8::2/64", "gateway": "2001:db8::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {},
    }
    assert network.call("ADD", ipam, "c2", cniVersion="0.2.0") == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.3/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "2001:db8::3/64", "gateway": "2001:db8::1"},
        "dns": {},
    }
    assert {path.name: path.read_bytes() for path in network.directory.iterdir()} == {
        "10.1.0.2": b"c1\r\neth0",
        "2001:db8::2": b"c1\r\neth0",
        "10.1.0.3": b"c2\r\neth0",
        "2001:db8::3": b"c2\r\neth0",
        "last_reserved_ip.0": b"10.1.0.3",
        "last_reserved_ip.1": b"2001:db8::3",
        "lock": b"",
    }


def test_an_address_has_the_prefix_and_gateway_of_its_range(network: Network) -> None:
    ranges = [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.2"}, {"subnet": "10.2.0.0/16", "gateway": "10.2.0.9"}]]
    network.add({"ranges": ranges})
    entry = network.call("ADD", {"ranges": ranges}, "c2")["ips"][0]
    assert entry == {"address": "10.2.0.1/16", "gateway": "10.2.0.9"}


def test_addresses_go_round_and_a_freed_one_comes_last(network: Network) -> None:
    given = []
    for i in range(7):
        given += network.add(SMALL, f"c{i}")
        network.call("DEL", SMALL, f"c{i}")
    assert given == [f"10.1.0.{i}/29" for i in (2, 3, 4, 5, 6, 2, 3)]
    assert network.reserved() == {}


def test_each_set_goes_round_by_itself(network: Network) -> None:
    assert network.add(DUAL) == ["10.1.0.2/29", "2001:db8::2/126"]
    network.call("DEL", DUAL)
    assert network.add(DUAL) == ["10.1.0.3/29", "2001:db8::3/126"]
    network.call("DEL", DUAL)
    assert network.add(DUAL) == ["10.1.0.4/29", "2001:db8::2/126"]


def test_an_exhausted_set_is_told_as_the_reference_tells_it(network: Network) -> None:
    for i in range(5):
        network.add(SMALL, f"c{i}")
    before = network.reserved()
    error = network.refusal("ADD", SMALL, "c9")
    assert (error.code, error.msg) == (NO_ADDRESS, "no IP addresses available in range set: 10.1.0.1-10.1.0.6")
    assert network.reserved() == before
    network.call("DEL", SMALL, "c3")
    assert network.add(SMALL, "c9") == ["10.1.0.5/29"]


def test_when_one_set_is_exhausted_none_gives_an_address(network: Network) -> None:
    network.add(DUAL, "c1")
    network.add(DUAL, "c2")
    before = {path.name: path.read_bytes() for path in network.directory.iterdir()}
    assert network.refusal("ADD", DUAL, "c3").code == NO_ADDRESS
    assert {path.name: path.read_bytes() for path in network.directory.iterdir()} == before


def test_when_the_second_address_cannot_be_written_the_first_is_given_back(
    network: Network, mocker: MockerFixture
) -> None:
    real = os.link
    written: list[str] = []

    def link(source: str, target: str, **options: Any) -> None:
        if "10.1.0.2" in written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(target)
        real(source, target, **options)

    mocker.patch.object(os, "link", link)
    error = network.refusal("ADD", DUAL)
    assert error.code == IO_FAILURE
    assert written == ["origin", "10.1.0.2"]
    assert network.reserved() == {}


@pytest.mark.parametrize("function", ["write", "pwrite", "link"])
def test_a_full_disk_leaves_no_reservation(function: str, network: Network, mocker: MockerFixture) -> None:
    real = getattr(os, function)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    mocker.patch.object(os, function, full)
    error = network.refusal("ADD", DUAL)
    assert error.code == IO_FAILURE
    assert str(network.directory) in error.msg
    assert "No space left on device; free some space there" in error.msg
    assert network.reserved() == {}
    mocker.patch.object(os, function, real)
    assert len(network.add(DUAL)) == 2


def test_a_second_add_of_an_attachment_is_refused_and_changes_nothing(network: Network) -> None:
    network.add(SMALL)
    before = {path.name: path.read_bytes() for path in network.directory.iterdir()}
    for options in ({}, {"cni_args": "IP=10.1.0.6"}):
        error = network.refusal("ADD", SMALL, **options)
        assert error.code == ALREADY_EXISTS
        holder = f"container c1 interface eth0 ({network.directory}/10.1.0.2)"
        assert f"10.1.0.2 is held by {holder} already" in error.msg
        assert "send DEL before another ADD" in error.msg
    assert {path.name: path.read_bytes() for path in network.directory.iterdir()} == before


def test_another_interface_of_the_container_gets_an_address_of_its_own(network: Network) -> None:
    assert network.add(SMALL) == ["10.1.0.2/29"]
    assert network.add(SMALL, ifname="eth1") == ["10.1.0.3/29"]
    network.call("DEL", SMALL)
    assert network.reserved() == {"10.1.0.3": "c1\r\neth1"}


def test_reservations_of_ranges_that_were_since_changed_do_not_count(network: Network) -> None:
    network.add({"subnet": "10.9.0.0/16"})
    assert network.add(SMALL) == ["10.1.0.2/29"]
    network.call("DEL", SMALL)
    assert network.reserved() == {}


def test_files_of_others_are_taken_addresses(network: Network) -> None:
    network.put("10.1.0.2", "c7\r\neth0")
    network.put("10.1.0.3", "c8")
    network.put("10.1.0.4", "?")
    network.put("last_reserved_ip.0", "10.1.0.1")
    assert network.add(SMALL) == ["10.1.0.5/29"]


def test_files_that_are_no_reservations_are_neither_counted_nor_touched(network: Network) -> None:
    for name in ("notes", "10.1.0.2.bak", "::ffff:10.1.0.2"):
        network.put(name, "c1\r\neth0")
    assert network.add(SMALL) == ["10.1.0.2/29"]
    network.call("DEL", SMALL)
    assert set(network.reserved()) == {"notes", "10.1.0.2.bak", "::ffff:10.1.0.2"}


# Requested addresses


@pytest.mark.parametrize(
    "options",
    [
        {"runtimeConfig": {"ips": ["10.1.0.5/29"]}},
        {"args": {"cni": {"ips": ["10.1.0.5"]}}},
        {"cni_args": "IP=10.1.0.5"},
    ],
    ids=["runtimeConfig", "args", "CNI_ARGS"],
)
def test_a_requested_address_is_given_and_the_other_sets_go_on(options: dict[str, Any], network: Network) -> None:
    assert network.add(DUAL, **options) == ["10.1.0.5/29", "2001:db8::2/126"]
    assert network.add(DUAL, "c2") == ["10.1.0.6/29", "2001:db8::3/126"]


def test_addresses_may_be_requested_of_every_set_in_any_order(network: Network) -> None:
    ips = ["2001:db8::3", "10.1.0.4", "10.1.0.4/29"]
    assert network.add(DUAL, runtimeConfig={"ips": ips}) == ["10.1.0.4/29", "2001:db8::3/126"]


def test_a_requested_address_that_is_taken_names_its_holder(network: Network) -> None:
    network.add(SMALL)
    network.put("10.1.0.4", "c7")
    error = network.refusal("ADD", SMALL, "c2", cni_args="IP=10.1.0.2")
    assert error.code == ALREADY_EXISTS
    holder = f"container c1 interface eth0 ({network.directory}/10.1.0.2)"
    assert f"requested address 10.1.0.2 is held by {holder}" in error.msg
    assert "held by container c7 (" in network.refusal("ADD", SMALL, "c2", cni_args="IP=10.1.0.4").msg
    assert set(network.reserved()) == {"10.1.0.2", "10.1.0.4"}


@pytest.mark.parametrize(
    ("ips", "said"),
    [
        (["10.1.0.1"], "requested address 10.1.0.1 is the gateway of 10.1.0.0/29"),
        (["10.1.0.7"], "requested address 10.1.0.7 is in none of the range sets (10.1.0.1-10.1.0.6; 2001:db8::1-"),
        (["10.2.0.5"], "requested address 10.2.0.5 is in none of the range sets"),
        (["::a01:2"], "requested address ::a01:2 is in none of the range sets"),
        (["10.1.0.2", "10.1.0.3"], "10.1.0.2 and 10.1.0.3 are requested of one range set; it gives one"),
        (["10.1.0.2", "2001:db9::2"], "requested address 2001:db9::2 is in none of the range sets"),
    ],
)
def test_a_request_that_no_set_can_fill_is_refused(ips: list[str], said: str, network: Network) -> None:
    error = network.refusal("ADD", DUAL, runtimeConfig={"ips": ips})
    assert error.code == INVALID_CONFIG
    assert said in error.msg
    assert not network.data_dir.exists()


# resolvConf


def test_the_resolv_conf_becomes_the_dns_of_the_result(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"nameserver 10.1.0.1\nsearch a.example \xff\n")
    dns = network.call("ADD", {**SMALL, "resolvConf": str(path)})["dns"]
    assert dns == {"nameservers": ["10.1.0.1"], "search": ["a.example", "\ufffd"]}


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device"])
def test_a_resolv_conf_that_cannot_be_read_reserves_nothing(kind: str, network: Network, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    if kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "fifo":
        os.mkfifo(path)
        writer = os.open(path, os.O_RDWR)  # held by a writer that never writes, for as long as the test would wait
        ender = threading.Timer(2, os.close, [writer])
        ender.start()
    error = network.refusal("ADD", {**SMALL, "resolvConf": str(path)})
    if kind == "fifo":
        ender.cancel()
        ender.join()
        os.close(writer)
    assert error.code == IO_FAILURE
    assert error.msg.startswith(f"ipam.resolvConf: {path} cannot be read: ")
    assert not network.data_dir.exists()


# DEL


def test_del_frees_all_addresses_of_the_attachment_and_may_be_repeated(network: Network) -> None:
    network.add(DUAL)
    network.add(DUAL, "c2")
    for _ in range(3):
        assert network.call("DEL", DUAL) is None
        assert network.reserved() == {"10.1.0.3": "c2\r\neth0", "2001:db8::3": "c2\r\neth0"}
    assert (network.directory / "lock").exists()
    assert (network.directory / "last_reserved_ip.0").read_text() == "10.1.0.3"


def test_del_frees_addresses_of_files_that_hold_the_id_alone(network: Network) -> None:
    network.put("10.1.0.2", "c1")
    network.put("10.1.0.3", "c1\n")
    network.put("10.1.0.4", "c11")
    network.put("10.1.0.5", "c1\r\neth1")
    assert network.refusal("ADD", SMALL).code == ALREADY_EXISTS
    network.call("DEL", SMALL)
    assert set(network.reserved()) == {"10.1.0.4", "10.1.0.5"}


def test_del_of_a_network_that_was_never_used_makes_nothing(network: Network, tmp_path: Path) -> None:
    assert network.call("DEL", SMALL) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ipam", "keys"),
    [
        ({}, {}),
        ({"subnet": "nonsense", "ranges": 5, "routes": {}, "resolvConf": "/missing"}, {}),
        (SMALL, {"runtimeConfig": 5, "args": "x", "prevResult": []}),
        (SMALL, {"cni_args": "nonsense"}),
        ({"subnet": "10.9.0.0/16"}, {}),
    ],
    ids=["no-ranges", "broken", "broken-around", "cni-args", "changed"],
)
def test_del_works_with_a_configuration_that_is_broken_by_now(
    ipam: dict[str, Any], keys: dict[str, Any], network: Network
) -> None:
    network.add(SMALL)
    network.call("DEL", ipam, **keys)
    assert network.reserved() == {}


def test_del_frees_what_it_can_and_tells_the_rest(network: Network, mocker: MockerFixture) -> None:
    network.add(DUAL)
    real = store.Store.release
    refused: list[str] = []

    def release(self: store.Store, ip: IP) -> None:
        if not refused:
            refused.append(str(ip))
            raise CNIError(IO_FAILURE, f"{ip} cannot be released")
        real(self, ip)

    mocker.patch.object(store.Store, "release", release)
    error = network.refusal("DEL", DUAL)
    assert (error.code, error.msg) == (IO_FAILURE, f"{refused[0]} cannot be released")
    assert list(network.reserved()) == refused


# CHECK


def test_check_passes_for_the_result_of_add(network: Network) -> None:
    for version in ("0.4.0", "1.0.0", "1.1.0"):
        result = network.call("ADD", DUAL, cniVersion=version)
        assert network.call("CHECK", DUAL, cniVersion=version, prevResult=result) is None
        network.call("DEL", DUAL)


def test_check_passes_for_files_that_hold_the_id_alone(network: Network) -> None:
    network.put("10.1.0.2", "c1")
    assert network.call("CHECK", SMALL, prevResult={"ips": [{"address": "10.1.0.2/29"}]}) is None


def test_check_passes_over_addresses_of_other_plugins(network: Network) -> None:
    network.add(SMALL)
    ips = [{"address": "10.1.0.2/29"}, {"address": "192.0.2.5/24"}]
    assert network.call("CHECK", SMALL, prevResult={"ips": ips}) is None


def test_check_without_prev_result_wants_some_reservation(network: Network) -> None:
    network.add(SMALL)
    assert network.call("CHECK", SMALL) is None
    assert network.refusal("CHECK", SMALL, "c2").code == CHECK_FAILED


def test_check_names_what_is_missing(network: Network) -> None:
    result = network.call("ADD", DUAL)
    (network.directory / "2001:db8::2").unlink()
    error = network.refusal("CHECK", DUAL, prevResult=result)
    assert error.code == CHECK_FAILED
    assert "container c1 interface eth0 has no reservation of 2001:db8::2 in" in error.msg
    assert "10.1.0.2" not in error.msg
    assert network.refusal("CHECK", DUAL, ifname="eth1", prevResult=result).code == CHECK_FAILED
    assert network.refusal("CHECK", DUAL, "c2", prevResult=result).code == CHECK_FAILED


def test_check_of_a_network_that_was_never_used_makes_nothing(network: Network, tmp_path: Path) -> None:
    assert network.refusal("CHECK", SMALL, prevResult={}).code == CHECK_FAILED
    assert list(tmp_path.iterdir()) == []


def test_check_refuses_a_prev_result_that_is_none(network: Network) -> None:
    network.add(SMALL)
    error = network.refusal("CHECK", SMALL, prevResult={"ips": [{"address": 5}]})
    assert error.code == DECODING_FAILURE
    assert "prevResult.ips[0].address: must be a string, not 5" in error.msg


# All three


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_lock_held_by_another_process_means_try_again_later(
    command: str, network: Network, mocker: MockerFixture
) -> None:
    mocker.patch.object(store, "LOCK_BOUND", 0.1)
    with held_elsewhere(network.data_dir):
        error = network.refusal(command, SMALL)
    assert error.code == TRY_AGAIN_LATER
    assert str(network.directory / "lock") in error.msg


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_data_dir_that_is_a_file_is_named(command: str, network: Network) -> None:
    network.data_dir.write_text("a file")
    error = network.refusal(command, SMALL)
    assert error.code == IO_FAILURE
    assert str(network.data_dir) in error.msg
    assert network.data_dir.read_text() == "a file"


DEEP = '{"a":' * 300 + "[" * 300 + "]" * 300 + "}" * 300
VALUES = ("null", "true", "0", "-1", "1.5", "NaN", "1e999", "9" * 4000, '""', '"x"', '"\\ud800"', '"\\u0000"', '"/"')
CONTAINERS = ("[]", "{}", "[[]]", "[{}]", "[[[]]]", "[[{}]]", "[null]", '["x"]', '[{"subnet": 5}]', DEEP)
KEYS = (
    "cniVersion",
    "name",
    "ipam",
    *(f"ipam.{key}" for key in ("subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "resolvConf")),
    *("runtimeConfig", "runtimeConfig.ips", "runtimeConfig.ipRanges", "args", "args.cni", "args.cni.ips"),
    *("prevResult", "prevResult.ips", "prevResult.interfaces", "prevResult.routes", "prevResult.dns"),
)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_any_key_is_unforeseen(command: str, key: str, tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(data_dir, "DEFAULT_DATA_DIR", str(tmp_path / "default"))
    for value in VALUES + CONTAINERS:
        document: dict[str, Any] = {"cniVersion": "1.0.0", "name": "mynet", "ipam": {**SMALL, "dataDir": str(tmp_path)}}
        *parents, last = key.split(".")
        inner = document
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = "PLACE"
        stdin = json.dumps(document).replace('"PLACE"', value).encode()
        status, output = answer(PLUGIN, call_environment(command), lambda stdin=stdin: stdin)  # type: ignore[misc]
        reply = json.loads(output) if output else {}
        assert reply.get("code") != INTERNAL, (value[:80], reply)
        assert (status == 0) != ("code" in reply), (value[:80], reply)
        if status == 0 and command == "ADD":
            assert answer(PLUGIN, call_environment("DEL"), lambda stdin=stdin: stdin) == (0, b"")  # type: ignore[misc]
    assert not list(tmp_path.rglob("10.1.0.*"))


def test_the_commands_of_this_version() -> None:
    assert dict(PLUGIN.commands) == {
        "ADD": commands.add,
        "DEL": commands.delete,
        "CHECK": commands.check,
        "STATUS": commands.status,
        "GC": commands.collect,
    }
