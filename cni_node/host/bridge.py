"""The bridge of this node's pods, with the gateway addresses of its pod ranges.

The plugin makes the same bridge when it needs it. The agent makes it before the first pod, and again, with its ports,
if someone removes it.
Must not: touch ports that are not of our pods, or an interface that is no bridge.
"""

import errno
from collections.abc import Iterable, Sequence

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_node.host.links import Device, Links, Local
from cni_node.host.overlay import ALIASES
from cni_protocol.address import CIDR, IP

BRIDGE = "cni0"


def gateways_of(pods: Iterable[CIDR]) -> list[CIDR]:
    """The gateway addresses for the bridge: the first address of each pod range, as cni-ipam chooses it too."""
    return [CIDR(IP(cidr.version, cidr.first.value + 1), cidr.prefix) for cidr in pods]


def ensure_bridge(links: Links, mtu: int, mac: str) -> tuple[Device, list[str]]:
    """Create the bridge if it is missing, and bring it up. Returns it, and what had to be done, in words.

    It gets `mtu` in bytes (0: the kernel's choice). A new bridge gets `mac` ("": the kernel's choice) and the pods'
    interfaces that the former bridge had as ports. With the former MAC, the pods' neighbour entries stay right. Raises
    KernelError when another kind of interface has its name.
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
    if mtu and device.mtu != mtu:  # set after creation: an MTU given at creation is lost with the last port
        links.change(device, mtu=mtu)
        done += [] if done else [f"bridge {BRIDGE} given mtu {mtu}"]
    if not device.up:
        links.change(device, state="up")
        done += [] if done else [f"bridge {BRIDGE} brought up"]
    return links.get(BRIDGE), done


def ensure_gateways(
    links: Links, device: Device, addresses: Sequence[Local], gateways: Sequence[CIDR]
) -> tuple[list[str], list[CIDR]]:
    """Give the bridge exactly these gateway addresses. New ones are added before former ones are removed.

    A former address must go, since another node may have its range by now, and packets for that would end here. Returns
    what had to be done, in words, and the removed addresses.
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
