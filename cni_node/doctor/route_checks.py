"""Faults of forwarding: sysctls, routes, neighbours, overlaps. Pure.

Must not: read anything.
"""

from collections.abc import Iterator

from cni_node.doctor.facts import BREAKS, HINDERS, RISK, Facts, Finding, Route
from cni_node.doctor.link_checks import bridges_of, overlap, overlays_of
from cni_protocol.address import CIDR, IP, LINK_LOCAL6

PROTOCOL = 80  # of the agent's routes
_MAIN = 254
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
_LATER = {4: ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"), 6: ("net.ipv6.conf.all.forwarding",)}
_BRIDGED = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}


def subnets_of(facts: Facts) -> dict[CIDR, int]:
    """The subnets of networks whose bridge is a gateway, each with the bridge's index."""
    found = {}
    for link, networks in bridges_of(facts).values():
        found.update({subnet: link.ifindex for network in networks if network.is_gateway for subnet in network.subnets})
    return found


def peer_routes_of(facts: Facts) -> list[Route]:
    """The agent's routes to other nodes' pods."""
    return [route for route in facts.routes if route.protocol == PROTOCOL and not route.refuses]


def key_of(sysctl: str) -> str:
    """A sysctl as sysctl(8) names it."""
    return "net." + sysctl.replace("/", ".")


def check_forwarding(facts: Facts) -> Iterator[Finding]:
    """Forwarding is off, of a family of pods or of one interface."""
    versions = sorted({subnet.version for subnet in subnets_of(facts)})
    for version in versions:
        if facts.number(_FORWARDING[version]) == 0:
            key = key_of(_FORWARDING[version])
            what = f"forwarding of IPv{version} is off: pods reach nothing but pods of this node"
            yield Finding(BREAKS, "forwarding-off", key, what, f"sysctl -w {key}=1, in /etc/sysctl.d too")
        elif version == 4:
            yield from _off_at_interfaces(facts)
        for name in _LATER[version]:
            value, file = facts.later_sysctls.get(name, ("", ""))
            if value == "0":
                what = f"{file} switches it off at the next boot, or when sysctl --system runs"
                yield Finding(RISK, "forwarding-off-later", name, what, f"a file sorted last that sets {name} = 1")


def _off_at_interfaces(facts: Facts) -> Iterator[Finding]:
    bridges = {link.name for link, networks in bridges_of(facts).values() if any(n.is_gateway for n in networks)}
    ways = {route.ifindex for route in facts.routes if not route.dst.prefix or route.protocol == PROTOCOL}
    for link in facts.links:
        name = f"ipv4/conf/{link.name}/forwarding"
        if (link.name in bridges or link.ifindex in ways) and facts.number(name) == 0:
            what = f"IPv4 packets that come in by {link.name} are not forwarded"
            yield Finding(BREAKS, "forwarding-off", key_of(name), what, f"sysctl -w {key_of(name)}=1")


def check_router_advertisements(facts: Facts) -> Iterator[Finding]:
    """The IPv6 default route comes from router advertisements, which are ignored since the node forwards."""
    if facts.number(_FORWARDING[6]) != 1 or not any(subnet.version == 6 for subnet in subnets_of(facts)):
        return
    names = {link.ifindex: link.name for link in facts.links}
    for route in facts.routes:  # RTPROT_RA
        key = f"ipv6/conf/{names.get(route.ifindex, '')}/accept_ra"
        if route.dst.version == 6 and not route.dst.prefix and route.protocol == 9 and facts.number(key) == 1:
            what = (
                "the default route comes from a router, which is not listened to while forwarding is on: it will expire"
            )
            yield Finding(RISK, "accept-ra", key_of(key), what, f"sysctl -w {key_of(key)}=2")


