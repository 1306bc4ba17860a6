"""Comparing an attachment with its prevResult, for CHECK of the bridge plugin: the differences, in words. Pure.

Source: SPEC.md, section "CHECK". What prevResult lists must exist. A later plugin of the chain may have added addresses
and routes, moved routes to another table (sbr, vrf), or changed the container's MAC or lowered its MTU (tuning), so
these are no differences.
"""

from cni_kernel.values import MAIN_TABLE, Link, PortVlan, group_vlans
from cni_kernel.values import Route as KernelRoute
from cni_protocol.address import CIDR
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import Collection, NamedTuple
from cni_protocol.result import Interface, IPConfig, Result, Route

from .config import BridgeConfig, normal_mac
from .plan import gateway_interface, list_vlans, program_routes

# The kernel cuts metrics of a route to these values (ip_metrics_convert in net/ipv4/metrics.c), and gives an IPv6 route
# without a priority this one (IP6_RT_PRIO_USER).
_MAX_ROUTE_MTU, _MAX_ADVMSS = 65535 - 15, 65535 - 40
_PRIORITY6 = 1024


class Expected(NamedTuple):
    """The part of prevResult that this attachment made: its interface in the container, addresses, routes.

    `outside` are the names of all interfaces of the host that prevResult lists.
    """

    container: Interface | None
    ips: tuple[IPConfig, ...]
    routes: tuple[KernelRoute, ...]
    outside: frozenset[str] = frozenset()


class Observed(NamedTuple):
    """The state of the kernel. A link is None when it does not exist.

    `addresses` and `routes` are those of the container's interface, `gateways` the addresses of the gateway's.
    `gateway_port` is the other end of a VLAN's gateway interface. `vlans` are those of all ports by interface index
    (empty without VLANs), `missing_rules` the differences that sync.find_missing has found.
    """

    bridge: Link | None
    host: Link | None
    container: Link | None
    addresses: list[CIDR]
    routes: list[KernelRoute]
    gateways: list[CIDR]
    gateway: Link | None
    gateway_port: Link | None
    vlans: dict[int, list[PortVlan]]
    missing_rules: list[str]


def make_expected(previous: Result, ifname: str, sandboxes: Collection[str]) -> Expected:
    """The part of a prevResult for interface `ifname` of this container; `sandboxes` are its namespace's paths."""
    outside = frozenset(entry.name for entry in previous.interfaces if not entry.sandbox)
    index = next(
        (i for i, entry in enumerate(previous.interfaces) if entry.name == ifname and entry.sandbox in sandboxes), None
    )
    if index is None:
        return Expected(None, (), (), outside)
    ips = tuple(entry for entry in previous.ips if entry.interface in (index, None))
    others = {entry.address.network for entry in previous.ips if entry.interface not in (index, None)}
    prefixes = {(other.version, other.prefix) for other in others}
    routes = tuple(route for route in previous.routes if not _is_elsewhere(route, others, prefixes))
    return Expected(previous.interfaces[index], ips, program_routes(ips, routes), outside)


def _is_elsewhere(route: Route, others: set[CIDR], prefixes: set[tuple[int, int]]) -> bool:
    """Whether a route may belong to another plugin of the chain, whose interfaces have the subnets `others`.

    It does when its gw is in one of them; without a gw it may. `prefixes` are their IP versions and prefix lengths.
    """
    if route.gw is None:
        return any(version == route.dst.version for version, _ in prefixes)
    return any(version == route.gw.version and CIDR(route.gw, prefix).network in others for version, prefix in prefixes)


def find_differences(config: BridgeConfig, attachment: Attachment, expected: Expected, observed: Observed) -> list[str]:
    """All differences, in words; none for an attachment that is as ADD left it."""
    differences = _link_differences(config, attachment, observed) + _listing_differences(config, expected, observed)
    if expected.container is None:
        differences.append(f"prevResult lists no interface {attachment.ifname} in this namespace")
    elif expected.container.mac and not normal_mac(expected.container.mac):
        differences.append(f"mac of {attachment.ifname} in prevResult is no MAC address: {expected.container.mac!r}")
    if observed.container is not None:
        addresses = set(observed.addresses)
        there: dict[tuple[object, ...], list[KernelRoute]] = {}
        for route in observed.routes:
            there.setdefault(_way_of(route), []).append(route)
        differences += [
            f"address {entry.address} of prevResult is missing on {attachment.ifname}"
            for entry in expected.ips
            if entry.address not in addresses
        ]
        differences += [
            f"route {route.dst}{f' via {route.gw}' if route.gw else ''} of prevResult is missing in the container"
            for route in expected.routes
            if not any(_is_same_route(route, other) for other in there.get(_way_of(route), ()))
        ]
    return differences + _gateway_differences(config, expected, observed) + observed.missing_rules


def _link_differences(config: BridgeConfig, attachment: Attachment, observed: Observed) -> list[str]:
    return (
        _bridge_differences(config, observed.bridge)
        + _container_differences(config, attachment, observed.container)
        + _port_differences(config, attachment, observed)
    )


def _listing_differences(config: BridgeConfig, expected: Expected, observed: Observed) -> list[str]:
    """Bridge and host end, if prevResult lists other interfaces of the host: then it is another attachment's result."""
    if not expected.outside:
        return []
    wanted = [(config.bridge, "the bridge")]
    if observed.host is not None:
        wanted.append((observed.host.name, "the host's end"))
    return [f"prevResult does not list {name}, {what}" for name, what in wanted if name not in expected.outside]


