"""Addresses that the host itself has: whatever state their interface is in, no container gets them."""

import json
from typing import Any

import pytest

from cni_ipam.host_addresses import HostAddresses
from cni_protocol.address import parse_ip
from tests.kit.host import Host, Outcome

pytestmark = pytest.mark.kernel

FOUR, SIX = {"subnet": "10.1.0.0/29"}, {"subnet": "fd00::/125"}  # give .2 to .6, ::2 to ::7


def add(host: Host, bin_dir: str, ipam: Any, name: str = "c1", args: str = "") -> Outcome:
    """ADD of cni-ipam alone."""
    config = {"cniVersion": "1.0.0", "name": "mynet", "type": "cni-ipam", "ipam": {"type": "cni-ipam", **ipam}}
    executable = f"{bin_dir}/cni-ipam"
    return host.cni("ADD", config, executable=executable, container_id=name, netns="/run/netns/x", args=args)


def addresses(outcome: Outcome) -> list[str]:
    assert outcome.status == 0, outcome
    return [entry["address"].partition("/")[0] for entry in outcome.document["ips"]]


def test_this_process_finds_what_ip_shows() -> None:
    host = HostAddresses()
    assert parse_ip("127.0.0.1") in host
    assert parse_ip("192.0.2.1") not in host
    assert "127.0.0.1" not in host


STATES = {
    "up": "ip address add {ip} dev port nodad; ip link set port up",
    "never-up": "ip address add {ip} dev port nodad",
    "down-again": "ip link set port up; ip address add {ip} dev port nodad; ip link set port down",
    "tentative": "ip link set port up; ip address add {ip} dev port",
    "nonlocal-bind": (
        "sysctl --quiet --write net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1; "
        "ip address add {ip} dev port nodad"
    ),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize(("ipam", "ip"), [(FOUR, "10.1.0.3/24"), (SIX, "fd00::3/64")], ids=["IPv4", "IPv6"])
def test_no_container_gets_an_address_of_the_host(host: Host, bin_dir: str, state: str, ipam: Any, ip: str) -> None:
    keep = "sysctl --quiet --write net.ipv6.conf.port.keep_addr_on_down=1"
    host.run("sh", "-ec", f"ip link add port type bridge; {keep}; {state.format(ip=ip)}")
    shown = json.loads(host.run("ip", "-j", "address", "show", "dev", "port").stdout)[0]["addr_info"]
    own = ip.partition("/")[0]
    assert own in [entry["local"] for entry in shown]
    given: list[str] = []
    while (outcome := add(host, bin_dir, ipam, f"c{len(given)}")).status == 0:
        given += addresses(outcome)
    assert outcome.document["code"] == 101
    prefix = own[:-1]
    assert given == [f"{prefix}{i}" for i in (2, 4, 5, 6, *((7,) if ":" in own else ()))]
    assert f"cni-ipam: {own} is that of an interface of this host: not given out" in outcome.stderr


def test_a_requested_address_of_the_host_is_refused(host: Host, bin_dir: str) -> None:
    host.run("ip", "address", "add", "10.1.0.3/24", "dev", "lo")
    outcome = add(host, bin_dir, FOUR, args="IP=10.1.0.3")
    assert (outcome.status, outcome.document["code"]) == (1, 102)
    assert "requested address 10.1.0.3 is that of an interface of this host" in outcome.document["msg"]
    assert addresses(add(host, bin_dir, FOUR, args="IP=10.1.0.4")) == ["10.1.0.4"]


def test_the_broadcast_address_and_the_peer_of_an_interface_are_not_given_out(host: Host, bin_dir: str) -> None:
    host.run("ip", "address", "add", "10.1.0.20/24", "broadcast", "10.1.0.2", "dev", "lo")
    host.run("ip", "address", "add", "192.0.2.1", "peer", "10.1.0.3", "dev", "lo")
    assert addresses(add(host, bin_dir, FOUR)) == ["10.1.0.4"]


def test_many_addresses_of_the_host_are_all_found(host: Host, bin_dir: str) -> None:
    lines = [f"address add 10.1.{i >> 8}.{i & 255}/16 dev lo" for i in range(2, 5000)]
    host.run("ip", "-batch", "-", input="\n".join(lines))
    outcome = add(host, bin_dir, {"subnet": "10.1.0.0/16"})
    assert addresses(outcome) == ["10.1.19.136"]


def test_status_knows_that_an_address_of_the_host_is_none_to_give(host: Host, bin_dir: str) -> None:
    config = {"cniVersion": "1.1.0", "name": "mynet", "type": "cni-ipam", "ipam": {"type": "cni-ipam", **FOUR}}

    def status() -> Outcome:
        return host.cni("STATUS", config, executable=f"{bin_dir}/cni-ipam")

    for number in range(3, 7):
        host.run("ip", "address", "add", f"10.1.0.{number}/32", "dev", "lo")
    assert (status().status, status().stderr) == (0, "")
    assert addresses(add(host, bin_dir, FOUR)) == ["10.1.0.2"]
    outcome = status()
    assert (outcome.status, outcome.document["code"]) == (1, 50)
    assert "no IP addresses available in range set" in outcome.document["msg"]
