"""Port mappings as values: keys and targets byte for byte, chains, what is claimed."""

import pytest

from cni_bridge import portmap
from cni_bridge.mappings import PortMapping
from cni_bridge.portmap import make_rules, udp_ports, udp_targets
from cni_kernel import connections, expressions
from cni_kernel.expressions import Chain, Element, Rules
from cni_protocol.address import CIDR, parse_cidr, parse_ip
from cni_protocol.attachment import Attachment

ATTACHMENT = Attachment("mynet", "c1", "eth0")
OWNER = "mynet,c1,eth0"
V4, V6 = parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")
CHAIN4, CHAIN6 = "portmap-mynet-10.1.0.0/16", "portmap-mynet-fd00_1__/64"
BR0 = b"br0".ljust(16, b"\0")
TO4, TO6 = bytes.fromhex("0a01000500500000"), V6.ip.packed + bytes.fromhex("00500000")
ANY_TCP = bytes.fromhex("060000001f900000")
CLAIM = "host port 8080/tcp"


def mapping(host_ip: str = "", protocol: str = "tcp", host_port: int = 8080, container_port: int = 80) -> PortMapping:
    return PortMapping(host_port, container_port, protocol, parse_ip(host_ip) if host_ip else None)


def chains_of(made: Rules) -> dict[str, Chain]:
    return {chain.name: chain for chain in made.chains}


ANY4 = Element("portmap_any4", ANY_TCP, OWNER, TO4, claim=CLAIM)
ANY6 = Element("portmap_any6", ANY_TCP, OWNER, TO6, claim=CLAIM)
LOOPBACK = Element("portmap_any_loopback", ANY_TCP, OWNER, claim=CLAIM)
TARGET4 = Element("portmapped4", BR0 + V4.ip.packed, OWNER, chain=CHAIN4)
TARGET6 = Element("portmapped6", BR0 + V6.ip.packed, OWNER, chain=CHAIN6)


@pytest.mark.parametrize(
    ("mappings", "addresses", "elements"),
    [
        ([mapping()], [V4], [ANY4, LOOPBACK, TARGET4]),
        ([mapping()], [V6], [ANY6, TARGET6]),
        ([mapping()], [V4, V6], [ANY4, LOOPBACK, ANY6, TARGET4, TARGET6]),
        ([mapping()], [V4, parse_cidr("10.1.0.6/16")], [ANY4, LOOPBACK, TARGET4]),
        (
            [mapping("127.0.0.5")],
            [V4, V6],
            [
                Element(
                    "portmap4",
                    bytes.fromhex("7f000005060000001f900000"),
                    OWNER,
                    TO4,
                    claim="host port 127.0.0.5 8080/tcp",
                ),
                Element(
                    "portmap_loopback",
                    bytes.fromhex("7f000005060000001f900000"),
                    OWNER,
                    claim="host port 127.0.0.5 8080/tcp",
                ),
                TARGET4,
            ],
        ),
        (
            [mapping("192.168.1.11")],
            [V4, V6],
            [
                Element(
                    "portmap4",
                    bytes.fromhex("c0a8010b060000001f900000"),
                    OWNER,
                    TO4,
                    claim="host port 192.168.1.11 8080/tcp",
                ),
                TARGET4,
            ],
        ),
        (
            [mapping("fd00::7", "udp", 53, 5353)],
            [V4, V6],
            [
                Element(
                    "portmap6",
                    parse_ip("fd00::7").packed + bytes.fromhex("1100000000350000"),
                    OWNER,
                    V6.ip.packed + bytes.fromhex("14e90000"),
                    claim="host port fd00::7 53/udp",
                ),
                TARGET6,
            ],
        ),
        (
            [mapping(protocol="sctp", host_port=65535, container_port=1)],
            [V4],
            [
                Element(
                    "portmap_any4",
                    bytes.fromhex("84000000ffff0000"),
                    OWNER,
                    bytes.fromhex("0a01000500010000"),
                    claim="host port 65535/sctp",
                ),
                Element("portmap_any_loopback", bytes.fromhex("84000000ffff0000"), OWNER, claim="host port 65535/sctp"),
                TARGET4,
            ],
        ),
        ([mapping("fd00::7")], [V4], []),
        ([mapping("0.0.0.0")], [V4, V6], [ANY4, LOOPBACK, TARGET4]),
        ([mapping("::")], [V4, V6], [ANY6, TARGET6]),
        ([mapping("0.0.0.0")], [V6], []),
        ([mapping(), mapping("0.0.0.0"), mapping("::")], [V4, V6], [ANY4, LOOPBACK, ANY6, TARGET4, TARGET6]),
    ],
    ids=[
        *("IPv4", "IPv6", "both", "first of a family", "hostIP 127.0.0.5", "hostIP", "IPv6 hostIP", "SCTP"),
        *("hostIP of another family", "every IPv4 address", "every IPv6 address", "every one of another family"),
        "every one said twice",
    ],
)
def test_the_elements_of_a_mapping(mappings: list[PortMapping], addresses: list[CIDR], elements: list[Element]) -> None:
    assert sorted(make_rules(ATTACHMENT, "br0", mappings, addresses).elements) == sorted(elements)


