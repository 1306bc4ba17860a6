"""Rules into the kernel, found missing, taken away: by `nft -j`; what they cost, and many processes at once."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import masquerade, portmap, spoofcheck, sync
from cni_bridge.mappings import PROTOCOLS, PortMapping
from cni_bridge.refusals import kernel_refusals
from cni_bridge.sync import (
    delete_own_rules,
    delete_rules,
    ensure_rules,
    find_missing,
    probe_rules,
)
from cni_kernel import expressions
from cni_kernel.errors import KernelError
from cni_kernel.expressions import Rules
from cni_kernel.netlink import Message, NetlinkError
from cni_kernel.nftables import Nftables
from cni_protocol.address import CIDR, parse_cidr, parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError
from tests.conftest import ROOT
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

V4, V6 = parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")
CHAIN4, CHAIN6 = "masquerade-mynet-10.1.0.0/16", "masquerade-mynet-fd00_1__/64"
BACK4, BACK6 = "portmap-mynet-10.1.0.0/16", "portmap-mynet-fd00_1__/64"
MAC = "0a:58:0a:f4:00:02"
TCP, UDP = PortMapping(8080, 80, "tcp", None), PortMapping(53, 5353, "udp", parse_ip("192.168.1.11"))
LACKS = "of nftables table pycni lacks"


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    """Every test of this file runs inside its host."""
    with host.entered():
        yield


def connect(host: Host, own: Attachment) -> None:
    """The host's end of an attachment, as far as an owner is known by it."""
    host.run("ip", "link", "add", own.host_name, "type", "bridge")
    host.run("ip", "link", "set", own.host_name, "alias", own.owner)


def attachment(container: str = "c1", network: str = "mynet") -> Attachment:
    return Attachment(network, container, "eth0")


def address(number: int) -> CIDR:
    return parse_cidr(f"10.1.{number >> 8}.{number & 255}/16")


def masquerading(own: Attachment, *addresses: CIDR) -> Rules:
    return masquerade.make_rules(own, "br0", addresses or (V4, V6))


def forwarding(own: Attachment, *mappings: PortMapping, to: tuple[CIDR, ...] = (V4, V6)) -> Rules:
    return portmap.make_rules(own, "br0", mappings or (TCP, UDP), to)


def guarding(own: Attachment) -> Rules:
    return spoofcheck.make_rules(own, MAC)


def all_rules(container: str = "c1", number: int = 5, port: int = 8080) -> list[Rules]:
    """The rules of a container with everything on; containers differ by address and host port."""
    own, cidr = attachment(container), (address(number), parse_cidr(f"fd00:1::{number:x}/64"))
    mappings = (TCP._replace(host_port=port), UDP._replace(host_port=port))
    return [masquerading(own, *cidr), forwarding(own, *mappings, to=cidr), guarding(own)]


def ensure_all(container: str = "c1", number: int = 5, port: int = 8080) -> list[Rules]:
    made = all_rules(container, number, port)
    for each in made:
        ensure_rules(each)
    return made


def rules_of(host: Host, chain: str) -> list[Any]:
    return [entry["rule"]["expr"] for entry in host.nft() if entry.get("rule", {}).get("chain") == chain]


def masqueraded(host: Host) -> dict[str, tuple[str, str]]:
    """The chain and the comment of every masqueraded address."""
    found = {}
    for entry in host.nft():
        if entry.get("map", {}).get("name") not in ("masquerade4", "masquerade6"):
            continue
        for key, verdict in entry["map"].get("elem", []):
            interface, address = key["elem"]["val"]["concat"]
            assert interface == "br0"
            found[address] = (verdict["jump"]["target"], key["elem"]["comment"])
    return found


def owners(host: Host) -> dict[str, list[str]]:
    """The comments of the elements of every set and map that is not empty."""
    found = {}
    for entry in host.nft():
        body = entry.get("map") or entry.get("set") or {}
        elements = [element[0] if isinstance(element, list) else element for element in body.get("elem", [])]
        if elements:
            found[body["name"]] = sorted(element["elem"]["comment"] for element in elements)
    return found


def chains(host: Host) -> list[str]:
    return sorted(entry["chain"]["name"] for entry in host.nft() if "chain" in entry)


def tables(host: Host) -> list[tuple[str, str]]:
    return sorted((entry["table"]["family"], entry["table"]["name"]) for entry in host.nft() if "table" in entry)


def stay(protocol: str, network: str, prefix: int) -> list[Any]:
    left = {"payload": {"protocol": protocol, "field": "daddr"}}
    return [
        {"match": {"op": "==", "left": left, "right": {"prefix": {"addr": network, "len": prefix}}}},
        {"return": None},
    ]


def exempt(protocol: str, name: str) -> list[Any]:
    left = {"payload": {"protocol": protocol, "field": "daddr"}}
    return [{"match": {"op": "==", "left": left, "right": f"@{name}"}}, {"return": None}]


def look_up(protocol: str, name: str) -> list[Any]:
    key = [{"meta": {"key": "iifname"}}, {"payload": {"protocol": protocol, "field": "saddr"}}]
    return [{"vmap": {"key": {"concat": key}, "data": f"@{name}"}}]


