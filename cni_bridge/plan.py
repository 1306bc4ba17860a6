"""Computes the plan of ADD: from configuration and IPAM result to addresses and routes for the kernel. Pure."""

from cni_kernel.values import DEFAULT_VLAN, MAIN_TABLE, SCOPE_LINK, SCOPE_UNIVERSE, PortVlan
from cni_kernel.values import Route as KernelRoute
from cni_protocol.address import CIDR, IP, any_network
from cni_protocol.errors import DELEGATE_FAILED, INVALID_CONFIG, CNIError
from cni_protocol.light.standard import NamedTuple
from cni_protocol.result import DNS, Interface, IPConfig, Result, Route

from .config import BridgeConfig

MIN_MTU_IPV6 = 1280  # bytes: RFC 8200, section 5
_MULTICAST = {4: (0xE0 << 24, 0xF0 << 24), 6: (0xFF << 120, 1 << 128)}  # RFC 6890: from the first to below the second

# The interfaces of a result, in this order.
BRIDGE, HOST, CONTAINER = range(3)


class Plan(NamedTuple):
    """The addresses and routes of one attachment.

    `ips` and `routes` go into the result. `programmed` are the same routes for the kernel, with the gateway filled in.
    `gateways` are the addresses for the bridge, `masqueraded` the container's addresses, each with its prefix length.
    """

    ips: tuple[IPConfig, ...]
    routes: tuple[Route, ...]
    programmed: tuple[KernelRoute, ...]
    gateways: tuple[CIDR, ...]
    masqueraded: tuple[CIDR, ...]
    dns: DNS


def make_plan(config: BridgeConfig, ipam: Result) -> Plan:
    """The plan for an IPAM result.

    Raises CNIError: 104 for a result without an address, or with one that no container can have; 7 for IPv6 and an mtu
    below 1280.
    """
    if not ipam.ips:
        raise CNIError(DELEGATE_FAILED, f"{config.ipam_type} ADD gave no address; its result has no ips")
    if 0 < config.mtu < MIN_MTU_IPV6 and any(entry.address.version == 6 for entry in ipam.ips):
        raise CNIError(INVALID_CONFIG, f"mtu: {config.mtu} is less than {MIN_MTU_IPV6}, the least that IPv6 works with")
    ips = tuple(_with_gateway(entry, config.is_gateway) for entry in ipam.ips)
    _check_addresses(config, ips)
    routes = ipam.routes + (_default_routes(ips, ipam.routes) if config.is_default_gateway else ())
    gateways = [CIDR(entry.gateway, entry.address.prefix) for entry in ips if entry.gateway is not None]
    return Plan(
        ips=ips,
        routes=routes,
        programmed=program_routes(ips, routes),
        gateways=tuple(dict.fromkeys(gateways)) if config.is_gateway else (),
        masqueraded=tuple(entry.address for entry in ips) if config.ip_masq else (),
        dns=config.dns or ipam.dns,
    )


def _check_addresses(config: BridgeConfig, ips: tuple[IPConfig, ...]) -> None:
    """Raise CNIError (code 104) for an address that no container can have."""
    gateways = {entry.gateway for entry in ips} if config.is_gateway else set()
    for address in (entry.address for entry in ips):
        if not _is_single(address):
            problem = "is not the address of a single host"
        elif address.ip in gateways:
            problem = "is the gateway, which the bridge has (isGateway)"
        else:
            continue
        raise CNIError(DELEGATE_FAILED, f"{config.ipam_type} ADD gave {address}, which {problem}; correct ipam")


def _is_single(address: CIDR) -> bool:
    """Whether one host can have it: it is neither unspecified, nor for multicast, nor for a broadcast (RFC 6890)."""
    value, (first, beyond) = address.ip.value, _MULTICAST[address.version]
    if not value or first <= value < beyond:
        return False
    return address.version == 6 or (value != 0xFFFFFFFF and (address.prefix >= 31 or address.ip != address.last))


LAYER_2 = Plan((), (), (), (), (), DNS())


def make_result(plan: Plan, interfaces: tuple[Interface, ...]) -> Result:
    """The result of ADD. `interfaces` are bridge, host end and container end, in this order."""
    return Result(interfaces, plan.ips, plan.routes, plan.dns)


def list_vlans(config: BridgeConfig) -> tuple[PortVlan, ...]:
    """The VLANs of the container's port, sorted; none when the network does not use VLANs.

    With a trunk and no `vlan`, untagged frames belong to VLAN 1, as in the reference.
    """
    native = config.vlan or (DEFAULT_VLAN.vid if config.trunk else 0)
    vlans = [PortVlan(vid) for vid in config.trunk if vid != native]
    if native:
        vlans.append(PortVlan(native, pvid=True, untagged=True))
    if config.keep_default_vlan and config.wants_vlans and DEFAULT_VLAN.vid not in (native, *config.trunk):
        vlans.append(PortVlan(DEFAULT_VLAN.vid, untagged=True))
    return tuple(sorted(vlans))


def gateway_interface(config: BridgeConfig) -> str:
    """The interface that has the gateway addresses: the bridge, or with `vlan` the interface BRIDGE.VLAN."""
    return f"{config.bridge}.{config.vlan}" if config.vlan else config.bridge


def program_routes(ips: tuple[IPConfig, ...], routes: tuple[Route, ...]) -> tuple[KernelRoute, ...]:
    """The routes of a result in the form that the kernel has them, without duplicates.

    A route without gw gets the gateway of its family (SPEC.md, "ADD": ips[].gateway), unless its scope says that the
    destination is on the link.
    """
    gateways = {version: _first_gateway(ips, version) for version in (4, 6)}
    programmed = []
    for route in routes:
        gw = route.gw
        if gw is None and (route.scope is None or route.scope < SCOPE_LINK):
            gw = gateways[route.dst.version]
        scope = route.scope
        if scope is None:
            scope = SCOPE_UNIVERSE if gw is not None or route.dst.version == 6 else SCOPE_LINK
        table = route.table or MAIN_TABLE
        programmed.append(KernelRoute(route.dst, gw, route.mtu, route.advmss, route.priority, table, scope))
    return tuple(dict.fromkeys(programmed))


def _with_gateway(entry: IPConfig, is_gateway: bool) -> IPConfig:
    gateway = entry.gateway
    if gateway is None and is_gateway:
        gateway = IP(entry.address.version, entry.address.first.value + 1)
    return IPConfig(entry.address, gateway, CONTAINER)


def _default_routes(ips: tuple[IPConfig, ...], routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A default route for each family that has an address and no default route yet."""
    have = {route.dst for route in routes if (route.table or MAIN_TABLE) == MAIN_TABLE}
    versions = dict.fromkeys(entry.address.version for entry in ips)
    wanted = [version for version in versions if any_network(version) not in have]
    return tuple(Route(any_network(version), _first_gateway(ips, version)) for version in wanted)


def _first_gateway(ips: tuple[IPConfig, ...], version: int) -> IP | None:
    gateways = (entry.gateway for entry in ips if entry.gateway is not None)
    return next((gateway for gateway in gateways if gateway.version == version), None)
