"""Answers about nodes that are values: names, routes, bridges, rules that cannot be followed, ways by chance."""

import sys
from typing import Any

import pytest

from cni_kernel.values import PortVlan
from cni_node.doctor.facts import Address, Link, Neighbour
from cni_node.why.ask import answer
from cni_node.why.discovery import Neighbour as Neighbour6
from cni_node.why.discovery import Request, discover
from cni_node.why.hooks import Hooks
from cni_node.why.names import find_end, parse_service
from cni_node.why.packets import Packet
from cni_node.why.routing import select_address
from cni_node.why.sets import find_element
from cni_node.why.values import (
    NODE,
    PASSES,
    STOPPED,
    UNKNOWN,
    Answer,
    BaseChain,
    Expression,
    Filter,
    FilterSet,
    Question,
    RoutingRule,
    Rule,
    SetElement,
    StopError,
    World,
)
from cni_protocol.address import parse_cidr, parse_ip
from tests.cni_node.why.stacks import own, route, world

KEY = ("inet", "foreign", "c")
DROP = Expression("immediate", {"DATA": {"NFTA_DATA_VERDICT": {"NFTA_VERDICT_CODE": 0}}})
ACCEPT = Expression("immediate", {"DATA": {"NFTA_DATA_VERDICT": {"NFTA_VERDICT_CODE": 1}}})
STRANGE = Expression("socket", None)
FORWARD = 2


def ask(there: World, source: str, destination: str, service: str = "icmp") -> Answer:
    question = Question(source, destination, *parse_service(service))
    return answer(there, find_end(source, there), find_end(destination, there), question)


def filtered(*rules: tuple[Expression, ...], hook: int = FORWARD, drops: bool = False) -> Filter:
    numbered = tuple(Rule(number, parts) for number, parts in enumerate(rules, 1))
    return Filter((BaseChain(KEY, hook, 0, "filter", drops),), {KEY: numbered})


def changed(there: World, name: str, **more: Any) -> tuple[Link, ...]:
    """The node's interfaces with one of them changed."""
    return tuple(link._replace(**more) if link.name == name else link for link in there.stacks[NODE].links)


@pytest.mark.parametrize(
    ("source", "destination", "service", "expected"),
    [
        ("shop/a", "shop/b", "80/tcp", (PASSES, "")),
        ("shop/a", "shop/b", "81/tcp", (STOPPED, "no-listener")),
        ("shop/a", "node", "icmp", (PASSES, "")),
        ("0f2b5d0c", "10.1.0.3", "icmp", (PASSES, "")),
        ("node1", "shop/a", "80/tcp", (PASSES, "")),
        ("shop/a", "node2", "icmp", (PASSES, "")),
        ("192.0.2.9", "shop/a", "80/tcp", (PASSES, "")),
        ("shop/a", "10.1.0.9", "icmp", (STOPPED, "no-neighbour")),
        ("shop/a", "fd00::1", "icmp", (STOPPED, "no-address")),
    ],
)
def test_ends_have_names(source: str, destination: str, service: str, expected: tuple[int, str]) -> None:
    found = ask(world(), source, destination, service)
    assert (found.status, found.kind) == expected, found


def test_who_is_beyond_the_node_and_asks_himself_is_not_seen() -> None:
    assert ask(world(), "192.0.2.9", "192.0.2.9").status == UNKNOWN


@pytest.mark.parametrize("name", ["shop/c", "node3", "0f2b", "10.1.0", ""])
def test_what_is_not_known_here_is_no_end(name: str) -> None:
    with pytest.raises(ValueError, match="is no pod"):
        find_end(name, world())


@pytest.mark.parametrize("text", ["80", "tcp", "0/tcp", "65536/udp", "80/http", "-1/tcp", "8 0/tcp"])
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="PORT/PROTOCOL"):
        parse_service(text)


