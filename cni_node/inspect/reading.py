"""Reads a node: links, routes, results, namespaces, reservations, rules. Continues after failures to read.

Must not: change anything, ask the agent, or start a program.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cni_bridge.config import DEFAULT_BRIDGE
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import open_namespace
from cni_kernel.values import MAIN_TABLE, Address, Link, Route
from cni_node.host.entries import Entries
from cni_node.host.peer_routes import NETWORK, Entry, Forward, Neighbour, PeerRoute
from cni_node.inspect import store
from cni_node.inspect.packet_filter import read_filter, read_policies
from cni_node.inspect.values import Inside, Peer, Reading, Remembered
from cni_node.results import Cached, list_attachments
from cni_protocol.address import LINK_LOCAL6, parse_cidr
from cni_protocol.attachment import Attachment

_ALIASES = (f"{NETWORK},", f"{NETWORK}/")  # of the vxlan device


class Places(NamedTuple):
    """Where the files are."""

    results: Path
    store: Path


def read_node(places: Places) -> Reading:
    """Read everything. Failures are noted in `problems` of the result."""
    problems: list[str] = []
    cached, said = list_attachments(places.results)
    problems += said
    remembered = [entry for entry in (_remember(each, problems) for each in cached) if entry is not None]
    links, addresses, uplinks = _read_links(problems)
    reservations, said = store.list_reservations(_directories(cached, places.store))
    problems += said
    packet_filter = read_filter(problems)
    names = packet_filter.exempt if packet_filter is not None else {}
    return Reading(
        node=os.uname().nodename,
        links=links,
        addresses=addresses,
        uplinks=uplinks,
        remembered=remembered,
        inside=_read_insides(remembered, problems),
        reservations=reservations,
        rules=packet_filter.rules if packet_filter is not None else None,
        exempt=len(names) if packet_filter is not None else None,
        policies=read_policies(problems),
        peers=_read_peers(links, names, problems),
        has_links=bool(links),
        has_results=len(remembered) == len(cached) and _is_listed(places.results, problems),
        problems=problems,
    )


def _is_listed(results: Path, problems: list[str]) -> bool:
    """Whether all files of results could be read."""
    return not any(problem.startswith(str(results)) for problem in problems)


@contextmanager
def _going_on(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        problems.append(str(error))


def _remember(cached: Cached, problems: list[str]) -> Remembered | None:
    """A result as a value; None where it is not what libcni writes."""
    try:
        args = dict(part.split("=", 1) for part in cached.args.split(";") if "=" in part)
        pod = "/".join(filter(None, (args.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME"))))
        ips = cached.config["prevResult"].get("ips") or []
        addresses = tuple(str(parse_cidr(entry["address"])) for entry in ips)
        bridge = cached.config.get("bridge") or DEFAULT_BRIDGE
        texts = (cached.network, cached.container_id, cached.ifname)
        if not all(isinstance(text, str) for text in (*texts, bridge)):
            raise TypeError("a name is no text")
        return Remembered(*texts, netns=cached.netns, pod=pod, bridge=bridge, addresses=addresses)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"the result of container {cached.container_id} is not understood: {error!r}")
        return None


def _directories(cached: list[Cached], default: Path) -> list[Path]:
    """Where reservations are: the usual place, and those that networks name."""
    ipams: list[Any] = [entry.config.get("ipam") for entry in cached]
    named = [ipam.get("dataDir") for ipam in ipams if isinstance(ipam, dict)]
    return list(dict.fromkeys([default, *(Path(each) for each in named if isinstance(each, str) and each)]))


def _read_links(problems: list[str]) -> tuple[list[Link], list[Address], list[tuple[str, str]]]:
    links: list[Link] = []
    addresses: list[Address] = []
    routes: list[tuple[int, Route]] = []
    with _going_on(problems), Kernel() as kernel:
        links = kernel.list_links()
        addresses = [entry for entry in kernel.list_all_addresses() if entry.cidr.ip not in LINK_LOCAL6]
        routes = [entry for entry in kernel.list_all_routes(table=MAIN_TABLE) if entry[1].dst.prefix == 0]
    names = {link.ifindex: link.name for link in links}
    ways = [(names.get(ifindex, str(ifindex)), str(route.gw or "")) for ifindex, route in routes]
    return links, addresses, list(dict.fromkeys(ways))


def _read_insides(remembered: list[Remembered], problems: list[str]) -> dict[str, Inside]:
    return {
        Attachment(entry.network, entry.container_id, entry.ifname).owner: _read_inside(entry, problems)
        for entry in remembered
    }


def _read_inside(entry: Remembered, problems: list[str]) -> Inside:
    if not entry.netns:
        return Inside("unread")
    if not _is_there(entry.netns):
        return Inside("gone")
    try:
        with open_namespace(entry.netns) as namespace:
            if namespace.is_own():
                return Inside("gone")  # the pid in its /proc path belongs to another process by now
            with namespace.entered(), Kernel() as kernel:
                link = kernel.find_link(entry.ifname)
                found = kernel.list_addresses(link) if link is not None else []
    except (KernelError, OSError) as error:
        problems.append(f"{entry.netns} of container {entry.container_id} cannot be read: {error}")
        return Inside("unread")
    return Inside("ok", link, tuple(each.cidr for each in found if each.cidr.ip not in LINK_LOCAL6))


def _is_there(path: str) -> bool:
    """Whether a path exists. True also for one that this process may not look at."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _read_peers(links: list[Link], names: dict[bytes, str], problems: list[str]) -> list[Peer]:
    devices = {link.ifindex: link.name for link in links}
    overlays = [link for link in links if is_overlay(link)]
    entries: list[Entry] = []
    with _going_on(problems):
        reader = Entries()
        try:
            for index in [link.ifindex for link in overlays] or [0]:
                entries += reader.observe(index).entries
        finally:
            reader.close()
    seen = dict.fromkeys(entries)
    find = _finder(list(seen))
    routes = [entry for entry in seen if isinstance(entry, PeerRoute)]
    return [
        Peer(
            names.get(route.dst.first.packed, ""),
            str(route.dst),
            str(route.gw),
            devices.get(route.device, str(route.device)) if route.device else "",
            *find(route),
        )
        for route in routes
    ]


def _finder(entries: list[Entry]) -> Callable[[PeerRoute], tuple[str, str]]:
    """A function that returns, for a route, the node that its packets are sent to, and which entry is missing."""
    macs = {entry.ip: entry.mac for entry in entries if isinstance(entry, Neighbour)}
    nodes = {entry.mac: str(entry.node) for entry in entries if isinstance(entry, Forward)}

    def find(route: PeerRoute) -> tuple[str, str]:
        if not route.device:
            return str(route.gw), ""
        if route.gw not in macs:
            return "", "no neighbour entry"
        node = nodes.get(macs[route.gw], "")
        return node, "" if node else "no forwarding entry"

    return find


def is_overlay(link: Link) -> bool:
    """Whether a device is the overlay's."""
    return link.kind == "vxlan" and link.alias in _ALIASES
