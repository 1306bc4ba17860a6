"""Joining by owner, and the text of it: as values, without a kernel."""

import json
from typing import Any

from cni_node.inspect.document import document_of
from cni_node.inspect.join import is_owner, join
from cni_node.inspect.text import render
from cni_node.inspect.values import HostPort, Inside, Peer, Policies, Reservation, Rule
from cni_protocol.address import parse_ip
from tests.cni_node.inspect.nodes import link, reading

OWNER = "mynet,c0,eth0"


def reservation(ip: str, container_id: str, ifname: str = "eth0") -> Reservation:
    return Reservation("/store", "mynet", parse_ip(ip), container_id, ifname)


def test_what_belongs_to_an_owner_comes_together() -> None:
    port = HostPort("", 8080, "tcp", "10.1.0.0:80")
    rules = [Rule(OWNER, "host port", port), Rule(OWNER, "masquerade 10.1.0.0"), Rule(OWNER, "")]
    view = join(reading(2, rules=rules, reservations=[reservation("10.1.0.0", "c0")]))
    first, second = view.attached
    assert (first.pod, first.bridge, first.addresses) == ("shop/web-0", "cni0", ("10.1.0.0/16",))
    assert (first.reserved, first.ports, first.rules, first.state) == (
        ("10.1.0.0",),
        (port,),
        ("masquerade 10.1.0.0",),
        (),
    )
    assert (second.reserved, second.ports, second.rules) == ((), (), ())
    assert view.bridges[0].owners == (OWNER, "mynet,c1,eth0")
    assert (view.leftovers, view.sure) == ([], True)


def test_an_interface_with_an_alias_of_former_spelling_is_of_the_same_owner() -> None:
    made = reading(1)
    links = [each._replace(alias="mynet/c0/eth0") if each.kind == "veth" else each for each in made.links]
    assert join(made._replace(links=links)).attached[0].host == links[-1]


def test_an_interface_that_was_renamed_is_found_by_its_alias() -> None:
    made = reading(1)
    links = [each._replace(name="other") if each.kind == "veth" else each for each in made.links]
    assert [one.state for one in join(made._replace(links=links)).attached] == [()]


def test_an_interface_without_an_alias_is_found_by_its_name() -> None:
    made = reading(1)
    links = [each._replace(alias="") if each.kind == "veth" else each for each in made.links]
    assert [one.state for one in join(made._replace(links=links)).attached] == [()]


def test_a_reservation_of_an_old_version_is_whose_address_it_is() -> None:
    view = join(reading(2, reservations=[reservation("10.1.0.1", "c1", ""), reservation("10.1.9.9", "gone", "")]))
    assert [one.reserved for one in view.attached] == [(), ("10.1.0.1",)]
    assert [entry.kind for entry in view.leftovers] == ["reservation"]


def test_of_two_interfaces_the_one_with_the_address_has_the_old_reservation() -> None:
    made = reading(1, reservations=[reservation("10.1.7.7", "c0", "")])
    second = made.remembered[0]._replace(ifname="net1", addresses=("10.1.7.7/16",))
    view = join(made._replace(remembered=[*made.remembered, second]))
    assert {one.ifname: one.reserved for one in view.attached} == {"eth0": (), "net1": ("10.1.7.7",)}


def test_an_interface_of_that_name_with_another_alias_is_somebody_elses() -> None:
    made = reading(1)
    links = [each._replace(alias="mine") if each.kind == "veth" else each for each in made.links]
    assert [one.state for one in join(made._replace(links=links)).attached] == [("no host interface",)]


def test_leftovers_are_named() -> None:
    made = reading(1, reservations=[reservation("10.1.0.9", "c9"), reservation("10.1.0.8", "")])
    links = [*made.links, link(90, "veth9", "veth", alias="mynet,c8,eth0", master=3)]
    view = join(made._replace(links=links, rules=[Rule("mynet,c7,eth0", "masquerade 10.1.0.7")]))
    assert [(entry.kind, entry.why) for entry in view.leftovers] == [
        ("interface", "no result"),
        ("reservation", "no attachment"),
        ("reservation", "no attachment"),
        ("rules", "no attachment"),
    ]
    text = render(view)
    assert "  mynet on cni0: 2 interfaces, 2 reserved addresses\n" in text
    assert "  c8  addresses unknown\n" in text
    assert "interface veth9 of container c8 interface eth0 of network mynet: no result" in text
    assert "reservation 10.1.0.9 for container c9 (/store/mynet/10.1.0.9): no attachment" in text
    assert "reservation 10.1.0.8 for nobody (/store/mynet/10.1.0.8): no attachment" in text


def test_a_result_whose_namespace_or_interface_is_gone_is_left_over() -> None:
    made = reading(2)
    gone = made._replace(inside={**made.inside, OWNER: Inside("gone")}, links=made.links[:-1])
    view = join(gone)
    assert [(entry.kind, entry.why) for entry in view.leftovers] == [
        ("result", "its namespace /run/netns/c0 is gone"),
        ("result", "its interface on the host is gone"),
    ]
    assert [one.state for one in view.attached] == [("netns gone",), ("no host interface",)]


