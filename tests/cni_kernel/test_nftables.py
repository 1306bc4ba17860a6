"""Our tables through netlink, in transactions; judged by `nft -j`."""

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cni_kernel import connections, expressions
from cni_kernel.expressions import Chain, Element, Map, Rule
from cni_kernel.netlink import Message, NetlinkError
from cni_kernel.nftables import Nftables, digest_of, expression_names
from cni_protocol.address import parse_cidr
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

OWNER = "mynet,c1,eth0"
ELEMENT = Element("map4", bytes([10, 1, 0, 5]), OWNER, chain="target")
ELEMENT6 = Element("map6", bytes.fromhex("fd000001000000000000000000000005"), OWNER, chain="target")
MAPS = {version: Map(f"map{version}", expressions.ADDRESS[version], expressions.VERDICT) for version in (4, 6)}
TARGET = Chain("target", ())
SERVICE = expressions.concatenated(expressions.INET_PROTO, expressions.INET_SERVICE)


@pytest.fixture
def nft(host: Host) -> Iterator[Nftables]:
    """Our inet table on the host."""
    with host.entered():
        opened = Nftables(expressions.INET)
    yield opened
    opened.close()


@pytest.fixture
def bridge_nft(host: Host) -> Iterator[Nftables]:
    """Our bridge table on the host."""
    with host.entered():
        opened = Nftables(expressions.BRIDGE)
    yield opened
    opened.close()


def table_with_maps(nft: Nftables) -> list[Message]:
    maps = [nft.add_map(entry, version) for version, entry in MAPS.items()]
    return [nft.add_table(), nft.add_chain(TARGET), *maps]


def objects(host: Host, kind: str) -> list[dict[str, Any]]:
    return [entry[kind] for entry in host.nft() if kind in entry]


def names(host: Host, kind: str) -> list[str]:
    return [entry["name"] for entry in objects(host, kind)]


def find(nft: Nftables, element: Element) -> Element | None:
    return nft.find_same([element]).get((element.map, element.key))


def with_element(nft: Nftables, entry: Map, element: Element) -> list[Message]:
    return [nft.add_table(), nft.add_chain(TARGET), nft.add_map(entry, 1), *nft.add_elements(element.map, [element])]


def test_a_table_is_made_once_and_deleted(host: Host, nft: Nftables) -> None:
    assert not nft.has_table()
    for _ in range(2):
        nft.commit([nft.add_table()])
    assert [(entry["family"], entry["name"]) for entry in objects(host, "table")] == [("inet", "pycni")]
    assert nft.has_table()
    nft.commit([nft.delete_table()])
    assert host.nft() == []
    with pytest.raises(NetlinkError) as caught:
        nft.commit([nft.delete_table()])
    assert caught.value.errno == errno.ENOENT


def test_the_tables_of_two_families_are_two(host: Host, nft: Nftables, bridge_nft: Nftables) -> None:
    nft.commit([nft.add_table(), nft.add_chain(Chain("own", ()))])
    assert not bridge_nft.has_table()
    bridge_nft.commit([bridge_nft.add_table(), bridge_nft.add_chain(Chain("other", ()))])
    assert sorted((entry["family"], entry["name"]) for entry in objects(host, "table")) == [
        ("bridge", "pycni"),
        ("inet", "pycni"),
    ]
    assert (nft.list_chains(), bridge_nft.list_chains()) == ({"own": False}, {"other": False})
    nft.commit([nft.delete_table()])
    assert [entry["family"] for entry in objects(host, "table")] == ["bridge"]


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (Chain("c", (), "nat", expressions.POSTROUTING, expressions.SOURCE_NAT), ("nat", "postrouting", 100)),
        (Chain("c", (), "nat", expressions.PREROUTING, expressions.DESTINATION_NAT), ("nat", "prerouting", -100)),
        (Chain("c", (), "nat", expressions.OUTPUT, expressions.DESTINATION_NAT), ("nat", "output", -100)),
        (Chain("c", (), "filter", expressions.PREROUTING, expressions.RAW), ("filter", "prerouting", -300)),
    ],
    ids=["source NAT", "destination NAT", "output", "filter"],
)
def test_a_base_chain_stands_at_its_hook(
    host: Host, nft: Nftables, chain: Chain, expected: tuple[str, str, int]
) -> None:
    for _ in range(2):
        nft.commit([nft.add_table(), nft.add_chain(chain)])
    [seen] = objects(host, "chain")
    assert (seen["type"], seen["hook"], seen["prio"]) == expected
    assert seen["policy"] == "accept"
    assert nft.list_chains() == {"c": True}