def check_bridge_filter(facts: Facts) -> Iterator[Finding]:
    """Bridged packets pass no packet filter."""
    for version in sorted({subnet.version for subnet in subnets_of(facts)}):
        if facts.sysctls and facts.number(_BRIDGED[version]) != 1:
            key = key_of(_BRIDGED[version])
            what = f"bridged IPv{version} packets pass no packet filter: services and policies fail within the node"
            yield Finding(HINDERS, "bridge-netfilter-off", key, what, f"modprobe br_netfilter; sysctl -w {key}=1")


def check_ipv6_disabled(facts: Facts) -> Iterator[Finding]:
    """IPv6 is off on a bridge of IPv6 pods."""
    for link, networks in bridges_of(facts).values():
        key = f"ipv6/conf/{link.name}/disable_ipv6"
        wanted = any(
            network.is_gateway and gateway.version == 6 for network in networks for gateway in network.gateways
        )
        if wanted and facts.number(key) == 1:
            yield Finding(BREAKS, "ipv6-disabled", key_of(key), "IPv6 is off there", f"sysctl -w {key_of(key)}=0")


def check_reverse_path(facts: Facts) -> Iterator[Finding]:
    """Reverse path filtering is strict on the overlay, or has dropped packets elsewhere."""
    whole = facts.number("ipv4/conf/all/rp_filter") or 0
    dropped = facts.counters.get("TcpExt:IPReversePathFilter", 0)
    overlays = {link.ifindex for link in overlays_of(facts)}
    ours = (
        overlays | {link.ifindex for link, _ in bridges_of(facts).values()} | {r.ifindex for r in peer_routes_of(facts)}
    )
    for link in facts.links:
        name = f"ipv4/conf/{link.name}/rp_filter"
        strict = max(whole, facts.number(name) or 0) == 1
        if strict and link.ifindex in overlays:
            what = "reverse path filtering is strict: packets of peers that come another way than they go are dropped"
        elif strict and dropped and link.ifindex in ours:
            what = f"reverse path filtering is strict, and this node has dropped {dropped} packets for it"
        else:
            continue
        yield Finding(HINDERS, "reverse-path", key_of(name), what, f"sysctl -w {key_of(name)}=2")


def check_own_routes(facts: Facts) -> Iterator[Finding]:
    """The way to our own pods is missing, or refuses."""
    up = {link.ifindex: link for link in facts.links if link.up}
    subnets = {subnet: index for subnet, index in subnets_of(facts).items() if index in up}
    for subnet, index in subnets.items():
        has_gateway = any(entry.ifindex == index and entry.cidr.ip in subnet for entry in facts.addresses)
        through = any(r.ifindex == index and r.dst == subnet and r.table == _MAIN for r in facts.routes)
        if has_gateway and not through and subnet.prefix < subnet.ip.bits - 1:
            name = up[index].name
            what = f"no route leads to the pods of {subnet} through {name}"
            yield Finding(BREAKS, "own-route-missing", str(subnet), what, f"ip route add {subnet} dev {name}")
    for route in facts.routes:
        hit = next((each for each in subnets if route.dst.ip in each), None)
        if route.refuses and route.table == _MAIN and hit is not None:
            what = f"a route drops what goes to {route.dst}, which are pods of this node"
            yield Finding(HINDERS, "route-refuses", str(route.dst), what, f"ip route delete {route.dst}")


def check_overlaps(facts: Facts) -> Iterator[Finding]:
    """Our subnets are elsewhere too: on another interface, or with another node."""
    names = {link.ifindex: link.name for link in facts.links}
    for subnet, bridge in subnets_of(facts).items():
        gateways = {entry.cidr.ip for entry in facts.addresses if entry.ifindex == bridge}
        for entry in facts.addresses:
            if entry.ifindex != bridge and overlap(entry.cidr, subnet) and not _stands_beside(entry.cidr, gateways):
                what = f"{names.get(entry.ifindex, '?')} has {entry.cidr}, which overlaps it"
                yield Finding(HINDERS, "subnet-overlap", str(subnet), what, "give the network another subnet")
        for route in facts.routes:
            if route.ifindex == bridge or route.refuses or not route.dst.prefix or route.table != _MAIN:
                continue
            if (
                route.dst.ip in LINK_LOCAL6 or not overlap(route.dst, subnet) or route.protocol == 2
            ):  # the address's own
                continue
            if route.protocol == PROTOCOL:
                what = f"another node has {route.dst}, too: see pycni status"
                yield Finding(
                    HINDERS, "range-shared", str(subnet), what, "delete the younger node, or give it another range"
                )
            elif route.dst.prefix >= subnet.prefix:
                what = f"a route leads {route.dst} to {names.get(route.ifindex, '?')}"
                yield Finding(HINDERS, "subnet-overlap", str(subnet), what, "give the network another subnet")