def test_a_service_has_the_name_that_kube_proxy_gives_it() -> None:
    verdict = (-4, "service-ULMVA6XW-shop/web/tcp/http")
    element = SetElement(b"\x0a\x60\0\x0a" + bytes(8), b"", verdict=verdict)
    sets = {("ip", "kube-proxy", "service-ips"): FilterSet(12, (element,))}
    assert find_end("shop/web", world(filter=Filter(sets=sets))).addresses == (parse_ip("10.96.0.10"),)
    parts = (
        Expression("cmp", {"DATA": {"NFTA_DATA_VALUE": b"\x0a\x60\0\x0b"}}),
        Expression("match", {"NAME": "comment", "INFO": b"shop/old:http cluster IP\0\0"}),
    )
    chains = {("ip", "nat", "KUBE-SERVICES"): (Rule(1, parts),)}
    assert find_end("shop/old", world(filter=Filter(chains=chains))).addresses == (parse_ip("10.96.0.11"),)


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [
        ("veth1", {"up": False}, "link-down"),
        ("veth1", {"running": False}, "no-carrier"),
        ("veth1", {"state": 1}, "port-blocked"),
        ("veth1", {"master": 0}, "port-detached"),
        ("cni0", {"up": False}, "link-down"),
    ],
)
def test_a_port_that_is_cut_off_is_named(name: str, change: dict[str, Any], kind: str) -> None:
    found = ask(world(links=changed(world(), name, **change)), "shop/a", "shop/b")
    assert (found.status, found.kind) == (STOPPED, kind)
    assert name in found.reason


def test_isolated_ports_are_apart_and_reach_the_node() -> None:
    links = tuple(link._replace(isolated=link.kind == "veth") for link in world().stacks[NODE].links)
    assert ask(world(links=links), "shop/a", "shop/b").kind == "port-isolated"
    assert ask(world(links=links), "shop/a", "node").status == PASSES


def native(vid: int) -> tuple[PortVlan, ...]:
    return (PortVlan(vid, pvid=True, untagged=True),)


def test_ports_of_two_vlans_are_apart() -> None:
    links = changed(world(), "cni0", filters_vlans=True)
    red, blue = native(100), native(200)
    assert ask(world(links=links, vlans={10: red, 11: red}), "shop/a", "shop/b").status == PASSES
    apart = ask(world(links=links, vlans={10: red, 11: blue}), "shop/a", "shop/b")
    assert (apart.kind, apart.reason) == ("vlan", "veth0 is in VLAN 100 of cni0, and veth1 is not")
    assert ask(world(vlans={10: red, 11: blue}), "shop/a", "shop/b").status == PASSES  # it does not filter them
    assert ask(world(links=links, vlans={3: native(1), 10: red}), "shop/a", "node").kind == "vlan"
    assert ask(world(links=links, vlans={3: native(1), 10: red}), "node", "shop/a").kind == "vlan"
    assert ask(world(links=links, vlans={3: red, 10: red}), "shop/a", "node").status == PASSES
    tagged = ask(world(links=links, vlans={10: red, 11: (PortVlan(100),)}), "shop/a", "shop/b")
    assert tagged.reason == "veth1 gets frames of VLAN 100 of cni0 with a tag"
    assert "no VLAN for frames" in ask(world(links=links, vlans={11: red}), "shop/a", "shop/b").reason


def test_a_gateway_in_a_vlan_is_reached_by_its_port() -> None:
    node = world().stacks[NODE]
    pair = (
        Link(20, "cni0.100", "veth", lower=21, peer_known=False),
        Link(21, "vethgw", "veth", master=3, state=3, lower=20, peer_known=False),
    )
    for vid, status in ((100, PASSES), (200, STOPPED)):
        there = world(
            links=(*changed(world(), "cni0", filters_vlans=True), *pair),
            addresses=(Address(2, parse_cidr("192.0.2.1/24")), Address(20, parse_cidr("10.1.0.1/16"))),
            routes=(own("192.0.2.1", 2), own("10.1.0.1", 20), route("10.1.0.0/16", 20), route("0.0.0.0/0", 2)),
            sysctls={**node.sysctls, "ipv4/conf/cni0.100/forwarding": "1"},
            vlans={10: native(100), 21: native(vid)},
        )
        for ends in (("shop/a", "node"), ("node", "shop/a"), ("shop/a", "node2")):
            assert ask(there, *ends).status == status, ends
        assert ask(there, "node", "shop/b").kind == "vlan"
        assert ask(there, "shop/a", "10.1.0.9").kind == "no-neighbour"  # it is known who is behind every port


