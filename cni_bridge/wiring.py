"""The steps of ADD, DEL and CHECK on links, put together from kernel.py's primitives; ADD's with their way back.

Must not: run another plugin, or read a configuration that is not parsed.
"""

import sys

from cni_protocol.address import CIDR
from cni_protocol.errors import ALREADY_EXISTS, INVALID_CONFIG, CNIError
from cni_protocol.result import Interface

from . import sysctl
from .announce import announce
from .config import BridgeConfig
from .kernel import Kernel
from .links import Veth
from .namespace import Namespace, host_lock
from .plan import Attachment, Plan
from .undo import Undo
from .verify import Observed


def open_inside(namespace: Namespace) -> Kernel:
    """The kernel as the container sees it."""
    with namespace.entered():
        return Kernel()


def require_absent(host: Kernel, inside: Kernel, attachment: Attachment) -> None:
    """Raise CNIError (code 102) when either end of the pair is there already; neither is touched."""
    if inside.find_link(attachment.ifname) is not None:
        raise CNIError(ALREADY_EXISTS, f"interface {attachment.ifname} exists already in the container; send DEL first")
    _require_no_host_end(host, attachment)


def connect(host: Kernel, namespace: Namespace, config: BridgeConfig, attachment: Attachment, undo: Undo) -> None:
    """Make the bridge where it is missing, and the veth pair: one end a port, the other in the container, down.

    Under the host's lock: nobody removes the bridge as unused before it has our port.
    """
    with host_lock():
        _require_no_host_end(host, attachment)  # again: undoing must not take a pair that a twin of this ADD made
        if host.create_bridge(config.bridge, config.mtu):
            undo.on_failure(_delete_unused_bridge, host, config.bridge)
        bridge = host.get_bridge(config.bridge)
        sysctl.own_routes(bridge.name, ipv6=False)
        if config.promisc and not bridge.promisc:
            host.set_promisc(bridge)
        if not bridge.up:
            host.set_up(bridge)
        undo.on_failure(host.delete_link, attachment.host_name)
        host.create_veth(
            Veth(
                host_name=attachment.host_name,
                owner=attachment.owner,
                bridge=bridge.ifindex,
                name=attachment.ifname,
                namespace=namespace.descriptor,
                mac=config.mac,
                mtu=config.mtu,
                hairpin=config.hairpin,
            )
        )


def configure_container(inside: Kernel, namespace: Namespace, plan: Plan, ifname: str) -> None:
    """Addresses, link up, routes, in the container. The veth pair takes all of it along when it is undone."""
    with namespace.entered():
        ipv6 = any(entry.address.version == 6 for entry in plan.ips)
        sysctl.own_interface(ifname, ipv6=ipv6, detect_duplicates=False)
    link = inside.get_link(ifname)
    for entry in plan.ips:
        if not inside.add_address(link, entry.address):
            raise CNIError(
                ALREADY_EXISTS, f"address {entry.address} is on {ifname} already; the IPAM plugin gave it twice"
            )
    inside.set_up(link)
    inside.add_routes(link, plan.programmed)


def configure_gateway(host: Kernel, config: BridgeConfig, plan: Plan) -> None:
    """The gateway addresses on the bridge, and forwarding. Raises CNIError (code 7) when others are in the way.

    The last step of ADD, done or undone under the host's lock: nobody comes to rely on an address that goes again.
    """
    if not plan.gateways:
        return
    with host_lock(), Undo() as undo:
        bridge = host.get_bridge(config.bridge)
        present = host.list_addresses(bridge)
        for gateway in plan.gateways:
            if gateway in present:
                continue
            for other in _in_the_way(gateway, present, plan):
                if not config.force_address:
                    raise CNIError(
                        INVALID_CONFIG,
                        f"bridge {config.bridge} has address {other}, and this network wants {gateway} there; use "
                        'another bridge, or set "forceAddress": true to replace it',
                    )
                undo.on_failure(host.add_address, bridge, other)
                host.delete_address(bridge, other)
            sysctl.own_routes(bridge.name, ipv6=gateway.version == 6)
            undo.on_failure(host.delete_address, bridge, gateway)
            host.add_address(bridge, gateway)
            host.set_mac(bridge, bridge.mac)  # keeps it: a bridge without a MAC of its own has that of its lowest port
        for version in {gateway.version for gateway in plan.gateways}:
            sysctl.ensure_forwarding(version)


