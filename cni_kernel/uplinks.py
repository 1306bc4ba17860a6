"""The interfaces by which the host may hear IPv6 routers, which forwarding makes deaf unless they are told otherwise.

An interface with `accept_ra` 1 ignores router advertisements while the host forwards; with 2 it goes on listening, and
keeps the addresses and routes that it has from them. Source: accept_ra in Documentation/networking/ip-sysctl.
Must not: switch forwarding on.
"""

from cni_protocol.light.standard import Callable

from . import sysctl
from .kernel import Kernel
from .values import MAIN_TABLE, Link

LINES = ("", "bond", "team", "vlan", "macvlan", "ipvlan")  # kinds of interfaces that lead to elsewhere; "": hardware
_ROUTER_ADVERTISEMENT = 9  # RTPROT_RA


def list_advertised(host: Kernel) -> set[int]:
    """The indexes of interfaces that have a route or an address from router advertisements. Raises KernelError."""
    routed = {ifindex for ifindex, _ in host.list_all_routes(protocol=_ROUTER_ADVERTISEMENT)}
    lent = {a.ifindex for a in host.list_all_addresses() if a.cidr.version == 6 and not a.permanent}
    return routed | lent


def is_line(link: Link) -> bool:
    """Whether an interface leads to elsewhere, by its kind."""
    return link.kind in LINES


def list_uplinks(host: Kernel) -> list[Link]:
    """The interfaces by which the host may hear a router, though none has spoken yet. Raises KernelError.

    A bridge is one with a line as its port. An end of a pair is one only where a default route, or what a router has
    told already, says so: else a container is at the other end.
    """
    links = host.list_links()
    known = {ifindex for ifindex, route in host.list_all_routes(table=MAIN_TABLE) if not route.dst.prefix}
    known |= list_advertised(host) | {link.master for link in links if link.master and is_line(link)}
    return [
        link for link in links if link.name != "lo" and (link.ifindex in known or (is_line(link) and not link.master))
    ]


def keep_listening(host: Kernel, before: Callable[[str], None]) -> None:
    """Have the uplinks listen to routers while the host forwards. Call it before forwarding is switched on.

    `before` is called with the name of each one that is changed, just before that. Raises KernelError.
    """
    for link in list_uplinks(host):
        if sysctl.listens_to_routers(link.name):
            before(link.name)
            sysctl.listen_to_routers(link.name, while_forwarding=True)