def content(host: Host) -> list[Any]:
    """The rule set without what changes when the same thing is put in again: handles, and the order of elements."""
    return [
        {kind: {key: sorted_elements(value) for key, value in body.items() if key != "handle"}}
        for entry in host.nft()
        for kind, body in entry.items()
    ]


def sorted_elements(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, list) and value and "elem" in str(value[0]) else value


def test_what_leaves_the_subnet_is_masqueraded_but_multicast(host: Host) -> None:
    ensure_rules(masquerading(attachment()))
    assert masqueraded(host) == {
        "10.1.0.5": (CHAIN4, "mynet,c1,eth0"),
        "fd00:1::5": (CHAIN6, "mynet,c1,eth0"),
    }
    assert rules_of(host, "postrouting") == [look_up("ip", "masquerade4"), look_up("ip6", "masquerade6")]
    subnet4, subnet6 = stay("ip", "10.1.0.0", 16), stay("ip6", "fd00:1::", 64)
    last = [{"masquerade": None}]
    assert rules_of(host, CHAIN4) == [subnet4, stay("ip", "224.0.0.0", 4), exempt("ip", "exempt4"), last]
    assert rules_of(host, CHAIN6) == [subnet6, stay("ip6", "ff00::", 8), exempt("ip6", "exempt6"), last]
    sets = {entry["set"]["name"]: entry["set"] for entry in host.nft() if "set" in entry}
    assert {name: (entry["type"], entry["flags"]) for name, entry in sets.items()} == {
        "exempt4": ("ipv4_addr", ["interval"]),
        "exempt6": ("ipv6_addr", ["interval"]),
    }
    [base] = [entry["chain"] for entry in host.nft() if entry.get("chain", {}).get("name") == "postrouting"]
    assert (base["type"], base["hook"], base["prio"]) == ("nat", "postrouting", 100)


def test_host_ports_lead_to_the_container(host: Host) -> None:
    ensure_rules(forwarding(attachment()))
    maps = {entry["map"]["name"]: entry["map"].get("elem", []) for entry in host.nft() if "map" in entry}
    read = {
        name: [(key["elem"]["val"], value, key["elem"]["comment"]) for key, value in elements]
        for name, elements in maps.items()
    }
    owner = "mynet,c1,eth0"
    ports = {entry["set"]["name"]: entry["set"]["elem"] for entry in host.nft() if entry.get("set", {}).get("elem")}
    assert {name: [entry["elem"]["val"] for entry in elements] for name, elements in ports.items()} == {
        "portmap_any_loopback": [{"concat": ["tcp", 8080]}]
    }
    assert read == {
        "portmap4": [({"concat": ["192.168.1.11", "udp", 53]}, {"concat": ["10.1.0.5", 5353]}, owner)],
        "portmap6": [],
        "portmap_any4": [({"concat": ["tcp", 8080]}, {"concat": ["10.1.0.5", 80]}, owner)],
        "portmap_any6": [({"concat": ["tcp", 8080]}, {"concat": ["fd00:1::5", 80]}, owner)],
        "portmapped4": [({"concat": ["br0", "10.1.0.5"]}, {"jump": {"target": BACK4}}, owner)],
        "portmapped6": [({"concat": ["br0", "fd00:1::5"]}, {"jump": {"target": BACK6}}, owner)],
        "portmap_waiting4": [],
        "portmap_waiting6": [],
    }
    outside, *prerouting = rules_of(host, "portmap_prerouting")
    assert outside[-1] == {"return": None}
    assert [rule[-1]["dnat"]["family"] for rule in prerouting] == ["ip", "ip", "ip6", "ip6"]
    assert [rule[-1]["dnat"]["addr"]["map"]["data"] for rule in prerouting] == [
        "@portmap4",
        "@portmap_any4",
        "@portmap6",
        "@portmap_any6",
    ]
    assert [rule[-1] for rule in rules_of(host, BACK4)] == [{"masquerade": None}] * 2
    assert [rule[-1] for rule in rules_of(host, BACK6)] == [{"masquerade": None}]


def test_a_port_is_held_to_its_mac(host: Host) -> None:
    ensure_rules(guarding(attachment()))
    port = attachment().host_name
    sets = {entry["set"]["name"]: entry["set"] for entry in host.nft() if "set" in entry}
    assert [element["elem"]["val"] for element in sets["guarded"]["elem"]] == [port]
    assert [element["elem"]["val"] for element in sets["genuine"]["elem"]] == [{"concat": [port, MAC]}]
    assert tables(host) == [("bridge", "pycni")]
    [rule] = rules_of(host, "prerouting")
    assert rule[0]["match"]["right"] == "@guarded"
    assert (rule[1]["match"]["op"], rule[1]["match"]["right"]) == ("!=", "@genuine")
    assert rule[2] == {"drop": None}