def go_live(host: Kernel, namespace: Namespace, plan: Plan, attachment: Attachment, mac: str) -> None:
    """Wait until the port forwards, then tell the neighbours who has the addresses now."""
    host.wait_for_port(attachment.host_name)
    try:
        with namespace.entered():
            announce(attachment.ifname, mac, [entry.address.ip for entry in plan.ips])
    except OSError as error:  # without it the neighbours learn a little later
        print(f"cni-bridge: no announcement on {attachment.ifname}: {error.strerror}", file=sys.stderr)


def list_interfaces(
    host: Kernel, inside: Kernel, config: BridgeConfig, attachment: Attachment, netns: str
) -> tuple[Interface, Interface, Interface]:
    """Bridge, host end and container end as a result lists them."""
    links = [
        (host.get_link(config.bridge), ""),
        (host.get_link(attachment.host_name), ""),
        (inside.get_link(attachment.ifname), netns),
    ]
    bridge, port, container = (Interface(link.name, link.mac, link.mtu, sandbox) for link, sandbox in links)
    return bridge, port, container


def disconnect(host: Kernel, namespace: Namespace | None, config: BridgeConfig, attachment: Attachment) -> None:
    """Remove the veth pair of an attachment, also one that the reference plugin made; none is fine.

    An interface of that name in the container that does not lead to our bridge is somebody else's and stays.
    """
    host.delete_link(attachment.host_name)
    if namespace is None:
        return
    with open_inside(namespace) as inside:
        link = inside.find_link(attachment.ifname)
        if link is None or link.kind != "veth":
            return
        port, bridge = host.find_link_at(link.peer), host.find_link(config.bridge)
        if port is None or port.alias or (port.kind, port.peer) != ("veth", link.ifindex):
            return  # what has an alias is of another attachment of ours
        if port.master == 0 or (bridge is not None and port.master == bridge.ifindex):
            host.delete_link(port.name)


def observe(
    host: Kernel, inside: Kernel, config: BridgeConfig, attachment: Attachment, missing_rules: list[str]
) -> Observed:
    """What the kernel holds of an attachment."""
    bridge, container = host.find_link(config.bridge), inside.find_link(attachment.ifname)
    return Observed(
        bridge=bridge,
        host=host.find_link_at(container.peer) if container is not None and container.peer else None,
        container=container,
        addresses=inside.list_addresses(container) if container is not None else [],
        routes=inside.list_routes(container) if container is not None else [],
        bridge_addresses=host.list_addresses(bridge) if bridge is not None else [],
        missing_rules=missing_rules,
    )


def _require_no_host_end(host: Kernel, attachment: Attachment) -> None:
    if host.find_link(attachment.host_name) is not None:
        raise CNIError(
            ALREADY_EXISTS,
            f"interface {attachment.host_name} on the host belongs to an earlier ADD of container "
            f"{attachment.container_id} interface {attachment.ifname}; send DEL first",
        )


def _in_the_way(gateway: CIDR, present: list[CIDR], plan: Plan) -> list[CIDR]:
    """The addresses that forceAddress replaces: of IPv4 any other, of IPv6 those whose subnets overlap."""
    others = [other for other in present if other.version == gateway.version and other not in plan.gateways]
    return [other for other in others if gateway.version == 4 or other.ip in gateway or gateway.ip in other]


def _delete_unused_bridge(host: Kernel, name: str) -> None:
    """Remove a bridge that we made, unless somebody has come to use it meanwhile."""
    with host_lock():
        bridge = host.find_link(name)
        if bridge is not None and not host.list_ports(bridge):
            host.delete_link(name)
