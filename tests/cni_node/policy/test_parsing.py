"""The API's JSON as values: missing, null and empty are the same, and what makes no sense lets nothing through."""

import sys
from typing import Any

import pytest

from cni_node.policy.model import Block, ContainerPort, PodPeer, Policy, PortName, PortRange, Rule, Selector
from cni_node.policy.parsing import parse_policy, parse_selector
from cni_node.policy.pods import parse_namespace, parse_pod
from cni_protocol.address import parse_cidr, parse_ip

NAMED = {"metadata": {"namespace": "x", "name": "p"}}


def parsed(spec: Any) -> Policy:
    return parse_policy({**NAMED, "spec": spec})


@pytest.mark.parametrize(
    "nothing", [{}, {"ingress": None}, {"ingress": []}, None], ids=["missing", "null", "[]", "no spec"]
)
def test_nothing_is_spelled_in_three_ways(nothing: Any) -> None:
    assert parsed(nothing) == Policy("x", "p", Selector(), (), None)
    rules: list[Any] = [{}, {"from": None, "ports": None}, {"from": [], "ports": []}]
    for rule in rules:
        assert parsed({"ingress": [rule]}).ingress == (Rule("ingress[0]", None, None),)
    peer = {"podSelector": {"matchLabels": None, "matchExpressions": None}, "namespaceSelector": None, "ipBlock": None}
    assert parsed({"ingress": [{"from": [peer]}]}).ingress == (Rule("ingress[0]", (PodPeer(Selector(), "x"),), None),)


def test_a_policy_in_full() -> None:
    spec = {
        "podSelector": {"matchLabels": {"a": "b"}},
        "policyTypes": ["Egress", "Ingress"],
        "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"c": "d"}}}]}],
        "egress": [
            {
                "to": [{"ipBlock": {"cidr": "10.1.2.3/8", "except": ["10.1.0.0/16"]}}],
                "ports": [
                    {"port": 80},
                    {"port": "web", "protocol": "UDP"},
                    {"port": 8, "endPort": 9},
                    {"protocol": "SCTP"},
                ],
            }
        ],
    }
    ports = (PortRange("TCP", 80, 80), PortName("UDP", "web"), PortRange("TCP", 8, 9), PortRange("SCTP", 0, 65535))
    block = Block(parse_cidr("10.0.0.0/8"), (parse_cidr("10.1.0.0/16"),))
    peer = PodPeer(Selector(frozenset({("c", "d")})), Selector())
    assert parsed(spec) == Policy(
        *("x", "p", Selector(frozenset({("a", "b")}))),
        (Rule("ingress[0]", (peer,), None),),
        (Rule("egress[0]", (block,), ports),),
    )


PEERS_THAT_MAKE_NO_SENSE: dict[str, Any] = {
    "nothing": {},
    "null": None,
    "a text": "all",
    "a list": [],
    "two kinds": {"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}},
    "an unknown kind": {"podSelector": {}, "nodeSelector": {}},
    "labels that are a list": {"podSelector": {"matchLabels": ["a"]}},
    "a label that is a number": {"podSelector": {"matchLabels": {"a": 1}}},
    "an unknown key of a selector": {"podSelector": {"matchFields": []}},
    "an unknown operator": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}},
    "an operator that is a list": {"podSelector": {"matchExpressions": [{"key": "a", "operator": ["In"]}]}},
    "no operator": {"podSelector": {"matchExpressions": [{"key": "a"}]}},
    "no key": {"podSelector": {"matchExpressions": [{"operator": "Exists"}]}},
    "In without values": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}},
    "Exists with values": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
    "values that are a text": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": "b"}]}},
    "values that are numbers": {
        "podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": [1]}]}
    },
    "an expression that is a text": {"namespaceSelector": {"matchExpressions": ["a"]}},
    "a network that is none": {"ipBlock": {"cidr": "10.0.0.0/33"}},
    "a network without a length": {"ipBlock": {"cidr": "10.0.0.0"}},
    "a network that is a number": {"ipBlock": {"cidr": 10}},
    "no network": {"ipBlock": {"except": []}},
    "an exception that is none": {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/x"]}},
    "exceptions that are a text": {"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.0.0.0/16"}},
}


@pytest.mark.parametrize("peer", PEERS_THAT_MAKE_NO_SENSE.values(), ids=PEERS_THAT_MAKE_NO_SENSE)
def test_a_peer_that_makes_no_sense_matches_nothing_and_is_named(peer: Any) -> None:
    good = {"podSelector": {"matchLabels": {"pod": "b"}}}
    policy = parsed({"ingress": [{"from": [peer, good]}, {"from": [peer]}]})
    kept = PodPeer(Selector(frozenset({("pod", "b")})), "x")
    assert policy.ingress == (Rule("ingress[0]", (kept,), None), Rule("ingress[1]", (), None))
    assert [text.partition("]: ")[0] for text in policy.problems] == [
        "policy x/p: ingress[0].from[0",
        "policy x/p: ingress[1].from[0",
    ]
    assert all(text.endswith("; this entry matches nothing") for text in policy.problems)


