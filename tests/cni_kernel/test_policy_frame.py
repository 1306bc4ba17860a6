"""What agent and plugin both put into the table of policies."""

import pytest

from cni_kernel.expressions import ADDRESS
from cni_kernel.filter_expressions import FORWARD, SetType
from cni_kernel.policy_frame import DIRECTIONS, base_chain, dropping_chain, map_name, map_type


def test_the_base_chain_stands_between_the_filters_and_the_translations() -> None:
    """NF_IP_PRI_FILTER is 0 and NF_IP_PRI_NAT_SRC 100, where nft(8) says so."""
    chain = base_chain()
    assert (chain.name, chain.kind, chain.hook, chain.priority) == ("forward", "filter", FORWARD, 10)
    assert len(chain.rules) == 4
    assert len(base_chain([]).rules) == 5


def test_a_dropping_chain_is_at_no_hook() -> None:
    chain = dropping_chain("pending")
    assert (chain.name, len(chain.rules), chain.kind) == ("pending", 1, "")


@pytest.mark.parametrize("version", [4, 6])
def test_maps_have_a_direction_and_a_version(version: int) -> None:
    assert [map_name(direction, version) for direction in DIRECTIONS] == [f"egress{version}", f"ingress{version}"]
    assert map_type(version) == SetType(ADDRESS[version], verdicts=True)