def test_a_gateway_on_another_bridge_is_the_nodes_address_like_any_other() -> None:
    others = (
        Link(20, "cni1.100", "veth", lower=21, peer_known=False),
        Link(21, "vethgw", "veth", master=30, state=1, lower=20, peer_known=False),
        Link(30, "cni1", "bridge"),
    )
    node = world().stacks[NODE]
    there = world(
        links=(*node.links, *others),
        addresses=(*node.addresses, Address(20, parse_cidr("10.3.0.1/16"))),
        routes=(*node.routes, own("10.3.0.1", 20)),
    )
    pod = there.stacks["mynet,shop/a,eth0"]
    direct = pod._replace(routes=(*pod.routes, route("10.3.0.0/16", 2)))
    there = there._replace(stacks={**there.stacks, "mynet,shop/a,eth0": direct})
    assert ask(there, "shop/a", "10.3.0.1").status == PASSES


def test_a_rule_that_cannot_be_followed_matters_only_where_it_decides() -> None:
    decides = ask(world(filter=filtered((STRANGE, DROP))), "shop/a", "node2")
    assert decides.status == UNKNOWN
    assert decides.reason == "inet foreign c rule 1 cannot be followed (socket)"
    assert ask(world(filter=filtered((STRANGE, ACCEPT))), "shop/a", "node2").status == PASSES
    both = ask(world(filter=filtered((STRANGE, DROP), (DROP,))), "shop/a", "node2")
    assert (both.status, both.reason) == (STOPPED, "inet foreign c rule 2 drops it")


def test_a_policy_of_drop_is_named_and_lets_through_what_a_rule_accepts() -> None:
    found = ask(world(filter=filtered(drops=True)), "shop/a", "node2")
    assert found.reason == "inet foreign c has the policy drop, and none of its rules accepts it"
    assert ask(world(filter=filtered((ACCEPT,), drops=True)), "shop/a", "node2").status == PASSES


def test_ways_that_are_taken_by_chance_must_all_pass() -> None:
    number = Expression("numgen", {"DREG": 1, "MODULUS": 2})
    second = Expression("cmp", {"SREG": 1, "DATA": {"NFTA_DATA_VALUE": (1).to_bytes(4, sys.byteorder)}})
    found = ask(world(filter=filtered((number, second, DROP))), "shop/a", "node2")
    assert (found.status, found.reason) == (STOPPED, "inet foreign c rule 1 drops it")
    assert found.notes[-1] == "3 ways are taken by chance, and not all of them pass"


def test_what_could_not_be_read_leaves_an_answer_open() -> None:
    blind = ask(world(unreadable=("the packet filter cannot be read: no",)), "shop/a", "shop/b")
    assert (blind.status, blind.reason) == (UNKNOWN, "the packet filter cannot be read: no")
    strange = RoutingRule(4, 10, 100, understood=False)
    assert ask(world(rules=(strange,)), "shop/a", "node2").status == UNKNOWN


def test_a_neighbour_entry_of_another_mac_is_found() -> None:
    wrong = Neighbour(3, parse_ip("10.1.0.3"), "02:00:00:00:00:99", permanent=True)
    assert ask(world(neighbours=(wrong,)), "node", "shop/b").kind == "neighbour"
    assert ask(world(neighbours=(wrong._replace(permanent=False),)), "node", "shop/b").status == PASSES


def test_an_overlay_needs_its_entries() -> None:
    node = world().stacks[NODE]
    links = (*node.links, Link(20, "vxlan.1", "vxlan"))
    routes = (*node.routes, route("10.2.0.0/16", 20, "10.2.0.0"))
    near = Neighbour(20, parse_ip("10.2.0.0"), "02:00:00:00:00:07", permanent=True)
    far = Neighbour(20, parse_ip("192.0.2.12"), "02:00:00:00:00:07", forwarding=True)
    sysctls = {**node.sysctls, "ipv4/conf/vxlan.1/forwarding": "1"}
    for entries, kind in (((), "neighbour"), ((near,), "neighbour"), ((near, far), "")):
        there = world(links=links, routes=routes, neighbours=entries, sysctls=sysctls)
        assert ask(there, "shop/a", "10.2.0.5").kind == kind


