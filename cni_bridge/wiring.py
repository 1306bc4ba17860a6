"""The steps of ADD and CHECK on links, made of kernel.py's primitives. Those of ADD register their undoing.

Must not: run another plugin, or read a configuration that is not parsed.
"""

from cni_kernel import sysctl
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import Namespace, open_own_namespace
from cni_kernel.values import Link, PortVlan, Veth
from cni_kernel.waits import wait_for_addresses, wait_for_port
from cni_protocol.address import CIDR
from cni_protocol.attachment import Attachment
from cni_protocol.errors import ALREADY_EXISTS, INVALID_CONFIG, CNIError
from cni_protocol.light.standard import NamedTuple, Sequence
from cni_protocol.result import Interface

from .bridge import add_port, ensure_bridge, get_bridge, warn
from .config import BridgeConfig
from .locks import host_lock
from .plan import MIN_MTU_IPV6, Plan, gateway_interface, list_vlans
from .undo import Undo


class Site(NamedTuple):
    """Where a command works: the kernel in the host's and in the container's namespace, the sandbox, the attachment."""

    host: Kernel
    inside: Kernel
    namespace: Namespace
    config: BridgeConfig
    attachment: Attachment


def require_absent(site: Site) -> None:
    """Raise CNIError (code 102) when either end of the pair exists already. Changes nothing."""
    host, inside, attachment = site.host, site.inside, site.attachment
    if inside.find_link(attachment.ifname) is not None:
        raise CNIError(ALREADY_EXISTS, f"interface {attachment.ifname} exists already in the container; send DEL first")
    if host.find_link(attachment.host_name) is not None:
        raise CNIError(
            ALREADY_EXISTS,
            f"interface {attachment.host_name} on the host belongs to an earlier ADD of container "
            f"{attachment.container_id} interface {attachment.ifname}; send DEL first",
        )


def connect(site: Site, undo: Undo) -> Link:
    """Make the bridge where it is missing, and the veth pair: one end a port, the other in the container, down.

    Returns the bridge. Under the host's lock: nobody removes the bridge as unused before it has our port. Raises
    CNIError (codes 7, 100).
    """
    host, config, attachment = site.host, site.config, site.attachment
    with host_lock():
        bridge = ensure_bridge(host, config, undo)
        undo.on_failure(host.delete_link, attachment.host_name)
        pair = Veth(
            host_name=attachment.host_name,
            owner=attachment.owner,
            bridge=bridge.ifindex,
            name=attachment.ifname,
            namespace=site.namespace.descriptor,
            mac=config.mac,
            mtu=config.mtu or bridge.mtu,
            hairpin=config.wants_hairpin,
            isolated=config.isolated,
        )
        add_port(host, bridge, pair)
        if config.wants_vlans:
            host.set_vlans(host.get_link(attachment.host_name), list_vlans(config))
    return bridge


def configure_container(site: Site, plan: Plan, undo: Undo) -> Link:
    """Set sysctls, addresses, link state and routes in the container. Returns its interface as it was before.

    Only the loopback's IPv6 settings need an undoing of their own: the rest goes with the veth pair.
    """
    inside, ifname, detect = site.inside, site.attachment.ifname, site.config.detect_duplicates
    link = inside.get_link(ifname)
    versions = {entry.address.version for entry in plan.ips}
    ipv6 = 6 in versions
    if ipv6 and link.mtu < MIN_MTU_IPV6:
        raise CNIError(
            INVALID_CONFIG,
            f"mtu: bridge {site.config.bridge} has one of {link.mtu}, and {ifname} takes it over; the least that IPv6 "
            f"works with is {MIN_MTU_IPV6}; set mtu here and on the bridge",
        )
    with site.namespace.entered():
        if ipv6 and not sysctl.may_have_ipv6("lo"):
            undo.on_failure(_restore_inside, site.namespace, sysctl.list_ipv6_settings("lo"))
        warn(sysctl.own_interface(ifname, ipv6=ipv6, detect_duplicates=detect))
        warn(sysctl.announce_changes(ifname, versions))
    addresses, up = [entry.address for entry in plan.ips], not site.config.leave_down
    twice = inside.configure(link, addresses, plan.programmed, up=up, detect_duplicates=detect)
    if twice is not None:
        raise CNIError(ALREADY_EXISTS, f"address {twice} is on {ifname} already; the IPAM plugin gave it twice")
    return link


def _restore_inside(namespace: Namespace, settings: list[tuple[str, str]]) -> None:
    with namespace.entered():
        sysctl.restore_settings(settings)


def configure_host(host: Kernel, config: BridgeConfig, plan: Plan) -> tuple[Interface, ...]:
    """Add the gateway addresses to the bridge, and switch forwarding on.

    Returns the interface for the gateway in a VLAN, if any. This is the last step of ADD. It is done, and on failure
    undone, under the host's lock, so that no other ADD relies on an address that is removed again. Raises CNIError
    (code 7) when the bridge has other addresses.
    """
    if not plan.gateways:
        return ()
    with host_lock(), Undo() as undo:
        return _configure_gateway(host, config, plan, undo)


