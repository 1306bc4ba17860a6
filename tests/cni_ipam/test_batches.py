"""Thousands of entries in one call: they work in time, or are refused before anything is reserved."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cni_protocol.errors import ALREADY_EXISTS, INVALID_CONFIG, NO_ADDRESS
from tests.cni_ipam import Network
from tests.cni_ipam.conftest import Elsewhere
from tests.cni_ipam.test_range_objects import many

COUNT = 10_000
SMALL = {"subnet": "10.1.0.0/29"}  # gives .2 to .6


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Much more than it takes; what is quadratic takes minutes."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < seconds


@pytest.fixture
def network(memory: Path) -> Network:
    """In memory, so that the disk is not waited for."""
    return Network(memory / "networks")


@pytest.mark.slow
def test_a_set_of_ten_thousand_ranges(network: Network) -> None:
    ipam = {"ranges": [many(COUNT)]}
    with within(10):
        assert network.add(ipam, "c1") == ["10.0.0.2/30"]
        (address,) = network.add(ipam, "c2")
        network.call("CHECK", ipam, "c2", prevResult={"ips": [{"address": address}]})
        network.call("STATUS", ipam, cniVersion="1.1.0")


def test_ten_thousand_requests_are_refused_unless_each_is_of_another_set(network: Network) -> None:
    asked = {"runtimeConfig": {"ips": [f"10.1.{i >> 8}.{i & 255}" for i in range(2, COUNT)]}}
    with within(5):
        error = network.refusal("ADD", {"subnet": "10.1.0.0/16"}, "c1", **asked)
    assert (error.code, "of one range set; it gives one" in error.msg) == (INVALID_CONFIG, True)
    assert not network.data_dir.exists()


@pytest.mark.slow
def test_an_attachment_with_a_thousand_addresses_comes_and_goes_and_comes_back(
    network: Network, elsewhere: Elsewhere
) -> None:
    ipam = {"ranges": [[entry] for entry in many(1000)]}
    ips = [entry["subnet"].partition("/")[0].rpartition(".") for entry in many(1000)]
    asked = [f"{start}.{int(last) + 2}" for start, _, last in ips]
    with within(20):
        given = network.add(ipam, "c1", runtimeConfig={"ips": asked})
        assert given == [f"{ip}/30" for ip in asked]
        assert network.refusal("ADD", ipam, "c1").code == ALREADY_EXISTS
        network.call("CHECK", ipam, "c1", prevResult={"ips": [{"address": address} for address in given]})
        elsewhere.go("boot2")
        assert network.add(ipam, "c1") == given
        network.call("DEL", ipam, "c1")
    assert (network.reserved(), network.records()) == ({}, set())


@pytest.mark.slow
def test_ten_thousand_valid_attachments(network: Network) -> None:
    network.fill(COUNT)
    with within(20):
        network.collect([(f"other{i}", "eth0") for i in range(COUNT)])
        assert len(network.reserved()) == COUNT
        network.collect([(f"other{i}", "eth0") for i in range(0, COUNT, 2)])
        assert len(network.reserved()) == COUNT // 2


@pytest.mark.slow
def test_ten_thousand_exclusions(network: Network) -> None:
    ipam = {"subnet": "10.1.0.0/16", "exclude": [f"10.1.{i >> 8}.{i & 255}" for i in range(2, COUNT)]}
    with within(10):
        assert network.add(ipam, "c1") == ["10.1.39.16/16"]
        error = network.refusal("ADD", ipam, "c2", cni_args="IP=10.1.0.5")
    assert (error.code, "10.1.0.5 is excluded" in error.msg) == (INVALID_CONFIG, True)


# What is excluded, and the smallest subnets


def test_what_is_excluded_since_stays_with_who_has_it_and_is_not_given_again(
    network: Network, elsewhere: Elsewhere
) -> None:
    assert network.add(SMALL, "c1") == ["10.1.0.2/29"]
    ipam = {**SMALL, "exclude": ["10.1.0.2", "10.1.0.5"]}
    assert network.refusal("ADD", ipam, "c1").code == ALREADY_EXISTS
    network.call("CHECK", ipam, "c1", prevResult={"ips": [{"address": "10.1.0.2/29"}]})
    assert network.exhaust(ipam) == ["10.1.0.3", "10.1.0.4", "10.1.0.6"]
    assert network.refusal("STATUS", ipam, cniVersion="1.1.0").code == 50
    elsewhere.go("boot2")
    assert network.add(ipam, "c1") == ["10.1.0.3/29"]


@pytest.mark.parametrize(
    ("subnet", "address", "gateway"),
    [
        ("10.1.0.0/31", "10.1.0.1/31", "10.1.0.0"),
        ("10.1.0.4/32", "10.1.0.4/32", None),
        ("fd00::/127", "fd00::1/127", "fd00::"),
        ("fd00::4/128", "fd00::4/128", None),
    ],
)
def test_the_smallest_subnets_give_what_they_have(
    subnet: str, address: str, gateway: str | None, network: Network
) -> None:
    (entry,) = network.call("ADD", {"subnet": subnet}, "c1")["ips"]
    assert (entry["address"], entry.get("gateway")) == (address, gateway)
    assert network.refusal("ADD", {"subnet": subnet}, "c2").code == NO_ADDRESS
    network.call("DEL", {"subnet": subnet}, "c1")
    assert network.add({"subnet": subnet}, "c2") == [address]


def test_doubts_are_said_by_add_and_stop_nobody(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    assert network.add({"subnet": "169.254.7.0/24"}) == ["169.254.7.2/24"]
    assert capsys.readouterr().err.startswith("cni-ipam: ipam.subnet: 169.254.7.1-169.254.7.254 has addresses of")
