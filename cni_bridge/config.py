"""The network configuration of the bridge plugin: JSON to an immutable BridgeConfig. One error names all problems.

Must not: look at the host.
"""

import sys

from cni_protocol.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CNIError
from cni_protocol.fields import Fields
from cni_protocol.light.standard import NamedTuple
from cni_protocol.request import Request, check_args, is_interface_name
from cni_protocol.result import DNS, Result, parse_dns, parse_result
from cni_protocol.typos import check_keys

from .mappings import PROTOCOLS, PortMapping

DEFAULT_BRIDGE = "cni0"
_MIN_MTU = 68  # ETH_MIN_MTU
_MAX_MTU = 65535  # ETH_MAX_MTU, what veth and bridge accept
_MAX_VLAN = 4094  # IEEE 802.1Q
_MAX_PORT = 65535
# Known keys that mean nothing to this plugin: of the specification and its conventions, and those that libcni leaves
# in.
_PASSED_OVER = (
    "cniVersion",
    "name",
    "type",
    "capabilities",
    "ipMasqBackend",
    "cniVersions",
    "disableCheck",
    "disableGC",
)
_HEX_DIGITS = frozenset("0123456789abcdef")


class BridgeConfig(NamedTuple):
    """The configuration of every command. `mtu` is in bytes; mtu 0 and an empty mac leave the choice to the kernel.

    `ipam_type` is empty for a network of layer 2 only, `dns` None where the configuration has none. `vlan` is the
    port's untagged VLAN (0: none), `trunk` its tagged ones. `agent` is the socket of the node's agent, empty where the
    network needs none; `require_policies` is whether a pod may only start with its policies in force.
    """

    network: str
    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    ip_masq: bool
    mtu: int
    hairpin: bool
    promisc: bool
    isolated: bool
    vlan: int
    trunk: tuple[int, ...]
    keep_default_vlan: bool
    spoof_check: bool
    detect_duplicates: bool
    leave_down: bool
    port_mappings: tuple[PortMapping, ...]
    mac: str
    dns: DNS | None
    ipam_type: str
    previous: Result | None
    require_filter: bool = False
    agent: str = ""
    require_policies: bool = False

    @property
    def wants_hairpin(self) -> bool:
        """Whether frames may leave by the port that they came in by (hairpin).

        Port mappings need it: with bridge netfilter on, a packet of a container to its own host port is translated and
        sent back within the bridge. It does no harm beside promiscMode: the copy for the host has the container's MAC,
        so the host drops it.
        """
        return self.hairpin or bool(self.port_mappings)

    @property
    def wants_vlans(self) -> bool:
        """Whether the bridge has to filter VLANs."""
        return bool(self.vlan or self.trunk)

    @property
    def wants_rules(self) -> bool:
        """Whether there is anything for the packet filter."""
        return bool(self.ip_masq or self.port_mappings or self.spoof_check)


def parse_config(request: Request) -> BridgeConfig:
    """The configuration of ADD, CHECK or STATUS. Raises CNIError: 7 naming all problems, 4 for CNI_ARGS, 2."""
    problems: list[str] = []
    fields = Fields(request.config, "", problems)
    config = _parse(request, fields)
    _check_combinations(config, fields)
    check_args(request, ("MAC", "IP") if config.ipam_type else ("MAC",))
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid bridge configuration: " + "; ".join(problems))
    _check_backend(fields)
    for key in _PASSED_OVER:
        fields.raw(key)
    check_keys("cni-bridge", fields.flag("strict"), _objects_of(fields))
    return config


def _objects_of(fields: Fields) -> list[Fields]:
    """The objects of the configuration in which unknown keys are reported."""
    return [fields, fields.object("dns"), *fields.objects("vlanTrunk")]


def salvage_config(request: Request) -> BridgeConfig:
    """The configuration of DEL or GC. An invalid value counts as its default: DEL must work after a failed ADD too."""
    problems: list[str] = []
    config = _parse(request, Fields(request.config, "", problems))
    for problem in problems:
        print(f"cni-bridge: ignored on {request.command}: {problem}", file=sys.stderr)
    return config


def _parse(request: Request, fields: Fields) -> BridgeConfig:
    is_default_gateway = fields.flag("isDefaultGateway")
    return BridgeConfig(
        network=request.name,
        bridge=_parse_bridge(fields),
        is_gateway=fields.flag("isGateway") or is_default_gateway,
        is_default_gateway=is_default_gateway,
        force_address=fields.flag("forceAddress"),
        ip_masq=fields.flag("ipMasq"),
        mtu=_parse_mtu(fields),
        hairpin=fields.flag("hairpinMode"),
        promisc=fields.flag("promiscMode"),
        isolated=fields.flag("portIsolation"),
        vlan=fields.number("vlan", 0, _MAX_VLAN) or 0,
        trunk=_parse_trunk(fields),
        keep_default_vlan=fields.flag("preserveDefaultVlan"),
        spoof_check=fields.flag("macspoofchk"),
        detect_duplicates=fields.flag("enabledad"),
        leave_down=fields.flag("disableContainerInterface"),
        port_mappings=_parse_port_mappings(fields.object("runtimeConfig")),
        mac=_parse_mac(request, fields),
        dns=_parse_dns(fields),
        ipam_type=fields.object("ipam").text("type"),
        previous=_parse_previous(request, fields),
        require_filter=fields.flag("requireBridgeNetfilter"),
        agent=_parse_agent(fields),
        require_policies=fields.flag("requirePolicies"),
    )


