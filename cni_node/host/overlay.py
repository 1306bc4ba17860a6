"""The vxlan device for peers on other links: creating it, keeping its settings, and removing a former one.

Must not: know the peers (entries.py gives the device its neighbours and forwarding entries).
"""

import errno
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_node.host.links import Device, Links, Local
from cni_node.host.peer_routes import NETWORK, mac_of
from cni_protocol.address import CIDR, IP

# Documentation addresses, 192.0.2.1 and 2001:db8::1: to find the interface of the default route.
ANYWHERE = (IP(4, 0xC0000201), IP(6, 0x20010DB8 << 96 | 1))
HEADER = {4: 50, 6: 70}  # bytes of outer headers, by the IP version of the underlay (VXLAN_HEADROOM in the kernel)
ALIASES = (f"{NETWORK},", f"{NETWORK}/")  # ifalias of our device: now, and in earlier versions


class Overlay(NamedTuple):
    """The settings of the vxlan network: its VNI, its UDP port, and the interface by which its packets leave.

    An empty `device` means the interface of the route to the peers. With `direct`, peers on a link of this node are
    reached without the overlay.
    """

    vni: int
    port: int
    device: str = ""
    direct: bool = False

    @property
    def name(self) -> str:
        """The name of the vxlan device."""
        return f"vxlan.{self.vni}"


class Underlay(NamedTuple):
    """The network below the overlay: interface index, MTU in bytes, and this node's address on that interface."""

    device: int
    mtu: int
    local: IP

    @property
    def room(self) -> int:
        """The MTU within the overlay, in bytes."""
        return self.mtu - HEADER[self.local.version]


def find_underlay(links: Links, overlay: Overlay, addresses: Sequence[Local], known: Sequence[IP]) -> Underlay:
    """Find the underlay. `known` are addresses to look for, in order: of this node, then of a peer or of anywhere.

    The first one decides that is on an interface, or has a route. Raises KernelError when none has, or when the
    interface of the option --device is missing.
    """
    named = links.find(overlay.device) if overlay.device else None
    if overlay.device and named is None:
        raise KernelError(errno.ENODEV, "--device", f"there is no interface {overlay.device}")
    for ip in known:
        found = _look(links, addresses, ip, named.ifindex if named else 0)
        if found is not None:
            return found
    where = f"{overlay.device} has no address of its family" if named else "no interface leads there; set --device"
    raise KernelError(errno.ENETUNREACH, f"the way out of the overlay, to {known[0]}", where)


def find_own_addresses(links: Links, addresses: Sequence[Local]) -> tuple[IP, ...]:
    """This node's addresses, when no option names them: the source addresses of the default routes, one per family."""
    ways = [links.find_way_out(str(ip)) for ip in ANYWHERE]
    own = {(local.device, str(local.cidr.ip)): local.cidr.ip for local in addresses}
    return tuple(own[way] for way in ways if way in own)


def renew_own_addresses(links: Links, own: Sequence[IP]) -> tuple[IP, ...]:
    """`own`, where each that is no address of this node any more gives way to that of its family's default route.

    A node that had none yet has those that it has by now.
    """
    addresses = links.list_addresses()
    if not own:
        return find_own_addresses(links, addresses)
    there = {local.cidr.ip for local in addresses}
    if there.issuperset(own):
        return tuple(own)
    found = {ip.version: ip for ip in find_own_addresses(links, addresses)}
    return tuple(ip if ip in there else found.get(ip.version, ip) for ip in own)


def find_mtu(links: Links, overlay: Overlay | None, addresses: Sequence[Local], own: Sequence[IP]) -> int:
    """The MTU of this node's pods in bytes, 0 when its interface is not found. Raises KernelError as find_underlay."""
    if overlay is not None:
        return find_underlay(links, overlay, addresses, [*own, *ANYWHERE]).room
    found = [_look(links, addresses, ip, 0) for ip in own]
    return min((underlay.mtu for underlay in found if underlay is not None), default=0)


def _look(links: Links, addresses: Sequence[Local], ip: IP, named: int) -> Underlay | None:
    own = [local for local in addresses if local.cidr.ip == ip]
    if not own and named:
        own = [local for local in addresses if local.device == named and local.cidr.version == ip.version]
    if own:
        index, address = own[0].device, own[0].cidr.ip
    else:
        way = links.find_way_out(str(ip))
        out = [local for local in addresses if way and (local.device, str(local.cidr.ip)) == way]
        if not out:
            return None
        index, address = out[0].device, out[0].cidr.ip
    if named and index != named:
        return None
    device = links.find_at(index)
    return Underlay(index, device.mtu, address) if device is not None else None


