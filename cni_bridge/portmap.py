"""Host ports that lead to a container, as rules in the inet table `pycni`. Pure.

    map portmap4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = { 192.168.1.11 . tcp . 8080 comment "mynet,CONTAINERID,eth0" : 10.244.0.7 . 80, ... } }
    map portmap_any4 { type inet_proto . inet_service : ipv4_addr . inet_service ... }      # without hostIP
    map portmapped4 { type ifname . ipv4_addr : verdict ... }           # containers that are reached so
    map portmap_waiting4 { type ifname . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        elements = { "veth8c1..." . 0.0.0.0 . tcp . 8080 comment "net2,CONTAINERID,eth1" : 10.245.0.7 . 80, ... } }
    chain portmap_prerouting { type nat hook prerouting priority dstnat        # from outside and from containers
        fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @portmap4
        fib daddr type local dnat ip to meta l4proto . th dport map @portmap_any4 }             # and for IPv6
    chain portmap_output { type nat hook output priority -100                                     # from the host
        ip6 daddr ::1 return ... then the same }
    chain portmap_postrouting { type nat hook postrouting priority srcnat
        ct status dnat oifname . ip daddr vmap @portmapped4 }
    chain portmap-mynet-10.244.0.0/16 {        # the answer must come back through the host
        ip saddr 10.244.0.0/16 masquerade
        ip saddr 127.0.0.0/8 masquerade }
    chain portmap_guard { type filter hook prerouting priority raw
        iifname != "lo" ip daddr 127.0.0.0/8 drop }

What the host sends to ::1 stays: Linux lets no packet from ::1 out, so it would only vanish instead of being refused.
The last one because 127.0.0.1 of the host only leads to a container with the sysctl route_localnet, with which the
container in turn could reach what listens on the host's 127.0.0.1.

No rule looks into the last map: there wait the host ports that another interface of the same container has already
(a runtime sends the port mappings of a container to each of its networks), until that one goes.
"""

from cni_kernel import expressions
from cni_kernel.expressions import Chain, Element, Map, Rules
from cni_protocol.address import CIDR, IP, parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import Iterable, Iterator, NamedTuple, Sequence

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
LOOPBACK4 = parse_cidr("127.0.0.0/8")
LOOPBACK6 = parse_cidr("::1/128")