def test_chains_of_other_tables_are_not_listed(host: Host, nft: Nftables) -> None:
    host.run(
        "nft", "add table inet other; add chain inet other foreign; add table ip pycni; add chain ip pycni foreign"
    )
    nft.commit([nft.add_table(), nft.add_chain(Chain("own", ()))])
    assert nft.list_chains() == {"own": False}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.1.0.0/16", {"addr": "10.1.0.0", "len": 16}),
        ("10.1.0.8/30", {"addr": "10.1.0.8", "len": 30}),
        ("fd00:1::/64", {"addr": "fd00:1::", "len": 64}),
        ("fd00:1::8000/113", {"addr": "fd00:1::8000", "len": 113}),
    ],
    ids=["IPv4", "small", "IPv6", "IPv6 inside a byte"],
)
def test_rules_are_what_nft_reads_there(host: Host, nft: Nftables, network: str, expected: dict[str, Any]) -> None:
    cidr = parse_cidr(network)
    rule = [
        *expressions.match_network(cidr, expressions.DESTINATION),
        expressions.leave_chain(),
    ]
    own = Chain("own", (rule,))
    nft.commit([nft.add_table(), nft.add_chain(own), *nft.set_rules(own)])
    [seen] = objects(host, "rule")
    protocol = "ip" if cidr.version == 4 else "ip6"
    match = {
        "op": "==",
        "left": {"payload": {"protocol": protocol, "field": "daddr"}},
        "right": {"prefix": expected},
    }
    assert seen["expr"] == [{"match": match}, {"return": None}]
    masked = ["bitwise"] if cidr.prefix % 8 else []
    names = ["meta", "cmp", "payload", *masked, "cmp", "immediate"]
    assert nft.list_rules("own") == [(names, digest_of(rule))] == [(expression_names(rule), digest_of(rule))]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            [*expressions.match_local_destination(), expressions.drop()],
            [
                {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}},
                {"drop": None},
            ],
        ),
        (
            [*connections.match_destination_nat(), connections.masquerade()],
            [{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"masquerade": None}],
        ),
        (
            [*connections.match_no_destination_nat(), expressions.leave_chain()],
            [
                {
                    "match": {
                        "op": "==",
                        "left": {"&": [{"ct": {"key": "status"}}, ["confirmed", "dnat"]]},
                        "right": "confirmed",
                    }
                },
                {"return": None},
            ],
        ),
        (
            [*connections.match_direction(connections.ORIGINAL), expressions.drop()],
            [{"match": {"op": "==", "left": {"ct": {"key": "direction"}}, "right": "original"}}, {"drop": None}],
        ),
        (
            [
                *expressions.match_version(4),
                expressions.load_value(parse_cidr("192.0.0.8/32").ip.packed),
                connections.set_address(expressions.SOURCE),
            ],
            [{"mangle": {"key": {"payload": {"protocol": "ip", "field": "saddr"}}, "value": "192.0.0.8"}}],
        ),
        (
            [
                *expressions.match_version(4),
                connections.load_connection_address(connections.REPLY, expressions.DESTINATION),
                connections.set_address(expressions.DESTINATION),
            ],
            [
                {
                    "mangle": {
                        "key": {"payload": {"protocol": "ip", "field": "daddr"}},
                        "value": {"ct": {"key": "ip daddr", "dir": "reply"}},
                    }
                }
            ],
        ),
    ],
    ids=["to the host", "redirected", "not redirected", "direction", "source", "destination"],
)
def test_conditions_are_what_nft_reads_there(host: Host, nft: Nftables, rule: Rule, expected: list[Any]) -> None:
    own = Chain("own", (rule,), "nat", expressions.POSTROUTING, expressions.SOURCE_NAT)
    if rule[-1] != connections.masquerade():
        own = Chain("own", (rule,), "filter", expressions.PREROUTING, expressions.RAW)
    nft.commit([nft.add_table(), nft.add_chain(own), *nft.set_rules(own)])
    [seen] = objects(host, "rule")
    assert seen["expr"] == expected


def test_rules_are_set_not_added(host: Host, nft: Nftables) -> None:
    nft.commit([nft.add_table(), nft.add_chain(Chain("own", ()))])
    load: Rule = [*expressions.load_destination(4), expressions.leave_chain()]
    for wanted in ((load,), (load, [expressions.leave_chain()]), ([expressions.leave_chain()],)):
        nft.commit(list(nft.set_rules(Chain("own", wanted))))
        assert len(objects(host, "rule")) == len(nft.list_rules("own")) == len(wanted)


