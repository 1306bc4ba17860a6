"""Which way a stack sends a packet: routing rules, then the longest prefix, then the lowest metric. Pure.

Source: ip-rule(8), ip-route(8), Documentation/networking/ip-sysctl.rst.
Must not: look at interfaces or filters.
"""

from cni_node.doctor.facts import Route
from cni_node.why.packets import Packet
from cni_node.why.values import NODE, RoutingRule, Stack, UnclearError
from cni_protocol.address import CIDR, IP

_LOCAL, _MAIN, _DEFAULT = 255, 254, 253  # RT_TABLE_*


def find_route(stack: Stack, destination: IP, source: IP | None = None, *, incoming: str = "", mark: int = 0) -> Route:
    """The route that is taken; one that refuses where there is none. Raises UnclearError."""
    rules = [rule for rule in stack.rules if rule.version == destination.version] or _usual(destination.version)
    for rule in sorted(rules, key=lambda rule: rule.priority):
        if not rule.understood:
            raise UnclearError(f"a routing rule of {stack.name} is not understood (priority {rule.priority})")
        if not _is_meant(rule, destination, source, incoming=incoming, mark=mark):
            continue
        fitting = [r for r in stack.routes if r.table == rule.table and _leads(r, destination)]
        if fitting:
            return min(fitting, key=lambda route: (-route.dst.prefix, route.metric))
    return Route(CIDR(destination, destination.bits), 0, None, 0, 0, 0, refuses=True)


def has_route(route: Route) -> bool:
    """Whether a route was found, be it one that refuses."""
    return not (route.refuses and route.table == 0)


def is_local(stack: Stack, address: IP) -> bool:
    """Whether an address is one of the stack's own."""
    return any(route.local and address in route.dst for route in stack.routes if route.dst.version == address.version)


def select_source(stack: Stack, route: Route, destination: IP) -> IP | None:
    """The address that a stack sends from by a route."""
    if route.source is not None:
        return route.source
    if route.local:
        return destination
    target = route.gw if route.gw is not None and route.gw.version == destination.version else destination
    own = [entry for entry in stack.addresses if entry.cidr.version == destination.version]
    own = [entry for entry in own if not is_link_local(entry.cidr.ip) or is_link_local(target)]
    there = [entry.cidr.ip for entry in own if entry.ifindex == route.ifindex]
    near = [entry.cidr.ip for entry in own if entry.ifindex == route.ifindex and target in entry.cidr]
    elsewhere = [entry.cidr.ip for entry in own if entry.cidr.ip.value >> 24 != 127 or entry.cidr.version == 6]
    return next(iter(near or there or elsewhere), None)


def select_address(stack: Stack, outgoing: str, packet: Packet) -> IP | None:
    """What a packet is masqueraded with: an address of the interface that it leaves by, near its next hop."""
    route = find_route(stack, packet.destination, mark=packet.mark)
    link = next((link for link in stack.links if link.name == outgoing), None)
    if link is None or route.refuses:
        return None
    return select_source(stack, route._replace(ifindex=link.ifindex, source=None, local=False), packet.destination)


def is_link_local(ip: IP) -> bool:
    """Whether an IPv6 address is of one link only."""
    return ip.version == 6 and ip.value >> 118 == 0xFE80 >> 6


def _leads(route: Route, destination: IP) -> bool:
    return route.dst.version == destination.version and destination in route.dst


def _usual(version: int) -> list[RoutingRule]:
    return [RoutingRule(version, n, table) for n, table in ((0, _LOCAL), (32766, _MAIN), (32767, _DEFAULT))]


def _is_meant(rule: RoutingRule, destination: IP, source: IP | None, *, incoming: str, mark: int) -> bool:
    parts = [
        rule.destination is None or destination in rule.destination,
        rule.source is None or (source is not None and source in rule.source),
        not rule.incoming or rule.incoming == (incoming or "lo"),
        not rule.outgoing,
        rule.mark is None or mark & rule.mask == rule.mark,
    ]
    return all(parts) != rule.inverted


def describe(route: Route, stack: Stack) -> str:
    """A route in words."""
    if not has_route(route):
        return f"{stack.name} has no route"
    if route.refuses:
        return f"the route to {route.dst} refuses (ip route delete {route.dst})"
    link = stack.at(route.ifindex)
    way = f"by {link.name if link is not None else route.ifindex}"
    return f"route {route.dst if route.dst.prefix else 'default'} {f'via {route.gw} ' if route.gw else ''}{way}"


def whose(stack: Stack) -> str:
    """What belongs to a stack begins so."""
    return "node" if stack.owner == NODE else stack.name