def test_without_results_nobody_says_for_sure_what_is_left_over() -> None:
    view = join(reading(1, has_results=False, remembered=[], problems=["results cannot be read"]))
    assert not view.sure
    assert view.attached[0].state == ("no result was read",)
    text = render(view)
    assert "left over, or not (what tells could not all be read)" in text
    assert "could not be read\n  results cannot be read\n" in text


def test_without_links_no_interface_is_said_to_be_gone() -> None:
    view = join(reading(1, has_links=False, links=[]))
    assert (view.attached[0].state, view.leftovers, view.sure) == ((), [], False)


def test_what_is_wrong_with_an_attachment_is_said() -> None:
    made = reading(1)
    for change, said in (
        ({"up": False}, "host end down"),
        ({"running": False}, "no carrier"),
        ({"master": 0}, "in no bridge"),
    ):
        links = [each._replace(**change) if each.kind == "veth" else each for each in made.links]
        assert join(made._replace(links=links)).attached[0].state == (said,)
    for inside, said in (
        (Inside("ok"), "no eth0 in the container"),
        (Inside("ok", link(2, "eth0", "veth"), ()), "lacks 10.1.0.0/16"),
        (made.inside[OWNER]._replace(link=link(2, "eth0", "veth", up=False)), "eth0 down"),
    ):
        assert join(made._replace(inside={OWNER: inside})).attached[0].state == (said,)


def test_what_is_no_owner_is_nobodys() -> None:
    assert [is_owner(text) for text in ("a,b,eth0", "a,b,", ",b,c", "a,b", "", "uplink to rack 7")] == [
        *(True, False, False, False, False, False)
    ]


def test_the_drawing_has_the_pods_the_bridge_and_the_way_out() -> None:
    view = join(reading(3))
    names = [one.host.name for one in view.attached if one.host]
    lines = render(view).splitlines()
    assert lines[2:4] == ["networks", "  mynet on cni0: 3 interfaces, 0 reserved addresses"]
    assert lines[7:10] == [
        f"  shop/web-0 eth0 ── {names[0]} ─┐── cni0 ── uplink0",
        f"  shop/web-1 eth0 ── {names[1]} ─┤",
        f"  shop/web-2 eth0 ── {names[2]} ─┘",
    ]
    assert f"  shop/web-0 eth0 ── {names[0]} ──── cni0 ── uplink0" in render(join(reading(1)))
    assert "  (no pods) ── cni0 ── uplink0" in render(join(reading(0)))


def test_long_lists_are_in_short_unless_all_is_wanted() -> None:
    peers = [Peer(f"n{n:04}", f"10.{n >> 8}.{n & 255}.0/24", "192.0.2.9", "", "192.0.2.9", "") for n in range(1000)]
    view = join(reading(250, peers=peers, problems=[f"problem {n}" for n in range(30)]))
    text = render(view)
    assert "  … 990 more (--all)\n" in text
    assert "  … 240 more (--all)\n" in text
    assert "  … 20 more (--all)\n" in text
    assert len(text.splitlines()) < 120
    whole = render(view, everything=True)
    assert "more (--all)" not in whole
    assert "n0999  10.3.231.0/24 via 192.0.2.9" in whole
    assert "shop/web-249" in whole


def test_a_way_to_a_peer_that_is_not_complete_is_marked() -> None:
    peers = [
        Peer("b", "10.2.0.0/24", "10.2.0.0", "vxlan.1", "192.0.2.2", ""),
        Peer("", "10.3.0.0/24", "10.3.0.0", "vxlan.1", "", "no neighbour entry"),
    ]
    text = render(join(reading(0, peers=peers)))
    assert "ways to peers (1 not complete)" in text
    assert "?  10.3.0.0/24 via 10.3.0.0 dev vxlan.1  ! no neighbour entry" in text
    assert "b  10.2.0.0/24 via 10.2.0.0 dev vxlan.1, node 192.0.2.2" in text


def test_policies_are_numbers() -> None:
    text = render(join(reading(0, exempt=4, policies=Policies(3, 2, 7, {"ingress": 5, "cut": 0}))))
    assert "4 networks are not masqueraded towards" in text
    assert "policies: 3 isolated addresses, 2 chains, 7 sets" in text
    assert "packets denied: ingress 5\n" in text


def test_a_name_writes_no_control_characters_to_a_terminal() -> None:
    made = reading(1)
    text = render(join(made._replace(remembered=[made.remembered[0]._replace(pod="shop/\x1b[2Jweb")])))
    assert "\x1b" not in text
    assert "shop/?[2Jweb" in text


def test_the_document_has_all_of_it_and_is_json() -> None:
    document: Any = json.loads(json.dumps(document_of(join(reading(3, exempt=None)))))
    assert len(document["attachments"]) == 3
    assert document["attachments"][0]["hostInterface"]["mtu"] == 1500
    assert document["exemptNetworks"] is None
    assert document["networks"] == [{"name": "mynet", "bridges": ["cni0"], "attachments": 3, "reservations": 0}]
    assert document["bridges"][0]["owners"] == ["mynet,c0,eth0", "mynet,c1,eth0", "mynet,c2,eth0"]
    assert (document["problems"], document["leftovers"], document["leftoversAreSure"]) == ([], [], True)