def test_a_verdict_map_is_looked_up(host: Host, nft: Nftables) -> None:
    looking_up = tuple(
        [*expressions.load_destination(version), expressions.look_up(entry.name, verdict=True)]
        for version, entry in MAPS.items()
    )
    chain = Chain("nat", looking_up, "nat", expressions.POSTROUTING, expressions.SOURCE_NAT)
    nft.commit([*table_with_maps(nft), nft.add_chain(chain), *nft.set_rules(chain)])
    keys = [entry["expr"][0]["vmap"] for entry in objects(host, "rule")]
    assert keys == [
        {"key": {"payload": {"protocol": protocol, "field": "daddr"}}, "data": f"@map{version}"}
        for protocol, version in (("ip", 4), ("ip6", 6))
    ]


def test_an_address_and_a_port_are_looked_up_to_translate(host: Host, nft: Nftables) -> None:
    entry = Map("ports", SERVICE, expressions.concatenated(expressions.IPV4_ADDR, expressions.INET_SERVICE))
    rule: Rule = [
        *expressions.match_version(4),
        *expressions.load_service(0),
        expressions.look_up("ports", data=True),
        connections.translate_destination(4),
    ]
    chain = Chain("nat", (rule,), "nat", expressions.PREROUTING, expressions.DESTINATION_NAT)
    nft.commit([nft.add_table(), nft.add_map(entry, 1), nft.add_chain(chain), *nft.set_rules(chain)])
    key = {"concat": [{"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]}
    [seen] = objects(host, "rule")
    assert seen["expr"][-1] == {"dnat": {"family": "ip", "addr": {"map": {"key": key, "data": "@ports"}}}}


@pytest.mark.parametrize(
    ("entry", "types"),
    [
        (Map("m", expressions.IPV4_ADDR, expressions.VERDICT), ("map", "ipv4_addr", "verdict")),
        (
            Map("m", SERVICE, expressions.concatenated(expressions.IPV6_ADDR, expressions.INET_SERVICE)),
            ("map", ["inet_proto", "inet_service"], ["ipv6_addr", "inet_service"]),
        ),
        (Map("m", expressions.IFNAME), ("set", "ifname", None)),
        (
            Map("m", expressions.concatenated(expressions.IFNAME, expressions.ETHER_ADDR)),
            ("set", ["ifname", "ether_addr"], None),
        ),
    ],
    ids=["verdicts", "services", "names", "names with MACs"],
)
def test_nft_reads_the_types_of_a_map(host: Host, nft: Nftables, entry: Map, types: tuple[str, Any, Any]) -> None:
    for _ in range(2):
        nft.commit([nft.add_table(), nft.add_map(entry, 1)])
    kind, key, data = types
    [seen] = objects(host, kind)
    assert seen["type"] == key
    data_read = seen.get("map")
    assert (data_read.split(" . ") if isinstance(data, list) and isinstance(data_read, str) else data_read) == data


@pytest.mark.parametrize(
    ("name", "element", "text"), [("map4", ELEMENT, "10.1.0.5"), ("map6", ELEMENT6, "fd00:1::5")], ids=["IPv4", "IPv6"]
)
def test_an_element_carries_its_verdict_and_its_comment(
    host: Host, nft: Nftables, name: str, element: Element, text: str
) -> None:
    nft.commit([*table_with_maps(nft), *nft.add_elements(element.map, [element])])
    [seen] = [entry for entry in objects(host, "map") if entry["name"] == name]
    assert seen["elem"] == [[{"elem": {"val": text, "comment": OWNER}}, {"jump": {"target": "target"}}]]
    assert nft.find_elements(name, OWNER) == [element]
    assert find(nft, element) == find(nft, element._replace(comment="", chain="")) == element
    assert not nft.is_empty(name)
    nft.commit(list(nft.delete_elements(element.map, [element])))
    assert nft.find_elements(name, OWNER) == []
    assert find(nft, element) is None
    assert nft.is_empty(name)


@pytest.mark.parametrize(
    ("entry", "element", "key", "data"),
    [
        (
            Map("ports", SERVICE, expressions.concatenated(expressions.IPV4_ADDR, expressions.INET_SERVICE)),
            Element("ports", bytes.fromhex("060000001f900000"), OWNER, bytes.fromhex("0a01000500500000")),
            ["tcp", 8080],
            ["10.1.0.5", 80],
        ),
        (
            Map("ports", SERVICE, expressions.concatenated(expressions.IPV6_ADDR, expressions.INET_SERVICE)),
            Element("ports", bytes.fromhex("1100000000350000"), OWNER, ELEMENT6.key + bytes.fromhex("00350000")),
            ["udp", 53],
            ["fd00:1::5", 53],
        ),
    ],
    ids=["IPv4", "IPv6"],
)
def test_an_element_leads_to_an_address_and_a_port(
    host: Host, nft: Nftables, entry: Map, element: Element, key: list[Any], data: list[Any]
) -> None:
    nft.commit(with_element(nft, entry, element))
    [seen] = objects(host, "map")
    assert seen["elem"] == [[{"elem": {"val": {"concat": key}, "comment": OWNER}}, {"concat": data}]]
    assert find(nft, element) == element
    assert nft.find_elements("ports", OWNER) == [element]


@pytest.mark.parametrize(
    ("entry", "key", "text"),
    [
        (Map("m", expressions.IFNAME), b"veth12345678".ljust(16, b"\0"), "veth12345678"),
        (
            Map("m", expressions.concatenated(expressions.IFNAME, expressions.ETHER_ADDR)),
            b"veth12345678".ljust(16, b"\0") + bytes.fromhex("0a580af400020000"),
            {"concat": ["veth12345678", "0a:58:0a:f4:00:02"]},
        ),
    ],
    ids=["name", "name and MAC"],
)
def test_an_element_of_a_set_is_its_key(host: Host, bridge_nft: Nftables, entry: Map, key: bytes, text: Any) -> None:
    element = Element("m", key, OWNER)
    bridge_nft.commit(with_element(bridge_nft, entry, element))
    [seen] = objects(host, "set")
    assert seen["elem"] == [{"elem": {"val": text, "comment": OWNER}}]
    assert find(bridge_nft, element) == element


def test_elements_are_told_apart_by_their_comments(nft: Nftables) -> None:
    comments = ("mynet,c1,eth0", "mynet,c1,eth01", "mynet,c1,eth", "othermynet,c1,eth0", "a" * 217)
    elements = [
        Element("map4", bytes([10, 1, 0, number]), comment, chain="target") for number, comment in enumerate(comments)
    ]
    nft.commit([*table_with_maps(nft), *nft.add_elements("map4", elements)])
    for mark in (*comments, "mynet,", "m", "", "eth0"):
        expected = [element for element in elements if mark in element.comment]
        assert sorted(nft.find_elements("map4", mark)) == sorted(expected)


def test_elements_of_others_without_a_comment_do_no_harm(host: Host, nft: Nftables) -> None:
    nft.commit([*table_with_maps(nft), *nft.add_elements("map4", [ELEMENT])])
    host.run("nft", "add element inet pycni map4 { 10.1.0.6 : accept, 10.1.0.7 : jump target }")
    assert nft.find_elements("map4", ELEMENT.comment) == [ELEMENT]
    assert find(nft, ELEMENT._replace(key=bytes([10, 1, 0, 6]))) == Element("map4", bytes([10, 1, 0, 6]), "")


def test_a_comment_that_is_no_text_is_read_as_far_as_it_is(nft: Nftables) -> None:
    [message] = nft.add_elements("map4", [ELEMENT])
    odd = message._replace(body=message.body.replace(b"c1", b"\xff1"))
    nft.commit([*table_with_maps(nft), odd])
    assert nft.find_elements("map4", "") == [ELEMENT._replace(comment="mynet,\ufffd1,eth0")]


def test_one_container_s_elements_are_found_among_many(nft: Nftables) -> None:
    nft.commit(table_with_maps(nft))
    for block in range(10):
        keys = [bytes([10, 2, block, number]) for number in range(100)]
        many = [Element("map4", key, f"mynet,{key.hex()},eth0", chain="target") for key in keys]
        nft.commit(list(nft.add_elements("map4", many)))
    assert nft.find_elements("map4", "mynet,0a020963,eth0") == [
        Element("map4", bytes([10, 2, 9, 99]), "mynet,0a020963,eth0", chain="target")
    ]
    assert len(nft.find_elements("map4", "mynet,")) == 1000


def many(number: int, *, chain: str = "target") -> list[Element]:
    return [Element("map4", n.to_bytes(4, "big"), f"mynet,{n:064},eth0", chain=chain) for n in range(number)]


def test_ten_thousand_elements_are_one_transaction(nft: Nftables) -> None:
    elements = many(10000)
    nft.commit([*table_with_maps(nft), *nft.add_elements("map4", elements)])
    assert sorted(nft.find_elements("map4", "mynet,")) == elements
    assert sorted(nft.find_same(elements).values()) == elements
    nft.commit(list(nft.delete_elements("map4", elements)))
    assert nft.is_empty("map4")


def test_of_many_elements_one_in_the_way_undoes_all(host: Host, nft: Nftables) -> None:
    elements = many(10000)
    nft.commit([*table_with_maps(nft), *nft.add_elements("map4", elements[7777:7778])])
    before = host.nft()
    with pytest.raises(NetlinkError) as caught:
        nft.commit(list(nft.add_elements("map4", elements)))
    assert caught.value.errno == errno.EEXIST
    assert host.nft() == before
    nft.commit(list(nft.add_elements("map4", elements[:100])))  # the socket is as it was


@pytest.mark.parametrize(
    "there", [[], [0], [99], [0, 1, 50, 99], range(100)], ids=["none", "first", "last", "few", "all"]
)
def test_of_many_elements_those_that_are_there_are_found(nft: Nftables, there: Sequence[int]) -> None:
    elements = many(100)
    present = [elements[number] for number in there]
    nft.commit([*table_with_maps(nft), *nft.add_elements("map4", present), *nft.add_elements("map6", [ELEMENT6])])
    found = nft.find_same([*elements, ELEMENT6])
    assert found == {(element.map, element.key): element for element in (*present, ELEMENT6)}
    assert nft.find_same([]) == {}


def test_the_chains_that_a_map_leads_to_are_known(nft: Nftables) -> None:
    names = ["target", "masquerade-mynet-fd00_1__/64", "c" * 120]
    elements = [element._replace(chain=names[number % 3]) for number, element in enumerate(many(1000))]
    chains = [nft.add_chain(Chain(name, ())) for name in names]
    nft.commit([*table_with_maps(nft), *chains, *nft.add_elements("map4", elements)])
    assert nft.list_targets("map4") == set(names)
    assert nft.list_targets("map6") == nft.list_targets("none") == set()


@pytest.mark.parametrize(
    "change",
    [
        "flush chain inet pycni own",
        "add rule inet pycni own accept",
        "insert rule inet pycni own accept",
        'replace rule inet pycni own handle {} ip daddr 10.2.0.0/16 return comment "{}"',
        'replace rule inet pycni own handle {} ip saddr 10.1.0.0/16 return comment "{}"',
        'replace rule inet pycni own handle {} ip daddr 10.1.0.0/17 return comment "{}"',
        'replace rule inet pycni own handle {} ip daddr 10.1.0.0/16 drop comment "{}"',
        'replace rule inet pycni own handle {} ip daddr 10.1.0.0/16 counter return comment "{}"',
    ],
)
def test_a_rule_that_was_changed_by_hand_is_seen_although_it_kept_its_comment(
    host: Host, nft: Nftables, change: str
) -> None:
    rule = [*expressions.match_network(parse_cidr("10.1.0.0/16"), expressions.DESTINATION), expressions.leave_chain()]
    own = Chain("own", (rule,))
    assert not nft.has_rules(own)
    nft.commit([nft.add_table(), nft.add_chain(own), *nft.set_rules(own)])
    assert nft.has_rules(own)
    [handle] = [entry["handle"] for entry in objects(host, "rule")]
    host.run("nft", change.format(handle, digest_of(rule)))
    assert not nft.has_rules(own)


REFUSED: dict[str, tuple[Callable[[Nftables], Message], int]] = {
    "there already": (lambda nft: next(nft.add_elements("map4", [ELEMENT])), errno.EEXIST),
    "not there": (
        lambda nft: next(nft.delete_elements("map4", [ELEMENT._replace(key=bytes([10, 9, 9, 9]))])),
        errno.ENOENT,
    ),
    "no map": (lambda nft: next(nft.add_elements("none", [ELEMENT])), errno.ENOENT),
    "no target chain": (
        lambda nft: next(nft.add_elements("map4", [ELEMENT._replace(key=bytes(4), chain="none")])),
        errno.ENOENT,
    ),
    "no chain": (lambda nft: nft.delete_chain("none"), errno.ENOENT),
    "chain in use": (lambda nft: nft.delete_chain("target"), errno.EBUSY),
    "no table": (lambda nft: nft.delete_table("none"), errno.ENOENT),
}


@pytest.mark.parametrize(("make", "number"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_message_undoes_the_whole_transaction(
    host: Host, nft: Nftables, make: Callable[[Nftables], Message], number: int
) -> None:
    nft.commit([*table_with_maps(nft), *nft.add_elements("map4", [ELEMENT])])
    before = host.nft()
    with pytest.raises(NetlinkError) as caught:
        nft.commit([nft.add_chain(Chain("new", ())), make(nft), nft.add_chain(Chain("newer", ()))])
    assert (caught.value.errno, caught.value.index) == (number, 2)  # the batch begins with one message more
    assert host.nft() == before
    nft.commit([nft.add_chain(Chain("afterwards", ()))])
    assert "afterwards" in names(host, "chain")


def test_a_transaction_of_a_past_generation_is_not_done(host: Host, nft: Nftables) -> None:
    generation = nft.generation()
    host.run("nft", "add table inet other")
    assert nft.generation() != generation
    with pytest.raises(NetlinkError) as caught:
        nft.commit([nft.add_table()], generation)
    assert caught.value.errno == errno.ERESTART
    assert names(host, "table") == ["other"]
    nft.commit([nft.add_table()], nft.generation())
    assert names(host, "table") == ["other", "pycni"]


def test_nothing_is_found_where_there_is_no_table(nft: Nftables) -> None:
    assert nft.list_chains() == {}
    assert nft.list_rules("own") == []
    assert nft.find_elements("map4", "a") == []
    assert find(nft, ELEMENT) is None
    assert nft.is_empty("map4")
    assert not nft.has_table()


def test_a_rule_set_of_another_host_is_not_seen(host: Host, nft: Nftables) -> None:
    host.add_container("c1")
    host.run("nft", "add table inet pycni; add chain inet pycni own", container="c1")
    assert nft.list_chains() == {}


EXEMPT = Map("exempt", expressions.IPV4_ADDR, interval=True)


def interval(first: str, behind: str, comment: str = "") -> list[Element]:
    begin, end = (parse_cidr(f"{text}/32").ip.packed for text in (first, behind))
    return [Element(EXEMPT.name, begin, comment), Element(EXEMPT.name, end, "", end=True)]


def test_intervals_beside_each_other_stay_apart_and_are_read_back(host: Host, nft: Nftables) -> None:
    elements = [*interval("10.1.0.0", "10.1.1.0", "node1"), *interval("10.1.1.0", "10.1.2.0", "node2")]
    nft.commit([nft.add_table(), nft.add_map(EXEMPT, 1), *nft.add_elements(EXEMPT.name, elements)])
    [listed] = objects(host, "set")
    assert (listed["type"], listed["flags"]) == ("ipv4_addr", ["interval"])
    prefixes = [(entry["elem"]["val"]["prefix"]["addr"], entry["elem"]["comment"]) for entry in listed["elem"]]
    assert prefixes == [("10.1.0.0", "node1"), ("10.1.1.0", "node2")]
    assert sorted(nft.find_elements(EXEMPT.name, "")) == sorted(elements)


def test_an_interval_gives_way_to_another_in_one_transaction(host: Host, nft: Nftables) -> None:
    before, after = interval("10.1.0.0", "10.1.1.0", "node1"), interval("10.1.0.0", "10.1.0.128", "node2")
    nft.commit([nft.add_table(), nft.add_map(EXEMPT, 1), *nft.add_elements(EXEMPT.name, before)])
    nft.commit([*nft.delete_elements(EXEMPT.name, before), *nft.add_elements(EXEMPT.name, after)])
    assert sorted(nft.find_elements(EXEMPT.name, "")) == sorted(after)


def test_more_intervals_than_a_message_holds(nft: Nftables) -> None:
    pairs = [interval(f"10.{i >> 8}.{i & 255}.0", f"10.{i >> 8}.{i & 255}.128", "n" * 100) for i in range(300)]
    elements = [element for pair in pairs for element in pair]
    nft.commit([nft.add_table(), nft.add_map(EXEMPT, 1), *nft.add_elements(EXEMPT.name, elements)])
    assert sorted(nft.find_elements(EXEMPT.name, "")) == sorted(elements)


def test_a_socket_knows_the_port_that_notifications_name(nft: Nftables) -> None:
    assert nft.port != 0
