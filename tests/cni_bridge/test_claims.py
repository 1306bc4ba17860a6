"""Several who want one host port: who has it, who waits for it, who gets it when the holder goes."""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import claims, portmap, sync
from cni_bridge.mappings import PortMapping
from cni_bridge.portmap import WAITING, is_port, list_beside, make_rules
from cni_bridge.sync import delete_own_rules, delete_rules, ensure_rules, find_missing
from cni_bridge.waiting_ports import called_up, port_of, waiting_for
from cni_kernel import expressions
from cni_kernel.expressions import Element, Rules
from cni_kernel.netlink import Message
from cni_kernel.nftables import Nftables
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

FIRST, SECOND, THIRD = (Attachment(f"net{number}", "c1", f"eth{number}") for number in range(3))
STRANGER = Attachment("net1", "c2", "eth1")
MAPPINGS = [PortMapping(8080, 80, "tcp", None), PortMapping(53, 5353, "udp", parse_ip("192.168.1.11"))]
ADDRESSES = {own: parse_cidr(f"10.{number}.0.5/16") for number, own in enumerate((FIRST, SECOND, THIRD, STRANGER))}


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    """Every test of this file runs inside its host."""
    with host.entered():
        yield


def wanted(own: Attachment, mappings: list[PortMapping] = MAPPINGS) -> Rules:
    return make_rules(own, f"br-{own.network}", mappings, [ADDRESSES[own]])


def add(host: Host, own: Attachment) -> None:
    """What an ADD does: the host's end first, then the rules."""
    host.run("ip", "link", "add", own.host_name, "type", "bridge")
    host.run("ip", "link", "set", own.host_name, "alias", own.owner)
    ensure_rules(wanted(own))


def led_to(host: Host) -> dict[Any, Any]:
    """Where the host ports lead, as nft(8) says."""
    maps = {entry["map"]["name"]: entry["map"].get("elem", []) for entry in host.nft() if "map" in entry}
    return {
        str(key["elem"]["val"]["concat"][-1]): value["concat"][0]
        for name in ("portmap4", "portmap_any4")
        for key, value in maps.get(name, [])
    }


def everywhere(own: Attachment) -> dict[str, str]:
    return {"8080": str(ADDRESSES[own].ip), "53": str(ADDRESSES[own].ip)}


@pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("host_ip", [None, "192.168.1.11", "127.0.0.5", "fd00::7"])
def test_who_waits_for_a_port_waits_for_that_one(version: int, host_ip: str | None) -> None:
    ip = parse_ip(host_ip) if host_ip else None
    address = parse_cidr("10.1.0.5/16" if version == 4 else "fd00:1::5/64")
    elements = make_rules(FIRST, "br0", [PortMapping(8080, 80, "tcp", ip)], [address]).elements
    ports = [element for element in elements if is_port(element)]
    assert len(ports) == (ip is None or ip.version == version)
    for port in ports:
        place = waiting_for(port)
        [entry] = [entry for entry in WAITING.values() if entry.name == place.map]
        assert entry.data is not None
        assert (len(place.key), len(place.data)) == (entry.key[1], entry.data[1])
        assert not is_port(place)
        assert called_up(place) == port._replace(claim="")
        beside = [element for element in elements if element.claim and element != port]
        assert [(element.map, element.key) for element in list_beside(called_up(place))] == [
            (element.map, element.key) for element in beside
        ]
        assert len(beside) == (version == 4 and host_ip in (None, "127.0.0.5"))
        assert {port_of(element) for element in (port, *beside)} == {(port.map, port.key)}


def test_the_places_of_two_who_wait_are_two() -> None:
    element = wanted(FIRST).elements[0]
    assert waiting_for(element).key != waiting_for(element._replace(comment=SECOND.owner)).key


def test_one_port_that_waits_is_told_of_alone(capfd: pytest.CaptureFixture[str]) -> None:
    sync._warn(wanted(FIRST).elements[:1])
    assert "host port 8080/tcp stays with another" in capfd.readouterr().err


