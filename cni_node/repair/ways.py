"""`pycni repair`: the routes, gateway addresses and sysctls that running pods need, by what CHECK would say of them.

Routes to other nodes are the agent's, which puts them back as long as it runs.
Must not: take anything away, or touch a pod that does not run.
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

from cni_bridge.config import BridgeConfig
from cni_bridge.locks import attachment_lock
from cni_bridge.plan import gateway_interface
from cni_bridge.refusals import kernel_refusals
from cni_bridge.verify import Expected
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import open_namespace
from cni_kernel.values import SCOPE_LINK, Route
from cni_node.host.sysctls import BRIDGED, FORWARDING, ensure_sysctls, read_sysctl
from cni_protocol.address import CIDR
from cni_protocol.attachment import Attachment


class Wanted(NamedTuple):
    """A pod that runs: its configuration, and what ADD made of it."""

    attachment: Attachment
    netns: str
    config: BridgeConfig
    expected: Expected


def repair_pod(wanted: Wanted, *, apply: bool) -> list[str]:
    """What it lacks, in words; with `apply` it has it again. Raises CNIError."""
    name = wanted.attachment.host_name
    with attachment_lock(name), kernel_refusals(), Kernel() as host:
        if host.find_link(name) is None or not os.path.exists(wanted.netns):  # it does not run
            return []
        found = _repair_inside(wanted, apply=apply)
        return found + (_repair_gateway(host, wanted, apply=apply) if wanted.config.is_gateway else [])


def is_running(attachment: Attachment) -> bool:
    """Whether its end on the node is there. Raises CNIError."""
    with kernel_refusals(), Kernel() as host:
        return host.find_link(attachment.host_name) is not None


def _repair_inside(wanted: Wanted, *, apply: bool) -> list[str]:
    with open_namespace(wanted.netns) as namespace:
        if namespace.is_own():
            return []
        with namespace.entered(), Kernel() as inside:
            link = inside.find_link(wanted.attachment.ifname)
            if link is None or not link.up:  # no route stays there
                return []
            missing = _missing(wanted.expected.routes, inside.list_routes(link))
            if missing and apply:
                inside.configure(link, (), missing, up=False)
    return [f"route {route.dst}{f' via {route.gw}' if route.gw else ''} in the container" for route in missing]


def _repair_gateway(host: Kernel, wanted: Wanted, *, apply: bool) -> list[str]:
    """The gateways' addresses on the bridge, and the routes to their subnets through it."""
    link = host.find_link(gateway_interface(wanted.config))
    if link is None or not link.up:
        return []
    gateways = [CIDR(ip.gateway, ip.address.prefix) for ip in wanted.expected.ips if ip.gateway is not None]
    there = {entry.cidr for entry in host.list_addresses(link)}
    absent = [gateway for gateway in dict.fromkeys(gateways) if gateway not in there]
    found = [f"gateway address {gateway} on {link.name}" for gateway in absent]
    if absent and apply:
        host.add_addresses(link, absent)
    routes = _missing(_ways_of(gateways), host.list_routes(link)) if not absent else []
    if routes and apply:
        host.configure(link, (), routes, up=False)
    return found + [f"route {route.dst} through {link.name}" for route in routes]


def _ways_of(gateways: Iterable[CIDR]) -> list[Route]:
    """The routes that the kernel makes for addresses; for one that is alone in its network it makes none."""
    networks = dict.fromkeys(gateway.network for gateway in gateways if gateway.prefix < gateway.ip.bits)
    return [Route(network, scope=SCOPE_LINK if network.version == 4 else 0) for network in networks]


def _missing(wanted: Iterable[Route], there: Iterable[Route]) -> list[Route]:
    known = {(route.dst, route.gw, route.table) for route in there}
    return [route for route in wanted if (route.dst, route.gw, route.table) not in known]


def repair_sysctls(pods: Iterable[Wanted], *, apply: bool) -> tuple[list[str], list[str]]:
    """What pods behind a gateway need of the node, and in sentences what cannot be had."""
    wanted: dict[str, str] = {}
    for pod in pods:
        for version in {ip.address.version for ip in pod.expected.ips if ip.gateway is not None}:
            if pod.config.is_gateway:
                wanted[FORWARDING[version]] = "1"
            if pod.config.require_filter or pod.config.agent:
                wanted[BRIDGED[version]] = "1"
    if apply:
        outcome = ensure_sysctls(wanted)
        return outcome.done, outcome.problems
    off = {name: read_sysctl(name) for name in wanted}
    return [
        f"sysctl {name.replace('/', '.')} is {value}, not 1"
        for name, value in off.items()
        if value is not None and value != "1"
    ], []
