"""Which rules an attachment has."""

from typing import Any

import pytest

from cni_bridge import masquerade, portmap, spoofcheck
from cni_bridge.attachment_rules import ALL_MAPS, SHARED_MAPS, list_rules, sample_rules
from cni_bridge.config import parse_config
from cni_kernel import expressions
from cni_kernel.expressions import Rules
from cni_protocol.address import parse_cidr
from cni_protocol.attachment import Attachment
from tests.cni_bridge import make_request

ATTACHMENT = Attachment("mynet", "c1", "eth0")
ADDRESSES = [parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")]
MAC = "0a:58:0a:f4:00:02"
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
ALL: dict[str, Any] = {"ipMasq": True, "runtimeConfig": PORTS, "macspoofchk": True}


def filters(keys: dict[str, Any], *, addresses: bool = True, mac: str = MAC) -> list[Rules]:
    config = parse_config(make_request(ipam={"type": "host-local"}, **keys))
    return list_rules(config, ATTACHMENT, ADDRESSES if addresses else [], mac)


def kinds(made: list[Rules]) -> list[str]:
    """What rules are for, by the first of their chains."""
    names = {"postrouting": "masquerade", "portmap_prerouting": "portmap", "prerouting": "spoofcheck"}
    return [names[entry.chains[0].name] for entry in made]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, []),
        ({"ipMasq": True}, ["masquerade"]),
        ({"runtimeConfig": PORTS}, ["portmap"]),
        ({"macspoofchk": True}, ["spoofcheck"]),
        (ALL, ["masquerade", "portmap", "spoofcheck"]),
    ],
    ids=["none", "ipMasq", "portMappings", "macspoofchk", "all"],
)
def test_a_network_has_the_rules_that_it_asks_for(keys: dict[str, Any], expected: list[str]) -> None:
    assert kinds(filters(keys)) == expected


def test_without_addresses_or_mac_there_is_nothing_to_filter_by() -> None:
    assert kinds(filters(ALL, addresses=False)) == ["spoofcheck"]
    assert kinds(filters(ALL, mac="")) == ["masquerade", "portmap"]


def test_the_rules_are_those_of_the_attachment() -> None:
    config = parse_config(make_request(ipam={"type": "host-local"}, **ALL))
    assert filters(ALL) == [
        masquerade.make_rules(ATTACHMENT, "cni0", ADDRESSES),
        portmap.make_rules(ATTACHMENT, "cni0", config.port_mappings, ADDRESSES),
        spoofcheck.make_rules(ATTACHMENT, MAC),
    ]
    assert {element.comment for made in filters(ALL) for element in made.elements} == {"mynet,c1,eth0"}


def test_packets_of_a_container_in_a_vlan_pass_the_interface_into_that() -> None:
    keys = {"vlan": 7, "isGateway": True}
    elements = [element for made in filters({**ALL, **keys}) for element in made.elements]
    names = {element.key[:16].rstrip(b"\0") for element in elements if element.chain}
    assert names == {b"cni0.7"}


@pytest.mark.parametrize("keys", [{}, {"ipMasq": True}, {"macspoofchk": True}, ALL], ids=lambda keys: ",".join(keys))
def test_a_sample_has_the_same_kinds_and_is_nobody_s(keys: dict[str, Any]) -> None:
    config = parse_config(make_request(ipam={"type": "host-local"}, **keys))
    sample = sample_rules(config)
    assert kinds(sample) == kinds(filters(keys))
    versions = {element.map[-1] for made in sample for element in made.elements if element.map[-1].isdigit()}
    assert versions == ({"4", "6"} if keys.get("ipMasq") else set())


def test_every_element_lies_in_a_map_that_a_deletion_looks_into() -> None:
    for made in filters(ALL):
        searched = {entry.name for entry in ALL_MAPS[made.family]}
        assert {element.map for element in made.elements} <= searched
        assert {entry.name for entry in made.maps} <= searched | {entry.name for entry in SHARED_MAPS[made.family]}
    assert set(ALL_MAPS) == set(SHARED_MAPS) == {expressions.INET, expressions.BRIDGE}