@pytest.mark.parametrize("mappings", [[mapping()], [mapping("10.0.0.1"), mapping("fd00::7")]], ids=["any", "hostIP"])
@pytest.mark.parametrize("addresses", [[V4], [V6], [V4, V6]], ids=["IPv4", "IPv6", "both"])
def test_keys_and_data_are_as_long_as_their_maps_say(mappings: list[PortMapping], addresses: list[CIDR]) -> None:
    made = make_rules(ATTACHMENT, "br0", mappings, addresses)
    maps = {entry.name: entry for entry in made.maps}
    for element in made.elements:
        entry = maps[element.map]
        assert len(element.key) == entry.key[1]
        if entry.data == expressions.VERDICT:
            assert element.chain
        else:
            assert len(element.data) == (entry.data[1] if entry.data else 0)


@pytest.mark.parametrize(
    ("mappings", "addresses", "chains"),
    [
        ([mapping()], [V4], [CHAIN4]),
        ([mapping()], [V4, V6], [CHAIN4, CHAIN6]),
        ([mapping("10.0.0.1")], [V4, V6], [CHAIN4]),
        ([mapping("fd00::7")], [V4, V6], [CHAIN6]),
        ([mapping("fd00::7")], [V4], []),
    ],
    ids=["IPv4", "both", "IPv4 hostIP", "IPv6 hostIP", "none"],
)
def test_a_subnet_s_chain_is_there_when_an_element_leads_to_it(
    mappings: list[PortMapping], addresses: list[CIDR], chains: list[str]
) -> None:
    made = make_rules(ATTACHMENT, "br0", mappings, addresses)
    assert made.family == expressions.INET
    assert sorted(chain.name for chain in made.chains if not chain.kind) == chains
    assert {element.chain for element in made.elements if element.chain} == set(chains)


def test_the_hooks_of_port_mappings() -> None:
    made = make_rules(ATTACHMENT, "br0", [mapping()], [V4])
    assert {(chain.name, chain.kind, chain.hook, chain.priority) for chain in made.chains if chain.kind} == {
        ("portmap_prerouting", "nat", 0, -100),
        ("portmap_output", "nat", 3, -100),
        ("portmap_postrouting", "nat", 4, 100),
        ("portmap_loopback_output", "filter", 3, -150),
        ("portmap_loopback_prerouting", "filter", 0, -99),
        ("portmap_loopback_input", "filter", 1, 101),
    }


