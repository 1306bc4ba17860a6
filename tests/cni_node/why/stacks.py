"""Stacks as values: a node with two pods on a bridge, as it would be read."""

from typing import Any

from cni_node.doctor.facts import Address, Link, Route
from cni_node.why.values import NODE, Place, Stack, World
from cni_protocol.address import CIDR, parse_cidr, parse_ip

PODS = {"shop/a": "10.1.0.2", "shop/b": "10.1.0.3"}
MAIN, LOCAL = 254, 255


def route(text: str, ifindex: int, gateway: str = "", **more: Any) -> Route:
    """A route of the main table."""
    return Route(parse_cidr(text), ifindex, parse_ip(gateway) if gateway else None, 2, 0, MAIN)._replace(**more)


def own(text: str, ifindex: int) -> Route:
    """The route to an address of the stack itself."""
    ip = parse_ip(text)
    return Route(CIDR(ip, ip.bits), ifindex, None, 2, 0, LOCAL, local=True)


def world(**of_the_node: Any) -> World:
    """All of it."""
    lo = Link(1, "lo")
    ports = [Link(10 + i, f"veth{i}", "veth", master=3, state=3) for i in range(len(PODS))]
    node = Stack(
        NODE,
        "node",
        (lo, Link(2, "uplink"), Link(3, "cni0", "bridge"), *ports),
        (Address(2, parse_cidr("192.0.2.1/24")), Address(3, parse_cidr("10.1.0.1/16"))),
        (
            *(own("192.0.2.1", 2), own("10.1.0.1", 3)),
            *(route("192.0.2.0/24", 2), route("10.1.0.0/16", 3), route("0.0.0.0/0", 2, "192.0.2.2")),
        ),
        sysctls={"ipv4/conf/cni0/forwarding": "1", "ipv4/conf/uplink/forwarding": "1"},
    )
    stacks, places = {NODE: node._replace(**of_the_node)}, []
    for number, (name, ip) in enumerate(PODS.items()):
        owner = f"mynet,{name},eth0"
        stacks[owner] = Stack(
            owner,
            name,
            (lo, Link(2, "eth0", "veth")),
            (Address(2, parse_cidr(f"{ip}/16")),),
            (own(ip, 2), route("10.1.0.0/16", 2), route("0.0.0.0/0", 2, "10.1.0.1")),
            listening=frozenset({("tcp", 80)}),
        )
        container = f"{number}f2b5d0c9a41"
        places.append(Place(owner, name, name, container, "eth0", f"veth{number}", (parse_ip(ip),)))
    peers = (("node2", parse_cidr("10.2.0.0/16"), parse_ip("192.0.2.12")),)
    return World("node1", stacks, tuple(places), peers)
