"""Host ports that lead to a container, as rules in the inet table `pycni`. Pure.

    map portmap4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = { 192.168.1.11 . tcp . 8080 comment "mynet,CONTAINERID,eth0" : 10.244.0.7 . 80, ... } }
    map portmap_any4 { type inet_proto . inet_service : ipv4_addr . inet_service ... }      # without hostIP
    map portmapped4 { type ifname . ipv4_addr : verdict ... }           # containers with port mappings
    map portmap_waiting4 { type ifname . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = { "veth8c1..." . 0.0.0.0 . tcp . 8080 comment "net2,CONTAINERID,eth1" : 10.245.0.7 . 80, ... } }
    chain portmap_prerouting { type nat hook prerouting priority dstnat        # from outside and from containers
        ip daddr 127.0.0.0/8 return         # routing drops it, unless it is translated before
        fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @portmap4
        fib daddr type local dnat ip to meta l4proto . th dport map @portmap_any4 }             # and for IPv6
    chain portmap_output { type nat hook output priority -100                                     # from the host
        ip saddr 127.0.0.0/8 return; ip6 daddr ::1 return; then the same }
    chain portmap_postrouting { type nat hook postrouting priority srcnat
        ct status dnat oifname . ip daddr vmap @portmapped4 }
    chain portmap-mynet-10.244.0.0/16 {        # the answer must come back through the host
        ip saddr 10.244.0.0/16 masquerade
        ip saddr 192.0.0.8 masquerade }

A runtime sends the port mappings of a container to each of its networks. The first network gets the ports, and the
others wait. No rule looks into the map portmap_waiting4: it says where a port leads when its holder goes (claims.py).

Linux routes no packet from ::1 out of the host, so port mappings do not work for the host's ::1. It routes none from or
to 127.0.0.0/8 either, unless route_localnet is on, and then containers could reach what listens on the host's
127.0.0.1. Instead, three more chains lead 127.0.0.1 of the host to a container: a packet has other addresses while it
is routed, and connection tracking knows the true ones (and resolves collisions of ports).

    set portmap_loopback { type ipv4_addr . inet_proto . inet_service ... }       # the keys of portmap4 in 127.0.0.0/8
    set portmap_any_loopback { type inet_proto . inet_service ... }               # those of portmap_any4
    chain portmap_loopback_output { type filter hook output priority mangle   # a source that routing takes, for a while
        ct status & (confirmed | dnat) == confirmed return      # older than the mapping, or not translated by it
        ip saddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @portmap_loopback
            ip saddr set 192.0.0.8                              # the dummy address (RFC 7600); masqueraded further on
        ... and with @portmap_any_loopback }
    chain portmap_loopback_prerouting { type filter hook prerouting priority dstnat + 1    # an answer, translated back
        ct direction reply ip daddr 127.0.0.0/8 ip daddr set ct reply ip daddr }
    chain portmap_loopback_input { type filter hook input priority srcnat + 1             # at its destination
        ct direction reply ct original ip saddr 127.0.0.0/8 ip daddr set ct original ip saddr }
"""

from cni_kernel import connections, expressions
from cni_kernel.expressions import Chain, Element, Map, Rules
from cni_protocol.address import CIDR, IP, parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import Iterable, Iterator, Sequence

from .mappings import PROTOCOLS, PortMapping

LOOPBACK4 = parse_cidr("127.0.0.0/8")
LOOPBACK6 = parse_cidr("::1/128")
_STAND_IN = parse_cidr("192.0.0.8/32")

