"""Makes the kernel equal to what the source says, in five stages, and reports what it had to do.

It remembers what it has put into the kernel only to save reading; a new process reads all of it again.
Must not: wait, or remove anything because the source is silent about it.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from cni_kernel.errors import KernelError
from cni_node.host import bridge, overlay, sysctls
from cni_node.host.entries import Entries
from cni_node.host.exempt import Exempt, IntervalChange
from cni_node.host.exemptions import Exemptions
from cni_node.host.links import Device, Links, Local
from cni_node.host.overlay import Underlay
from cni_node.host.peer_routes import Difference, Entry, Place, Wanted, entries_to
from cni_node.host.same import differing
from cni_node.repair.command import repair
from cni_node.results import DIRECTORY as RESULTS
from cni_node.settings import Settings
from cni_node.snapshot import Node, Snapshot
from cni_protocol.address import CIDR, IP

SYSCTLS, LOCAL, ROUTES, EXEMPT, RULES = "sysctls", "local", "routes", "exempt", "rules"
STAGES = (SYSCTLS, LOCAL, ROUTES, EXEMPT, RULES)


class Done(NamedTuple):
    """What a stage did: its name, and its changes in words."""

    stage: str
    what: list[str]


class Keeper:
    """The kernel's state of this node, in the network namespace that the process is in."""

    def __init__(self, settings: Settings) -> None:
        """Open sockets; changes nothing. Raises KernelError."""
        self._settings = settings
        self.links, self.entries, self.exemptions = Links(), Entries(), Exemptions()
        self.place = Place()
        self.mtu = settings.mtu  # of the pods' interfaces, in bytes, 0 for the plugin's choice
        self.underlay: Underlay | None = None
        self.former: list[CIDR] = []  # gateway addresses that this process has taken away
        self.interfaces: frozenset[int] = frozenset()  # indexes of the interfaces by which our routes leave
        self.problems: dict[str, list[str]] = {}  # by stage
        self.unsettled: set[str] = set(STAGES)  # stages to be tried again
        self._mac = ""  # the bridge's MAC, for a new bridge if someone removes this one
        self._peers: tuple[Node, ...] = ()
        self._wanted = Wanted()
        self._refused: dict[Entry, str] = {}
        self._unreachable: dict[Node, list[str]] = {}
        self._exempt = Exempt()
        self._former_overlays = [device.name for device in self.links.list_all() if device.alias in overlay.ALIASES]

    @property
    def routes(self) -> int:
        """How many routes to peers should be there."""
        return self._wanted.routes

    @property
    def missing(self) -> int:
        """How many entries the kernel refused."""
        return len(self._refused)

    @property
    def exempted(self) -> int:
        """How many networks are not masqueraded towards."""
        return len(self._exempt)

    @property
    def ports(self) -> frozenset[int]:
        """The addresses of our netlink sockets. The kernel's notifications name them as the origin of our changes."""
        return frozenset({self.links.port, self.entries.port, self.exemptions.port})

    @property
    def wanted(self) -> Wanted:
        """The entries that should lead to the peers. For any thread."""
        return self._wanted

    def close(self) -> None:
        """Close the sockets."""
        for part in (self.links, self.entries, self.exemptions):
            part.close()

    def settle(self, snapshot: Snapshot, stages: Collection[str]) -> list[Done]:
        """Run stages: compare the kernel with the snapshot, and repair. Returns what was done.

        For stages that are not in `stages`, only the difference to the last snapshot is applied. A stage that fails is
        noted in `problems` and `unsettled`, and the next ones run nevertheless.
        """
        due = set(stages)
        done = []
        if SYSCTLS in due:
            done.append(self._run(SYSCTLS, lambda: self._settle_sysctls(snapshot)))
        if LOCAL in due:
            before = self.place
            done.append(self._run(LOCAL, lambda: self._settle_local(snapshot)))
            # when a device goes down, the kernel drops its routes without announcing each
            due |= {ROUTES} if self.place != before or done[-1].what else set()
        gone, come = self._take_peers(snapshot.peers)
        if gone or come:
            self.problems["mtu"] = self._compare_mtu(snapshot.peers)
        if ROUTES in due:
            done.append(self._run(ROUTES, self._settle_all_routes))
        elif gone or come:
            done.append(self._run(ROUTES, lambda: self._change_routes(gone, come)))
        change = self._exempt.change(gone, come) if gone or come else None
        if EXEMPT in due:
            done.append(self._run(EXEMPT, self._settle_all_exempt))
        elif change:
            done.append(self._run(EXEMPT, lambda: self._change_exempt(change)))
        if RULES in due:
            done.append(self._run(RULES, self._settle_rules))
        return [entry for entry in done if entry.what]

    def _run(self, stage: str, work: Callable[[], list[str]]) -> Done:
        self.unsettled.discard(stage)
        try:
            return Done(stage, work())
        except KernelError as error:
            self.problems[stage] = [str(error)]
            self.unsettled.add(stage)
            return Done(stage, [])

    def _settle_sysctls(self, snapshot: Snapshot) -> list[str]:
        pods = snapshot.own.pods if snapshot.own else ()
        outcome = sysctls.ensure_sysctls(sysctls.wanted_sysctls(cidr.version for cidr in pods))
        self.problems[SYSCTLS] = outcome.problems
        return outcome.done

    def _settle_rules(self) -> list[str]:
        """Put back the plugin's rules of running pods, if another program has flushed them."""
        findings, self.problems[RULES] = repair(self._settings.root / RESULTS.relative_to("/"), apply=True)
        return [
            f"rules of {finding.attachment.owner} put back: {what}" for finding in findings for what in finding.missing
        ]

    def _settle_local(self, snapshot: Snapshot) -> list[str]:
        """Bridge and overlay; then the Place of this node, which the routes depend on."""
        own = snapshot.own
        addresses = self.links.list_addresses()
        gateways = bridge.gateways_of(own.pods) if own else []
        wanted = self._settings.overlay
        self.underlay = None
        if wanted is not None:
            known = _ways_out(own, snapshot.peers, addresses)
            self.underlay = overlay.find_underlay(self.links, wanted, addresses, known)
        self.mtu = self._settings.mtu or (self.underlay.room if self.underlay else 0)
        done = self._settle_bridge(addresses, gateways) if gateways else []
        device, sources = None, [gateway.ip for gateway in gateways]
        if wanted is not None and self.underlay is not None:
            device, changed = overlay.ensure_overlay(self.links, wanted, self.underlay)
            done += changed + overlay.ensure_sources(self.links, device, addresses, sources)
        self.place = self._place(own, addresses, device, sources)
        self.problems[LOCAL] = []
        return done

    def _settle_bridge(self, addresses: list[Local], gateways: list[CIDR]) -> list[str]:
        device, done = bridge.ensure_bridge(self.links, self.mtu, self._mac)
        self._mac = device.mac
        changed, former = bridge.ensure_gateways(self.links, device, addresses, gateways)
        self.former += former
        return done + changed

    def _place(self, own: Node | None, addresses: list[Local], device: Device | None, sources: list[IP]) -> Place:
        mine = {local.cidr.ip for local in addresses} | set(own.addresses if own else ())
        if device is None or self.underlay is None or self._settings.overlay is None:
            return Place(frozenset(mine))
        out = self.underlay.device
        links = [local.cidr.network for local in addresses if local.device == out and self._settings.overlay.direct]
        version = self.underlay.local.version
        return Place(frozenset(mine), device.ifindex, version, tuple(sources), tuple(sorted(links)))

    def _compare_mtu(self, peers: Iterable[Node]) -> list[str]:
        """A problem if peers have another MTU: packets that are larger than a peer's MTU are lost on the way there."""
        other = [peer for peer in peers if peer.mtu and self.mtu and peer.mtu != self.mtu]
        if not other:
            return []
        named = ", ".join(f"{peer.name} {peer.mtu}" for peer in other[:5])
        return [f"the MTU of pods here is {self.mtu}, and that of {len(other)} peers differs ({named}); set --mtu"]

    def _take_peers(self, peers: tuple[Node, ...]) -> tuple[list[Node], list[Node]]:
        """Take the peers of a new snapshot. Returns the peers that are gone, and those that are new or changed.

        Objects are compared by identity first, which is cheap: a source keeps the objects of unchanged nodes.
        """
        if peers is self._peers:
            return [], []
        former, latter = differing(self._peers, peers)
        before, now = {id(peer) for peer in former}, {id(peer) for peer in latter}
        gone = [peer for peer in former if id(peer) not in now]
        come = [peer for peer in latter if id(peer) not in before]
        if gone and come:  # other objects may say the same
            same = set(gone) & set(come)
            gone, come = ([peer for peer in part if peer not in same] for part in (gone, come))
        self._peers = peers
        return gone, come

    def _change_routes(self, gone: list[Node], come: list[Node]) -> list[str]:
        for peer in gone:
            self._unreachable.pop(peer, None)
        removed = [entry for peer in gone for entry in entries_to(peer, self.place)[0]]
        difference = self._wanted.change(removed, self._entries_to(come))
        for entry in difference.surplus:
            self._refused.pop(entry, None)
        self._refused |= self.entries.apply(difference, self.place.overlay)
        self._judge_routes()
        return _in_words(difference)

    def _settle_all_routes(self) -> list[str]:
        self._unreachable = {}
        wanted = Wanted()
        wanted.change((), self._entries_to(self._peers))
        self._wanted = wanted
        observed = self.entries.observe(self.place.overlay)
        difference = self._wanted.compare(observed.entries)
        self._refused = self.entries.apply(difference, self.place.overlay)
        self.interfaces = observed.interfaces
        if difference.missing:
            self.interfaces = self.entries.observe(0).interfaces
        done = _in_words(difference)
        kept = self._settings.overlay.name if self._settings.overlay and self.place.overlay else ""
        done += overlay.delete_former(self.links, [name for name in self._former_overlays if name != kept])
        self._former_overlays = []
        self._judge_routes()
        return done

    def _judge_routes(self) -> None:
        told = [sentence for sentences in self._unreachable.values() for sentence in sentences]
        self.problems[ROUTES] = told + list(self._refused.values())
        if self._refused:
            self.unsettled.add(ROUTES)

    def _entries_to(self, peers: Iterable[Node]) -> list[Entry]:
        found = []
        for peer in peers:
            entries, problems = entries_to(peer, self.place)
            found += entries
            if problems:
                self._unreachable[peer] = problems
        return found

    def _settle_all_exempt(self) -> list[str]:
        change = self.exemptions.ensure(self._exempt.intervals)
        self.problems[EXEMPT] = []
        return _changed_in_words(change)

    def _change_exempt(self, change: IntervalChange) -> list[str]:
        self.exemptions.change(change)
        self.problems[EXEMPT] = []
        return _changed_in_words(change)


def _ways_out(own: Node | None, peers: tuple[Node, ...], addresses: Iterable[Local]) -> list[IP]:
    """Addresses by which find_underlay looks for the overlay's interface, in order: IPv4 first if peers have IPv4."""
    versions = (4, 6) if not peers or any(ip.version == 4 for peer in peers for ip in peer.addresses) else (6, 4)
    mine = {local.cidr.ip for local in addresses}
    known = [ip for ip in (own.addresses if own else ()) if ip in mine]
    known += [ip for peer in peers[:1] for ip in peer.addresses if ip not in mine]
    return sorted(known, key=lambda ip: versions.index(ip.version)) + list(overlay.ANYWHERE)


def _in_words(difference: Difference) -> list[str]:
    return [f"{entry} made" for entry in difference.missing] + [f"{entry} removed" for entry in difference.surplus]


def _changed_in_words(change: IntervalChange) -> list[str]:
    counts = ((len(change.missing), "added"), (len(change.surplus), "removed"))
    return [f"{number} exempt intervals {verb}" for number, verb in counts if number]
