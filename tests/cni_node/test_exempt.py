"""Which networks are exempt from masquerading: merged, and compared."""

import pytest

from cni_bridge import masquerade
from cni_node.exempt import Interval, compare, intervals_of, merge
from cni_node.exemptions import SETS
from cni_node.snapshot import Node
from cni_protocol.address import parse_cidr, parse_ip


def interval(text: str, name: str = "n") -> Interval:
    cidr = parse_cidr(text)
    return Interval(cidr.version, cidr.first.value, cidr.last.value, name)


def test_a_node_brings_its_pods_and_itself() -> None:
    node = Node("n", (parse_cidr("10.1.0.0/24"), parse_cidr("fd00::/64")), (parse_ip("192.168.1.2"),))
    assert intervals_of(node) == [interval("10.1.0.0/24"), interval("fd00::/64"), interval("192.168.1.2/32")]


def test_a_name_that_nft_could_not_read_back_is_left_out() -> None:
    long = Node("n" * 129, (parse_cidr("10.1.0.0/24"),), ())
    assert [one.name for one in intervals_of(long)] == [""]
    assert [one.name for one in intervals_of(long._replace(name="n" * 128))] == ["n" * 128]


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        pytest.param(["10.1.0.0/24", "10.1.0.7/32"], ["10.1.0.0/24"], id="within"),
        pytest.param(["10.1.0.7/32", "10.1.0.0/24", "10.1.0.0/16"], ["10.1.0.0/16"], id="within what is within"),
        pytest.param(["10.1.0.0/24", "10.1.1.0/24"], ["10.1.0.0/24", "10.1.1.0/24"], id="neighbours"),
        pytest.param(["0.0.0.1/32", "::/64"], ["0.0.0.1/32", "::/64"], id="two families"),
        pytest.param(["::/64", "::1/128", "0.0.0.0/8"], ["0.0.0.0/8", "::/64"], id="each by itself"),
    ],
)
def test_what_lies_in_another_goes(given: list[str], merged: list[str]) -> None:
    assert merge(map(interval, given)) == list(map(interval, merged))


def test_the_difference_is_what_is_missing_and_what_is_too_much() -> None:
    one, two, three = map(interval, ("10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"))
    assert compare([one, two], [two, three]) == ([one], [three])
    assert compare([one], [one._replace(name="other")]) == ([one], [one._replace(name="other")])


def test_the_plugin_and_the_agent_mean_the_same_sets() -> None:
    assert SETS == masquerade.EXEMPT
