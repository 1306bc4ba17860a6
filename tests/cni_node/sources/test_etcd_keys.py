"""What nodes write into etcd, letter by letter, as nodes of other versions read it; and which range one asks for."""

import json

import pytest

from cni_node.snapshot import Node
from cni_node.sources.etcd_keys import (
    Cluster,
    candidates,
    check_cluster,
    find_owner,
    find_subnet,
    is_part,
    overlap,
    parse_cluster,
    parse_node,
    render_cluster,
    render_node,
    render_owner,
    subnet_key,
)
from cni_protocol.address import CIDR, parse_cidr, parse_ip
from cni_protocol.errors import INVALID_CONFIG, CNIError

BOTH = Cluster((parse_cidr("10.32.0.0/22"), parse_cidr("fd00:1::/56")), (24, 64))
NODE = Node("node1", (parse_cidr("10.32.1.0/24"),), (parse_ip("192.168.1.1"),), 1450)


def cidrs(*texts: str) -> tuple[CIDR, ...]:
    return tuple(parse_cidr(text) for text in texts)


def test_values_are_what_other_nodes_read() -> None:
    assert json.loads(render_cluster(BOTH)) == {"networks": ["10.32.0.0/22", "fd00:1::/56"], "nodePrefixes": [24, 64]}
    assert json.loads(render_node(NODE)) == {"pods": ["10.32.1.0/24"], "addresses": ["192.168.1.1"], "mtu": 1450}
    assert json.loads(render_owner("node1")) == {"node": "node1"}
    assert subnet_key("/pycni", parse_cidr("10.32.7.0/24")) == "/pycni/subnets/10.32.7.0-24"


def test_values_are_read_back() -> None:
    assert parse_cluster(render_cluster(BOTH)) == BOTH
    assert parse_node("node1", render_node(NODE)) == NODE
    assert find_owner(render_owner("node1")) == "node1"
    assert find_subnet("/pycni/subnets/fd00:1::-64") == parse_cidr("fd00:1::/64")


def test_a_node_without_mtu_and_in_any_order_is_read() -> None:
    text = '{"pods": ["fd00:1::1/64", "10.32.1.9/24"], "addresses": ["192.168.1.1", "192.168.1.2"]}'
    assert parse_node("n", text) == Node("n", cidrs("10.32.1.0/24", "fd00:1::/64"), (parse_ip("192.168.1.1"),), 0)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", '{"pods": ["10.1.0.0/24"]}', '{"pods": 7, "addresses": []}', '{"pods": ["x"], "addresses": []}'],
)
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_node("node1", text)


def test_two_ranges_of_a_family_are_refused() -> None:
    with pytest.raises(ValueError, match="two pod ranges of one family"):
        parse_node("n", '{"pods": ["10.1.0.0/24", "10.2.0.0/24"], "addresses": []}')


@pytest.mark.parametrize("text", ["", "{}", "[]", '"node"', "7"])
def test_who_is_not_named_owns_nothing(text: str) -> None:
    assert find_owner(text) == ""


@pytest.mark.parametrize("key", ["/pycni/config", "/pycni/nodes/node1", "/pycni/subnets/x-24"])
def test_other_keys_are_no_subnets(key: str) -> None:
    assert find_subnet(key) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"networks": ["10.32.0.0/22"], "nodePrefixes": ["x"]}'])
def test_what_is_no_cluster_is_refused(text: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_cluster(text)
    assert caught.value.code == INVALID_CONFIG


@pytest.mark.parametrize(
    ("networks", "prefixes", "said"),
    [
        ((), (), "one range of a family"),
        (("10.32.0.0/22", "10.64.0.0/22"), (24, 24), "one range of a family"),
        (("10.32.0.0/22",), (24, 64), "one range of a family"),
        (("10.32.0.1/22",), (24,), "host bits set"),
        (("10.32.0.0/22",), (22,), "/23 to /30, not /22"),
        (("10.32.0.0/22",), (31,), "/23 to /30, not /31"),
        (("fd00:1::/56",), (127,), "/57 to /126, not /127"),
    ],
)
def test_clusters_that_cannot_be_used(networks: tuple[str, ...], prefixes: tuple[int, ...], said: str) -> None:
    with pytest.raises(CNIError, match=said) as caught:
        check_cluster(Cluster(cidrs(*networks), prefixes))
    assert caught.value.code == INVALID_CONFIG


@pytest.mark.parametrize("prefix", [23, 30])
def test_the_smallest_and_the_largest_part(prefix: int) -> None:
    assert check_cluster(Cluster(cidrs("10.32.0.0/22"), (prefix,))).parts == 1 << (prefix - 22)


def test_parts_have_one_number_in_both_families() -> None:
    assert BOTH.parts == 4
    assert BOTH.part(0) == cidrs("10.32.0.0/24", "fd00:1::/64")
    assert BOTH.part(3) == cidrs("10.32.3.0/24", "fd00:1:0:3::/64")


def test_a_node_asks_for_the_part_that_its_name_selects_and_then_for_the_next() -> None:
    """The same part for ever, in every version: the first 8 bytes of the name's SHA-256, as a big-endian number."""
    cluster = Cluster(cidrs("10.0.0.0/8"), (24,))
    asked = candidates(cluster, "node1", ())
    assert [next(asked), next(asked)] == [cidrs("10.95.41.0/24"), cidrs("10.95.42.0/24")]
    assert len(list(asked)) == cluster.parts - 2


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        pytest.param([], {0, 1, 2, 3}, id="nothing taken"),
        pytest.param(["10.32.1.0/24"], {0, 2, 3}, id="one part"),
        pytest.param(["10.32.1.128/25"], {0, 2, 3}, id="half of one"),
        pytest.param(["10.32.2.0/23"], {0, 1}, id="two parts"),
        pytest.param(["10.0.0.0/8"], set(), id="more than all"),
        pytest.param(["10.32.4.0/24", "10.31.255.0/24"], {0, 1, 2, 3}, id="beside them"),
        pytest.param(["fd00:1:0:2::/64"], {0, 1, 3}, id="of the other family"),
        pytest.param(["fd00:1:0:ff::/64"], {0, 1, 2, 3}, id="a number that the other family has not"),
    ],
)
def test_parts_that_are_taken_are_not_asked_for(taken: list[str], free: set[int]) -> None:
    assert set(candidates(BOTH, "node1", cidrs(*taken))) == {BOTH.part(number) for number in free}


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        (("10.32.3.0/24", "fd00:1:0:3::/64"), True),
        (("10.32.3.0/24", "fd00:1:0:2::/64"), False),
        (("10.32.3.0/24",), False),
        (("10.32.2.0/23", "fd00:1:0:3::/64"), False),
        (("10.33.0.0/24", "fd00:2::/64"), False),
    ],
)
def test_which_ranges_are_a_part(pods: tuple[str, ...], expected: bool) -> None:
    assert is_part(BOTH, cidrs(*pods)) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("10.1.0.0/16", "10.1.7.0/24", True),
        ("10.1.7.0/24", "10.1.0.0/16", True),
        ("10.1.7.0/24", "10.1.8.0/24", False),
        ("10.1.0.0/16", "fd00::/64", False),
    ],
)
def test_overlaps(one: str, other: str, expected: bool) -> None:
    assert overlap(parse_cidr(one), parse_cidr(other)) is expected
