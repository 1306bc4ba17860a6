"""Source NAT for packets that leave the containers' subnets, as rules in the inet table `pycni`. Pure.

    map masquerade4 { type ifname . ipv4_addr : verdict
        elements = { "cni0" . 10.244.0.7 comment "mynet,CONTAINERID,eth0" : jump masquerade-mynet-10.244.0.0/16, ... } }
    chain postrouting { type nat hook postrouting priority srcnat
        iifname . ip saddr vmap @masquerade4
        iifname . ip6 saddr vmap @masquerade6 }
    chain masquerade-mynet-10.244.0.0/16 {
        ip daddr 10.244.0.0/16 return
        ip daddr 224.0.0.0/4 return
        ip daddr @exempt4 return                    # filled by others: the node's agent
        masquerade }
    set exempt4 { type ipv4_addr; flags interval; elements = { 10.246.0.0/16 comment "node2", ... } }

A container is one element of a hash map, so a new connection costs the same with one container and with thousands. The
element's key contains the interface by which the container's packets come in: another bridge may have a container with
the same address, and each has its own element. The sets of exempt networks are created and looked up here, but the
node's agent fills them.
"""

from cni_kernel import connections, expressions
from cni_kernel.expressions import Chain, Element, Map, Rules
from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import Sequence

MAPS = {
    version: Map(
        f"masquerade{version}",
        expressions.concatenated(expressions.IFNAME, expressions.ADDRESS[version]),
        expressions.VERDICT,
    )
    for version in (4, 6)
}
EXEMPT = {version: Map(f"exempt{version}", expressions.ADDRESS[version], interval=True) for version in (4, 6)}
_MULTICAST = {4: parse_cidr("224.0.0.0/4"), 6: parse_cidr("ff00::/8")}


def make_rules(attachment: Attachment, interface: str, addresses: Sequence[CIDR]) -> Rules:
    """The rules that masquerade packets from these addresses to destinations outside their subnets.

    Packets to an exempt network keep their source address, since hosts there have a route back. `interface` is the
    interface of the host by which packets of the container come in.
    """
    subnets = {subnet: _chain_of(attachment, subnet) for subnet in dict.fromkeys(entry.network for entry in addresses)}
    name = expressions.pack_name(interface)
    elements = tuple(
        Element(MAPS[entry.version].name, name + entry.ip.packed, attachment.owner, chain=subnets[entry.network].name)
        for entry in addresses
    )
    maps = (*MAPS.values(), *EXEMPT.values())
    return Rules(expressions.INET, maps, (_base_chain(), *subnets.values()), elements)


def _base_chain() -> Chain:
    look_ups = tuple(
        [*expressions.load_sender(version), expressions.look_up(entry.name, verdict=True)]
        for version, entry in MAPS.items()
    )
    return Chain("postrouting", look_ups, "nat", expressions.POSTROUTING, expressions.SOURCE_NAT)


def _chain_of(attachment: Attachment, subnet: CIDR) -> Chain:
    """The chain for the addresses of one subnet of a network."""
    name = attachment.chain_name("masquerade", str(subnet))
    stay = tuple(
        [*expressions.match_network(network, expressions.DESTINATION), expressions.leave_chain()]
        for network in (subnet, _MULTICAST[subnet.version])
    )
    exempt = [
        *expressions.load_destination(subnet.version),
        expressions.look_up(EXEMPT[subnet.version].name),
        expressions.leave_chain(),
    ]
    return Chain(name, (*stay, exempt, [connections.masquerade()]))