@pytest.mark.parametrize("addresses", [[V4], [V6], [V4, V6], [V4, address(77)]], ids=["v4", "v6", "both", "two of one"])
def test_ensuring_masquerading_twice_changes_nothing(host: Host, addresses: list[CIDR]) -> None:
    wanted = masquerading(attachment(), *addresses)
    ensure_rules(wanted)
    before = content(host)
    ensure_rules(wanted)
    assert content(host) == before
    assert find_missing(wanted) == []


def test_ensuring_everything_twice_changes_nothing(host: Host) -> None:
    made = ensure_all()
    before = content(host)
    ensure_all()
    assert content(host) == before
    assert [find_missing(each) for each in made] == [[], [], []]
    assert tables(host) == [("bridge", "pycni"), ("inet", "pycni")]


def test_what_a_human_changed_in_the_chains_is_set_right(host: Host) -> None:
    ensure_rules(masquerading(attachment(), V4))
    before = content(host)
    host.run("nft", f"flush chain inet pycni postrouting; add rule inet pycni {CHAIN4} counter")
    ensure_rules(masquerading(attachment("c2"), address(6)))
    host.run("nft", "delete element inet pycni masquerade4 { br0 . 10.1.0.6 }")
    assert content(host) == before


def test_an_element_that_a_vanished_container_left_gives_way(host: Host) -> None:
    ensure_rules(masquerading(attachment("gone"), V4))
    ensure_rules(masquerading(attachment("c1"), V4))
    assert masqueraded(host) == {"10.1.0.5": (CHAIN4, "mynet,c1,eth0")}
    delete_own_rules(attachment("gone"))
    assert masqueraded(host) == {"10.1.0.5": (CHAIN4, "mynet,c1,eth0")}
    assert find_missing(masquerading(attachment("c1"), V4)) == []


def test_the_address_of_a_vanished_container_is_reached_through_the_new_one_s_ports(host: Host) -> None:
    ensure_rules(forwarding(attachment("gone"), TCP))
    ensure_rules(forwarding(attachment("c1"), TCP._replace(host_port=9090)))
    assert owners(host) == {
        "portmap_any4": ["mynet,c1,eth0", "mynet,gone,eth0"],
        "portmap_any6": ["mynet,c1,eth0", "mynet,gone,eth0"],
        "portmap_any_loopback": ["mynet,c1,eth0", "mynet,gone,eth0"],
        "portmapped4": ["mynet,c1,eth0"],
        "portmapped6": ["mynet,c1,eth0"],
    }


@pytest.mark.parametrize(
    ("held", "claimed", "words"),
    [
        (TCP, TCP, "host port 8080/tcp"),
        (UDP, UDP, "host port 192.168.1.11 53/udp"),
        (TCP, TCP._replace(container_port=81), "host port 8080/tcp"),
    ],
    ids=["tcp", "udp of an address", "to another port"],
)
def test_a_host_port_of_another_container_names_its_holder_and_changes_nothing(
    host: Host, held: PortMapping, claimed: PortMapping, words: str
) -> None:
    holder = Attachment("othernet", "holder", "eth1")
    connect(host, holder)
    ensure_rules(forwarding(holder, held, to=(address(9),)))
    before = host.nft()
    with pytest.raises(CNIError) as caught:
        ensure_rules(forwarding(attachment(), TCP._replace(host_port=1), claimed))
    assert caught.value.code == 102
    assert f"{words} is taken by container holder interface eth1 of network othernet" in caught.value.msg
    assert host.nft() == before


@pytest.mark.parametrize(
    "other",
    [
        TCP._replace(host_port=8081),
        TCP._replace(protocol="udp"),
        TCP._replace(host_ip=parse_ip("192.168.1.11")),
        TCP._replace(host_ip=parse_ip("fd00::7")),
    ],
    ids=["another port", "another protocol", "for one address", "for one IPv6 address"],
)
def test_other_claims_stand_side_by_side(other: PortMapping) -> None:
    first, second = forwarding(attachment("c1"), TCP), forwarding(attachment("c2"), other, to=(address(6), V6))
    for wanted in (first, second):
        ensure_rules(wanted)
    assert find_missing(second) == []


def test_a_host_port_of_one_s_own_may_lead_elsewhere_now(host: Host) -> None:
    ensure_rules(forwarding(attachment(), TCP, to=(V4,)))
    wanted = forwarding(attachment(), TCP._replace(container_port=81), to=(address(6),))
    ensure_rules(wanted)
    assert owners(host)["portmap_any4"] == ["mynet,c1,eth0"]
    assert find_missing(wanted) == []


def test_a_holder_without_a_readable_mark_is_named_as_far_as_it_goes(host: Host) -> None:
    ensure_rules(forwarding(attachment("c2"), TCP._replace(host_port=1), to=(address(6),)))
    element = 'tcp . 8080 comment "by hand" : 10.1.0.9 . 80'
    host.run("nft", f"add element inet pycni portmap_any4 {{ {element} }}")
    with pytest.raises(CNIError, match="host port 8080/tcp is taken by 'by hand'"):
        ensure_rules(forwarding(attachment(), TCP))


