"""Results of ADD: the types, and their conversion from and to the JSON of every version of the specification.

Source: SPEC.md, section "Success" (1.1.0), and the same section of releases 0.2.0 to 1.0.0.
Must not: know how a plugin arrives at its result.
"""

from .address import CIDR, IP
from .errors import DECODING_FAILURE, CNIError
from .fields import Fields
from .light.standard import Any, Mapping, NamedTuple
from .version import at_least, require_supported

_MAX_32 = (1 << 32) - 1
# The attributes of a route besides dst and gw, and their greatest values (rtnetlink(7): rtm_scope is a byte). The
# specification has them from 1.1.0 on. The reference passes them on in every version, and so do we: a bridge with an
# older configuration may get them from its IPAM plugin.
_ROUTE_LIMITS = {"mtu": _MAX_32, "advmss": _MAX_32, "priority": _MAX_32, "table": _MAX_32, "scope": 255}
ROUTE_NUMBERS = tuple(_ROUTE_LIMITS)


class Interface(NamedTuple):
    """An interface that a plugin created.

    `sandbox` is the namespace's path, empty on the host. `mtu` is in bytes; 0 is not set.
    """

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class IPConfig(NamedTuple):
    """An address of the attachment. `interface` is an index into Result.interfaces."""

    address: CIDR
    gateway: IP | None = None
    interface: int | None = None


class Route(NamedTuple):
    """A route in the container. The numbers are those of rtnetlink(7); None is not set."""

    dst: CIDR
    gw: IP | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class DNS(NamedTuple):
    """Resolver settings."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(NamedTuple):
    """The result of an ADD: what the attachment has."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()

    def after(self, previous: "Result | None") -> "Result":
        """This result appended to that of the plugins before it in the chain (SPEC.md, "ADD", prevResult)."""
        if previous is None:
            return self
        shift = len(previous.interfaces)
        ips = [ip._replace(interface=ip.interface + shift) if ip.interface is not None else ip for ip in self.ips]
        return Result(
            interfaces=previous.interfaces + self.interfaces,
            ips=previous.ips + tuple(ips),
            routes=previous.routes + tuple(route for route in self.routes if route not in previous.routes),
            dns=self.dns if self.dns != DNS() else previous.dns,
        )


def parse_dns(fields: Fields) -> DNS:
    """Parse a dns object of a configuration or a result. Problems are noted in `fields`."""
    return DNS(
        nameservers=fields.texts("nameservers"),
        domain=fields.text("domain"),
        search=fields.texts("search"),
        options=fields.texts("options"),
    )


def parse_routes(objects: list[Fields]) -> tuple[Route, ...]:
    """Parse the routes of a configuration or a result. Problems are noted in the objects."""
    routes = []
    for fields in objects:
        dst = fields.cidr("dst")
        gw = fields.ip("gw")
        numbers = {key: fields.number(key, 0, limit) for key, limit in _ROUTE_LIMITS.items()}
        if not fields.has("dst"):
            fields.problem("dst", "is missing; a route needs a destination network such as 0.0.0.0/0")
        if dst is None:
            continue
        if gw is not None and gw.version != dst.version:
            fields.problem("gw", f"{gw} is not of the family of dst {dst}")
            continue
        routes.append(Route(dst.network, gw, **numbers))
    return tuple(routes)


def parse_result(document: object, version: str, what: str) -> Result:
    """Parse the result of another plugin. `what` is the name of the document in messages.

    `version` is the version of the configuration; it is used when the result has no cniVersion. Raises CNIError: 6 for
    an invalid result, 1 for a version that is not supported.
    """
    problems: list[str] = []
    fields = Fields(document, what, problems)
    version = fields.text("cniVersion") or version
    require_supported(version)
    result = _parse_modern(fields) if at_least(version, "0.3.0") else _parse_020(fields)
    if problems:
        raise CNIError(DECODING_FAILURE, f"invalid {what}: " + "; ".join(problems))
    return result


