"""The steps of the commands on links, put together from kernel.py's primitives; ADD's with their way back.

Must not: run another plugin, or read a configuration that is not parsed.
"""

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import Namespace, open_own_namespace
from cni_kernel.values import Link, PortVlan, Veth
from cni_protocol.address import CIDR, IP
from cni_protocol.attachment import Attachment
from cni_protocol.errors import ALREADY_EXISTS, INVALID_CONFIG, CNIError
from cni_protocol.light.standard import Callable, suppress
from cni_protocol.result import Interface

from .config import BridgeConfig
from .locks import host_lock
from .plan import Plan, gateway_interface, list_vlans
from .undo import Undo
from .verify import Observed


def require_absent(host: Kernel, inside: Kernel, attachment: Attachment) -> None:
    """Raise CNIError (code 102) when either end of the pair is there already; neither is touched."""
    if inside.find_link(attachment.ifname) is not None:
        raise CNIError(ALREADY_EXISTS, f"interface {attachment.ifname} exists already in the container; send DEL first")
    if host.find_link(attachment.host_name) is not None:
        raise CNIError(
            ALREADY_EXISTS,
            f"interface {attachment.host_name} on the host belongs to an earlier ADD of container "
            f"{attachment.container_id} interface {attachment.ifname}; send DEL first",
        )


def connect(host: Kernel, namespace: Namespace, config: BridgeConfig, attachment: Attachment, undo: Undo) -> None:
    """Make the bridge where it is missing, and the veth pair: one end a port, the other in the container, down.

    Under the host's lock: nobody removes the bridge as unused before it has our port. Raises CNIError (codes 7, 100).
    """
    with host_lock():
        if config.overlay is not None:
            from .nodewiring import ensure_overlay

            config = ensure_overlay(host, config, undo)
        bridge = _ensure_bridge(host, config, undo)
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
                hairpin=config.wants_hairpin,
                isolated=config.isolated,
            )
        )
        if config.wants_vlans:
            host.set_vlans(host.get_link(attachment.host_name), list_vlans(config))


def find_bridge(host: Kernel, name: str) -> Link | None:
    """The bridge of that name, None for none. Raises CNIError (code 7) when the interface is of another kind."""
    link = host.find_link(name)
    if link is not None and link.kind != "bridge":
        raise CNIError(
            INVALID_CONFIG,
            f"bridge: interface {name} is there and is of kind {link.kind or 'physical'}, not a bridge; "
            "choose another name",
        )
    return link


def get_bridge(host: Kernel, name: str) -> Link:
    """The bridge of that name. Raises CNIError (code 7) as find_bridge, and KernelError when there is none."""
    return find_bridge(host, name) or host.get_link(name)


def _ensure_bridge(host: Kernel, config: BridgeConfig, undo: Undo) -> Link:
    bridge = find_bridge(host, config.bridge)
    if bridge is None:
        undo.on_failure(_delete_unused_bridge, host, config)
        host.create_bridge(config.bridge, config.mtu)
        bridge = get_bridge(host, config.bridge)
    undo.on_failure(_restore_bridge, host, bridge)
    if config.wants_vlans and not bridge.vlan_filtering:
        host.filter_vlans(bridge)
    sysctl.ignore_router_advertisements(bridge.name, ipv6=False)
    host.set_flags(bridge, up=True, promisc=config.promisc or bridge.promisc)
    return bridge


def configure_container(inside: Kernel, namespace: Namespace, config: BridgeConfig, plan: Plan, ifname: str) -> Link:
    """Addresses, link up, routes, in the container. The veth pair takes all of it along when it is undone.

    Returns the interface as it was before that.
    """
    detect = config.detect_duplicates
    with namespace.entered():
        ipv6 = any(entry.address.version == 6 for entry in plan.ips)
        sysctl.own_interface(ifname, ipv6=ipv6, detect_duplicates=detect)
        with suppress(KernelError):  # without it the neighbours learn a little later
            sysctl.announce_changes(ifname)
    link = inside.get_link(ifname)
    twice = inside.add_addresses(link, [entry.address for entry in plan.ips], detect_duplicates=detect)
    if twice is not None:
        raise CNIError(ALREADY_EXISTS, f"address {twice} is on {ifname} already; the IPAM plugin gave it twice")
    if not config.leave_down:
        inside.set_up(link)
    inside.add_routes(link, plan.programmed)
    return link


def configure_host(host: Kernel, config: BridgeConfig, plan: Plan) -> tuple[Interface, ...]:
    """The gateway addresses on the bridge, forwarding, and the ways to other nodes.

    Returns the interface made for the gateway in a VLAN, if any. The last step of ADD, done or undone under the host's
    lock: nobody comes to rely on an address that goes again. Raises CNIError (code 7) when other addresses are in the
    way, or the gateway of a route is out of reach.
    """
    if not plan.gateways and config.peers is None:
        return ()
    with host_lock(), Undo() as undo:
        made = _configure_gateway(host, config, plan, undo) if plan.gateways else ()
        if config.peers is not None:
            from .nodewiring import ensure_ways

            ensure_ways(host, config, undo)
    return made