def test_deleting_takes_only_ones_own(host: Host) -> None:
    others = [attachment("c2"), attachment("c1", "othernet"), Attachment("mynet", "c1", "eth1")]
    ensure_all()
    for number, other in enumerate(others):
        ensure_rules(masquerading(other, address(10 + number)))
        ensure_rules(guarding(other))
    delete_own_rules(attachment())
    assert sorted(masqueraded(host)) == ["10.1.0.10", "10.1.0.11", "10.1.0.12"]
    assert owners(host)["guarded"] == sorted(other.owner for other in others)
    for number, other in enumerate(others):
        assert find_missing(masquerading(other, address(10 + number))) == []
        assert find_missing(guarding(other)) == []


def test_deleting_takes_the_subnet_s_chains_with_their_last_container(host: Host) -> None:
    ensure_rules(masquerading(attachment("c1"), V4, V6))
    ensure_rules(masquerading(attachment("c2"), address(6)))
    delete_own_rules(attachment("c1"))
    assert chains(host) == sorted([CHAIN4, "postrouting"])


@pytest.mark.parametrize(
    "element", ["exempt4 { 10.2.0.0/16", "exempt6 { fd00:2::/64"], ids=["networks", "networks of IPv6"]
)
def test_exempt_networks_are_nobody_s_and_keep_the_table(host: Host, element: str) -> None:
    ensure_all()
    host.run("nft", f'add element inet pycni {element} comment "mynet,node2" }}')
    delete_rules(expressions.INET, "mynet", lambda owner: owner.startswith("mynet,"))
    delete_own_rules(attachment("c2"))
    name, _, network = element.partition(" { ")
    kept = [entry["set"] for entry in host.nft() if entry.get("set", {}).get("name") == name]
    assert [entry["elem"][0]["elem"]["comment"] for entry in kept] == ["mynet,node2"]
    assert [chain for chain in chains(host) if chain.startswith(("masquerade-", "portmap-"))] == []
    assert find_missing(ensure_all()[0]) == []
    host.run("nft", f"delete element inet pycni {name} {{ {network} }}")
    delete_own_rules(attachment())
    assert host.nft() == []


def test_what_is_stale_by_a_condition_goes_and_nothing_else(host: Host) -> None:
    ensure_all("c1")
    staying = ensure_all("c2", 6, 8081)
    ensure_all("c3", 7, 8082)
    foreign = masquerading(attachment("c1", "mynet2"), parse_cidr("10.2.0.5/16"))
    ensure_rules(foreign)
    for family in (expressions.INET, expressions.BRIDGE):
        delete_rules(family, "mynet", lambda owner: owner.startswith("mynet,") and owner != "mynet,c2,eth0")
    assert {owner for found in owners(host).values() for owner in found} == {"mynet,c2,eth0", "mynet2,c1,eth0"}
    assert [find_missing(each) for each in (*staying, foreign)] == [[]] * 4


def test_the_tables_of_both_families_go_with_their_last_container(host: Host) -> None:
    ensure_all("c1")
    ensure_all("c2", 6, 8081)
    delete_own_rules(attachment("c1"))
    assert tables(host) == [("bridge", "pycni"), ("inet", "pycni")]
    assert {owner for found in owners(host).values() for owner in found} == {"mynet,c2,eth0"}
    delete_own_rules(attachment("c2"))
    assert host.nft() == []


@pytest.mark.parametrize("kind", ["masquerade", "portmap", "spoofcheck"])
def test_any_kind_of_rules_goes_by_itself(host: Host, kind: str) -> None:
    made = dict(zip(("masquerade", "portmap", "spoofcheck"), all_rules(), strict=True))
    ensure_rules(made[kind])
    delete_own_rules(attachment())
    assert host.nft() == []


@pytest.mark.parametrize(
    "leftover",
    [
        "flush map inet pycni masquerade4; flush map inet pycni masquerade6",
        f"flush map inet pycni masquerade4; flush map inet pycni masquerade6; delete chain inet pycni {CHAIN4}",
        "flush map inet pycni masquerade4; flush map inet pycni masquerade6; "
        f"delete chain inet pycni {CHAIN4}; delete chain inet pycni {CHAIN6}",
    ],
    ids=["chains of both subnets", "a chain", "the table alone"],
)
def test_what_a_killed_delete_left_is_cleaned_up_by_the_next(host: Host, leftover: str) -> None:
    ensure_rules(masquerading(attachment()))
    host.run("nft", leftover)
    delete_own_rules(attachment())
    assert host.nft() == []


def test_a_leftover_chain_goes_and_the_others_stay(host: Host) -> None:
    ensure_rules(masquerading(attachment("c1"), V6))
    wanted = masquerading(attachment("c2"), address(6))
    ensure_rules(wanted)
    host.run("nft", "flush map inet pycni masquerade6")
    delete_own_rules(attachment("c1"))
    assert chains(host) == sorted([CHAIN4, "postrouting"])
    assert find_missing(wanted) == []


def test_deleting_nothing_is_fine_and_makes_nothing(host: Host) -> None:
    delete_own_rules(attachment())
    assert host.nft() == []
    ensure_all("c2")
    before = host.nft()
    delete_own_rules(attachment())
    assert host.nft() == before