def ensure_overlay(links: Links, overlay: Overlay, underlay: Underlay) -> tuple[Device, list[str]]:
    """Create the vxlan device or correct its settings. Returns it, and what had to be done, in words.

    Raises KernelError, also when an interface that is not ours has its name.
    """
    done = []
    mac = mac_of(underlay.local)
    device = links.find(overlay.name)
    if device is not None and not _is_ours(device, mac):
        raise KernelError(
            errno.EEXIST,
            f"vxlan device {overlay.name}",
            f"an interface of that name is there ({device.kind or 'physical'}) and is not ours; "
            "choose another --vni, or remove it",
        )
    if device is not None and (there := _identity(device)) != _wanted_identity(overlay, underlay):
        links.delete(device)
        done.append(f"{overlay.name} removed, which had {there}")
        device = None
    if device is None:
        _create(links, overlay, underlay, mac)
        done.append(f"{overlay.name} made")
        device = links.get(overlay.name)
    repaired = _repair(links, device, mac, underlay.room)
    done += repaired if not done else []  # else it is part of the making
    sysctl.ignore_router_advertisements(overlay.name)
    sysctl.loosen_reverse_path(overlay.name)
    return links.get(overlay.name), done


def ensure_sources(links: Links, device: Device, addresses: Sequence[Local], sources: Iterable[IP]) -> list[str]:
    """Give the device this node's gateway address of IPv4, and no other one. Returns what had to be done, in words.

    Without any address, the kernel drops all packets that come in by the device if reverse path filtering is on.
    """
    wanted = {CIDR(ip, ip.bits) for ip in sources if ip.version == 4}
    there = {local.cidr for local in addresses if local.device == device.ifindex and local.cidr.version == 4}
    for address in wanted - there:
        links.add_address(device, address)
    for address in there - wanted:
        links.delete_address(device, address)
    added = [f"address {address} given to {device.name}" for address in wanted - there]
    return added + [f"address {address} taken from {device.name}" for address in there - wanted]


def delete_former(links: Links, names: Iterable[str]) -> list[str]:
    """Remove the interfaces of these names that are vxlan devices of ours. Returns what had to be done, in words."""
    done = []
    for name in names:
        device = links.find(name)
        if device is not None and device.kind == "vxlan" and device.alias in ALIASES:
            links.delete(device)
            done.append(f"{name} removed, which belongs to no overlay any more")
    return done


def _is_ours(device: Device, mac: str) -> bool:
    """Whether we made a device: it has our alias; or our MAC and no alias, if the agent died before setting it."""
    return device.kind == "vxlan" and (device.alias in ALIASES or (device.mac == mac and not device.alias))


def _identity(device: Device) -> tuple[int, int, int, str, int]:
    data = device.data
    local = data.get("IFLA_VXLAN_LOCAL") or data.get("IFLA_VXLAN_LOCAL6") or ""
    numbers = [data.get(f"IFLA_VXLAN_{name}", 0) for name in ("ID", "PORT", "LINK", "LEARNING")]
    return (numbers[0], numbers[1], numbers[2], str(local), numbers[3])


def _wanted_identity(overlay: Overlay, underlay: Underlay) -> tuple[int, int, int, str, int]:
    return (overlay.vni, overlay.port, underlay.device, str(underlay.local), 0)


def _create(links: Links, overlay: Overlay, underlay: Underlay, mac: str) -> None:
    local = {"vxlan_local" if underlay.local.version == 4 else "vxlan_local6": str(underlay.local)}
    links.create(
        overlay.name,
        "vxlan",
        address=mac,
        vxlan_id=overlay.vni,
        vxlan_link=underlay.device,
        vxlan_port=overlay.port,
        vxlan_learning=0,
        **local,
    )


def _repair(links: Links, device: Device, mac: str, room: int) -> list[str]:
    wanted = {
        "ifalias": (ALIASES[0], device.alias in ALIASES),
        "address": (mac, device.mac == mac),
        "mtu": (room, device.mtu == room),
        "state": ("up", device.up),
    }
    wrong = {key: value for key, (value, right) in wanted.items() if not right}
    for key, value in wrong.items():
        links.change(device, **{key: value})
    return [f"{device.name} given {key} {value}" for key, value in wrong.items() if key != "ifalias"]
