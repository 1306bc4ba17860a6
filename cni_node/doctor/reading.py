"""Reads all facts about a node. A failure to read one is noted as a sentence, and the others are read nevertheless.

Must not: change anything, or decide what is a fault.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cni_bridge.refusals import kernel_refusals
from cni_bridge.sync import find_missing
from cni_kernel.errors import KernelError
from cni_kernel.expressions import Rules
from cni_node.agent.status import fetch
from cni_node.doctor import configurations, kernel_facts, proc_files
from cni_node.doctor.facts import Configuration, Facts, Network, Pod, Reservation, Room
from cni_node.inspect.packet_filter import read_policies
from cni_node.repair.command import wanted_rules
from cni_node.results import Cached, list_attachments
from cni_protocol.address import parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError

T = TypeVar("T")
_ROOM = ("var/lib/cni", "run", "opt/cni/bin", "etc/cni/net.d")
_REFUSALS = (OSError, ValueError, LookupError, TypeError, AttributeError, KernelError, CNIError)


class Places(NamedTuple):
    """Where the node's files are."""

    root: Path
    conf_dir: str
    bin_dir: str
    socket: Path

    def at(self, path: str) -> Path:
        """A path of the node, below its root."""
        return self.root / path.lstrip("/")


def _ignore(what: str) -> None:
    """Who asks is not told what is read."""


class Reader:
    """Calls reading functions, and collects their failures as sentences in `problems`; `begin` is told of each."""

    def __init__(self, begin: Callable[[str], None] = _ignore) -> None:
        self.problems: list[str] = []
        self._begin = begin

    def ask(self, what: str, read: Callable[[], T], *, may_lack: bool = False) -> T | None:
        """Call `read`. Returns None when it fails, and notes that; with `may_lack` a missing file is not noted."""
        self._begin(what)
        try:
            return read()
        except _REFUSALS as error:
            if not (may_lack and isinstance(error, FileNotFoundError)):
                self.problems.append(f"{what} cannot be read: {describe(error)}")
            return None

    def ask_all(self, what: str, read: Callable[[], Iterable[T]]) -> tuple[T, ...]:
        """The same for a function that returns several things; an empty tuple when it fails."""
        return self.ask(what, lambda: tuple(read())) or ()


def describe(error: BaseException) -> str:
    """An error in words."""
    if isinstance(error, CNIError):
        return error.msg
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


def read_facts(places: Places, begin: Callable[[str], None] = _ignore) -> Facts:
    """All facts about the node that this process runs on, in whose network namespace it is.

    `begin` is told what is read next.
    """
    reader = Reader(begin)
    conf_dir = places.at(places.conf_dir)
    files = reader.ask(str(conf_dir), partial(configurations.read_configurations, conf_dir), may_lack=True)
    configured, networks = files or ([], [])
    cached, problems = list_attachments(places.at("var/lib/cni/results"))
    reader.problems += problems
    networks = _merged(networks, cached)
    reservations = _read_reservations(
        reader, places, networks
    )  # before the interfaces: an ADD makes them in this order
    facts = _read_kernel(reader)
    names = {link.name for link in facts.links}
    running = [entry for entry in cached if _owner_of(entry).host_name in names]
    return facts._replace(
        networks=tuple(networks),
        configurations=tuple(configured),
        plugins=_read_plugins(reader, places, configured),
        reservations=tuple(reservations),
        pods=tuple(_read_pods(reader, places, running)),
        rooms=tuple(_read_rooms(reader, places)),
        later_sysctls=proc_files.read_later_sysctls(places.root),
        report=reader.ask("the agent's report", partial(_read_report, places.socket), may_lack=True),
        managed=proc_files.read_managed(places.root),
        foreign_routes_removed=proc_files.removes_foreign_routes(places.root),
        stub_resolver=proc_files.find_stub_resolver(places.root),
        unreadable=tuple(reader.problems),
    )


def read_moving(problems: list[str]) -> dict[str, int]:
    """All counters of lost packets at this moment; what cannot be read is said in `problems`."""
    policies = read_policies(problems)
    denied = policies.denied if policies is not None else {}
    return {**proc_files.read_moving_counters(), **{f"policy:{why}": number for why, number in denied.items()}}


def _read_kernel(reader: Reader) -> Facts:
    links = reader.ask_all("interfaces", kernel_facts.read_links)
    chains, tables = reader.ask("the packet filter", kernel_facts.read_filter) or ([], frozenset[tuple[str, str]]())
    return Facts(
        links=links,
        addresses=reader.ask_all("addresses", kernel_facts.read_addresses),
        routes=reader.ask_all("routes", kernel_facts.read_routes),
        neighbours=reader.ask_all("neighbours", kernel_facts.read_neighbours),
        chains=tuple(chains),
        tables=tables,
        sysctls=proc_files.read_sysctls(link.name for link in links),
        counters=proc_files.read_counters(),
        legacy_tables=reader.ask_all("the tables of iptables-legacy", proc_files.read_legacy_tables),
        listening=frozenset(reader.ask_all("sockets", proc_files.read_listening)),
    )


