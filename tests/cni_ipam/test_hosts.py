"""Whose reservations are whose: other instances of this boot, other hosts, and versions before."""

from typing import Any

import pytest

from cni_ipam.origin import NAME as ORIGIN
from cni_protocol.errors import ALREADY_EXISTS, CHECK_FAILED, NO_ADDRESS, NOT_AVAILABLE
from tests.cni_ipam import Network, age, looks, restore, snapshot
from tests.cni_ipam.conftest import Elsewhere, boot_name

SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6
POOL = [f"10.1.0.{i}" for i in range(2, 7)]
FIRST, SECOND = boot_name("boot1"), boot_name("boot1", instance="8")
READY: dict[str, Any] = {"cniVersion": "1.1.0"}


def directories(network: Network) -> set[str]:
    return {path.name for path in (network.data_dir / ".pycni" / "mynet").iterdir()}


def records_of(network: Network, boot: str) -> set[str]:
    names = {path.name for path in (network.data_dir / ".pycni" / "mynet" / boot).iterdir()}
    return names - {"index", ORIGIN}


# Other instances of the same boot: everything is alive


def test_a_node_that_is_restarted_in_the_same_boot_keeps_its_reservations_until_del(
    network: Network, elsewhere: Elsewhere
) -> None:
    assert network.exhaust(SMALL) == POOL
    elsewhere.go(instance="8")
    assert network.refusal("STATUS", SMALL, **READY).code == NOT_AVAILABLE
    assert network.refusal("ADD", SMALL, "new").code == NO_ADDRESS
    network.call("DEL", SMALL, "exhausting2")
    assert network.add(SMALL, "new") == ["10.1.0.4/29"]
    assert records_of(network, FIRST) == {f"10.1.0.{i},mynet,exhausting{i - 2},eth0" for i in (2, 3, 5, 6)}
    assert records_of(network, SECOND) == {"10.1.0.4,mynet,new,eth0"}
    assert not looks(network)


@pytest.mark.parametrize("indexed", [True, False])
def test_gc_of_one_instance_leaves_those_of_another(network: Network, elsewhere: Elsewhere, indexed: bool) -> None:
    network.add(SMALL, "theirs")
    network.add(SMALL, "c1")
    elsewhere.go(instance="8")
    network.add(SMALL, "ours")
    network.add(SMALL, "c1")
    if not indexed:
        network.data_dir.joinpath(".pycni", "mynet", SECOND, "index").unlink()
    network.collect([])
    assert network.reserved() == {"10.1.0.2": "theirs\r\neth0", "10.1.0.3": "c1\r\neth0"}
    elsewhere.go(instance="7")
    network.collect([("c1", "eth0")])
    assert network.reserved() == {"10.1.0.3": "c1\r\neth0"}


def test_one_that_says_not_whose_it_is_goes_when_a_valid_attachment_has_another_elsewhere(
    network: Network, elsewhere: Elsewhere
) -> None:
    network.add(SMALL, "c1")
    elsewhere.go(instance="8")
    network.put("10.1.0.5", "??")
    network.collect([("c1", "eth0")])
    assert set(network.reserved()) == {"10.1.0.2"}


def test_the_same_attachment_in_two_instances_has_an_address_in_each(network: Network, elsewhere: Elsewhere) -> None:
    """And each instance gives back its own first."""
    assert network.add(SMALL, "c1") == ["10.1.0.2/29"]
    elsewhere.go(instance="8")
    assert network.add(SMALL, "c1") == ["10.1.0.3/29"]
    assert network.refusal("ADD", SMALL, "c1").code == ALREADY_EXISTS
    network.call("DEL", SMALL, "c1")
    assert set(network.reserved()) == {"10.1.0.2"}
    network.call("CHECK", SMALL, "c1", prevResult={"ips": [{"address": "10.1.0.2/29"}]})
    network.call("DEL", SMALL, "c1", ifname="eth1")
    assert set(network.reserved()) == {"10.1.0.2"}
    network.call("DEL", SMALL, "c1")
    assert network.reserved() == {}
    assert records_of(network, FIRST) == records_of(network, SECOND) == set()
    assert network.refusal("CHECK", SMALL, "c1").code == CHECK_FAILED


