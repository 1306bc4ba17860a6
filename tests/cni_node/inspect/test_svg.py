"""The picture: XML whatever the names are, with each pod beside its interface, and long lists in short."""

from xml.etree import ElementTree

import pytest

from cni_node.inspect.join import join
from cni_node.inspect.svg import draw
from cni_node.inspect.values import Peer
from tests.cni_node.inspect.nodes import link, reading

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_a_pod_stands_beside_its_interface_and_the_bridge() -> None:
    view = join(reading(2))
    said = texts(draw(view))
    for one in view.attached:
        assert one.host is not None
        assert {one.label, one.host.name, f"eth0  {one.addresses[0]}"} <= set(said)
    assert {"cni0", "uplink0", "node node1"} <= set(said)


@pytest.mark.parametrize("name", ['</text><script>"x"</script>', "a&b", "a\x00\x1b\ud800b", "\ufffe"])
def test_no_name_breaks_the_picture(name: str) -> None:
    made = reading(1, node=name, peers=[Peer(name, name, name, "", name, name)])
    view = join(made._replace(remembered=[made.remembered[0]._replace(pod=name)]))
    root = ElementTree.fromstring(draw(view).encode())
    assert {element.tag for element in root.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "style", "rect", "text", "path")
    }


def test_long_lists_are_in_short() -> None:
    peers = [Peer(f"n{n:04}", "10.0.0.0/24", "10.0.0.0", "vxlan.1", "192.0.2.2", "") for n in range(1000)]
    made = reading(250, peers=peers)
    said = texts(draw(join(made._replace(links=[*made.links, link(5, "vxlan.1", "vxlan", alias="pycni,")]))))
    assert {"… 242 more", "… 994 more"} <= set(said)
    assert len(said) < 70


def test_what_is_wrong_is_said_and_a_bare_node_is_drawn() -> None:
    made = reading(1)
    links = [each._replace(running=False) if each.kind == "veth" else each for each in made.links]
    assert "no carrier" in texts(draw(join(made._replace(links=links))))
    bare = reading(0, links=[], uplinks=[], has_links=False, problems=["interfaces cannot be read"])
    assert "could not be read: 1" in texts(draw(join(bare)))[-1]