def test_the_rules_of_others_stay(host: Host) -> None:
    host.run("nft", "add table ip nat; add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }")
    host.run("nft", "add rule ip nat POSTROUTING ip saddr 10.9.0.0/16 masquerade; add table inet mine")
    host.run("nft", "add table bridge mine; add chain bridge mine own")
    before = host.nft()
    ensure_all()
    delete_own_rules(attachment())
    assert host.nft() == before


def lacks(chain_or_map: str) -> str:
    kind = "map" if chain_or_map in MAP_NAMES else "chain"
    return f"{kind} {chain_or_map} {LACKS} {'the element of this container' if kind == 'map' else 'its rules'}"


MAP_NAMES = {entry.name for entry in (*masquerade.MAPS.values(), *portmap.MAPS, *spoofcheck.MAPS)}
PORT = attachment().host_name
DAMAGES: dict[str, tuple[str, list[str]]] = {
    "base chain": ("flush chain inet pycni postrouting", ["postrouting"]),
    "subnet's chain": (f"flush chain inet pycni {CHAIN4}", [CHAIN4]),
    "subnet's chain, IPv6": (f"flush chain inet pycni {CHAIN6}", [CHAIN6]),
    "a rule more": (f"add rule inet pycni {CHAIN4} accept", [CHAIN4]),
    "element": ("delete element inet pycni masquerade4 { br0 . 10.1.0.5 }", ["masquerade4"]),
    "element, IPv6": ("delete element inet pycni masquerade6 { br0 . fd00:1::5 }", ["masquerade6"]),
    "map": ("flush map inet pycni masquerade4", ["masquerade4"]),
    "element to another chain": (
        f"delete element inet pycni masquerade4 {{ br0 . 10.1.0.5 }}; "
        f'add element inet pycni masquerade4 {{ br0 . 10.1.0.5 comment "mynet,c1,eth0" : jump {BACK4} }}',
        ["masquerade4"],
    ),
    "prerouting": ("flush chain inet pycni portmap_prerouting", ["portmap_prerouting"]),
    "output": ("flush chain inet pycni portmap_output", ["portmap_output"]),
    "the way back": ("flush chain inet pycni portmap_postrouting", ["portmap_postrouting"]),
    "out of the loopback": ("flush chain inet pycni portmap_loopback_output", ["portmap_loopback_output"]),
    "an answer on its way": ("flush chain inet pycni portmap_loopback_prerouting", ["portmap_loopback_prerouting"]),
    "an answer in the end": ("flush chain inet pycni portmap_loopback_input", ["portmap_loopback_input"]),
    "ports of the loopback": ("flush set inet pycni portmap_any_loopback", ["portmap_any_loopback"]),
    "the way back of the subnet": (f"flush chain inet pycni {BACK6}", [BACK6]),
    "host port": ("delete element inet pycni portmap_any4 { tcp . 8080 }", ["portmap_any4"]),
    "host port, IPv6": ("delete element inet pycni portmap_any6 { tcp . 8080 }", ["portmap_any6"]),
    "host port of an address": ("flush map inet pycni portmap4", ["portmap4"]),
    "host port to elsewhere": (
        "delete element inet pycni portmap_any4 { tcp . 8080 }; "
        'add element inet pycni portmap_any4 { tcp . 8080 comment "mynet,c1,eth0" : 10.1.0.5 . 81 }',
        ["portmap_any4"],
    ),
    "target": ("delete element inet pycni portmapped4 { br0 . 10.1.0.5 }", ["portmapped4"]),
    "check of the MAC": ("flush chain bridge pycni prerouting", ["prerouting"]),
    "guarded port": (f'delete element bridge pycni guarded {{ "{PORT}" }}', ["guarded"]),
    "genuine MAC": ("flush set bridge pycni genuine", ["genuine"]),
    "bridge table": ("delete table bridge pycni", ["prerouting", "genuine", "guarded"]),
}


@pytest.mark.parametrize(("change", "expected"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_missing_is_found_in_each_section(host: Host, change: str, expected: list[str]) -> None:
    made = ensure_all()
    host.run("nft", change)
    before = host.nft()
    assert sorted(text for each in made for text in find_missing(each)) == sorted(lacks(name) for name in expected)
    assert host.nft() == before
    ensure_all()
    assert [find_missing(each) for each in made] == [[], [], []]


def test_everything_is_missing_where_there_is_nothing(host: Host) -> None:
    for each in all_rules():
        assert len(find_missing(each)) == len(each.chains) + len(each.elements)
    assert host.nft() == []


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_deleted_rule_of_a_subnet_s_chain_is_found(host: Host, number: int) -> None:
    wanted = masquerading(attachment(), V4)
    ensure_rules(wanted)
    handles = [e["rule"]["handle"] for e in host.nft() if e.get("rule", {}).get("chain") == CHAIN4]
    host.run("nft", f"delete rule inet pycni {CHAIN4} handle {handles[number - 1]}")
    assert find_missing(wanted) == [lacks(CHAIN4)]


def test_an_element_of_another_container_does_not_count() -> None:
    ensure_rules(masquerading(attachment("c2"), V4))
    assert find_missing(masquerading(attachment("c1"), V4)) == [lacks("masquerade4")]


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "in use"])
def test_probing_changes_nothing(host: Host, there: bool) -> None:
    if there:
        ensure_all("c2", 6, 8080)  # even the same host port is no obstacle: the trial is nobody's
    before = host.nft()
    for each in all_rules():
        probe_rules(each)
    assert host.nft() == before


