"""Finding overlaps of a network's subnets with other addresses and routes of the host: one of the two is unreachable.

Must not: refuse anything, since overlapping networks may be intended.
"""

from cni_kernel.kernel import Kernel
from cni_kernel.values import MAIN_TABLE, Link
from cni_protocol.address import CIDR, LINK_LOCAL6
from cni_protocol.light.standard import Collection


def find_overlaps(host: Kernel, own: Collection[Link], gateways: Collection[CIDR]) -> list[str]:
    """The host's addresses and routes that overlap the subnets of these gateways, as warnings.

    Those on the network's `own` interfaces do not count, and neither does a default route. Raises KernelError.
    """
    if not gateways:
        return []
    ours = {link.ifindex for link in own}
    own_addresses = {gateway.ip for gateway in gateways}  # the overlay's device has them too, as /32 or /128
    addresses = [(entry.ifindex, entry.cidr) for entry in host.list_all_addresses()]
    there = [(at, cidr) for at, cidr in addresses if cidr.prefix < cidr.ip.bits or cidr.ip not in own_addresses]
    there += [(ifindex, route.dst) for ifindex, route in host.list_all_routes(table=MAIN_TABLE) if route.dst.prefix]
    found = {
        (gateway.network, ifindex, other.network)
        for gateway in gateways
        for ifindex, other in there
        if ifindex not in ours and _overlap(gateway, other)
    }
    return [
        f"subnet {subnet} overlaps {other}, which the host has on {_name_of(host, ifindex)}; choose another subnet, or "
        "one of the two cannot be reached"
        for subnet, ifindex, other in sorted(found)
    ]


def _overlap(one: CIDR, other: CIDR) -> bool:
    return other.ip not in LINK_LOCAL6 and (one.first in other or other.first in one)


def _name_of(host: Kernel, ifindex: int) -> str:
    link = host.find_link_at(ifindex)
    return link.name if link is not None else f"interface {ifindex}"