def _check_combinations(config: BridgeConfig, fields: Fields) -> None:
    if config.hairpin and config.promisc:
        fields.problem("hairpinMode", "cannot be on together with promiscMode, with which traffic comes back too")
    if config.leave_down and config.ipam_type:
        fields.problem("disableContainerInterface", "leaves the interface down, and ipam wants addresses on it")
    if config.require_policies and not config.agent:
        fields.problem("requirePolicies", "needs agent, the socket of the one that puts them in force")
    if config.port_mappings and not config.ipam_type:
        fields.problem("runtimeConfig.portMappings", "need an address to lead to; this network has no ipam")
    if config.vlan and config.is_gateway and not is_interface_name(f"{config.bridge}.{config.vlan}"):
        fields.problem(
            "bridge", f"{config.bridge!r} is too long: its gateway would be on {config.bridge}.{config.vlan}"
        )
    ipam = fields.object("ipam")
    if fields.raw("ipam") and not config.ipam_type:
        ipam.problem("type", "is missing; it names the IPAM plugin (leave out ipam for layer 2 only)")


def _check_backend(fields: Fields) -> None:
    backend = fields.text("ipMasqBackend")
    if backend not in ("", "nftables"):
        raise CNIError(
            UNSUPPORTED_FIELD,
            f"ipMasqBackend={backend!r} is not supported: NAT is done in nftables, without any program; "
            'leave the key out, or set it to "nftables"',
        )


def _parse_mtu(fields: Fields) -> int:
    mtu = fields.number("mtu", 0, _MAX_MTU) or 0
    if 0 < mtu < _MIN_MTU:
        fields.problem("mtu", f"{mtu} is less than {_MIN_MTU}, the least that IPv4 works with (0: the kernel's choice)")
    return mtu


def _parse_trunk(fields: Fields) -> tuple[int, ...]:
    """The VLAN ids of vlanTrunk, without duplicates, sorted."""
    vlans: set[int] = set()
    for entry in fields.objects("vlanTrunk"):
        single, low, high = (entry.number(key, 1, _MAX_VLAN) for key in ("id", "minID", "maxID"))
        if single is not None:
            vlans.add(single)
        if entry.has("minID") != entry.has("maxID"):
            entry.problem("minID" if entry.has("minID") else "maxID", "must come with its other end (minID and maxID)")
        elif low is not None and high is not None:
            if low > high:
                entry.problem("minID", f"{low} is greater than maxID {high}")
            vlans.update(range(low, high + 1))
        elif not entry.has("minID") and not entry.has("id"):
            entry.problem("id", "is missing; an entry has an id, or minID and maxID")
    return tuple(sorted(vlans))


def _parse_port_mappings(runtime: Fields) -> tuple[PortMapping, ...]:
    """The port mappings, without duplicates (CONVENTIONS.md, "portMappings"). In the CRI host port 0 means none."""
    mappings = []
    for entry in runtime.objects("portMappings"):
        host, container = entry.number("hostPort", 0, _MAX_PORT), entry.number("containerPort", 1, _MAX_PORT)
        protocol = (entry.text("protocol") or "tcp").lower()
        if protocol not in PROTOCOLS:
            entry.problem("protocol", f"{protocol!r} is none of {', '.join(PROTOCOLS)}")
        for key in ("hostPort", "containerPort"):
            if not entry.has(key):
                entry.problem(key, "is missing")
        host_ip = entry.ip("hostIP")
        if host and container is not None:
            mappings.append(PortMapping(host, container, protocol, host_ip))
    claims: dict[tuple[object, ...], int] = {}
    for mapping in mappings:
        for claim in mapping.claims:
            if claims.setdefault(claim, mapping.container_port) != mapping.container_port:
                runtime.problem("portMappings", f"host port {mapping.host_port}/{mapping.protocol} leads to two ports")
                break
    return tuple(dict.fromkeys(mappings))


def _parse_agent(fields: Fields) -> str:
    path = fields.text("agent")
    if path and not path.startswith("/"):
        fields.problem("agent", f"{path!r} must be an absolute path, that of the agent's socket")
    return path


def _parse_bridge(fields: Fields) -> str:
    name = fields.text("bridge") or DEFAULT_BRIDGE
    if is_interface_name(name):
        return name
    fields.problem("bridge", f"{name!r} is no interface name: at most 15 bytes, without '/', ':', '%' and white space")
    return DEFAULT_BRIDGE


def _parse_mac(request: Request, fields: Fields) -> str:
    """The requested MAC: runtimeConfig.mac, or else args.cni.mac, or else MAC of CNI_ARGS (CONVENTIONS.md)."""
    runtime, args = fields.object("runtimeConfig"), fields.object("args").object("cni")
    for where, text in (
        (runtime.path("mac"), runtime.text("mac")),
        (args.path("mac"), args.text("mac")),
        ("CNI_ARGS MAC", request.args.get("MAC", "")),
    ):
        mac = normal_mac(text)
        if not text:
            continue
        if not mac or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            fields.problems.append(f"{where}: {text!r} is no unicast MAC address such as 0a:58:0a:f4:00:02")
        return mac
    return ""


def normal_mac(text: str) -> str:
    """A MAC address as the kernel writes it, empty when the text is no MAC address."""
    mac = text.lower().replace("-", ":")
    parts = mac.split(":")
    sound = len(parts) == 6 and all(len(part) == 2 and _HEX_DIGITS.issuperset(part) for part in parts)
    return mac if sound else ""


def _parse_dns(fields: Fields) -> DNS | None:
    dns = parse_dns(fields.object("dns"))
    return dns if dns != DNS() else None


def _parse_previous(request: Request, fields: Fields) -> Result | None:
    document = fields.raw("prevResult")
    if document is None:
        return None
    try:
        return parse_result(document, request.version, "prevResult")
    except CNIError as error:
        fields.problems.append(error.msg)
        return None