def _owner_of(entry: Cached) -> Attachment:
    return Attachment(entry.network, entry.container_id, entry.ifname)


def _read_plugins(reader: Reader, places: Places, configured: Iterable[Configuration]) -> dict[str, str]:
    """Why those plugins cannot run that configurations of ours name; containerd needs loopback beside."""
    needed = {name for entry in configured if entry.ours for name in entry.types}
    needed |= {"loopback"} if needed and places.at("run/containerd/containerd.sock").exists() else set()
    directories = [places.at(place) for place in places.bin_dir.split(":")]
    asked = {name: reader.ask(name, partial(configurations.read_plugin, directories, name)) for name in needed}
    return {name: reason or "" for name, reason in asked.items()}


def _merged(networks: list[Network], cached: Iterable[Cached]) -> list[Network]:
    """The configured networks, and beside them those that pods were connected to."""
    found = {(network.name, network.bridge): network for network in networks}
    for entry in cached:
        key = (entry.network, str(entry.config.get("bridge") or "cni0"))
        if key not in found:
            with suppress(*_REFUSALS):
                found[key] = configurations.parse_network(entry.network, entry.config)
    return list(found.values())


def _read_reservations(reader: Reader, places: Places, networks: Iterable[Network]) -> list[Reservation]:
    stores = {(network.store, network.name): network for network in networks if network.store}
    return [
        reservation
        for (store, name), network in stores.items()
        for reservation in reader.ask_all(
            f"the store {store}/{name}", partial(configurations.read_reservations, places.root, network)
        )
    ]


def _read_report(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(fetch(path, "/status")))
    except (ConnectionRefusedError, TimeoutError):
        return None


def _read_pods(reader: Reader, places: Places, running: list[Cached]) -> list[Pod]:
    wanted: dict[str, tuple[Rules, ...]] = {}
    for entry in running:
        owner = _owner_of(entry)
        wanted[owner.host_name] = reader.ask_all(f"what {owner.owner} needs", partial(wanted_rules, entry, owner))
    joined = _joined(rules for each in wanted.values() for rules in each)
    lacking = reader.ask_all("the rules of pods", lambda: [text for rules in joined for text in _missing(rules)])
    found = []
    for entry in running:
        own = wanted[_owner_of(entry).host_name] if lacking else ()
        pod = reader.ask(f"the result of {entry.container_id}", partial(_parse_pod, places, entry))
        if pod is not None:
            missing = [text for rules in own for text in reader.ask_all("rules", partial(_missing, rules))]
            found.append(pod._replace(missing=tuple(missing)))
    return found


def _joined(every: Iterable[Rules]) -> list[Rules]:
    """The rules of all as one for each family: asked for at once."""
    families: dict[int, list[Rules]] = {}
    for rules in every:
        families.setdefault(rules.family, []).append(rules)
    return [
        Rules(
            family,
            tuple(dict.fromkeys(entry for rules in each for entry in rules.maps)),
            tuple({chain.name: chain for rules in each for chain in rules.chains}.values()),
            tuple(element for rules in each for element in rules.elements),
        )
        for family, each in families.items()
    ]


def _missing(rules: Rules) -> list[str]:
    with kernel_refusals():
        return find_missing(rules)


def _parse_pod(places: Places, entry: Cached) -> Pod:
    result = entry.config["prevResult"]
    ports = (entry.config.get("runtimeConfig") or {}).get("portMappings") or []
    inner = [each for each in result.get("interfaces") or [] if each.get("sandbox")]
    return Pod(
        _owner_of(entry),
        tuple(parse_cidr(ip["address"]).ip for ip in result.get("ips") or [] if "address" in ip),
        str(inner[0].get("mac", "")) if inner else "",
        entry.netns,
        bool(entry.netns) and not places.at(entry.netns).exists(),
        (),
        tuple(
            (str(each.get("protocol", "tcp")).lower(), int(each["hostPort"])) for each in ports if each.get("hostPort")
        ),
    )


def _read_rooms(reader: Reader, places: Places) -> Iterator[Room]:
    for path in _ROOM:
        place = places.root / path
        found = reader.ask(str(place), partial(os.statvfs, place), may_lack=True)
        if found is not None and found.f_blocks:
            yield Room(
                str(place),
                found.f_bavail / found.f_blocks,
                found.f_favail / found.f_files if found.f_files else 1.0,
                bool(found.f_flag & os.ST_RDONLY),
                bool(found.f_flag & os.ST_NOEXEC),
            )
