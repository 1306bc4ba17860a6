"""Which pair DEL takes: the attachment's, by name or by mark, and no other."""

import pytest

from cni_bridge import removal
from tests.cni_bridge.rooms import ATTACHMENT, PORT, Rooms, config_of

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("alias", ["", "mynet/c1/eth0"], ids=["as it was made", "marked in the former spelling"])
def test_a_pair_whose_end_was_renamed_is_removed(rooms: Rooms, alias: str) -> None:
    rooms.connect()
    rooms.host.run("ip", "link", "set", PORT, "down")
    rooms.host.run("ip", "link", "set", PORT, "name", "web-1")
    if alias:
        rooms.host.run("ip", "link", "set", "web-1", "alias", alias)
    removal.disconnect(rooms.outside, None, config_of(), ATTACHMENT)
    assert rooms.host.link_names() == ["cni0"]
    assert rooms.host.link_names("c1") == []


@pytest.mark.parametrize("namespace", [True, False], ids=["with its sandbox", "without"])
def test_what_another_has_under_that_name_stays(rooms: Rooms, namespace: bool) -> None:
    rooms.host.run("ip", "link", "add", PORT, "type", "veth", "peer", "name", "other")
    rooms.host.run("ip", "link", "set", PORT, "alias", "mynet,c2,eth0")
    removal.disconnect(rooms.outside, rooms.namespace if namespace else None, config_of(), ATTACHMENT)
    assert sorted(rooms.host.link_names()) == sorted([PORT, "other"])


def test_an_end_of_that_name_that_lost_its_mark_is_the_attachment_s(rooms: Rooms) -> None:
    rooms.connect()
    rooms.host.run("ip", "link", "set", PORT, "alias", "")
    removal.disconnect(rooms.outside, None, config_of(), ATTACHMENT)
    assert rooms.host.link_names() == ["cni0"]


def test_an_end_that_was_renamed_is_found_while_another_has_its_name(rooms: Rooms) -> None:
    rooms.connect()
    rooms.host.run("ip", "link", "set", PORT, "down")
    rooms.host.run("ip", "link", "set", PORT, "name", "web-1")
    rooms.host.run("ip", "link", "add", PORT, "type", "bridge")
    removal.disconnect(rooms.outside, None, config_of(), ATTACHMENT)
    assert sorted(rooms.host.link_names()) == sorted(["cni0", PORT])