def _parse_modern(fields: Fields) -> Result:
    interfaces = []
    for entry in fields.objects("interfaces"):
        if not entry.text("name"):
            entry.problem("name", "is missing")
        interfaces.append(
            Interface(
                name=entry.text("name"),
                mac=entry.text("mac"),
                mtu=entry.number("mtu", 0, _MAX_32) or 0,
                sandbox=entry.text("sandbox"),
                socket_path=entry.text("socketPath"),
                pci_id=entry.text("pciID"),
            )
        )
    ips = []
    for entry in fields.objects("ips"):
        address = entry.cidr("address")
        if not entry.has("address"):
            entry.problem("address", "is missing")
        index = entry.number("interface", 0, max(len(interfaces) - 1, 0))
        if index is not None and not interfaces:
            index = None  # some IPAM plugins print an index but no interfaces
        if address is not None:
            ips.append(IPConfig(address, _gateway_of(entry, address), index))
    routes = parse_routes(fields.objects("routes"))
    return Result(tuple(interfaces), tuple(ips), routes, parse_dns(fields.object("dns")))


def _parse_020(fields: Fields) -> Result:
    ips: list[IPConfig] = []
    routes: tuple[Route, ...] = ()
    for key in ("ip4", "ip6"):
        if fields.has(key):
            entry = fields.object(key)
            address = entry.cidr("ip")
            if address is None:
                entry.problem("ip", "is missing or invalid")
                continue
            ips.append(IPConfig(address, _gateway_of(entry, address)))
            routes += parse_routes(entry.objects("routes"))
    return Result((), tuple(ips), routes, parse_dns(fields.object("dns")))


def _gateway_of(entry: Fields, address: CIDR) -> IP | None:
    gateway = entry.ip("gateway")
    if gateway is not None and gateway.version != address.version:
        entry.problem("gateway", f"{gateway} is not of the family of {address}")
    return gateway


def result_to_json(result: Result, version: str) -> dict[str, Any]:
    """The JSON object of a result in the shape of `version`."""
    body = _modern_json(result, version) if at_least(version, "0.3.0") else _json_020(result)
    return {"cniVersion": version, **body}


def _modern_json(result: Result, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if result.interfaces:
        body["interfaces"] = [_interface_json(entry, version) for entry in result.interfaces]
    if result.ips:
        body["ips"] = [_ip_json(entry, version) for entry in result.ips]
    if result.routes:
        body["routes"] = [_route_json(route) for route in result.routes]
    return {**body, "dns": _dns_json(result.dns)}


def _interface_json(entry: Interface, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"name": entry.name, "mac": entry.mac}
    if at_least(version, "1.1.0"):
        body.update(mtu=entry.mtu, socketPath=entry.socket_path, pciID=entry.pci_id)
    return _without_empty({**body, "sandbox": entry.sandbox})


def _ip_json(entry: IPConfig, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if not at_least(version, "1.0.0"):
        body["version"] = str(entry.address.version)
    if entry.interface is not None:
        body["interface"] = entry.interface
    body["address"] = str(entry.address)
    if entry.gateway is not None:
        body["gateway"] = str(entry.gateway)
    return body


def _route_json(route: Route) -> dict[str, Any]:
    body: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        body["gw"] = str(route.gw)
    numbers = {key: getattr(route, key) for key in ROUTE_NUMBERS}
    return {**body, **{key: value for key, value in numbers.items() if value is not None}}


def _dns_json(dns: DNS) -> dict[str, Any]:
    lists = {"nameservers": list(dns.nameservers), "search": list(dns.search), "options": list(dns.options)}
    return _without_empty({"domain": dns.domain, **lists})


def _json_020(result: Result) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for version, key in ((4, "ip4"), (6, "ip6")):
        first = next((entry for entry in result.ips if entry.address.version == version), None)
        if first is None:
            continue
        body[key] = {"ip": str(first.address)}
        if first.gateway is not None:
            body[key]["gateway"] = str(first.gateway)
        routes = [_route_json(route) for route in result.routes if route.dst.version == version]
        if routes:
            body[key]["routes"] = routes
    return {**body, "dns": _dns_json(result.dns)}


def _without_empty(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value}