_SERVICE = (expressions.INET_PROTO, expressions.INET_SERVICE)
_EXACT = {
    version: Map(
        f"portmap{version}",
        expressions.concatenated(expressions.ADDRESS[version], *_SERVICE),
        expressions.concatenated(expressions.ADDRESS[version], expressions.INET_SERVICE),
    )
    for version in (4, 6)
}
_ANY = {
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
_WAITING = {
    version: Map(
        f"portmap_waiting{version}",
        expressions.concatenated(expressions.IFNAME, expressions.ADDRESS[version], *_SERVICE),
        expressions.concatenated(expressions.ADDRESS[version], expressions.INET_SERVICE),
    )
    for version in (4, 6)
}
_CLAIMED = frozenset(entry.name for entry in (*_EXACT.values(), *_ANY.values()))
MAPS = (*_EXACT.values(), *_ANY.values(), *_TARGETS.values())
WAITING_MAPS = tuple(_WAITING.values())  # made when somebody has to wait
LOOPBACK_TARGETS = _TARGETS[4]


class PortMapping(NamedTuple):
    """One host port that leads to a port of the container; `host_ip` None stands for every address of the host."""

    host_port: int
    container_port: int
    protocol: str
    host_ip: IP | None


def make_rules(
    attachment: Attachment, interface: str, mappings: Sequence[PortMapping], addresses: Sequence[CIDR]
) -> Rules:
    """The rules that forward host ports to the first address of each family that the container has.

    `interface` is the host's, by which packets for the container leave.
    """
    targets = {address.version: address for address in reversed(addresses)}
    chains = {version: _return_chain(attachment, address) for version, address in targets.items()}
    elements = [
        _port_element(attachment, mapping, address.ip)
        for mapping in mappings
        for version, address in targets.items()
        if mapping.host_ip is None or mapping.host_ip.version == version
    ]
    used = {element.map[-1] for element in elements}
    name = expressions.pack_name(interface)
    elements += [
        Element(_TARGETS[version].name, name + address.ip.packed, attachment.owner, chain=chains[version].name)
        for version, address in targets.items()
        if str(version) in used
    ]
    own = tuple(chain for version, chain in chains.items() if str(version) in used)
    return Rules(expressions.INET, MAPS, (*_base_chains(), *own), tuple(elements))


def udp_targets(elements: Iterable[Element]) -> set[IP]:
    """The containers that UDP mappings among these elements lead to."""
    return {IP(version, int.from_bytes(e.data[:-4], "big")) for version, e, _ in _udp_elements(elements)}


def udp_ports(elements: Iterable[Element]) -> set[tuple[int, int]]:
    """The IP versions and host ports of the UDP mappings among these elements."""
    return {(version, int.from_bytes(service[4:6], "big")) for version, _, service in _udp_elements(elements)}


def loopback_targets(elements: Iterable[Element]) -> set[IP]:
    """The containers among these elements that 127.0.0.1 of the host may lead to."""
    return {
        IP(4, int.from_bytes(element.key[-4:], "big")) for element in elements if element.map == LOOPBACK_TARGETS.name
    }


def is_claim(element: Element) -> bool:
    """Whether this is a host port, which cannot lead to two containers."""
    return element.map in _CLAIMED


def waiting_for(element: Element) -> Element:
    """The element that has a host port wait until whoever holds it goes."""
    version = int(element.map[-1])
    claimant = Attachment(*element.comment.split(",", 2)).host_name
    address, service = element.key[:-8] or bytes(expressions.ADDRESS[version][1]), element.key[-8:]
    key = expressions.pack_name(claimant) + address + service
    return Element(_WAITING[version].name, key, element.comment, element.data)


def called_up(waiting: Element) -> Element:
    """The host port that an element has waited for."""
    version = int(waiting.map[-1])
    address, service = waiting.key[expressions.IFNAME[1] : -8], waiting.key[-8:]
    exact = any(address)
    return Element((_EXACT if exact else _ANY)[version].name, address * exact + service, waiting.comment, waiting.data)


def _udp_elements(elements: Iterable[Element]) -> Iterator[tuple[int, Element, bytes]]:
    """The UDP mappings among elements, with their IP version and the end of their key: protocol and port."""
    for element in elements:
        for version in (4, 6):
            if element.map in (_EXACT[version].name, _ANY[version].name) and element.key[-8] == PROTOCOLS["udp"]:
                yield version, element, element.key[-8:]


def _port_element(attachment: Attachment, mapping: PortMapping, target: IP) -> Element:
    service = (bytes([PROTOCOLS[mapping.protocol]]), mapping.host_port.to_bytes(2, "big"))
    data = expressions.pad(target.packed, mapping.container_port.to_bytes(2, "big"))
    where = f"{mapping.host_ip} " if mapping.host_ip is not None else ""
    claim = f"host port {where}{mapping.host_port}/{mapping.protocol}"
    if mapping.host_ip is None:
        return Element(_ANY[target.version].name, expressions.pad(*service), attachment.owner, data, claim=claim)
    key = expressions.pad(mapping.host_ip.packed, *service)
    return Element(_EXACT[target.version].name, key, attachment.owner, data, claim=claim)


def _base_chains() -> tuple[Chain, ...]:
    forward = tuple(rule for version in (4, 6) for rule in _forward_rules(version))
    back = tuple(
        [
            *expressions.match_destination_nat(),
            *expressions.load_receiver(version),
            expressions.look_up(entry.name, verdict=True),
        ]
        for version, entry in _TARGETS.items()
    )
    stay = [*expressions.match_network(LOOPBACK6, expressions.DESTINATION), expressions.leave_chain()]
    guard = [
        *expressions.match_other_interface("lo"),
        *expressions.match_network(LOOPBACK4, expressions.DESTINATION),
        expressions.drop(),
    ]
    return (
        Chain("portmap_prerouting", forward, "nat", expressions.PREROUTING, expressions.DESTINATION_NAT),
        Chain("portmap_output", (stay, *forward), "nat", expressions.OUTPUT, expressions.DESTINATION_NAT),
        Chain("portmap_postrouting", back, "nat", expressions.POSTROUTING, expressions.SOURCE_NAT),
        Chain("portmap_guard", (guard,), "filter", expressions.PREROUTING, expressions.RAW),
    )


def _forward_rules(version: int) -> list[expressions.Rule]:
    after_address = expressions.ADDRESS[version][1] // 4
    exact = [
        *expressions.match_local_destination(),
        *expressions.load_destination(version),
        *expressions.load_service(after_address),
        expressions.look_up(_EXACT[version].name, data=True),
        expressions.translate_destination(version),
    ]
    any_address = [
        *expressions.match_local_destination(),
        *expressions.match_version(version),
        *expressions.load_service(0),
        expressions.look_up(_ANY[version].name, data=True),
        expressions.translate_destination(version),
    ]
    return [exact, any_address]


def _return_chain(attachment: Attachment, address: CIDR) -> Chain:
    """What comes from the container's own subnet, or the host's loopback, is answered through the host."""
    name = f"portmap-{attachment.owner_prefix[:-1]}-{address.network}".replace(":", "_")
    sources = [address.network] + ([LOOPBACK4] if address.version == 4 else [])
    back = tuple(
        [*expressions.match_network(source, expressions.SOURCE), expressions.masquerade()] for source in sources
    )
    return Chain(name, back)