_SERVICE = (expressions.INET_PROTO, expressions.INET_SERVICE)
EXACT = {
    version: Map(
        f"portmap{version}",
        expressions.concatenated(expressions.ADDRESS[version], *_SERVICE),
        expressions.concatenated(expressions.ADDRESS[version], expressions.INET_SERVICE),
    )
    for version in (4, 6)
}
ANY = {
    version: Map(
        f"portmap_any{version}",
        expressions.concatenated(*_SERVICE),
        expressions.concatenated(expressions.ADDRESS[version], expressions.INET_SERVICE),
    )
    for version in (4, 6)
}
_TARGETS = {
    version: Map(
        f"portmapped{version}",
        expressions.concatenated(expressions.IFNAME, expressions.ADDRESS[version]),
        expressions.VERDICT,
    )
    for version in (4, 6)
}
# By the name of the map that has the same keys.
LOOPBACK = {
    EXACT[4].name: Map("portmap_loopback", EXACT[4].key),
    ANY[4].name: Map("portmap_any_loopback", ANY[4].key),
}
# A key begins with the name of the waiting attachment's host end, so that several can wait for one port.
WAITING = {
    version: Map(
        f"portmap_waiting{version}",
        expressions.concatenated(expressions.IFNAME, expressions.ADDRESS[version], *_SERVICE),
        ports.data,
    )
    for version, ports in ANY.items()
}
MAPS = (*EXACT.values(), *ANY.values(), *_TARGETS.values(), *LOOPBACK.values(), *WAITING.values())
_PORTS = frozenset(entry.name for entry in (*EXACT.values(), *ANY.values()))


def make_rules(
    attachment: Attachment, interface: str, mappings: Sequence[PortMapping], addresses: Sequence[CIDR]
) -> Rules:
    """The rules that forward host ports to the container's first address of each family.

    `interface` is the interface of the host by which packets to the container leave.
    """
    targets = {address.version: address for address in reversed(addresses)}
    chains = {version: _return_chain(attachment, address) for version, address in targets.items()}
    ports = {
        claim: _port_element(attachment, mapping, claim[-1], targets[claim[-1].version].ip)
        for mapping in mappings
        for claim in mapping.claims
        if claim[-1].version in targets
    }
    elements = list(ports.values())
    used = {element.map[-1] for element in elements}
    name = expressions.pack_name(interface)
    elements += [beside for element in elements for beside in list_beside(element)]
    elements += [
        Element(_TARGETS[version].name, name + address.ip.packed, attachment.owner, chain=chains[version].name)
        for version, address in targets.items()
        if str(version) in used
    ]
    own = tuple(chain for version, chain in chains.items() if str(version) in used)
    return Rules(expressions.INET, MAPS, (*_base_chains(), *own), tuple(elements))


def is_port(element: Element) -> bool:
    """Whether an element maps a host port to a container. Such a key can have one owner only."""
    return element.map in _PORTS


def list_beside(port: Element) -> list[Element]:
    """The elements that accompany a host port: one in a loopback set if the port is also one of 127.0.0.0/8."""
    of_loopback = port.map == ANY[4].name or (
        port.map == EXACT[4].name and IP(4, int.from_bytes(port.key[:4], "big")) in LOOPBACK4
    )
    return [Element(LOOPBACK[port.map].name, port.key, port.comment, claim=port.claim)] if of_loopback else []


def udp_targets(elements: Iterable[Element]) -> set[IP]:
    """The addresses of the containers that UDP mappings among these elements lead to."""
    return {IP(version, int.from_bytes(e.data[:-4], "big")) for version, e, _ in _udp_elements(elements)}


def udp_ports(elements: Iterable[Element]) -> set[tuple[int, int]]:
    """The IP versions and host ports of the UDP mappings among these elements."""
    return {(version, int.from_bytes(service[4:6], "big")) for version, _, service in _udp_elements(elements)}


def _udp_elements(elements: Iterable[Element]) -> Iterator[tuple[int, Element, bytes]]:
    """The UDP mappings among elements, each with its IP version and the end of its key: protocol and port."""
    for element in elements:
        for version in (4, 6):
            if element.map in (EXACT[version].name, ANY[version].name) and element.key[-8] == PROTOCOLS["udp"]:
                yield version, element, element.key[-8:]


def _port_element(attachment: Attachment, mapping: PortMapping, host_ip: IP, target: IP) -> Element:
    service = (bytes([PROTOCOLS[mapping.protocol]]), mapping.host_port.to_bytes(2, "big"))
    data = expressions.pad(target.packed, mapping.container_port.to_bytes(2, "big"))
    where = f"{host_ip} " if host_ip.value else ""
    claim = f"host port {where}{mapping.host_port}/{mapping.protocol}"
    if not host_ip.value:
        return Element(ANY[target.version].name, expressions.pad(*service), attachment.owner, data, claim=claim)
    key = expressions.pad(host_ip.packed, *service)
    return Element(EXACT[target.version].name, key, attachment.owner, data, claim=claim)