def test_what_is_at_work_is_not_tried_again(mocker: MockerFixture) -> None:
    made = ensure_all("c2", 6, 8080)
    commit = mocker.patch.object(Nftables, "commit")
    for each in made:
        probe_rules(each)
    commit.assert_not_called()


@pytest.mark.parametrize("chain", [CHAIN4, "postrouting"])
def test_a_chain_that_somebody_emptied_has_its_rules_again_after_the_next_add(host: Host, chain: str) -> None:
    ensure_rules(masquerading(attachment("c1")))
    before = content(host)
    host.run("nft", "flush", "chain", "inet", "pycni", chain)
    ensure_rules(masquerading(attachment("c2"), address(6)))
    delete_own_rules(attachment("c2"))
    assert content(host) == before


def test_where_the_rules_stand_only_elements_are_sent(mocker: MockerFixture) -> None:
    ensure_rules(masquerading(attachment("c1")))
    commit = mocker.spy(Nftables, "commit")
    ensure_rules(masquerading(attachment("c2"), address(6)))
    [[_, sent]] = [call.args for call in commit.call_args_list]
    assert [message.kind & 0xFF for message in sent] == [12]  # NFT_MSG_NEWSETELEM


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EPERM, "run the plugin as root"), (errno.EOPNOTSUPP, "this kernel lacks it")],
    ids=["no right", "no nf_tables"],
)
def test_a_trial_that_fails_before_its_end_is_an_error(mocker: MockerFixture, number: int, remedy: str) -> None:
    genuine = Nftables.commit

    def refuse(nft: Nftables, messages: list[Message]) -> None:
        with pytest.raises(NetlinkError):
            genuine(nft, messages)
        raise NetlinkError(number, "", 3)

    mocker.patch.object(Nftables, "commit", refuse)
    with pytest.raises(CNIError, match=remedy) as caught, kernel_refusals():
        probe_rules(masquerading(attachment()))
    assert caught.value.code == 100


def test_a_hook_that_the_kernel_does_not_have_fails_the_trial(host: Host) -> None:
    wanted = masquerading(attachment())
    strange = wanted.chains[0]._replace(hook=99)
    with pytest.raises(CNIError, match="packet filter rules cannot be set") as caught, kernel_refusals():
        probe_rules(wanted._replace(chains=(strange, *wanted.chains[1:])))
    assert caught.value.code == 100
    assert host.nft() == []


def test_a_connection_costs_the_same_with_twenty_containers(host: Host) -> None:
    def walked() -> list[tuple[str, int]]:
        return [(chain, len(rules_of(host, chain))) for chain in chains(host)]

    ensure_all("c0", 10, 8000)
    with_one = walked()
    for number in range(1, 20):
        ensure_all(f"c{number}", 10 + number, 8000 + number)
    assert len(masqueraded(host)) == 40
    assert walked() == with_one
    assert dict(with_one)["postrouting"] == 2
    assert dict(with_one)["portmap_prerouting"] == 5


def test_long_names_fit_and_can_be_read_by_nft(host: Host) -> None:
    long = Attachment("n" * 300, "c" * 300, "fifteen-bytes-x")
    addresses = (V4, parse_cidr("fd00:1234:5678:9abc:def0:1234:5678:9abc/126"))
    made = [masquerading(long, *addresses), forwarding(long, to=addresses), guarding(long)]
    for each in made:
        ensure_rules(each)
    assert {owner for found in owners(host).values() for owner in found} == {long.owner}
    reload(host)
    assert [find_missing(each) for each in made] == [[], [], []]
    delete_own_rules(long)
    assert host.nft() == []


CHURN = """
import sys
from cni_bridge import masquerade, portmap, spoofcheck, sync
from cni_protocol.attachment import Attachment
from cni_bridge.mappings import PortMapping
from cni_bridge.sync import delete_own_rules, ensure_rules, find_missing
from cni_protocol.address import parse_cidr

number = int(sys.argv[1])
addresses = [parse_cidr(f"10.{number % 3}.0.{number + 2}/16"), parse_cidr(f"fd00:{number % 3}::{number + 2}/64")]
for round in range(2):
    own = Attachment("mynet", f"c{number}-{round}", "eth0")
    mappings = [PortMapping(8000 + number, 80, protocol, None) for protocol in ("tcp", "udp")]
    made = [
        masquerade.make_rules(own, "br0", addresses),
        portmap.make_rules(own, "br0", mappings, addresses),
        spoofcheck.make_rules(own, f"0a:58:00:00:00:{number:02x}"),
    ]
    for each in made:
        ensure_rules(each)
    missing = [find_missing(each) for each in made]
    assert missing == [[], [], []], missing
    delete_own_rules(own)
"""


