"""Masquerading as values: which chains lead where, and which element an address has."""

import pytest

from cni_bridge import masquerade
from cni_kernel import connections, expressions
from cni_kernel.expressions import Chain, Element, Rules
from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.attachment import Attachment

ATTACHMENT = Attachment("mynet", "c1", "eth0")
V4, V6 = parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")
CHAIN4, CHAIN6 = "masquerade-mynet-10.1.0.0/16", "masquerade-mynet-fd00_1__/64"


def chains_of(made: Rules) -> dict[str, Chain]:
    return {chain.name: chain for chain in made.chains}


def element(address: CIDR, chain: str) -> Element:
    key = b"br0".ljust(16, b"\0") + address.ip.packed
    return Element(f"masquerade{address.version}", key, "mynet,c1,eth0", chain=chain)


@pytest.mark.parametrize(
    ("addresses", "chains", "elements"),
    [
        ([V4], [CHAIN4], [element(V4, CHAIN4)]),
        ([V6], [CHAIN6], [element(V6, CHAIN6)]),
        ([V4, V6], [CHAIN4, CHAIN6], [element(V4, CHAIN4), element(V6, CHAIN6)]),
        (
            [V4, parse_cidr("10.1.0.6/16")],
            [CHAIN4],
            [element(V4, CHAIN4), element(parse_cidr("10.1.0.6/16"), CHAIN4)],
        ),
        (
            [V4, parse_cidr("10.1.0.6/24")],
            [CHAIN4, "masquerade-mynet-10.1.0.0/24"],
            [element(V4, CHAIN4), element(parse_cidr("10.1.0.6/24"), "masquerade-mynet-10.1.0.0/24")],
        ),
    ],
    ids=["IPv4", "IPv6", "both", "two of a subnet", "two subnets"],
)
def test_every_address_has_an_element_and_every_subnet_a_chain(
    addresses: list[CIDR], chains: list[str], elements: list[Element]
) -> None:
    made = masquerade.make_rules(ATTACHMENT, "br0", addresses)
    assert made.family == expressions.INET
    assert [entry.name for entry in made.maps] == ["masquerade4", "masquerade6", "exempt4", "exempt6"]
    assert [chain.name for chain in made.chains] == ["postrouting", *chains]
    assert list(made.elements) == elements


def test_the_maps_lead_from_an_interface_and_an_address_to_a_verdict() -> None:
    assert [(entry.key, entry.data) for entry in masquerade.MAPS.values()] == [
        (expressions.concatenated(expressions.IFNAME, expressions.IPV4_ADDR), expressions.VERDICT),
        (expressions.concatenated(expressions.IFNAME, expressions.IPV6_ADDR), expressions.VERDICT),
    ]


def test_the_same_address_on_two_bridges_has_two_elements() -> None:
    first, second = (masquerade.make_rules(ATTACHMENT, name, [V4]).elements for name in ("br0", "br1"))
    assert first[0].key != second[0].key
    assert first[0].key[16:] == second[0].key[16:] == V4.ip.packed


def test_the_sets_of_exempt_networks_hold_intervals_of_addresses() -> None:
    assert [entry[1:] for entry in masquerade.EXEMPT.values()] == [
        (expressions.IPV4_ADDR, None, True),
        (expressions.IPV6_ADDR, None, True),
    ]


def test_an_element_claims_nothing_so_that_a_vanished_container_s_gives_way() -> None:
    assert [entry.claim for entry in masquerade.make_rules(ATTACHMENT, "br0", [V4, V6]).elements] == ["", ""]


def test_source_addresses_are_looked_up_where_nat_is_done() -> None:
    base = chains_of(masquerade.make_rules(ATTACHMENT, "br0", [V4]))["postrouting"]
    assert (base.kind, base.hook, base.priority) == ("nat", expressions.POSTROUTING, expressions.SOURCE_NAT)
    assert [list(rule) for rule in base.rules] == [
        [*expressions.load_sender(4), expressions.look_up("masquerade4", verdict=True)],
        [*expressions.load_sender(6), expressions.look_up("masquerade6", verdict=True)],
    ]


@pytest.mark.parametrize(
    ("address", "chain", "staying"),
    [(V4, CHAIN4, ["10.1.0.0/16", "224.0.0.0/4"]), (V6, CHAIN6, ["fd00:1::/64", "ff00::/8"])],
    ids=["IPv4", "IPv6"],
)
def test_what_stays_in_the_subnet_and_multicast_are_left_alone(address: CIDR, chain: str, staying: list[str]) -> None:
    own = chains_of(masquerade.make_rules(ATTACHMENT, "br0", [address]))[chain]
    assert own.kind == ""
    *left, exempt, last = [list(rule) for rule in own.rules]
    assert left == [
        [*expressions.match_network(parse_cidr(network), expressions.DESTINATION), expressions.leave_chain()]
        for network in staying
    ]
    assert exempt == [
        *expressions.load_destination(address.version),
        expressions.look_up(f"exempt{address.version}"),
        expressions.leave_chain(),
    ]
    assert last == [connections.masquerade()]


@pytest.mark.parametrize(
    ("network", "cidr", "expected"),
    [
        ("mynet", "10.1.0.5/16", CHAIN4),
        ("mynet", "fd00:1::5/64", CHAIN6),
        ("a.b-c_d", "10.1.0.5/30", "masquerade-a.b-c_d-10.1.0.4/30"),
        ("n" * 41, "fd00:1::5/64", f"masquerade-{'n' * 23}_174f14032620d864-fd00_1__/64"),
    ],
)
def test_the_chain_of_a_subnet(network: str, cidr: str, expected: str) -> None:
    made = masquerade.make_rules(Attachment(network, "c1", "eth0"), "br0", [parse_cidr(cidr)])
    assert [chain.name for chain in made.chains] == ["postrouting", expected]


def test_the_chains_are_the_same_for_every_container_of_a_network() -> None:
    other = Attachment("mynet", "c2", "eth7")
    assert masquerade.make_rules(other, "br0", [V4]).chains == masquerade.make_rules(ATTACHMENT, "br0", [V4]).chains


def test_long_networks_have_chains_that_fit_and_differ() -> None:
    longest = parse_cidr("fd00:1234:5678:9abc:def0:1234:5678:9abc/126")
    names = {
        chain.name
        for network in ("n" * 300, "n" * 301)
        for chain in masquerade.make_rules(Attachment(network, "c1", "eth0"), "br0", [longest]).chains
    }
    assert len(names) == 3
    assert all(len(name) < 256 for name in names)  # NFT_NAME_MAXLEN
