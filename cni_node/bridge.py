"""The bridge that the pods of this node are on, with the gateway addresses of its pod ranges.

The plugin makes one too; here it is there before the first pod, and comes back with its ports when somebody removes it.
Must not: touch ports of others, or a bridge of another kind.
"""

import errno
from collections.abc import Iterable, Sequence

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_node.links import Device, Links, Local
from cni_node.overlay import ALIASES
from cni_protocol.address import CIDR, IP

BRIDGE = "cni0"


def gateways_of(pods: Iterable[CIDR]) -> list[CIDR]:
    """The addresses of the bridge: the first of each range, as the address plugin gives it to pods as their gateway."""
    return [CIDR(IP(cidr.version, cidr.first.value + 1), cidr.prefix) for cidr in pods]


def ensure_bridge(links: Links, mtu: int, mac: str) -> tuple[Device, list[str]]:
    """Have the bridge, up. Returns it, and in words what had to be done.

    `mtu` in bytes is kept, 0 is the kernel's choice. A new one gets `mac` ("": the kernel's choice), and the pods'
    interfaces that lost the one before: with its MAC, pods find it where it was. Raises KernelError when something else
    is there.
    """
    done = []
    device = links.find(BRIDGE)
    if device is not None and device.kind != "bridge":
        raise KernelError(
            errno.EEXIST, f"bridge {BRIDGE}", f"an interface of that name is {device.kind or 'physical'}; remove it"
        )
    if device is None:
        links.create(BRIDGE, "bridge")
        device = links.get(BRIDGE)
        links.change(device, address=mac or device.mac)  # one that is set stays when ports come and go
        sysctl.detect_no_duplicates(BRIDGE)
        done.append(f"bridge {BRIDGE} made")
        done += _take_ports_back(links, device)
    sysctl.ignore_router_advertisements(BRIDGE)
    if sysctl.has_ipv6():
        sysctl.allow_ipv6(BRIDGE)
    if mtu and device.mtu != mtu:  # only one that is set later than at creation outlives the last port
        links.change(device, mtu=mtu)
        done += [] if done else [f"bridge {BRIDGE} given mtu {mtu}"]
    if not device.up:
        links.change(device, state="up")
        done += [] if done else [f"bridge {BRIDGE} brought up"]
    return links.get(BRIDGE), done


def ensure_gateways(
    links: Links, device: Device, addresses: Sequence[Local], gateways: Sequence[CIDR]
) -> tuple[list[str], list[CIDR]]:
    """Give the bridge exactly these addresses, the new ones first.

    A former one would draw what is for the node that has its range by now. Returns in words what had to be done, and
    the addresses that went.
    """
    there = [local.cidr for local in addresses if local.device == device.ifindex]
    missing = [gateway for gateway in gateways if gateway not in there]
    former = [address for address in there if address not in gateways]
    for gateway in missing:
        links.add_address(device, gateway)
    for address in former:
        links.delete_address(device, address)
    done = [f"address {gateway} given to {BRIDGE}" for gateway in missing]
    return done + [f"address {address} taken from {BRIDGE}" for address in former], former


def _take_ports_back(links: Links, bridge: Device) -> list[str]:
    lost = [
        device
        for device in links.list_all()
        if device.kind == "veth" and not device.master and device.alias.startswith(ALIASES)
    ]
    for device in lost:
        links.change(device, master=bridge.ifindex)
        links.allow_hairpin(device)
    return [f"{len(lost)} pods' interfaces taken back"] if lost else []
