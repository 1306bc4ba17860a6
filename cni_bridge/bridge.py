"""The bridge of a network: created if it is missing, otherwise used as it is.

Must not: leave a bridge that existed before with another MAC, MTU or address than it had.
"""

import sys

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.values import DEFAULT_VLAN, Link, Veth
from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.light.standard import Iterable

from .config import BridgeConfig
from .locks import host_lock
from .undo import Undo


def find_bridge(host: Kernel, name: str) -> Link | None:
    """The bridge of that name, None without one.

    Raises CNIError (code 7) when the interface is of another kind, or when this is its alternative name (ip-link(8)):
    rules see the name only.
    """
    link = host.find_link(name)
    if link is not None and link.kind != "bridge":
        raise CNIError(
            INVALID_CONFIG,
            f"bridge: interface {name} is there and is of kind {link.kind or 'physical'}, not a bridge; "
            "choose another name",
        )
    if link is not None and link.name != name:
        raise CNIError(INVALID_CONFIG, f"bridge: {name} is another name of {link.name}; set bridge to {link.name}")
    return link


def get_bridge(host: Kernel, name: str) -> Link:
    """The bridge of that name. Raises CNIError (code 7) as find_bridge, and KernelError when there is none."""
    return find_bridge(host, name) or host.get_link(name)


def ensure_bridge(host: Kernel, config: BridgeConfig, undo: Undo) -> Link:
    """Create or adjust the bridge and bring it up. The caller holds the host's lock. Raises CNIError (code 7)."""
    bridge = find_bridge(host, config.bridge)
    if bridge is None:
        undo.on_failure(_delete_unused_bridge, host, config)
        if host.create_bridge(config.bridge, config.mtu):
            warn(sysctl.detect_no_duplicates(config.bridge))
        bridge = get_bridge(host, config.bridge)
        warn(sysctl.ignore_router_advertisements(bridge.name))
    else:
        _use_bridge(host, config, bridge, undo)
    if config.wants_vlans and not bridge.vlan_filtering:
        host.filter_vlans(bridge)
    host.set_flags(bridge, up=True, promisc=config.promisc or bridge.promisc)
    return bridge


def add_port(host: Kernel, bridge: Link, veth: Veth) -> None:
    """Create a veth pair with one end as a port of the bridge. The bridge keeps its MTU and MAC. Raises KernelError.

    The kernel gives a bridge the least MTU of its ports (br_mtu_auto_adjust in net/bridge) and the lowest of their
    MACs, until these are set. So both are set again when the new port has changed them; after that they stay.
    """
    if veth.mtu > bridge.mtu:
        warn([f"bridge {bridge.name} keeps its mtu of {bridge.mtu}, which is less than the {veth.mtu} of its port"])
    host.create_veth(veth)
    now = host.find_link_at(bridge.ifindex)
    if now is not None and now.mtu != bridge.mtu:
        host.set_mtu(bridge, bridge.mtu)
    if now is not None and now.mac != bridge.mac:
        host.set_mac(bridge, bridge.mac)


def warn(problems: Iterable[KernelError | str]) -> None:
    """Print warnings on stderr: problems that do not keep the container from being connected."""
    for problem in problems:
        print(f"cni-bridge: warning: {problem}", file=sys.stderr)


def _use_bridge(host: Kernel, config: BridgeConfig, bridge: Link, undo: Undo) -> None:
    """Register the undoing for a bridge that existed before, and have it ignore router advertisements.

    Otherwise a container could pose as a router to the host. A bridge by which the host may get addresses and routes
    from a router goes on listening: one that has some, one with a line to elsewhere as a port, or one whose gateway we
    are not.
    """
    settings = []
    listens = sysctl.listens_to_routers(bridge.name)
    untouched = bridge.up and bridge.promisc >= config.promisc
    ports = [] if untouched and not listens else host.list_ports(bridge)
    if listens and _may_hear_routers(host, config, bridge, ports):
        listens = False
        warn(
            [
                f"bridge {bridge.name} was there before, and goes on listening to router advertisements, to those of "
                f"containers too; where it has no router to hear, set its sysctl accept_ra to 0"
            ]
        )
    if listens:
        settings = sysctl.list_ipv6_settings(bridge.name)
    undo.on_failure(_restore_bridge, host, bridge, {port.ifindex for port in ports}, settings)
    if listens:
        warn(sysctl.ignore_router_advertisements(bridge.name))


def _may_hear_routers(host: Kernel, config: BridgeConfig, bridge: Link, ports: list[Link]) -> bool:
    if not bridge.up and not ports:  # what an ADD leaves that was killed
        return False
    from cni_kernel.uplinks import is_line, list_advertised  # here, since it is asked of a bridge once

    return not config.is_gateway or any(is_line(port) for port in ports) or bridge.ifindex in list_advertised(host)


def _restore_bridge(host: Kernel, before: Link, ports: set[int], settings: list[tuple[str, str]]) -> None:
    """Restore a bridge's settings, unless it has a new port: then another container uses it by now."""
    with host_lock():
        bridge = host.find_link_at(before.ifindex)
        if bridge is None:
            return
        now = {port.ifindex for port in host.list_ports(bridge)}
        if bridge.vlan_filtering and not before.vlan_filtering:
            vlans = host.list_all_vlans()
            if all(vlans.get(ifindex, []) in ([], [DEFAULT_VLAN]) for ifindex in now):
                host.filter_vlans(bridge, on=False)
        if now - ports:
            return
        sysctl.restore_settings(settings)
        if bridge.mac != before.mac:
            host.set_mac(bridge, before.mac)
        with sysctl.keeping_addresses(bridge.name):
            host.set_flags(bridge, up=before.up, promisc=before.promisc)


def _delete_unused_bridge(host: Kernel, config: BridgeConfig) -> None:
    """Remove a bridge that we made, unless it has ports: then another container uses it by now."""
    with host_lock():
        bridge = host.find_link(config.bridge)
        if bridge is not None and not host.list_ports(bridge):
            host.delete_link(config.bridge)
