"""One table through netlink, in transactions; judged by `nft -j`."""

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from cni_bridge import nftables
from cni_bridge.netlink import Message, NetlinkError
from cni_bridge.nftables import Element, Nftables
from tests.host import Host

pytestmark = pytest.mark.kernel

ELEMENT = Element(bytes([10, 1, 0, 5]), "target", "mynet/c1/eth0")
ELEMENT6 = Element(bytes.fromhex("fd000001000000000000000000000005"), "target", "mynet/c1/eth0")


@pytest.fixture
def nft(host: Host) -> Iterator[Nftables]:
    """The rule set of the host."""
    with host.entered():
        opened = Nftables()
    yield opened
    opened.close()


def table_with_map() -> list[Message]:
    maps = [nftables.add_verdict_map(f"map{version}", version) for version in (4, 6)]
    return [nftables.add_table(), nftables.add_chain("target"), *maps]


def objects(host: Host, kind: str) -> list[dict[str, Any]]:
    return [entry[kind] for entry in host.nft() if kind in entry]


def names(host: Host, kind: str) -> list[str]:
    return [entry["name"] for entry in objects(host, kind)]


def test_a_table_is_made_once_and_deleted(host: Host, nft: Nftables) -> None:
    for _ in range(2):
        nft.commit([nftables.add_table()])
    assert [(entry["family"], entry["name"]) for entry in objects(host, "table")] == [("inet", "pycni")]
    nft.commit([nftables.delete_table()])
    assert host.nft() == []
    with pytest.raises(NetlinkError) as caught:
        nft.commit([nftables.delete_table()])
    assert caught.value.errno == errno.ENOENT


def test_a_base_chain_stands_at_its_hook(host: Host, nft: Nftables) -> None:
    for _ in range(2):
        nft.commit([nftables.add_table(), nftables.add_base_chain("nat", nftables.POSTROUTING, nftables.SOURCE_NAT)])
    [chain] = objects(host, "chain")
    assert (chain["type"], chain["hook"], chain["prio"], chain["policy"]) == ("nat", "postrouting", 100, "accept")
    assert nft.list_chains() == {"nat"}


def test_chains_of_other_tables_are_not_listed(host: Host, nft: Nftables) -> None:
    host.run(
        "nft", "add table inet other; add chain inet other foreign; add table ip pycni; add chain ip pycni foreign"
    )
    nft.commit([nftables.add_table(), nftables.add_chain("own")])
    assert nft.list_chains() == {"own"}


@pytest.mark.parametrize(
    ("version", "network", "prefix", "expected"),
    [
        (4, bytes([10, 1, 0, 0]), 16, {"addr": "10.1.0.0", "len": 16}),
        (4, bytes([10, 1, 0, 8]), 30, {"addr": "10.1.0.8", "len": 30}),
        (6, bytes.fromhex("fd000001000000000000000000000000"), 64, {"addr": "fd00:1::", "len": 64}),
        (6, bytes.fromhex("fd000001000000000000000000008000"), 113, {"addr": "fd00:1::8000", "len": 113}),
    ],
    ids=["IPv4", "small", "IPv6", "IPv6 inside a byte"],
)
def test_rules_are_what_nft_reads_there(
    host: Host, nft: Nftables, version: int, network: bytes, prefix: int, expected: dict[str, Any]
) -> None:
    rule = [
        *nftables.load_address(version, nftables.DESTINATION),
        *nftables.match_prefix(network, prefix),
        nftables.leave_chain(),
    ]
    nft.commit([nftables.add_table(), nftables.add_chain("own"), *nftables.set_rules("own", [rule])])
    [seen] = objects(host, "rule")
    protocol = "ip" if version == 4 else "ip6"
    match = {
        "op": "==",
        "left": {"payload": {"protocol": protocol, "field": "daddr"}},
        "right": {"prefix": expected},
    }
    assert seen["expr"] == [{"match": match}, {"return": None}]
    assert nft.list_rules("own") == [["meta", "cmp", "payload", "bitwise", "cmp", "immediate"]]


def test_rules_are_set_not_added(host: Host, nft: Nftables) -> None:
    nft.commit([nftables.add_table(), nftables.add_chain("own")])
    look_up = [*nftables.load_address(4, nftables.SOURCE), nftables.leave_chain()]
    for rules in ([look_up], [look_up, [nftables.leave_chain()]], [[nftables.leave_chain()]]):
        nft.commit(nftables.set_rules("own", rules))
        assert len(objects(host, "rule")) == len(nft.list_rules("own")) == len(rules)


def test_a_verdict_map_is_looked_up_by_source(host: Host, nft: Nftables) -> None:
    rules = [
        [*nftables.load_address(version, nftables.SOURCE), nftables.look_up_verdict(f"map{version}")]
        for version in (4, 6)
    ]
    chain = nftables.add_base_chain("nat", nftables.POSTROUTING, nftables.SOURCE_NAT)
    nft.commit([*table_with_map(), chain, *nftables.set_rules("nat", rules)])
    keys = [entry["expr"][0]["vmap"] for entry in objects(host, "rule")]
    assert keys == [
        {"key": {"payload": {"protocol": protocol, "field": "saddr"}}, "data": f"@map{version}"}
        for protocol, version in (("ip", 4), ("ip6", 6))
    ]