def test_a_second_interface_of_the_container_waits_and_gets_the_ports(
    host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    add(host, FIRST)
    assert capfd.readouterr().err == ""
    add(host, SECOND)
    words = "host port 8080/tcp (and 1 more) stays with another interface of this container, and leads here when"
    assert words in capfd.readouterr().err
    assert led_to(host) == everywhere(FIRST)
    assert [find_missing(wanted(own)) for own in (FIRST, SECOND)] == [[], []]
    delete_own_rules(FIRST)
    assert led_to(host) == everywhere(SECOND)
    assert find_missing(wanted(SECOND)) == []
    delete_own_rules(SECOND)
    assert host.nft() == []


def test_who_waits_may_go_first(host: Host) -> None:
    for own in (FIRST, SECOND):
        add(host, own)
    delete_own_rules(SECOND)
    assert led_to(host) == everywhere(FIRST)
    assert find_missing(wanted(FIRST)) == []
    delete_own_rules(FIRST)
    assert host.nft() == []


def test_of_several_who_wait_each_gets_its_turn(host: Host) -> None:
    owners = [FIRST, SECOND, THIRD]
    for own in owners:
        add(host, own)
    while owners:
        assert [find_missing(wanted(own)) for own in owners] == [[]] * len(owners)
        delete_own_rules(owners.pop(0))
        assert set(led_to(host).values()) <= {str(ADDRESSES[own].ip) for own in owners}
        assert len(led_to(host)) == (2 if owners else 0)
    assert host.nft() == []


def test_waiting_twice_changes_nothing(host: Host) -> None:
    for own in (FIRST, SECOND):
        add(host, own)
    before = sorted(map(str, find_elements()))
    for own in (SECOND, FIRST):
        ensure_rules(wanted(own))
    assert sorted(map(str, find_elements())) == before


def find_elements() -> list[Element]:
    nft = Nftables(expressions.INET)
    found = [element for entry in portmap.MAPS for element in nft.find_elements(entry.name, "")]
    nft.close()
    return found


def test_a_place_in_the_queue_that_is_gone_is_missing(host: Host) -> None:
    for own in (FIRST, SECOND):
        add(host, own)
    host.run("nft", "flush", "map", "inet", "pycni", "portmap_waiting4")
    missing = [
        f"map {name} of nftables table pycni lacks the element of"
        for name in ("portmap4", "portmap_any4", "portmap_any_loopback")
    ]
    assert sorted(text.partition(" this")[0] for text in find_missing(wanted(SECOND))) == missing
    assert find_missing(wanted(FIRST)) == []


def test_nobody_waits_for_another_container(host: Host) -> None:
    add(host, FIRST)
    with pytest.raises(CNIError, match="taken by container c1 interface eth0 of network net0"):
        add(host, STRANGER)
    assert {element.comment for element in find_elements()} == {FIRST.owner}


@pytest.mark.parametrize("known_by", ["alias", "name"])
def test_a_holder_gives_way_when_its_interface_is_gone(host: Host, known_by: str) -> None:
    add(host, FIRST)
    if known_by == "name":
        host.run("ip", "link", "set", FIRST.host_name, "alias", "by hand")
        present = FIRST.host_name
    else:
        host.run("ip", "link", "set", FIRST.host_name, "name", "renamed")
        present = "renamed"
    with pytest.raises(CNIError, match="is taken by container c1"):
        ensure_rules(wanted(STRANGER))
    host.run("ip", "link", "delete", present)
    ensure_rules(wanted(STRANGER))
    assert led_to(host) == everywhere(STRANGER)
    assert find_missing(wanted(STRANGER)) == []
    delete_own_rules(FIRST)
    assert led_to(host) == everywhere(STRANGER)


def test_a_mark_that_is_no_owner_s_has_no_interface_that_could_be_gone(host: Host) -> None:
    ensure_rules(wanted(FIRST, [PortMapping(1, 1, "tcp", None)]))
    host.run("nft", "add element inet pycni portmap_any4 { tcp . 8080 : 10.9.0.9 . 80 }")
    with pytest.raises(CNIError, match="is taken by ''"):
        ensure_rules(wanted(FIRST))


def test_a_port_goes_on_to_who_waits_on_another_network_of_a_collection(host: Host) -> None:
    for own in (FIRST, SECOND):
        add(host, own)
    delete_rules(expressions.INET, FIRST.network, FIRST.owner.__eq__)
    assert led_to(host) == everywhere(SECOND)
    assert find_missing(wanted(SECOND)) == []


def test_who_comes_to_wait_while_the_holder_goes_has_the_port_in_the_end(host: Host, mocker: MockerFixture) -> None:
    add(host, FIRST)
    genuine = claims.settle

    def go_in_between(nft: Nftables, elements: Any) -> Any:
        mocker.stop(patched)
        settled = genuine(nft, elements)
        delete_own_rules(FIRST)
        return settled

    patched = mocker.patch.object(claims, "settle", go_in_between)
    add(host, SECOND)
    assert led_to(host) == everywhere(SECOND)
    assert find_missing(wanted(SECOND)) == []


def test_who_comes_to_wait_after_the_holder_s_look_has_the_port_in_the_end(host: Host, mocker: MockerFixture) -> None:
    add(host, FIRST)
    genuine = Nftables.commit

    def come_in_between(nft: Nftables, messages: list[Message], generation: int | None = None) -> None:
        mocker.stop(patched)
        add(host, SECOND)
        genuine(nft, messages, generation)

    patched = mocker.patch.object(Nftables, "commit", come_in_between)
    delete_own_rules(FIRST)
    assert led_to(host) == everywhere(SECOND)
    assert find_missing(wanted(SECOND)) == []