def test_sixteen_processes_at_once_leave_no_rule(host: Host) -> None:
    command = [sys.executable, "-c", CHURN]
    env = {"PYTHONPATH": str(ROOT)}
    running = [
        host.start(*command, str(number), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for number in range(16)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert outputs == [""] * 16
    assert [process.returncode for process in running] == [0] * 16
    assert host.nft() == []


def refuse(mocker: MockerFixture, number: int) -> Any:
    return mocker.patch.object(Nftables, "commit", side_effect=NetlinkError(number, "", 1))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EPERM, "run the plugin as root"),
        (errno.EOPNOTSUPP, "this kernel lacks it"),
        (errno.EIO, ""),
    ],
    ids=["no right", "no nf_tables", "anything else"],
)
def test_a_refusal_says_what_was_done_and_what_may_help(mocker: MockerFixture, number: int, remedy: str) -> None:
    refuse(mocker, number)
    with pytest.raises(CNIError) as caught, kernel_refusals():
        ensure_rules(masquerading(attachment(), V4))
    assert caught.value.code == 100
    assert caught.value.msg.startswith("packet filter rules cannot be set: ")
    assert remedy in caught.value.msg
    assert remedy or caught.value.msg.endswith("Input/output error")


def test_a_deletion_that_is_refused_says_so(mocker: MockerFixture) -> None:
    ensure_rules(masquerading(attachment(), V4))
    refuse(mocker, errno.EINVAL)
    with pytest.raises(CNIError, match="packet filter rules cannot be removed") as caught, kernel_refusals():
        delete_own_rules(attachment())
    assert caught.value.code == 100


def test_a_change_that_somebody_came_in_between_of_is_tried_again_but_not_for_ever(mocker: MockerFixture) -> None:
    commit = refuse(mocker, errno.EEXIST)
    with pytest.raises(CNIError, match="keeps changing"), kernel_refusals():
        ensure_rules(masquerading(attachment(), V4))
    assert 2 <= commit.call_count <= 20


def test_a_kernel_without_nfnetlink_is_named(mocker: MockerFixture) -> None:
    mocker.patch.object(sync, "Nftables", side_effect=OSError(errno.EPROTONOSUPPORT, "Protocol not supported"))
    with pytest.raises(CNIError, match="modules nf_tables"), kernel_refusals():
        find_missing(masquerading(attachment(), V4))


def test_a_table_that_another_container_comes_into_meanwhile_stays(host: Host, mocker: MockerFixture) -> None:
    wanted = masquerading(attachment("c2"), address(6))
    ensure_rules(masquerading(attachment("c1"), V4))
    genuine = Nftables.list_chains

    def come_in_behind(nft: Nftables) -> dict[str, bool]:
        mocker.stop(patched)
        there = genuine(nft)
        ensure_rules(wanted)
        return there

    patched = mocker.patch.object(Nftables, "list_chains", come_in_behind)
    delete_own_rules(attachment("c1"))
    assert masqueraded(host) == {"10.1.0.6": (CHAIN4, "mynet,c2,eth0")}
    assert find_missing(wanted) == []


def test_no_descriptor_is_left_open(mocker: MockerFixture) -> None:
    closed = mocker.spy(Nftables, "close")
    opened = mocker.spy(Nftables, "__init__")
    ensure_all()
    delete_own_rules(attachment())
    refuse(mocker, errno.EIO)
    with pytest.raises(KernelError):
        ensure_rules(masquerading(attachment()))
    assert closed.call_count == opened.call_count > 4


def test_a_table_that_is_used_again_at_the_last_moment_stays(host: Host, mocker: MockerFixture) -> None:
    wanted = masquerading(attachment("c2"), address(6))
    ensure_rules(masquerading(attachment("c1"), V4))
    genuine = Nftables.delete_table

    def come_in_before(nft: Nftables) -> Message:
        mocker.stop(patched)
        ensure_rules(wanted)
        return genuine(nft)

    patched = mocker.patch.object(Nftables, "delete_table", come_in_before)
    delete_own_rules(attachment("c1"))
    assert masqueraded(host) == {"10.1.0.6": (CHAIN4, "mynet,c2,eth0")}
    assert find_missing(wanted) == []


def test_what_was_marked_in_the_former_spelling_is_found_and_goes(host: Host) -> None:
    wanted = forwarding(attachment(), TCP, UDP)
    connect(host, attachment())
    former = [element._replace(comment="mynet/c1/eth0") for element in wanted.elements]
    ensure_rules(wanted._replace(elements=tuple(former)))
    assert find_missing(wanted) == []
    with pytest.raises(CNIError, match="taken by container c1 interface eth0 of network mynet"):
        ensure_rules(forwarding(attachment("c2"), TCP))
    delete_own_rules(attachment())
    assert host.nft() == []


def test_a_process_that_goes_on_keeps_no_more_sockets_open_than_one_command_needs() -> None:
    ensure_all()

    def count() -> int:
        for family in (expressions.INET, expressions.BRIDGE):
            delete_rules(family, "mynet", lambda _: True, at_end=True)
        return len(os.listdir("/proc/self/fd"))

    assert count() == count() == count()


