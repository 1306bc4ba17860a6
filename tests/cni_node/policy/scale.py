"""A large cluster as the API tells of it: 5,000 pods in 50 namespaces, 1,000 policies that all concern one node."""

from typing import Any

NAMESPACES, PODS, POLICIES = 50, 5000, 1000
EACH = PODS // NAMESPACES  # pods of a namespace
PORT = 80  # that every pod calls http


def namespace_item(number: int) -> dict[str, Any]:
    """The namespace nsN; ten of them are one team's."""
    return {"metadata": {"name": f"ns{number}", "labels": {"team": f"team{number % 5}"}}}


def pod_item(number: int, local: int) -> dict[str, Any]:
    """A pod; the first `local` ones are on node1. ns0/pod0 is 10.0.1.1 and ns0/pod1 is 10.0.1.2."""
    space, index = number % NAMESPACES, number // NAMESPACES
    labels = {"app": f"app{index % 20}", "tier": f"t{index % 3}", "pod-template-hash": f"h{index % 20}"}
    addresses = (f"10.0.{space + 1}.{index + 1}", f"fd00::{space + 1:x}:{index + 1:x}")
    return {
        "metadata": {
            "namespace": f"ns{space}",
            "name": f"pod{index}",
            "labels": labels,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "uid": f"uid{number}",
        },
        "spec": {
            "nodeName": "node1" if number < local else f"node{2 + number % 49}",
            "containers": [{"ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]},
    }


def policy_item(number: int, *more: str) -> dict[str, Any]:
    """A policy for every second kind of pod of a namespace; `more` networks are let in, too.

    ns0/pod0 reaches ns0/pod1 at PORT: policies of both ends isolate, and let that through.
    """
    space, index = number % NAMESPACES, number // NAMESPACES
    team = {"namespaceSelector": {"matchLabels": {"team": f"team{index % 5}"}}}
    peers = [
        {"podSelector": {"matchLabels": {"app": f"app{index % 20}"}}},
        {**team, "podSelector": {"matchLabels": {"tier": f"t{index % 3}"}}},
    ]
    blocks = [{"ipBlock": {"cidr": "192.168.0.0/16", "except": [f"192.168.{index}.0/24"]}}]
    blocks += [{"ipBlock": {"cidr": cidr}} for cidr in more]
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": {"app": f"app{index % 2}"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": peers, "ports": [{"port": "http" if index % 2 else PORT + index}]}, {"from": blocks}],
    }
    if index % 4 == 0:
        everywhere = {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": [everywhere, {"to": [{"podSelector": {}}]}]}
    return {"metadata": {"namespace": f"ns{space}", "name": f"p{index}"}, "spec": spec}