def _base_chains() -> tuple[Chain, ...]:
    forward = tuple(rule for version in (4, 6) for rule in _forward_rules(version))
    back = tuple(
        [
            *connections.match_destination_nat(),
            *expressions.load_receiver(version),
            expressions.look_up(entry.name, verdict=True),
        ]
        for version, entry in _TARGETS.items()
    )
    stay = tuple(
        [*expressions.match_network(network, offset), expressions.leave_chain()]
        for network, offset in ((LOOPBACK4, expressions.SOURCE), (LOOPBACK6, expressions.DESTINATION))
    )
    outside = [*expressions.match_network(LOOPBACK4, expressions.DESTINATION), expressions.leave_chain()]
    return (
        Chain("portmap_prerouting", (outside, *forward), "nat", expressions.PREROUTING, expressions.DESTINATION_NAT),
        Chain("portmap_output", (*stay, *forward), "nat", expressions.OUTPUT, expressions.DESTINATION_NAT),
        Chain("portmap_postrouting", back, "nat", expressions.POSTROUTING, expressions.SOURCE_NAT),
        *_loopback_chains(),
    )


def _loopback_chains() -> tuple[Chain, ...]:
    from_loopback = expressions.match_network(LOOPBACK4, expressions.SOURCE)
    disguise = [expressions.load_value(_STAND_IN.ip.packed), connections.set_address(expressions.SOURCE)]
    exact = [expressions.load_address(4, expressions.DESTINATION), *expressions.load_service(1)]
    out = (
        [*connections.match_no_destination_nat(), expressions.leave_chain()],
        [*from_loopback, *exact, expressions.look_up(LOOPBACK[EXACT[4].name].name), *disguise],
        [*from_loopback, *expressions.load_service(0), expressions.look_up(LOOPBACK[ANY[4].name].name), *disguise],
    )
    routed = [
        *connections.match_direction(connections.REPLY),
        *expressions.match_network(LOOPBACK4, expressions.DESTINATION),
        connections.load_connection_address(connections.REPLY, expressions.DESTINATION),
        connections.set_address(expressions.DESTINATION),
    ]
    arrived = [
        *connections.match_direction(connections.REPLY),
        connections.load_connection_address(connections.ORIGINAL, expressions.SOURCE),
        *expressions.match_loaded(LOOPBACK4),
        *expressions.match_version(4),
        connections.load_connection_address(connections.ORIGINAL, expressions.SOURCE),
        connections.set_address(expressions.DESTINATION),
    ]
    before, after = expressions.DESTINATION_NAT + 1, expressions.SOURCE_NAT + 1
    return (
        Chain("portmap_loopback_output", out, "filter", expressions.OUTPUT, expressions.MANGLE),
        Chain("portmap_loopback_prerouting", (routed,), "filter", expressions.PREROUTING, before),
        Chain("portmap_loopback_input", (arrived,), "filter", expressions.INPUT, after),
    )


def _forward_rules(version: int) -> list[expressions.Rule]:
    after_address = expressions.ADDRESS[version][1] // 4
    exact = [
        *expressions.match_local_destination(),
        *expressions.load_destination(version),
        *expressions.load_service(after_address),
        expressions.look_up(EXACT[version].name, data=True),
        connections.translate_destination(version),
    ]
    any_address = [
        *expressions.match_local_destination(),
        *expressions.match_version(version),
        *expressions.load_service(0),
        expressions.look_up(ANY[version].name, data=True),
        connections.translate_destination(version),
    ]
    return [exact, any_address]


def _return_chain(attachment: Attachment, address: CIDR) -> Chain:
    """Masquerades packets from the container's own subnet and the host's loopback, so that answers pass the host."""
    name = attachment.chain_name("portmap", str(address.network))
    sources = [address.network] + ([_STAND_IN] if address.version == 4 else [])
    back = tuple(
        [*expressions.match_network(source, expressions.SOURCE), connections.masquerade()] for source in sources
    )
    return Chain(name, back)