PORTS_THAT_MAKE_NO_SENSE: dict[str, Any] = {
    "a text": "80",
    "zero": {"port": 0},
    "too large": {"port": 65536},
    "negative": {"port": -1},
    "a fraction": {"port": 80.5},
    "true": {"port": True},
    "digits": {"port": "80"},
    "an empty name": {"port": ""},
    "a list": {"port": [80]},
    "an unknown protocol": {"protocol": "ICMP"},
    "a protocol that is a number": {"protocol": 6},
    "a protocol that is a list": {"protocol": ["TCP"]},
    "endPort alone": {"endPort": 80},
    "endPort behind a name": {"port": "web", "endPort": 80},
    "endPort below": {"port": 80, "endPort": 79},
    "endPort too large": {"port": 80, "endPort": 65536},
    "endPort that is a text": {"port": 80, "endPort": "90"},
    "an unknown key": {"port": 80, "except": 81},
}


@pytest.mark.parametrize("port", PORTS_THAT_MAKE_NO_SENSE.values(), ids=PORTS_THAT_MAKE_NO_SENSE)
def test_a_port_that_makes_no_sense_matches_nothing_and_is_named(port: Any) -> None:
    policy = parsed({"ingress": [{"ports": [port]}]})
    assert policy.ingress == (Rule("ingress[0]", None, ()),)
    assert [text.startswith("policy x/p: ingress[0].ports[0]: ") for text in policy.problems] == [True]


LISTS_THAT_ARE_NONE: dict[str, Any] = {
    "an object": {"a": 1},
    "an empty object": {},
    "a text": "a",
    "an empty text": "",
    "false": False,
}


@pytest.mark.parametrize("found", LISTS_THAT_ARE_NONE.values(), ids=LISTS_THAT_ARE_NONE)
def test_what_is_no_list_lets_nothing_through(found: Any) -> None:
    policy = parsed({"ingress": [{"from": found}, {"ports": found}], "egress": found})
    assert policy.ingress == (Rule("ingress[0]", (), None), Rule("ingress[1]", None, ()))
    assert policy.egress == ()
    assert len(policy.problems) == 3


@pytest.mark.parametrize("rule", [None, {"from": None}], ids=["null", "from is null"])
def test_an_empty_rule_lets_everything_through(rule: Any) -> None:
    assert parsed({"ingress": [rule]}).ingress == (Rule("ingress[0]", None, None),)


@pytest.mark.parametrize("rule", ["all", {"to": []}, {"from": [], "action": "Deny"}], ids=["text", "to", "unknown key"])
def test_a_rule_that_makes_no_sense_lets_nothing_through(rule: Any) -> None:
    policy = parsed({"ingress": [rule]})
    assert (policy.ingress, len(policy.problems)) == ((), 1)


@pytest.mark.parametrize("types", [["ingress"], "Ingress", ["Ingress", 1], [["Egress"]]], ids=str)
def test_policy_types_that_make_no_sense_isolate_in_both_directions(types: Any) -> None:
    policy = parsed({"policyTypes": types, "ingress": [{}]})
    assert (policy.ingress, policy.egress) == ((Rule("ingress[0]", None, None),), ())
    assert len(policy.problems) == 1


@pytest.mark.parametrize(
    "spec",
    ["all", {"podSelector": "all"}, {"podSelector": {"matchExpressions": [{}]}}, {"tier": 1, "ingress": [{}]}],
    ids=["text", "selector", "expression", "unknown key"],
)
def test_a_policy_whose_pods_are_not_known_isolates_the_namespace(spec: Any) -> None:
    policy = parsed(spec)
    assert policy[:5] == ("x", "p", Selector(), (), ())
    assert len(policy.problems) == 1 and policy.problems[0].endswith("all pods of the namespace are isolated")


@pytest.mark.parametrize(
    "item", [None, [], {}, {"metadata": None}, {"metadata": {"name": ""}}, {"metadata": {"name": 1}}]
)
def test_an_object_without_a_name_is_refused(item: Any) -> None:
    for parse in (parse_policy, parse_pod, parse_namespace):
        with pytest.raises(ValueError, match="an object of the API without a name"):
            parse(item)


def test_ten_thousand_peers() -> None:
    peers = [{"ipBlock": {"cidr": f"10.{i // 256}.{i % 256}.0/24"}} for i in range(10_000)]
    [rule] = parsed({"ingress": [{"from": peers}]}).ingress or ()
    assert len(rule.peers or ()) == 10_000


def test_a_selector_says_what_is_wrong_with_it() -> None:
    found = {"key": "a", "operator": "Is"}
    with pytest.raises(ValueError, match=r"the operator 'Is' is none of In, NotIn, Exists, DoesNotExist"):
        parse_selector({"matchExpressions": [found]})


def test_a_pod() -> None:
    item = {
        "metadata": {"namespace": "x", "name": "a", "labels": {"app": "web"}, "creationTimestamp": "2026-01-01"},
        "spec": {
            "nodeName": "node1",
            "containers": [{"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}, {}],
            "initContainers": [{"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
        },
        "status": {"phase": "Running", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::2"}]},
    }
    pod = parse_pod(item)
    assert pod.addresses == (parse_ip("10.1.0.2"), parse_ip("fd00::2"))
    assert pod.ports == (ContainerPort("TCP", "http", 80), ContainerPort("UDP", "dns", 53))
    assert (pod.full_name, pod.node, pod.is_selectable, pod.created) == ("x/a", "node1", True, "2026-01-01")
    assert pod.labels == {("app", "web")}
    assert all(value is sys.intern(value) for pair in pod.labels for value in pair)
    assert parse_pod({**item, "status": {"podIP": "10.1.0.2"}}).addresses == (parse_ip("10.1.0.2"),)
    assert parse_pod({**item, "status": None, "spec": None}).addresses == ()
    with pytest.raises(ValueError, match="x/a is not that of a pod"):
        parse_pod({**item, "spec": []} | {"status": {"podIPs": "none"}})
