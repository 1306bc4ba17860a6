"""What is said of a stack that can be read in part."""

import pytest
from pytest_mock import MockerFixture

from cni_node.doctor import kernel_facts, proc_files
from cni_node.doctor.facts import Link
from cni_node.why import reading
from cni_node.why.values import NODE, BaseChain, Filter

DEVICE = BaseChain(("netdev", "t", "c"), 0, 0, "filter", drops=False, device="eth0")


@pytest.mark.parametrize(("owner", "prefix"), [(NODE, ""), ("net,c1,eth0", "shop/a: ")])
def test_rules_that_are_not_looked_at_are_told(mocker: MockerFixture, owner: str, prefix: str) -> None:
    for name in ("read_addresses", "read_routes", "read_neighbours"):
        mocker.patch.object(kernel_facts, name, return_value=[])
    mocker.patch.object(kernel_facts, "read_links", return_value=[Link(7, "eth0")])
    mocker.patch.object(proc_files, "read_listening", return_value=frozenset({("tcp", 80)}))
    mocker.patch.object(reading, "_read_routing_rules", return_value=[])
    tables = mocker.patch.object(proc_files, "read_legacy_tables", return_value=())
    found = mocker.patch.object(reading, "read_filter", return_value=Filter())
    whole = reading.read_stack(owner, "shop/a")
    assert (whole.unreadable, whole.links, set(whole.listening)) == ((), (Link(7, "eth0"),), {("tcp", 80)})
    tables.return_value = ("nat", "filter")
    found.return_value = Filter((DEVICE, DEVICE))
    assert reading.read_stack(owner, "shop/a").unreadable == (
        f"{prefix}the rules of iptables-legacy (nat, filter) cannot be read",
        f"{prefix}netdev t c on eth0 is not looked at: what it does to packets is not known",
    )
    found.side_effect = PermissionError(1, "Operation not permitted")
    assert (
        f"{prefix}the packet filter cannot be read: Operation not permitted"
        in reading.read_stack(owner, "shop/a").unreadable
    )