def _stands_beside(cidr: CIDR, gateways: set[IP]) -> bool:
    """Whether an address is one of the bridge's again, as the overlay's device has it."""
    return cidr.ip in gateways or cidr.prefix == cidr.ip.bits


def check_peer_routes(facts: Facts) -> Iterator[Finding]:
    """A route to a peer leads nowhere: refused, or through an interface that is down or has no carrier."""
    peers = peer_routes_of(facts)
    links = {link.ifindex: link for link in facts.links}
    refusing = [r for r in facts.routes if r.refuses and r.table == _MAIN and r.dst.prefix]
    for route in refusing:
        hit = next(
            (p for p in peers if route.dst.ip in p.dst and (route.dst != p.dst or route.metric <= p.metric)), None
        )
        if hit is not None:
            what = f"a route drops what goes to {route.dst}, which are pods of the node at {hit.gw}"
            yield Finding(HINDERS, "route-refuses", str(route.dst), what, f"ip route delete {route.dst}")
    for route in peers:
        link = links.get(route.ifindex)
        if link is not None and not (link.up and link.running):
            what = f"its route leads to {link.name}, which {'has no carrier' if link.up else 'is down'}"
            remedy = "look at the cable or the other end" if link.up else f"ip link set {link.name} up"
            yield Finding(HINDERS, "peer-unreachable", str(route.dst), what, remedy)


def check_neighbours(facts: Facts) -> Iterator[Finding]:
    """The next hop of a route to a peer does not answer, or the overlay does not know where it is."""
    overlays = {link.ifindex: link.name for link in overlays_of(facts)}
    macs = {(entry.ifindex, entry.ip): entry for entry in facts.neighbours if not entry.forwarding}
    known = {(entry.ifindex, entry.mac) for entry in facts.neighbours if entry.forwarding}
    for route in peer_routes_of(facts):
        entry = macs.get((route.ifindex, route.gw))
        if route.ifindex in overlays:
            name = overlays[route.ifindex]
            if entry is None or not entry.permanent:
                what = f"{name} has no neighbour entry for {route.gw}, by which {route.dst} is reached"
            elif (route.ifindex, entry.mac) not in known:
                what = f"{name} has no forwarding entry for {entry.mac}, by which {route.dst} is reached"
            else:
                continue
            yield Finding(HINDERS, "peer-entry-missing", str(route.dst), what, "start the agent: it puts that back")
        elif entry is not None and entry.failed:
            what = f"the node at {route.gw} does not answer on the link: its pods are out of reach"
            yield Finding(
                HINDERS, "peer-silent", str(route.dst), what, "is it up, and on this link? else use --overlay"
            )


def check_neighbour_table(facts: Facts) -> Iterator[Finding]:
    """The neighbour table is full, or nearly."""
    for version in (4, 6):
        key = f"ipv{version}/neigh/default/gc_thresh3"
        limit = facts.number(key)
        entries = [e for e in facts.neighbours if e.ip is not None and not e.forwarding and e.ip.version == version]
        count = sum(1 for entry in entries if not entry.permanent)
        if limit and count >= 0.9 * limit:
            harm = HINDERS if count >= limit else RISK
            what = f"the neighbour table of IPv{version} has {count} entries, and {limit} are the most"
            yield Finding(harm, "neighbours-full", key_of(key), what, f"sysctl -w {key_of(key)}={4 * limit}")
