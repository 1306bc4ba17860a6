"""A node as text, picture and document, whole: look at node.txt, node.svg and node.json when they change."""

import json
from pathlib import Path

import pytest

from cni_node.inspect.document import document_of
from cni_node.inspect.svg import draw
from cni_node.inspect.text import render
from cni_node.inspect.values import HostPort, Peer, View, shorten
from tests.cni_node.inspect.views import PEERS, full_view

HERE = Path(__file__).parent


def test_all_of_a_node_as_text() -> None:
    assert render(full_view()).splitlines() == (HERE / "node.txt").read_text().splitlines()


def test_all_of_a_node_as_a_picture() -> None:
    assert draw(full_view()).splitlines() == (HERE / "node.svg").read_text().splitlines()


def test_all_of_a_node_for_programs() -> None:
    assert json.loads(json.dumps(document_of(full_view()))) == json.loads((HERE / "node.json").read_text())


def with_pods(number: int, peers: int = 0) -> View:
    view = full_view()
    first = view.attached[0]
    attached = [first._replace(owner=f"o{each}", ports=(), pod=f"pod{each}") for each in range(number)]
    bridge = view.bridges[0]._replace(owners=tuple(one.owner for one in attached), others=())
    nodes = [Peer(f"n{each}", "10.2.0.0/24", "192.0.2.2", "", "192.0.2.2", "") for each in range(peers)]
    return view._replace(attached=attached, bridges=[bridge], peers=nodes, uplinks=[], overlay=[])


@pytest.mark.parametrize(
    ("pods", "peers", "height", "more"),
    [
        (0, 0, 194, []),
        (3, 0, 322, []),
        (8, 0, 642, []),
        (9, 0, 706, ['x="145" y="622" text-anchor="middle">… 1 more']),
        (1, 6, 514, []),
        (1, 7, 578, ['x="1175" y="494" text-anchor="middle">… 1 more']),
    ],
)
def test_the_picture_is_as_high_as_what_is_drawn(pods: int, peers: int, height: int, more: list[str]) -> None:
    drawn = draw(with_pods(pods, peers))
    assert f'height="{height}">' in drawn.splitlines()[0]
    assert [part[: part.index("</text>")] for part in drawn.split('"small" ') if "more<" in part] == more
    assert drawn.count('<rect class="pod"') == min(pods, 8)
    assert ("PEERS" in drawn) == bool(peers)


def test_a_node_without_bridges_has_its_picture() -> None:
    drawn = draw(full_view()._replace(bridges=[], peers=[]))
    assert '<text class="small" x="30" y="110" text-anchor="start">no bridge with pods</text>' in drawn
    assert 'height="194">' in drawn.splitlines()[0]


def test_what_is_down_or_missing_is_drawn_as_wrong() -> None:
    view = full_view()
    [bridge] = view.bridges
    down = bridge._replace(link=bridge.link._replace(up=False), addresses=())
    overlay = [view.overlay[0]._replace(up=False)]
    uplinks = [{**view.uplinks[0], "up": False}]
    attached = [view.attached[0]._replace(host=None, addresses=())]
    drawn = draw(view._replace(bridges=[down], overlay=overlay, uplinks=uplinks, attached=attached, peers=[]))
    assert drawn.count('<rect class="wrong"') == 4
    for text in ("mtu 1500 down", "no address", "not there", ">?<", "eth0  no address"):
        assert text in drawn, text


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        (["80/tcp"], ">mtu 9  port 80/tcp<"),
        (["80/tcp", "53/udp"], ">mtu 9  port 80/tcp 53/u…<"),
        (["8/tcp", "5/udp", "6/tcp"], ">mtu 9  port 8/tcp 5/udp…<"),
        ([], ">mtu 9<"),
    ],
)
def test_ports_stand_beside_the_interface(ports: list[str], text: str) -> None:
    view = full_view()
    one = view.attached[0]
    assert one.host is not None
    pairs = [port.split("/") for port in ports]
    shown = tuple(HostPort("", int(number), protocol, "") for number, protocol in pairs)
    assert text in draw(view._replace(attached=[one._replace(ports=shown, host=one.host._replace(mtu=9))]))


def test_names_are_cut_where_their_box_ends() -> None:
    view = full_view()._replace(node="n" * 100)
    assert f">node {'n' * 74}…<" in draw(view)
    pod = view.attached[0]._replace(pod="p" * 40)
    assert f">{'p' * 24}…<" in draw(view._replace(attached=[pod]))
    assert [shorten(name) for name in ("a" * 12, "a" * 13)] == ["a" * 12, "a" * 11 + "…"]


def test_long_lists_are_cut_short_unless_all_is_wanted() -> None:
    view = with_pods(21, 11)
    short, whole = render(view), render(view, everything=True)
    assert short.count(" interface eth0 of network") == 10
    assert "  … 11 more (--all)\n" in short
    assert "  … 1 more (--all)\n" in short
    assert whole.count(" interface eth0 of network") == 21
    assert "more (--all)" not in whole
    assert render(with_pods(20)).count(" interface eth0 of network") == 20


def test_the_drawing_of_one_of_three_and_of_none() -> None:
    lines = render(with_pods(3)).splitlines()
    drawn = [line for line in lines if line.startswith("  pod") and " ── " in line]
    assert [line.rstrip()[-8:] if number == 0 else line[-1] for number, line in enumerate(drawn)] == [
        "┐── cni0",
        "┤",
        "┘",
    ]
    [alone] = [line for line in render(with_pods(1)).splitlines() if line.startswith("  pod0 eth0 ──")]
    assert alone.endswith(" ── vethdcd814456d0 ──── cni0")
    assert "  (no pods) ── cni0\n" in render(with_pods(0))


def test_pods_on_no_bridge_are_told() -> None:
    view = full_view()
    text = render(view._replace(bridges=[]))
    assert "\nin no bridge\n  shop/web-0 eth0 10.1.0.0/16: in no bridge\n  shop/web-1 eth0 : namespace gone" in text


def test_what_there_is_nothing_of_is_left_out() -> None:
    text = render(with_pods(0)._replace(exempt=0, policies=None, leftovers=[], problems=[], networks=[]))
    assert text == (
        "node node1: 0 interfaces of pods, 1 bridge, 0 ways to peers, 0 leftovers\n\n"
        "bridge cni0  mtu 1500 up 10.1.0.1/16 fd00:1::1/64\n\n  (no pods) ── cni0\n"
    )
    unsure = render(full_view()._replace(sure=False, peers=PEERS[:1], policies=None))
    assert "\nleft over, or not (what tells could not all be read)\n" in unsure
    assert "\nways to peers\n  node2" in unsure


def test_no_name_reaches_the_terminal_as_it_is() -> None:
    assert "node a?[31mb:" in render(full_view()._replace(node="a\x1b[31mb"))