def test_packets_that_do_not_fit_are_noted() -> None:
    found = ask(world(links=changed(world(), "uplink", mtu=1400)), "shop/a", "node2")
    assert "packets of more than 1400 bytes do not pass node uplink whole" in found.notes


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"\x0a\x01\0\0\0\x50\0\0", True),
        (b"\x0a\x01\0\0\0\x51\0\0", False),
        (b"\x0a\x02\0\0\0\x50\0\0", False),
        (b"\x0a\x01\0\x07\0\x10\0\0", True),
    ],
)
def test_every_part_of_a_concatenation_has_an_interval_of_its_own(key: bytes, *, found: bool) -> None:
    element = SetElement(b"\x0a\x01\0\0\0\x10\0\0", b"\x0a\x01\xff\xff\0\x50\0\0")
    assert (find_element(FilterSet(8, (element,), (4, 2)), key) is not None) == found


def test_a_translation_is_decided_once_and_a_packet_to_oneself_has_passed_output() -> None:
    address = Expression("immediate", {"DREG": 1, "DATA": {"NFTA_DATA_VALUE": b"\x0a\x01\0\x03"}})
    parts = (address, Expression("nat", {"TYPE": 1, "ADDR": 1}))
    base = BaseChain(KEY, 0, -100, "nat", False)
    nat = Filter((base,), {KEY: (Rule(1, parts),)})
    assert not any("translated" in step.what for step in ask(world(filter=nat), "node", "192.0.2.1").steps)
    assert any("translated: 192.0.2.9 to 10.1.0.3" in s.what for s in ask(world(filter=nat), "192.0.2.9", "node").steps)


@pytest.mark.parametrize("kind", [135, 136], ids=["question", "answer"])
def test_a_filter_that_drops_neighbour_discovery_is_found(kind: int) -> None:
    loaded = Expression("payload", {"DREG": 1, "BASE": 2, "LEN": 1})
    of_kind = Expression("cmp", {"SREG": 1, "DATA": {"NFTA_DATA_VALUE": bytes([kind])}})
    node = Neighbour6(world(filter=filtered((loaded, of_kind, DROP), hook=1)).stacks[NODE], "cni0")
    pod = Neighbour6(world().stacks["mynet,shop/a,eth0"], "eth0")
    packet = Packet(parse_ip("fd00::2"), parse_ip("fd00::1"), 58, 1, 1)
    hooks = Hooks(lambda *_: 0, lambda *_: None)
    for asking, holder, drops in ((pod, node, 135), (node, pod, 136)):
        request = Request(packet.destination, packet, asking, holder)
        if drops == kind:
            with pytest.raises(StopError, match="inet foreign c rule 1 drops it"):
                discover(hooks, request)
        else:
            discover(hooks, request)


def steps_of(found: Answer) -> list[tuple[str, str, bool]]:
    return [(step.where, step.what, step.back) for step in found.steps]


def test_each_hop_is_told_there_and_back() -> None:
    found = ask(world(), "shop/a", "node2")
    assert steps_of(found) == [
        ("shop/a route", "route default via 10.1.0.1 by eth0", False),
        ("veth0", "from shop/a, port of cni0", False),
        ("node route", "route 192.0.2.0/24 by uplink", False),
        ("uplink", "leaves the node", False),
        ("uplink", "comes in from 192.0.2.12", True),
        ("node route", "route 10.1.0.0/16 by cni0", True),
        ("veth0", "to shop/a eth0", True),
        ("shop/a", "10.1.0.2 is here", True),
    ]
    assert found.notes == ("what is beyond this node is not seen from here",)
    near = ask(world(), "shop/a", "shop/b", "80/tcp")
    assert steps_of(near) == [
        ("shop/a route", "route 10.1.0.0/16 by eth0", False),
        ("veth0", "from shop/a, port of cni0", False),
        ("veth1", "to shop/b eth0", False),
        ("shop/b", "10.1.0.3 is here", False),
        ("shop/b route", "route 10.1.0.0/16 by eth0", True),
        ("veth1", "from shop/b, port of cni0", True),
        ("veth0", "to shop/a eth0", True),
        ("shop/a", "10.1.0.2 is here", True),
    ]
    assert near.notes == ()