@pytest.mark.parametrize(
    ("name", "element", "text"), [("map4", ELEMENT, "10.1.0.5"), ("map6", ELEMENT6, "fd00:1::5")], ids=["IPv4", "IPv6"]
)
def test_an_element_carries_its_verdict_and_its_comment(
    host: Host, nft: Nftables, name: str, element: Element, text: str
) -> None:
    nft.commit([*table_with_map(), nftables.add_element(name, element)])
    [seen] = [entry for entry in objects(host, "map") if entry["name"] == name]
    assert seen["elem"] == [[{"elem": {"val": text, "comment": "mynet/c1/eth0"}}, {"jump": {"target": "target"}}]]
    assert nft.find_elements(name, "mynet/c1/eth0") == [element]
    assert nft.has_element(name, element.key)
    nft.commit([nftables.delete_element(name, element.key)])
    assert nft.find_elements(name, "mynet/c1/eth0") == []
    assert not nft.has_element(name, element.key)


def test_elements_are_told_apart_by_their_whole_comment(nft: Nftables) -> None:
    comments = ("mynet/c1/eth0", "mynet/c1/eth01", "mynet/c1/eth", "othermynet/c1/eth0", "a" * 217)
    elements = [Element(bytes([10, 1, 0, number]), "target", comment) for number, comment in enumerate(comments)]
    nft.commit([*table_with_map(), *(nftables.add_element("map4", element) for element in elements)])
    for element in elements:
        assert nft.find_elements("map4", element.comment) == [element]


def test_elements_of_others_without_a_comment_do_no_harm(host: Host, nft: Nftables) -> None:
    nft.commit([*table_with_map(), nftables.add_element("map4", ELEMENT)])
    host.run("nft", "add element inet pycni map4 { 10.1.0.6 : accept, 10.1.0.7 : jump target }")
    assert nft.find_elements("map4", ELEMENT.comment) == [ELEMENT]


def test_one_container_s_elements_are_found_among_many(nft: Nftables) -> None:
    nft.commit(table_with_map())
    for block in range(10):
        keys = [bytes([10, 2, block, number]) for number in range(100)]
        nft.commit([nftables.add_element("map4", Element(key, "target", f"mynet/{key.hex()}/eth0")) for key in keys])
    assert nft.find_elements("map4", "mynet/0a020963/eth0") == [
        Element(bytes([10, 2, 9, 99]), "target", "mynet/0a020963/eth0")
    ]


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (nftables.add_element("map4", ELEMENT), errno.EEXIST),
        (nftables.delete_element("map4", bytes([10, 9, 9, 9])), errno.ENOENT),
        (nftables.add_element("none", ELEMENT), errno.ENOENT),
        (nftables.add_element("map4", ELEMENT._replace(key=bytes(4), chain="none")), errno.ENOENT),
        (nftables.delete_chain("none"), errno.ENOENT),
        (nftables.delete_chain("target"), errno.EBUSY),
    ],
    ids=["there already", "not there", "no map", "no target chain", "no chain", "chain in use"],
)
def test_a_refused_message_undoes_the_whole_transaction(
    host: Host, nft: Nftables, message: Message, number: int
) -> None:
    nft.commit([*table_with_map(), nftables.add_element("map4", ELEMENT)])
    before = host.nft()
    with pytest.raises(NetlinkError) as caught:
        nft.commit([nftables.add_chain("new"), message, nftables.add_chain("newer")])
    assert caught.value.errno == number
    assert host.nft() == before
    nft.commit([nftables.add_chain("afterwards")])
    assert "afterwards" in names(host, "chain")


def test_a_transaction_of_a_past_generation_is_not_done(host: Host, nft: Nftables) -> None:
    generation = nft.generation()
    host.run("nft", "add table inet other")
    assert nft.generation() != generation
    with pytest.raises(NetlinkError) as caught:
        nft.commit([nftables.add_table()], generation)
    assert caught.value.errno == errno.ERESTART
    assert names(host, "table") == ["other"]
    nft.commit([nftables.add_table()], nft.generation())
    assert names(host, "table") == ["other", "pycni"]


def test_nothing_is_found_where_there_is_no_table(nft: Nftables) -> None:
    assert nft.list_chains() == set()
    assert nft.list_rules("own") == []
    assert nft.find_elements("map4", "a") == []
    assert not nft.has_element("map4", bytes(4))


def test_a_rule_set_of_another_host_is_not_seen(host: Host, nft: Nftables) -> None:
    host.add_container("c1")
    host.run("nft", "add table inet pycni; add chain inet pycni own", container="c1")
    assert nft.list_chains() == set()
