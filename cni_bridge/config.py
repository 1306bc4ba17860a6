"""The network configuration of the bridge plugin: JSON to a frozen BridgeConfig. Every problem is reported at once.

Must not: look at the host.
"""

import re
import sys
from typing import NamedTuple

from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.fields import Fields
from cni_protocol.request import Request, check_args, is_interface_name
from cni_protocol.result import DNS, Result, parse_dns, parse_result

DEFAULT_BRIDGE = "cni0"
_MAX_MTU = 65535  # ETH_MAX_MTU, what veth and bridge accept
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class BridgeConfig(NamedTuple):
    """What every command of the bridge goes by. mtu in bytes, 0 is the kernel's choice; mac empty likewise.

    `ipam_type` is empty for a network of layer 2 only, `dns` None where the configuration has none.
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
    mac: str
    dns: DNS | None
    ipam_type: str
    previous: Result | None


def parse_config(request: Request) -> BridgeConfig:
    """The configuration of an ADD or CHECK. Raises CNIError: 7 with all problems in one go, 4 for CNI_ARGS."""
    config, problems = _parse(request)
    check_args(request, ("MAC", "IP") if config.ipam_type else ("MAC",))
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid bridge configuration: " + "; ".join(problems))
    return config


def salvage_config(request: Request) -> BridgeConfig:
    """What can be made of the configuration of a DEL: it must work also where the ADD was refused."""
    config, problems = _parse(request)
    for problem in problems:
        print(f"cni-bridge: ignored on {request.command}: {problem}", file=sys.stderr)
    return config


def _parse(request: Request) -> tuple[BridgeConfig, list[str]]:
    problems: list[str] = []
    fields = Fields(request.config, "", problems)
    ipam = fields.object("ipam")
    is_default_gateway = fields.flag("isDefaultGateway")
    config = BridgeConfig(
        network=request.name,
        bridge=_parse_bridge(fields),
        is_gateway=fields.flag("isGateway") or is_default_gateway,
        is_default_gateway=is_default_gateway,
        force_address=fields.flag("forceAddress"),
        ip_masq=fields.flag("ipMasq"),
        mtu=fields.number("mtu", 0, _MAX_MTU) or 0,
        hairpin=fields.flag("hairpinMode"),
        promisc=fields.flag("promiscMode"),
        mac=_parse_mac(request, fields),
        dns=_parse_dns(fields),
        ipam_type=ipam.text("type"),
        previous=_parse_previous(request, problems),
    )
    if config.hairpin and config.promisc:
        problems.append("hairpinMode and promiscMode: cannot both be on; promiscMode alone lets traffic come back too")
    if fields.has("ipam") and not config.ipam_type and fields.raw("ipam") != {}:
        ipam.problem("type", "is missing; it names the IPAM plugin (leave out ipam for layer 2 only)")
    return config, problems


def _parse_bridge(fields: Fields) -> str:
    name = fields.text("bridge") or DEFAULT_BRIDGE
    if is_interface_name(name):
        return name
    fields.problem("bridge", f"{name!r} is no interface name: at most 15 bytes, without '/', ':' and white space")
    return DEFAULT_BRIDGE


def _parse_mac(request: Request, fields: Fields) -> str:
    """The MAC asked for, from the first of the three channels that has one (CONVENTIONS.md)."""
    runtime, args = fields.object("runtimeConfig"), fields.object("args").object("cni")
    for where, text in (
        (runtime.path("mac"), runtime.text("mac")),
        (args.path("mac"), args.text("mac")),
        ("CNI_ARGS MAC", request.args.get("MAC", "")),
    ):
        mac = text.lower().replace("-", ":")
        if not mac:
            continue
        if not _MAC.match(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
            fields.problems.append(f"{where}: {text!r} is no unicast MAC address such as 0a:58:0a:f4:00:02")
        return mac
    return ""


def _parse_dns(fields: Fields) -> DNS | None:
    dns = parse_dns(fields.object("dns"))
    return dns if dns != DNS() else None


def _parse_previous(request: Request, problems: list[str]) -> Result | None:
    document = request.config.get("prevResult")
    if document is None:
        return None
    try:
        return parse_result(document, request.version, "prevResult")
    except CNIError as error:
        problems.append(error.msg)
        return None