def _configure_gateway(host: Kernel, config: BridgeConfig, plan: Plan, undo: Undo) -> tuple[Interface, ...]:
    link = _ensure_gateway_interface(host, config, undo)
    present = {entry.cidr for entry in host.list_addresses(link)}
    missing = [gateway for gateway in plan.gateways if gateway not in present]
    for version in {gateway.version for gateway in missing}:
        sysctl.ignore_router_advertisements(link.name, ipv6=version == 6)
    for gateway in missing:
        for other in _in_the_way(gateway, present, plan):
            if not config.force_address:
                raise CNIError(
                    INVALID_CONFIG,
                    f"bridge {link.name} has address {other}, and this network wants {gateway} there; use another "
                    'bridge, or set "forceAddress": true to replace it',
                )
            undo.on_failure(host.add_addresses, link, [other])
            host.delete_address(link, other)
        undo.on_failure(host.delete_address, link, gateway)
        host.add_addresses(link, [gateway])
    if missing:
        host.set_mac(link, link.mac)  # keeps it: a bridge without a MAC of its own has that of its lowest port
    for version in {gateway.version for gateway in plan.gateways}:
        sysctl.ensure_forwarding(version)
    if config.port_mappings:  # the host's 127.0.0.1 may lead here; portmap.py guards the other way
        sysctl.route_loopback(link.name, on=True)
    return (Interface(link.name, link.mac, link.mtu),) if config.vlan else ()


def close_loopback(host: Kernel, config: BridgeConfig, list_targets: Callable[[], set[IP]]) -> None:
    """No longer let 127.0.0.0/8 be routed to the bridge, unless a container on it has port mappings still.

    Without mappings there is no guard either (portmap.py), and containers would reach what listens on 127.0.0.1.
    """
    with host_lock():
        link = host.find_link(gateway_interface(config))
        if link is None:
            return
        subnets = [entry.cidr for entry in host.list_addresses(link)]
        if not any(target in subnet for target in list_targets() for subnet in subnets):
            sysctl.route_loopback(link.name, on=False)


def _ensure_gateway_interface(host: Kernel, config: BridgeConfig, undo: Undo) -> Link:
    """The bridge, or for a VLAN the end of a veth pair whose other end is a port in that VLAN, as in the reference."""
    name = gateway_interface(config)
    bridge = get_bridge(host, config.bridge)
    if name == config.bridge:
        return bridge
    if host.find_link(name) is None:
        port = Attachment(config.bridge, "gateway", name).host_name
        undo.on_failure(host.delete_link, name)
        with open_own_namespace() as own:
            host.create_veth(Veth(port, "", bridge.ifindex, name, own.descriptor, "", bridge.mtu, False, False))
        host.set_vlans(host.get_link(port), [PortVlan(config.vlan, pvid=True, untagged=True)])
        host.set_up(host.get_link(name))
    return host.get_link(name)


def go_live(host: Kernel, inside: Kernel, config: BridgeConfig, plan: Plan, port: str, link: Link) -> None:
    """Wait until the port forwards and the addresses of the container's `link` are settled.

    Then have the neighbours told who has them now.
    """
    if config.leave_down:
        return
    host.wait_for_port(port)
    if config.detect_duplicates and any(entry.address.version == 6 for entry in plan.ips):
        inside.wait_for_addresses(link)
    if plan.ips:
        # with arp_notify and ndisc_notify the kernel announces all addresses when a MAC is set, the same one too; a
        # packet socket of ours would do it as well, and closing that takes as long as all the rest of ADD
        inside.set_mac(link, link.mac)


def list_interfaces(
    host: Kernel, link: Link, config: BridgeConfig, attachment: Attachment, netns: str
) -> tuple[Interface, ...]:
    """Bridge, host end and container end (`link`) as a result lists them."""
    links = [(host.get_link(config.bridge), ""), (host.get_link(attachment.host_name), ""), (link, netns)]
    return tuple(Interface(link.name, link.mac, link.mtu, sandbox) for link, sandbox in links)


def observe(
    host: Kernel, inside: Kernel, config: BridgeConfig, attachment: Attachment, missing_rules: list[str]
) -> Observed:
    """What the kernel holds of an attachment."""
    bridge, container = host.find_link(config.bridge), inside.find_link(attachment.ifname)
    port = host.find_link_at(container.peer) if container is not None and container.peer else None
    gateway = host.find_link(gateway_interface(config))
    return Observed(
        bridge=bridge,
        host=port,
        container=container,
        addresses=_cidrs(inside, container),
        routes=inside.list_routes(container) if container is not None else [],
        gateways=_cidrs(host, gateway),
        vlans=tuple(host.list_vlans(port)) if port is not None and config.wants_vlans else (),
        missing_rules=missing_rules,
        missing_ways=find_missing_ways(host, config),
    )


def find_missing_ways(host: Kernel, config: BridgeConfig) -> list[str]:
    """What of the ways to other nodes is not there, in words; nothing where the configuration names none."""
    if config.peers is None:
        return []
    from .nodewiring import find_missing

    return find_missing(host, config)


def _cidrs(kernel: Kernel, link: Link | None) -> list[CIDR]:
    return [entry.cidr for entry in kernel.list_addresses(link)] if link is not None else []


def _in_the_way(gateway: CIDR, present: set[CIDR], plan: Plan) -> list[CIDR]:
    """The addresses that forceAddress replaces: of IPv4 any other, of IPv6 those whose subnets overlap."""
    others = [other for other in present if other.version == gateway.version and other not in plan.gateways]
    return [other for other in others if gateway.version == 4 or other.ip in gateway or gateway.ip in other]


def _restore_bridge(host: Kernel, before: Link) -> None:
    """Give a bridge its flags and its MAC back, unless somebody has come to use it meanwhile."""
    with host_lock():
        bridge = host.find_link_at(before.ifindex)
        if bridge is not None and not host.list_ports(bridge):
            host.set_flags(bridge, up=before.up, promisc=before.promisc)
            if bridge.mac != before.mac:
                host.set_mac(bridge, before.mac)


def _delete_unused_bridge(host: Kernel, config: BridgeConfig) -> None:
    """Remove a bridge that we made, unless somebody has come to use it meanwhile."""
    with host_lock():
        bridge = host.find_link(config.bridge)
        if bridge is not None and not host.list_ports(bridge):
            host.delete_link(config.bridge)