def test_instances_take_turns_and_no_address_is_given_twice(network: Network, elsewhere: Elsewhere) -> None:
    given = []
    for turn in range(5):
        elsewhere.go(instance=str(turn % 2))
        given += network.add(SMALL, f"c{turn}")
    assert sorted(given) == [f"{ip}/29" for ip in POOL]
    for turn in range(5):
        elsewhere.go(instance=str(turn % 3))
        network.call("DEL", SMALL, f"c{turn}")
    assert network.reserved() == {}


def test_all_instances_of_a_boot_are_over_with_it(network: Network, elsewhere: Elsewhere) -> None:
    network.add(SMALL, "c1")
    elsewhere.go(instance="8")
    network.add(SMALL, "c2")
    elsewhere.go("boot2", instance="7")
    assert sorted(network.exhaust(SMALL)) == POOL
    assert directories(network) == {boot_name("boot2"), "previous"}


# Other hosts: nothing of theirs is of the past


@pytest.mark.parametrize("kernel", ["boot1", "boot2"], ids=["same-kernel", "other-kernel"])
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_what_another_host_reserved_stays_taken(
    command: str, kernel: str, network: Network, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str]
) -> None:
    network.add(SMALL, "c1")
    network.add(SMALL, "theirs")
    before = snapshot(network.data_dir)
    elsewhere.go(kernel, "machine2")
    if command == "ADD":
        assert network.add(SMALL, "c1") == ["10.1.0.4/29"]
    elif command == "CHECK":
        assert network.refusal("CHECK", SMALL, "c1").code == CHECK_FAILED
    elif command == "GC":
        network.collect([])
    else:
        network.call("DEL", SMALL, "c1", prevResult={"ips": [{"address": "10.1.0.2/29"}]})
    said = capsys.readouterr().err
    assert said.count("another host's") == 1
    assert f"2 reservations at {network.directory} are another host's, and stay taken" in said
    assert f".pycni/mynet/{FIRST}" in said
    after = snapshot(network.data_dir)
    for name in ("mynet/10.1.0.2", "mynet/10.1.0.3", f".pycni/mynet/{FIRST}/10.1.0.3,mynet,theirs,eth0"):
        assert after[name] == before[name]
    network.call("DEL", SMALL, "c1")
    assert set(network.reserved()) == {"10.1.0.2", "10.1.0.3"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"??", b"ours\r\neth0"])
def test_a_damaged_reservation_of_another_host_is_neither_removed_nor_taken_over(
    content: bytes, network: Network, elsewhere: Elsewhere
) -> None:
    network.add(SMALL, "theirs")
    (network.directory / "10.1.0.2").write_bytes(content)
    elsewhere.go("boot2", "machine2")
    network.collect([("ours", "eth0")])
    network.call("DEL", SMALL, "ours")
    assert network.reserved() == {"10.1.0.2": content.decode()}
    assert sorted(network.exhaust(SMALL)) == POOL[1:]


@pytest.mark.parametrize("instance", ["7", "8"], ids=["same-number", "other-number"])
def test_two_hosts_take_turns_over_their_reboots_and_no_address_is_given_twice(
    instance: str, network: Network, elsewhere: Elsewhere
) -> None:
    living: dict[tuple[str, str], str] = {}
    boots = {"machine1": "a1", "machine2": "b1"}
    for turn in range(24):
        machine = f"machine{turn % 2 + 1}"
        if turn % 6 == 5:  # a reboot: all containers of that host are gone
            boots[machine] += "x"
            living = {key: address for key, address in living.items() if key[0] != machine}
        elsewhere.go(boots[machine], machine, "7" if turn % 2 else instance)
        names = [name for host, name in living if host == machine]
        if len(names) == 2:
            network.call("DEL", SMALL, names[0])
            del living[machine, names[0]]
        living[machine, f"c{turn}"] = network.add(SMALL, f"c{turn}")[0].partition("/")[0]
        network.collect([(name, "eth0") for host, name in living if host == machine])
        assert len(set(living.values())) == len(living)
        held = {content.partition("\r\n")[0]: ip for ip, content in network.reserved().items()}
        assert {name: address for (_, name), address in living.items()}.items() <= held.items()


