"""The types of links: what the other rooms rely on."""

import subprocess
import sys

from cni_kernel.values import Address, Link, Veth
from cni_protocol.address import parse_cidr
from tests.conftest import ROOT


def test_links_and_pairs_are_frozen_and_compare_by_value() -> None:
    link = Link(2, "eth0", "veth", "", 1500, True, True, False, 0, 6, "", False, False, False, False)
    assert link == link._replace(mtu=1500)
    assert link != link._replace(mtu=1400)
    veth = Veth("veth1", "mynet,c1,eth0", 5, "eth0", 7, "", 0, False, False)
    assert len({veth, veth._replace()}) == 1


def test_an_address_is_told_by_its_state_too() -> None:
    address = Address(parse_cidr("fd00::5/64"), tentative=False, duplicate=False)
    assert address != address._replace(tentative=True)
    assert address != address._replace(duplicate=True)


def test_what_only_compares_needs_no_netlink() -> None:
    program = (
        "import cni_bridge.verify, cni_bridge.plan, cni_bridge.commands, cni_bridge.attachment_rules, sys; "
        "print(sorted(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "cni_kernel.values" in loaded
    assert "pyroute2" not in loaded
