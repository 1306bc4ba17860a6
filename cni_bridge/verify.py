"""What should be there against what is there: the differences, in words. Pure; CHECK of the bridge plugin.

Source: SPEC.md, section "CHECK": what prevResult lists must exist; what a later plugin of the chain may have changed or
added (further addresses and routes, another MAC in the container) is no difference.
"""

from cni_kernel.values import Link, PortVlan
from cni_kernel.values import Route as KernelRoute
from cni_protocol.address import CIDR
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import NamedTuple
from cni_protocol.result import Interface, IPConfig, Result, Route

from .config import BridgeConfig
from .plan import gateway_interface, list_vlans, program_routes


class Expected(NamedTuple):
    """The part of prevResult that this attachment made: its interface in the container, addresses, routes."""

    container: Interface | None
    ips: tuple[IPConfig, ...]
    routes: tuple[KernelRoute, ...]


class Observed(NamedTuple):
    """What the kernel holds: links (None where there is none), what the container's and the gateway's one have.

    `vlans` are those of the port, `missing_rules` the differences that sync.find_missing saw,
    `missing_ways` those that nodewiring.find_missing saw.
    """

    bridge: Link | None
    host: Link | None
    container: Link | None
    addresses: list[CIDR]
    routes: list[KernelRoute]
    gateways: list[CIDR]
    vlans: tuple[PortVlan, ...]
    missing_rules: list[str]
    missing_ways: list[str]


def make_expected(previous: Result, ifname: str, netns: str) -> Expected:
    """What of a prevResult concerns the interface `ifname` in the namespace at `netns`."""
    index = next(
        (i for i, entry in enumerate(previous.interfaces) if entry.name == ifname and entry.sandbox == netns), None
    )
    if index is None:
        return Expected(None, (), ())
    ips = tuple(entry for entry in previous.ips if entry.interface in (index, None))
    others = {entry.address.network for entry in previous.ips if entry.interface not in (index, None)}
    prefixes = {(other.version, other.prefix) for other in others}
    routes = tuple(route for route in previous.routes if not _is_elsewhere(route, others, prefixes))
    return Expected(previous.interfaces[index], ips, program_routes(ips, routes))


def _is_elsewhere(route: Route, others: set[CIDR], prefixes: set[tuple[int, int]]) -> bool:
    """Whether a route is, or without a gw may be, of another plugin of the chain: over an interface in `others`.

    `prefixes` are the IP versions and prefix lengths of these subnets.
    """
    if route.gw is None:
        return any(version == route.dst.version for version, _ in prefixes)
    return any(version == route.gw.version and CIDR(route.gw, prefix).network in others for version, prefix in prefixes)


def find_differences(config: BridgeConfig, attachment: Attachment, expected: Expected, observed: Observed) -> list[str]:
    """All differences, none for an attachment that is as ADD left it."""
    differences = _link_differences(config, attachment, observed)
    if expected.container is None:
        differences.append(f"prevResult lists no interface {attachment.ifname} in this namespace")
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
    return (
        differences + _gateway_differences(config, expected, observed) + observed.missing_rules + observed.missing_ways
    )


def _link_differences(config: BridgeConfig, attachment: Attachment, observed: Observed) -> list[str]:
    return (
        _bridge_differences(config, observed.bridge)
        + _container_differences(config, attachment, observed.container)
        + _port_differences(config, attachment, observed)
    )


def _bridge_differences(config: BridgeConfig, bridge: Link | None) -> list[str]:
    if bridge is None:
        return [f"bridge {config.bridge} is missing"]
    if bridge.kind != "bridge":
        return [f"{config.bridge} is of kind {bridge.kind or 'physical'}, not a bridge"]
    differences = []
    if not bridge.up:
        differences.append(f"bridge {config.bridge} is down (`ip link set {config.bridge} up`)")
    if config.promisc and not bridge.promisc:
        differences.append(f"bridge {config.bridge} is not promiscuous, and promiscMode is on")
    return differences


def _container_differences(config: BridgeConfig, attachment: Attachment, container: Link | None) -> list[str]:
    if container is None:
        return [f"interface {attachment.ifname} is missing in the container"]
    differences = []
    if not container.up and not config.leave_down:
        differences.append(f"interface {attachment.ifname} is down in the container")
    if config.mtu and container.mtu != config.mtu:
        differences.append(f"mtu of {attachment.ifname} is {container.mtu}, not {config.mtu}")
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
    if config.wants_vlans and observed.vlans != list_vlans(config):
        differences.append(f"VLANs of port {host.name} are {_text(observed.vlans)}, not {_text(list_vlans(config))}")
    return differences


def _gateway_differences(config: BridgeConfig, expected: Expected, observed: Observed) -> list[str]:
    if not config.is_gateway:
        return []
    gateways = [CIDR(entry.gateway, entry.address.prefix) for entry in expected.ips if entry.gateway is not None]
    there = set(observed.gateways)
    missing = [gateway for gateway in gateways if gateway not in there]
    return [
        f"gateway address {gateway} is missing on {gateway_interface(config)}" for gateway in dict.fromkeys(missing)
    ]


def _way_of(route: KernelRoute) -> tuple[object, ...]:
    return route.dst, route.gw, route.table


def _is_same_route(wanted: KernelRoute, there: KernelRoute) -> bool:
    """Whether the kernel's route of the same way is the wanted one; what that leaves open may be anything."""
    pairs = [(wanted.priority, there.priority), (wanted.mtu, there.mtu), (wanted.advmss, there.advmss)]
    if wanted.dst.version == 4:  # IPv6 routes have no scope
        pairs.append((wanted.scope, there.scope))
    return all(want is None or want == (have or 0) for want, have in pairs)


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _text(vlans: tuple[PortVlan, ...]) -> str:
    return ", ".join(f"{vlan.vid}{' untagged' if vlan.untagged else ''}" for vlan in vlans) or "none"