def test_a_chain_that_others_use_is_not_tried_to_be_deleted(host: Host, mocker: MockerFixture) -> None:
    for number in (1, 2):
        ensure_all(f"c{number}", 10 + number, 8000 + number)
    chain = mocker.spy(Nftables, "delete_chain")
    delete_own_rules(attachment("c1"))
    delete_own_rules(attachment("c1"))
    chain.assert_not_called()
    assert CHAIN4 in chains(host)
    delete_own_rules(attachment("c2"))
    assert chain.call_count > 0
    assert host.nft() == []


def reload(host: Host) -> None:
    """What `nft list ruleset > file; nft flush ruleset; nft -f file` does."""
    saved = host.run("nft", "list", "ruleset").stdout
    host.run("nft", "flush", "ruleset")
    host.run("nft", "-f", "-", input=saved)


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.1.0.5/16", "fd00:1::5/64"),
        ("10.1.0.5/22", "fd00:1::5/61"),
        ("10.1.0.5/31", "fd00:1::5/127"),
        ("10.1.0.5/8", "fd00:1::5/112"),
        ("10.1.0.5/32", "fd00:1::5/128"),
    ],
)
def test_rules_that_nft_has_saved_and_loaded_are_the_same(
    host: Host, mocker: MockerFixture, addresses: tuple[str, str]
) -> None:
    own = attachment(container="c" * 64)
    cidrs = tuple(parse_cidr(text) for text in addresses)
    mappings = [
        PortMapping(8080, 80, protocol, parse_ip(ip) if ip else None)
        for protocol in PROTOCOLS
        for ip in (None, "192.168.1.11", "fd00::7")
    ]
    made = [
        masquerade.make_rules(own, "br0", cidrs),
        portmap.make_rules(own, "br0", mappings, cidrs),
        guarding(own),
    ]
    waiting = portmap.make_rules(own._replace(ifname="eth1"), "br1", mappings, cidrs)
    connect(host, own)
    for each in (*made, waiting):
        ensure_rules(each)
    before = content(host)
    reload(host)
    assert content(host) == before
    assert [find_missing(each) for each in (*made, waiting)] == [[]] * 4
    commit = mocker.spy(Nftables, "commit")
    ensure_rules(masquerade.make_rules(attachment("c2"), "br0", [address(77)._replace(prefix=cidrs[0].prefix)]))
    [_, sent] = commit.call_args_list[-1].args
    if cidrs[0].prefix < 30:  # then it is the same subnet
        assert [message.kind & 0xFF for message in sent] == [12]  # NFT_MSG_NEWSETELEM: the chains are as an ADD wants
    for gone in (own, own._replace(ifname="eth1"), attachment("c2")):
        delete_own_rules(gone)
    assert host.nft() == []


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("ip daddr 10.1.0.0/16 return", "ip daddr 10.1.0.0/15 return", [CHAIN4]),
        ("ip daddr 224.0.0.0/4 return", "ip daddr 224.0.0.0/4 drop", [CHAIN4]),
        ("ip6 daddr ff00::/8 return", "ip6 saddr ff00::/8 return", [CHAIN6]),
        ("masquerade comment", "masquerade random comment", [CHAIN4, CHAIN6, BACK4, BACK6]),
        ("ip saddr set 192.0.0.8", "ip saddr set 192.0.0.9", ["portmap_loopback_output"]),
        ("ct direction reply ct original", "ct direction original ct original", ["portmap_loopback_input"]),
        ("daddr set ct reply ip daddr", "daddr set ct reply ip saddr", ["portmap_loopback_prerouting"]),
        ("vmap @portmapped6", "vmap @masquerade6", ["portmap_postrouting"]),
        ("iifname @guarded iifname", "iifname != @guarded iifname", ["prerouting"]),
    ],
)
def test_a_rule_that_was_changed_in_between_is_noticed(host: Host, was: str, becomes: str, expected: list[str]) -> None:
    made = ensure_all()
    saved = host.run("nft", "list", "ruleset").stdout
    assert was in saved
    host.run("nft", "flush", "ruleset")
    host.run("nft", "-f", "-", input=saved.replace(was, becomes))
    assert sorted(text for each in made for text in find_missing(each)) == sorted(map(lacks, expected))


def test_containers_of_the_same_address_on_two_bridges_keep_their_rules(host: Host) -> None:
    first, second = attachment(), attachment("c2", "othernet")
    made = {
        own: [
            masquerade.make_rules(own, name, [V4, V6]),
            portmap.make_rules(own, name, [TCP._replace(host_port=port)], [V4, V6]),
        ]
        for own, name, port in ((first, "br0", 1), (second, "br1", 2))
    }
    for each in (*made[first], *made[second]):
        ensure_rules(each)
    assert [find_missing(each) for each in (*made[first], *made[second])] == [[]] * 4
    delete_own_rules(second)
    assert [find_missing(each) for each in made[first]] == [[], []]
    delete_own_rules(first)
    assert host.nft() == []