def test_an_address_of_the_host_is_looked_up_before_any_address() -> None:
    _, *rule = chains_of(make_rules(ATTACHMENT, "br0", [mapping()], [V4]))["portmap_prerouting"].rules
    looked_up = [dict(attributes)["NFTA_LOOKUP_SET"] for one in rule for name, attributes in one if name == "lookup"]
    assert looked_up == ["portmap4", "portmap_any4", "portmap6", "portmap_any6"]
    assert all(list(one[:2]) == expressions.match_local_destination() for one in rule)


def test_what_the_host_sends_is_forwarded_likewise() -> None:
    chains = chains_of(make_rules(ATTACHMENT, "br0", [mapping()], [V4]))
    _, *forward = [list(rule) for rule in chains["portmap_prerouting"].rules]
    assert [list(rule) for rule in chains["portmap_output"].rules][-len(forward) :] == forward


@pytest.mark.parametrize(
    ("address", "chain", "sources"),
    [(V4, CHAIN4, ["10.1.0.0/16", "192.0.0.8/32"]), (V6, CHAIN6, ["fd00:1::/64"])],
    ids=["IPv4", "IPv6"],
)
def test_what_comes_from_the_subnet_itself_is_answered_through_the_host(
    address: CIDR, chain: str, sources: list[str]
) -> None:
    own = chains_of(make_rules(ATTACHMENT, "br0", [mapping()], [address]))[chain]
    assert [list(rule) for rule in own.rules] == [
        [*expressions.match_network(parse_cidr(source), expressions.SOURCE), connections.masquerade()]
        for source in sources
    ]


def test_the_chains_are_the_same_for_every_container_of_a_network() -> None:
    other = make_rules(Attachment("mynet", "c2", "eth1"), "br0", [mapping(host_port=9)], [parse_cidr("10.1.0.9/16")])
    assert other.chains == make_rules(ATTACHMENT, "br0", [mapping()], [V4]).chains


@pytest.mark.parametrize(
    ("mappings", "addresses", "targets", "ports"),
    [
        ([mapping()], [V4, V6], set(), set()),
        ([mapping(protocol="udp")], [V4], {V4.ip}, {(4, 8080)}),
        ([mapping(protocol="udp")], [V4, V6], {V4.ip, V6.ip}, {(4, 8080), (6, 8080)}),
        ([mapping("10.0.0.1", "udp")], [V4, V6], {V4.ip}, {(4, 8080)}),
        ([mapping("fd00::7", "udp", 53)], [V4, V6], {V6.ip}, {(6, 53)}),
        ([mapping(protocol="udp"), mapping(protocol="udp", host_port=53)], [V4], {V4.ip}, {(4, 8080), (4, 53)}),
        ([mapping(), mapping(protocol="sctp")], [V4], set(), set()),
    ],
    ids=["tcp", "udp", "udp of both", "hostIP", "IPv6 hostIP", "two ports", "tcp and sctp"],
)
def test_the_flows_of_udp_mappings_are_told_by_target_and_port(
    mappings: list[PortMapping], addresses: list[CIDR], targets: set[object], ports: set[tuple[int, int]]
) -> None:
    elements = make_rules(ATTACHMENT, "br0", mappings, addresses).elements
    assert udp_targets(elements) == targets
    assert udp_ports(elements) == ports


def test_a_port_number_of_an_address_is_no_protocol() -> None:
    address = parse_ip("10.0.0.17")  # its last byte is the number of UDP
    element = Element("portmapped4", BR0 + address.packed, OWNER, chain=CHAIN4)
    assert udp_ports([element]) == set()
    key = expressions.pad(address.packed, bytes([6]), (17).to_bytes(2, "big"))
    assert udp_ports([Element("portmap4", key, OWNER, TO4)]) == set()


def test_the_maps_are_told_apart_by_family_and_by_host_ip() -> None:
    names = [entry.name for entry in portmap.MAPS]
    assert sorted(names) == sorted(
        [
            *("portmap4", "portmap6", "portmap_any4", "portmap_any6", "portmapped4", "portmapped6"),
            *("portmap_loopback", "portmap_any_loopback", "portmap_waiting4", "portmap_waiting6"),
        ]
    )