@pytest.mark.parametrize(
    ("name", "shown", "owner"),
    [
        ("shop/a", "shop/a", "mynet,shop/a,eth0"),
        ("10.1.0.2", "shop/a (10.1.0.2)", "mynet,shop/a,eth0"),
        ("10.1.0.1", "node1 (10.1.0.1)", NODE),
        ("node1", "node1", NODE),
        ("192.0.2.99", "192.0.2.99", None),
        ("node2", "node2", None),
    ],
)
def test_ends_are_called_by_their_names(name: str, shown: str, owner: str | None) -> None:
    found = find_end(name, world())
    assert (found.name, found.owner) == (shown, owner)


def test_a_filter_of_bridges_drops_frames() -> None:
    key = ("bridge", "pycni", "genuine")
    for hook, kinds in ((0, ["spoofing"] * 2), (1, ["", "spoofing"]), (2, ["spoofing", ""]), (3, ["", ""])):
        found = Filter((BaseChain(key, hook, 0, "filter", drops=False),), {key: (Rule(1, (DROP,)),)})
        there = world(filter=found)
        assert [ask(there, "shop/a", name).kind for name in ("shop/b", "node")] == kinds, hook


def test_a_limit_is_not_reached() -> None:
    below, above = Expression("limit", {}), Expression("limit", {"FLAGS": 1})
    assert ask(world(filter=filtered((below, DROP))), "shop/a", "node2").status == STOPPED
    assert ask(world(filter=filtered((above, DROP))), "shop/a", "node2").status == PASSES


def test_targets_of_iptables_drop_and_translate() -> None:
    rejects = Expression("target", {"NAME": "REJECT", "REV": 0, "INFO": b""})
    found = ask(world(filter=filtered((rejects,))), "shop/a", "node2")
    assert (found.kind, found.reason) == ("filter", "inet foreign c rule 1 rejects it")
    masquerade = Expression("target", {"NAME": "MASQUERADE", "REV": 0, "INFO": bytes(20)})
    nat = Filter((BaseChain(KEY, 4, 100, "nat", drops=False),), {KEY: (Rule(1, (masquerade,)),)})
    what = "masqueraded: 192.0.2.1 to 192.0.2.12 (inet foreign c rule 1)"
    assert ("node postrouting", what, False) in steps_of(ask(world(filter=nat), "shop/a", "node2"))


def test_parts_of_a_concatenation_take_whole_words() -> None:
    element = SetElement(b"\x06\0\0\0\0\x10\0\0", b"\x06\0\0\0\0\x50\0\0")
    keys = (b"\x06\0\0\0\0\x20\0\0", b"\x06\0\0\0\0\x51\0\0", b"\x11\0\0\0\0\x20\0\0")
    assert [find_element(FilterSet(8, (element,), (1, 2)), key) for key in keys] == [element, None, None]


@pytest.mark.parametrize(
    ("outgoing", "destination", "expected"),
    [
        ("uplink", "192.0.2.9", "192.0.2.1"),
        ("cni0", "10.1.0.9", "10.1.0.1"),
        ("uplink", "8.8.8.8", "192.0.2.1"),
        ("away", "192.0.2.9", None),
        ("uplink", "10.9.0.1", None),
    ],
)
def test_what_packets_are_masqueraded_with(outgoing: str, destination: str, expected: str | None) -> None:
    node = world().stacks[NODE]
    there = node._replace(routes=(*node.routes, route("10.9.0.0/16", 0, refuses=True)))
    packet = Packet(parse_ip("10.1.0.2"), parse_ip(destination), 6, 40000, 80)
    found = select_address(there, outgoing, packet)
    assert found == (parse_ip(expected) if expected else None)
