"""Nodes and pods with an IPv4 and an IPv6 address each, on one link."""

from collections.abc import Iterator
from itertools import permutations

import pytest

from tests.cluster.conftest import Record
from tests.cluster.worlds import OUTSIDERS, Parts, World, open_world, place_on_lan
from tests.kit.node import addresses

pytestmark = pytest.mark.kernel

NODES = ("node1", "node2")
PODS = {"one": "node1", "two": "node1", "three": "node2"}
PAIRS = [(client, server) for client, server in permutations((*NODES, *PODS), 2) if not {client, server} <= {*NODES}]
PAIRS += [(pod, outsider) for pod in PODS for outsider in OUTSIDERS]


@pytest.fixture(scope="module")
def dual(parts: Parts) -> Iterator[World]:
    with open_world(parts, [place_on_lan(number, dual=True) for number in (1, 2)]) as made:
        for pod, node in PODS.items():
            made.cluster.run_pod(node, pod)
        yield made


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_has_an_address_of_either_kind(dual: World, pod: str) -> None:
    machine = dual.machine(pod)
    number = PODS[pod][-1]
    assert sorted(machine.addresses) == sorted(addresses(machine.netns))
    assert machine.address(4).startswith(f"10.240.{number}.")
    assert machine.address(6).startswith(f"fd00:240:{number}::")


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("client", "server"), [pytest.param(*pair, id=" -> ".join(pair)) for pair in PAIRS])
def test_all_reach_each_other_over_both(dual: World, record: Record, client: str, server: str, version: int) -> None:
    seen = dual.ask(client, server, version)
    record(f"one link, dual stack, IPv{version}", client, server, seen)
    assert seen == dual.expected(client, server, version)
