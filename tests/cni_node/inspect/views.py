"""A node as the joined view has it, with something of everything, for what shows it."""

from cni_node.inspect.join import join
from cni_node.inspect.values import HostPort, Inside, Leftover, Network, Peer, Policies, View
from tests.cni_node.inspect.nodes import link, reading

PEERS = [
    Peer("node2", "10.2.0.0/24", "10.2.0.0", "vxlan.1", "192.0.2.2", ""),
    Peer("", "10.3.0.0/24", "192.0.2.3", "", "192.0.2.3", ""),
    Peer("node4", "10.4.0.0/24", "10.4.0.0", "vxlan.1", "", "no neighbour entry"),
]
PORTS = (
    HostPort("", 8080, "tcp", "10.1.0.0:80"),
    HostPort("192.0.2.1", 53, "udp", "10.1.0.0:53"),
    HostPort("fd00::1", 8080, "tcp", "[fd00:1::2]:80"),
)


def full_view() -> View:
    """Two pods on a bridge, one of them broken, an overlay, peers, and whatever else there may be."""
    made = reading(2, peers=PEERS)
    view = join(made._replace(links=[*made.links, link(5, "vxlan.1", "vxlan", mtu=1450, alias="pycni,")]))
    first, second = view.attached
    [bridge] = view.bridges
    first = first._replace(ports=PORTS, rules=("masquerade 10.1.0.0",), reserved=("10.1.0.0",))
    second = second._replace(addresses=(), inside=Inside("gone"), state=("namespace gone", "no carrier"))
    return view._replace(
        uplinks=[{**view.uplinks[0], "addresses": ["192.0.2.1/24", "192.0.2.9/24"]}],
        networks=[*view.networks, Network("other", (), 1, 1)],
        bridges=[bridge._replace(addresses=("10.1.0.1/16", "fd00:1::1/64"), others=("tap0", "tap1"))],
        attached=[first, second],
        exempt=1200,
        policies=Policies(2, 3, 4, {"ingress": 5000, "egress": 0, "cut": 1}),
        leftovers=[Leftover("interface", "veth0", "its container is gone")],
        problems=["x cannot be read"],
    )