def test_a_pool_that_another_host_exhausts_says_so_until_the_admin_gives_it_up(
    network: Network, elsewhere: Elsewhere
) -> None:
    network.exhaust(SMALL)
    elsewhere.go("boot2", "machine2")
    network.call("DEL", SMALL, "nobody")
    theirs = network.data_dir / ".pycni" / "mynet" / FIRST
    for command, code in (("STATUS", NOT_AVAILABLE), ("ADD", NO_ADDRESS)):
        error = network.refusal(command, SMALL, "new", **READY)
        assert error.code == code
        assert f"another host count as taken (its records are in {theirs}; when" in error.msg
        assert "rename that directory to `gone`" in error.msg
    theirs.rename(theirs.with_name("gone"))
    assert network.call("STATUS", SMALL, **READY) is None
    assert network.exhaust(SMALL) == POOL
    error = network.refusal("ADD", SMALL, "new")
    assert (error.code, error.msg) == (NO_ADDRESS, "no IP addresses available in range set: 10.1.0.1-10.1.0.6")


@pytest.mark.parametrize("links", [True, False], ids=["with-links", "without-links"])
def test_a_directory_that_came_from_another_host_keeps_its_reservations(
    links: bool, network: Network, elsewhere: Elsewhere
) -> None:
    """A cloned machine that got another identity, or a backup of another host."""
    network.add(SMALL, "theirs")
    restore(network.data_dir, network.data_dir.with_name("backup"), links=links)
    network.data_dir = network.data_dir.with_name("backup")
    network.directory = network.data_dir / "mynet"
    elsewhere.go("boot2", "machine2")
    assert network.add(SMALL, "theirs") == ["10.1.0.3/29"]
    network.call("DEL", SMALL, "theirs")
    network.collect([])
    assert network.reserved() == {"10.1.0.2": "theirs\r\neth0"}
    assert sorted(network.exhaust(SMALL)) == POOL[1:]


@pytest.mark.parametrize("machine", ["machine1", ""], ids=["known", "nobody-knows"])
def test_a_host_that_is_the_same_or_known_on_neither_side_has_its_past(
    machine: str, network: Network, elsewhere: Elsewhere
) -> None:
    elsewhere.go(machine=machine)
    network.exhaust(SMALL)
    elsewhere.go("boot2", machine)
    assert network.exhaust(SMALL) == POOL


# An update on a running host


@pytest.mark.parametrize("name", ["boot1,100,7", "boot1,100,", "boot1"])
def test_what_the_version_before_reserved_in_this_boot_is_alive(
    name: str, network: Network, elsewhere: Elsewhere
) -> None:
    network.add(SMALL, "c1")
    network.add(SMALL, "c" * 150)
    age(network, name)
    network.directory.joinpath("10.1.0.2").write_bytes(b"")  # damaged: the old record knows whose it was
    network.collect([("c1", "eth0"), ("c" * 150, "eth0")])
    assert network.reserved() == {"10.1.0.2": "c1\r\neth0", "10.1.0.3": f"{'c' * 150}\r\neth0"}
    assert directories(network) == {FIRST}
    assert "10.1.0.2,mynet,c1,eth0" in network.records()
    assert sorted(network.exhaust(SMALL)) == POOL[2:]
    network.call("DEL", SMALL, "c" * 150)
    assert "10.1.0.3" not in network.reserved()
    assert not looks(network)


def test_what_the_version_before_reserved_elsewhere_in_this_boot_stays_with_its_instance(
    network: Network, elsewhere: Elsewhere
) -> None:
    network.add(SMALL, "c1")
    age(network, "boot1,100,9")
    network.collect([])
    assert set(network.reserved()) == {"10.1.0.2"}
    network.call("DEL", SMALL, "c1")
    assert (network.reserved(), records_of(network, "boot1,100,9")) == ({}, set())


def test_what_the_version_before_reserved_in_an_earlier_boot_is_free_and_given_to_who_had_it(
    network: Network, elsewhere: Elsewhere
) -> None:
    network.exhaust(SMALL)
    age(network, "boot1,100,7")
    elsewhere.go("boot2")
    assert network.add(SMALL, "exhausting3") == ["10.1.0.5/29"]
    assert set(network.reserved()) == {"10.1.0.5"}