def _bridge_differences(config: BridgeConfig, bridge: Link | None) -> list[str]:
    if bridge is None:
        return [f"bridge {config.bridge} is missing"]
    if bridge.name != config.bridge:
        return [f"{config.bridge} is another name of {bridge.name}; set bridge to {bridge.name}"]
    if bridge.kind != "bridge":
        return [f"{config.bridge} is of kind {bridge.kind or 'physical'}, not a bridge"]
    differences = []
    if not bridge.up:
        differences.append(f"bridge {config.bridge} is down (`ip link set {config.bridge} up`)")
    if config.promisc and not bridge.promisc:
        differences.append(f"bridge {config.bridge} is not promiscuous, and promiscMode is on")
    if config.wants_vlans and not bridge.vlan_filtering:
        differences.append(
            f"bridge {config.bridge} does not filter VLANs (`ip link set {config.bridge} type bridge vlan_filtering 1`)"
        )
    return differences


def _container_differences(config: BridgeConfig, attachment: Attachment, container: Link | None) -> list[str]:
    if container is None:
        return [f"interface {attachment.ifname} is missing in the container"]
    differences = []
    if not container.up and not config.leave_down:
        differences.append(f"interface {attachment.ifname} is down in the container")
    if config.mtu and container.mtu > config.mtu:  # a longer packet would not pass the host's end
        differences.append(f"mtu of {attachment.ifname} is {container.mtu}, more than {config.mtu}")
    return differences


def _port_differences(config: BridgeConfig, attachment: Attachment, observed: Observed) -> list[str]:
    bridge, host, container = observed.bridge, observed.host, observed.container
    if container is None:
        return []
    if host is None or (host.kind, host.peer) != ("veth", container.ifindex):
        return [f"the host's end of {attachment.ifname} is missing"]
    differences = []
    if not host.up:
        differences.append(f"{host.name}, the host's end of {attachment.ifname}, is down")
    if config.mtu and host.mtu != config.mtu:
        differences.append(f"mtu of {host.name} is {host.mtu}, not {config.mtu}")
    if bridge is not None and host.master != bridge.ifindex:
        differences.append(f"{host.name} is not a port of bridge {config.bridge}")
        return differences
    if host.hairpin != config.wants_hairpin:
        differences.append(f"port {host.name}: hairpin is {_on(host.hairpin)}, not {_on(config.wants_hairpin)}")
    if host.isolated != config.isolated:
        differences.append(f"port {host.name}: isolation is {_on(host.isolated)}, portIsolation {_on(config.isolated)}")
    if config.wants_vlans:
        differences += _vlan_differences(host, observed, list_vlans(config))
    return differences


def _vlan_differences(port: Link, observed: Observed, wanted: tuple[PortVlan, ...]) -> list[str]:
    there = tuple(observed.vlans.get(port.ifindex, ()))
    return [] if there == wanted else [f"VLANs of port {port.name} are {_text(there)}, not {_text(wanted)}"]


def _gateway_differences(config: BridgeConfig, expected: Expected, observed: Observed) -> list[str]:
    if not config.is_gateway:
        return []
    gateways = [CIDR(entry.gateway, entry.address.prefix) for entry in expected.ips if entry.gateway is not None]
    there = set(observed.gateways)
    missing = [gateway for gateway in gateways if gateway not in there]
    return _gateway_vlan_differences(config, observed) + [
        f"gateway address {gateway} is missing on {gateway_interface(config)}" for gateway in dict.fromkeys(missing)
    ]


def _way_of(route: KernelRoute) -> tuple[object, ...]:
    return route.dst, route.gw


def _gateway_vlan_differences(config: BridgeConfig, observed: Observed) -> list[str]:
    """Differences of a VLAN's gateway interface. If it is missing, its missing addresses are reported elsewhere."""
    gateway, port, bridge = observed.gateway, observed.gateway_port, observed.bridge
    if not config.vlan or gateway is None or bridge is None:
        return []
    differences = [] if gateway.up else [f"{gateway.name} is down (`ip link set {gateway.name} up`)"]
    if gateway.kind == "veth" and (port is None or port.master != bridge.ifindex):
        differences.append(f"{gateway.name} does not lead to a port of bridge {config.bridge}")
    elif port is not None and PortVlan(config.vlan, True, True) not in observed.vlans.get(port.ifindex, ()):
        differences += _vlan_differences(port, observed, (PortVlan(config.vlan, pvid=True, untagged=True),))
    return differences


def _is_same_route(wanted: KernelRoute, there: KernelRoute) -> bool:
    """Whether two routes with the same destination and gateway are the same. A wanted None matches any value."""
    if wanted.table not in (MAIN_TABLE, there.table):  # from the main table a later plugin may have moved it
        return False
    pairs = [(wanted.mtu, there.mtu, _MAX_ROUTE_MTU), (wanted.advmss, there.advmss, _MAX_ADVMSS)]
    if any(want is not None and min(want, limit) != (have or 0) for want, have, limit in pairs):
        return False
    if wanted.dst.version == 6:  # no scope; and no priority is another number
        return wanted.priority is None or (wanted.priority or _PRIORITY6) == there.priority
    return wanted.priority in (None, there.priority or 0) and wanted.scope in (None, there.scope)


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _text(vlans: tuple[PortVlan, ...]) -> str:
    """Ranges as in `bridge -compressvlans vlan`, with the words that `bridge vlan add` takes."""
    ranges = [
        f"{first.vid}{f'-{last.vid}' if last != first else ''}"
        f"{' pvid' if first.pvid else ''}{' untagged' if first.untagged else ''}"
        for first, last in group_vlans(vlans)
    ]
    return ", ".join(ranges) or "none"
