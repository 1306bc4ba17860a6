"""Source NAT, seen from a machine outside that has no route back to the containers."""

from typing import Any

import pytest

from tests.kit.host import Host
from tests.kit.runtime import (
    HOST_ADDRESSES,
    OUTSIDE,
    OUTSIDE_ADDRESSES,
    Runtime,
    addresses_of,
    connect_outside,
    find_source,
)

pytestmark = pytest.mark.kernel

PORT = 8080
BOTH_FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def network(number: int, **keys: Any) -> dict[str, Any]:
    """A dual-stack network with its own bridge and subnets."""
    ranges = [[{"subnet": f"10.{number}.0.0/16"}], [{"subnet": f"fd00:{number}::/64"}]]
    return {
        "cniVersion": "1.0.0",
        "name": f"net{number}",
        "type": "cni-bridge",
        "bridge": f"br{number}",
        "isDefaultGateway": True,
        "ipMasq": True,
        "ipam": {"type": "cni-ipam", "ranges": ranges},
        **keys,
    }


def address(result: Any, version: int) -> str:
    return addresses_of(result)[0 if version == 4 else 1]


@BOTH_FAMILIES
def test_outside_sees_the_address_of_the_host(bridge: Runtime, version: int) -> None:
    connect_outside(bridge.host)
    bridge.add("c1", network(1))
    outside = OUTSIDE_ADDRESSES[version]
    assert bridge.host.ping(outside, "c1")
    assert find_source(bridge.host, "c1", OUTSIDE, (outside, PORT)) == HOST_ADDRESSES[version]


@BOTH_FAMILIES
def test_an_exempt_network_sees_the_address_of_the_container(bridge: Runtime, version: int) -> None:
    connect_outside(bridge.host)
    result = bridge.add("c1", network(1))
    subnet, outside = {4: "10.1.0.0/16", 6: "fd00:1::/64"}[version], OUTSIDE_ADDRESSES[version]
    bridge.host.run("ip", "-n", OUTSIDE, "route", "add", subnet, "via", HOST_ADDRESSES[version])
    bridge.host.run("nft", f'add element inet pycni exempt{version} {{ {outside} comment "node2" }}')
    assert find_source(bridge.host, "c1", OUTSIDE, (outside, PORT)) == address(result, version)
    bridge.add("c2", network(1))
    assert find_source(bridge.host, "c2", OUTSIDE, (outside, PORT)) == address(bridge.results["c2"], version)


@BOTH_FAMILIES
def test_without_masquerading_no_answer_finds_its_way_back(bridge: Runtime, version: int) -> None:
    connect_outside(bridge.host)
    bridge.add("c1", network(1, ipMasq=False))
    assert not bridge.host.ping(OUTSIDE_ADDRESSES[version], "c1")
    assert bridge.host.nft() == []


@BOTH_FAMILIES
def test_own_subnet_sees_the_address_of_the_container(bridge: Runtime, version: int) -> None:
    # br_netfilter takes bridged packets through the same chains as routed ones, so this is a matter of the rules
    first, second = bridge.add("c1", network(1)), bridge.add("c2", network(1))
    target = (address(second, version), PORT)
    assert find_source(bridge.host, "c1", "c2", target) == address(first, version)


@BOTH_FAMILIES
def test_host_sees_the_address_of_the_container(bridge: Runtime, version: int) -> None:
    result = bridge.add("c1", network(1))
    gateway = {4: "10.1.0.1", 6: "fd00:1::1"}[version]
    assert find_source(bridge.host, "c1", None, (gateway, PORT)) == address(result, version)


@BOTH_FAMILIES
def test_another_subnet_of_the_host_sees_the_host(bridge: Runtime, version: int) -> None:
    bridge.add("c1", network(1))
    other = bridge.add("c2", network(2, ipMasq=False))
    gateway = {4: "10.2.0.1", 6: "fd00:2::1"}[version]
    assert find_source(bridge.host, "c1", "c2", (address(other, version), PORT)) == gateway


@BOTH_FAMILIES
def test_network_without_masquerading_stays_unmasqueraded_beside_one_with(bridge: Runtime, version: int) -> None:
    first, other = bridge.add("c1", network(1)), bridge.add("c2", network(2, ipMasq=False))
    source = find_source(bridge.host, "c2", "c1", (address(first, version), PORT))
    assert source == address(other, version)


def test_deleted_container_leaves_the_masquerading_of_others(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    for name in ("c1", "c2"):
        bridge.add(name, network(1))
    bridge.delete("c1", network(1))
    for outside in OUTSIDE_ADDRESSES.values():
        assert bridge.host.ping(outside, "c2")
    bridge.check("c2", network(1))
    bridge.delete("c2", network(1))
    assert bridge.host.nft() == []


def test_networks_of_the_same_subnet_keep_their_masquerading_each(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    other = {**network(1), "name": "net2", "bridge": "br2"}
    first, second = bridge.add("c1", network(1)), bridge.add("c2", other)
    assert [address(first, version) for version in (4, 6)] == [address(second, version) for version in (4, 6)]
    bridge.check("c1", network(1))
    bridge.check("c2", other)
    bridge.delete("c2", other)
    bridge.host.run("ip", "link", "delete", "br2")  # routes of two bridges to one subnet are another matter
    bridge.check("c1", network(1))
    for version in (4, 6):
        outside = (OUTSIDE_ADDRESSES[version], PORT)
        assert find_source(bridge.host, "c1", OUTSIDE, outside) == HOST_ADDRESSES[version]
    bridge.delete("c1", network(1))
    assert bridge.host.nft() == []


def test_rules_saved_and_loaded_by_nft_pass_check_and_work(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    bridge.add("c1", network(1, macspoofchk=True))
    saved = bridge.host.run("nft", "list", "ruleset").stdout
    bridge.host.run("nft", "flush", "ruleset")
    bridge.host.run("nft", "-f", "-", input=saved)
    bridge.check("c1", network(1, macspoofchk=True))
    for version in (4, 6):
        outside = (OUTSIDE_ADDRESSES[version], PORT)
        assert find_source(bridge.host, "c1", OUTSIDE, outside) == HOST_ADDRESSES[version]


def test_delete_without_namespace_and_previous_result_takes_the_rules_away(bridge: Runtime) -> None:
    bridge.add("c1", network(1))
    bridge.host.remove_container("c1")
    outcome = bridge.call("DEL", "c1", network(1), netns="")
    assert outcome == (0, None, "", "")
    assert bridge.host.nft() == []
    assert bridge.host.reservations("net1") == []


def _rules_walked(host: Host) -> int:
    """Rules in chains that a hook of the kernel starts from: what every connection walks."""
    objects = host.nft()
    hooked = {entry["chain"]["name"] for entry in objects if "hook" in entry.get("chain", {})}
    return sum(1 for entry in objects if entry.get("rule", {}).get("chain") in hooked)


def test_rules_that_every_connection_walks_do_not_grow_with_the_containers(bridge: Runtime) -> None:
    bridge.add("c1", network(1))
    alone = _rules_walked(bridge.host)
    for name in ("c2", "c3", "c4"):
        bridge.add(name, network(1))
    bridge.add("c5", network(2))
    assert alone > 0
    assert _rules_walked(bridge.host) == alone


def test_other_tables_of_the_host_stay_as_they_are(bridge: Runtime) -> None:
    host = bridge.host
    host.run("nft", "add table inet filter { chain forward { type filter hook forward priority 0; policy accept; }; }")
    before = host.nft()
    bridge.add("c1", network(1))
    assert [entry for entry in host.nft() if entry in before] == before
    bridge.delete("c1", network(1))
    assert host.nft() == before