def _configure_gateway(host: Kernel, config: BridgeConfig, plan: Plan, undo: Undo) -> tuple[Interface, ...]:
    link = _ensure_gateway_interface(host, config, undo)
    present = _addresses_of(host, link)
    missing = [gateway for gateway in plan.gateways if gateway not in present]
    _warn_of_overlaps(host, config, link, missing)
    if any(gateway.version == 6 for gateway in missing):
        undo.on_failure(sysctl.restore_settings, sysctl.list_ipv6_settings(link.name))
        warn(sysctl.allow_ipv6(link.name))
    others = {other: gateway for gateway in reversed(missing) for other in _in_the_way(gateway, present, plan)}
    for other, gateway in others.items():
        if not config.force_address:
            raise CNIError(
                INVALID_CONFIG,
                f"bridge {link.name} has address {other}, and this network wants {gateway} there; use another "
                'bridge, or set "forceAddress": true to replace it',
            )
    if others:
        undo.on_failure(_restore_addresses, host, link, present)
        for other in others:
            host.delete_address(link, other)
        # with the first IPv4 address of a subnet the kernel removes its others (promote_secondaries in ip-sysctl)
        missing = [gateway for gateway in plan.gateways if gateway not in _addresses_of(host, link)]
    for gateway in missing:
        undo.on_failure(host.delete_address, link, gateway)
        host.add_addresses(link, [gateway])
    if missing:
        host.set_mac(link, link.mac)  # from now on the bridge keeps it, whatever ports come and go
    if config.vlan:
        _complete_gateway(host, config, link)
    for version in {gateway.version for gateway in plan.gateways}:
        _ensure_forwarding(host, version, undo)
    return (Interface(link.name, link.mac, link.mtu),) if config.vlan else ()


def _warn_of_overlaps(host: Kernel, config: BridgeConfig, link: Link, gateways: Sequence[CIDR]) -> None:
    if gateways:
        from .overlap import find_overlaps  # here, since only the first ADD on a bridge needs it

        warn(find_overlaps(host, [link, get_bridge(host, config.bridge)], gateways))


def _ensure_forwarding(host: Kernel, version: int, undo: Undo) -> None:
    """Switch forwarding on. The host's uplinks go on accepting router advertisements, also where none has come yet."""
    if sysctl.is_forwarding(version):
        return
    if version == 6:
        from cni_kernel.uplinks import keep_listening  # here, since forwarding is switched on once

        keep_listening(host, lambda name: undo.on_failure(sysctl.listen_to_routers, name, while_forwarding=False))
    undo.on_failure(sysctl.stop_forwarding, version)
    sysctl.ensure_forwarding(version)


def _ensure_gateway_interface(host: Kernel, config: BridgeConfig, undo: Undo) -> Link:
    """The interface for the gateway addresses: the bridge, or with `vlan` one end of a veth pair, created if missing.

    The pair's other end is a port of the bridge in that VLAN, as in the reference.
    """
    name = gateway_interface(config)
    bridge = get_bridge(host, config.bridge)
    if name == config.bridge:
        return bridge
    if host.find_link(name) is None:
        port = Attachment(config.bridge, "gateway", name).host_name
        undo.on_failure(host.delete_link, name)
        with open_own_namespace() as own:
            add_port(host, bridge, Veth(port, "", bridge.ifindex, name, own.descriptor, "", bridge.mtu, False, False))
        warn(sysctl.ignore_router_advertisements(name))
        warn(sysctl.detect_no_duplicates(name))
    return host.get_link(name)


def _complete_gateway(host: Kernel, config: BridgeConfig, link: Link) -> None:
    """Bring a VLAN's gateway interface up, and put its port into the VLAN; an earlier ADD may have died before that."""
    port, wanted = find_other_end(host, link), PortVlan(config.vlan, pvid=True, untagged=True)
    if port is not None and wanted not in host.list_vlans(port):
        host.set_vlans(port, [wanted])
    host.set_flags(link, up=True, promisc=link.promisc)
    if port is not None:
        wait_for_port(host, port.name)


def find_other_end(host: Kernel, link: Link) -> Link | None:
    """The other end of a veth pair within the host. None when it is no bridge port."""
    port = host.find_link_at(link.peer) if link.kind == "veth" and link.peer else None
    return port if port is not None and port.master else None


def go_live(site: Site, plan: Plan, link: Link) -> None:
    """Wait until the port forwards and duplicate address detection on the container's `link` is done.

    Then announce the addresses to the neighbours.
    """
    if site.config.leave_down:
        return
    wait_for_port(site.host, site.attachment.host_name)
    if site.config.detect_duplicates and any(entry.address.version == 6 for entry in plan.ips):
        wait_for_addresses(site.inside, link)
    if plan.ips:
        # with arp_notify and ndisc_notify the kernel announces all addresses when a MAC is set, even the same one; a
        # packet socket could do it too, but closing one takes as long as the rest of ADD
        site.inside.set_mac(link, link.mac)


def list_interfaces(site: Site, bridge: Link, link: Link, netns: str) -> tuple[Interface, ...]:
    """Bridge, host end and container end (`link`, in the sandbox at `netns`) as a result lists them."""
    port = site.host.get_link(site.attachment.host_name)
    links = [(bridge, ""), (port, ""), (link, netns)]
    return tuple(Interface(link.name, link.mac, link.mtu, sandbox) for link, sandbox in links)


def _restore_addresses(host: Kernel, link: Link, before: list[CIDR]) -> None:
    """Give an interface back those of its earlier addresses that it lacks."""
    there = _addresses_of(host, link)
    host.add_addresses(link, [address for address in before if address not in there])


def _addresses_of(host: Kernel, link: Link) -> list[CIDR]:
    return [entry.cidr for entry in host.list_addresses(link)]


def _in_the_way(gateway: CIDR, present: Sequence[CIDR], plan: Plan) -> list[CIDR]:
    """The addresses that forceAddress replaces: all other IPv4 addresses, and IPv6 addresses whose subnets overlap."""
    others = [other for other in present if other.version == gateway.version and other not in plan.gateways]
    return [other for other in others if gateway.version == 4 or other.ip in gateway or gateway.ip in other]
