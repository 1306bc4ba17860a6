"""From configuration and IPAM result to what the kernel should hold. Pure."""

from hashlib import sha256
from typing import NamedTuple

from cni_protocol.address import CIDR, IP, any_network
from cni_protocol.errors import DELEGATE_FAILED, CNIError
from cni_protocol.result import DNS, Interface, IPConfig, Result, Route

from .config import BridgeConfig

# rtnetlink(7): where a destination lives
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253
MAIN_TABLE = 254

# The interfaces of a result, in this order.
BRIDGE, HOST, CONTAINER = range(3)

_OWNER_PART = 100  # characters; an alias holds 255 (IFALIASZ), a comment of nftables 128 or more


class Attachment(NamedTuple):
    """The pair that the specification counts: a container and an interface in it, on a network."""

    network: str
    container_id: str
    ifname: str

    @property
    def host_name(self) -> str:
        """The name of the host's end of the veth pair, the same on every command: DEL needs nothing else."""
        return "veth" + sha256("/".join(self).encode()).hexdigest()[:11]

    @property
    def owner(self) -> str:
        """NETWORK/CONTAINERID/IFNAME, by which host interfaces and rules tell whose they are."""
        return "/".join(shortened(part) for part in self)


class Plan(NamedTuple):
    """What the kernel should hold for one attachment, beside the interfaces themselves.

    `ips` and `routes` are those of the result; `programmed` are the same routes as the kernel gets them, with their
    gateway filled in; `gateways` are the addresses of the bridge; `masqueraded` are addresses with their subnets.
    """

    ips: tuple[IPConfig, ...]
    routes: tuple[Route, ...]
    programmed: tuple[Route, ...]
    gateways: tuple[CIDR, ...]
    masqueraded: tuple[CIDR, ...]
    dns: DNS


def make_plan(config: BridgeConfig, ipam: Result) -> Plan:
    """The plan for an IPAM result. Raises CNIError (code 104) for a result that has no address."""
    if not ipam.ips:
        raise CNIError(DELEGATE_FAILED, f"{config.ipam_type} ADD gave no address; its result has no ips")
    ips = tuple(_with_gateway(entry, config.is_gateway) for entry in ipam.ips)
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


LAYER_2 = Plan((), (), (), (), (), DNS())


def make_result(plan: Plan, interfaces: tuple[Interface, Interface, Interface]) -> Result:
    """The result of ADD: bridge, host end and container end, and the addresses on the last."""
    return Result(interfaces, plan.ips, plan.routes, plan.dns)


def program_routes(ips: tuple[IPConfig, ...], routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """The routes of a result as the kernel holds them, each once.

    A route without gw goes through the gateway of its family (SPEC.md, "ADD": ips[].gateway), unless its scope says
    that the destination is on the link.
    """
    programmed = []
    for route in routes:
        gw = route.gw
        if gw is None and (route.scope is None or route.scope < SCOPE_LINK):
            gw = _first_gateway(ips, route.dst.version)
        scope = route.scope
        if scope is None:
            scope = SCOPE_UNIVERSE if gw is not None or route.dst.version == 6 else SCOPE_LINK
        programmed.append(route._replace(gw=gw, scope=scope, table=route.table or MAIN_TABLE))
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


def shortened(part: str) -> str:
    """A name that fits beside two others: a long one ends in a digest of the whole."""
    return part if len(part) <= _OWNER_PART else f"{part[:35]}:{sha256(part.encode()).hexdigest()}"
