"""Which pair DEL takes: the attachment's, by name or by mark, and no other."""

import pytest

from cni_bridge import removal
from cni_kernel.peers import leads_into
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


@pytest.mark.parametrize("alias", ["", "pod web-1", "uplink, spare"], ids=["lost", "a note", "a note with a comma"])
def test_an_end_of_that_name_without_an_owner_s_mark_is_the_attachment_s(rooms: Rooms, alias: str) -> None:
    rooms.connect()
    rooms.host.run("ip", "link", "set", PORT, "alias", alias)
    removal.disconnect(rooms.outside, None, config_of(), ATTACHMENT)
    assert rooms.host.link_names() == ["cni0"]


def test_an_end_that_was_renamed_is_found_while_another_has_its_name(rooms: Rooms) -> None:
    rooms.connect()
    rooms.host.run("ip", "link", "set", PORT, "down")
    rooms.host.run("ip", "link", "set", PORT, "name", "web-1")
    rooms.host.run("ip", "link", "add", PORT, "type", "bridge")
    removal.disconnect(rooms.outside, None, config_of(), ATTACHMENT)
    assert sorted(rooms.host.link_names()) == sorted(["cni0", PORT])


@pytest.mark.parametrize("victim", ["a container's", "a pair within the host"])
def test_an_end_with_the_indexes_of_another_pair_takes_nothing_along(rooms: Rooms, victim: str) -> None:
    host = rooms.host
    host.run("ip", "link", "add", "cni0", "type", "bridge")
    host.add_container("c2")
    inside = "c2" if victim == "a container's" else None
    host.run("ip", "link", "add", "port", "master", "cni0", "type", "veth", "peer", "name", "inner")
    if inside:
        host.run("ip", "link", "set", "inner", "netns", inside)
    port = host.ip("link", "show", "port")[0]["ifindex"]
    inner = host.ip("link", "show", "inner", container=inside)[0]["ifindex"]
    forged = ("name", "eth0", "index", str(inner), "type", "veth", "peer", "name", "x", "index", str(port))
    host.run("ip", "link", "add", *forged, container="c1")
    removal.disconnect(rooms.outside, rooms.namespace, config_of(), ATTACHMENT)
    assert "port" in host.link_names()
    assert "inner" in host.link_names(inside)
    assert sorted(host.link_names("c1")) == ["eth0", "x"]


def test_an_end_that_has_just_gone_leads_nowhere(rooms: Rooms) -> None:
    rooms.host.run("ip", "link", "add", "port", "type", "veth", "peer", "name", "inner")
    port = rooms.outside.get_link("port")
    rooms.host.run("ip", "link", "delete", "port")
    with rooms.host.entered():
        assert not leads_into(port, rooms.namespace.descriptor)
