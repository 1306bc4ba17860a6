"""A packet at a hook of a stack: connection tracking, all chains in their order, translation. Pure.

Source: net/netfilter/core.c, nf_nat_core.c; https://wiki.nftables.org/wiki-nftables/index.php/Netfilter_hooks
Must not: know routes.
"""

from collections.abc import Callable

from cni_node.why.machine import Choose, Machine, Scene, is_echo
from cni_node.why.packets import Packet
from cni_node.why.routing import select_address, whose
from cni_node.why.rules import Ended, Run, Translation
from cni_node.why.tracking import Attached, Connection, side_of
from cni_node.why.values import ACCEPT, HOOKS, INPUT, OUTPUT, PREROUTING, BaseChain, Stack, StopError

_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
_TRACK = -200  # NF_IP_PRI_CONNTRACK
_TRANSLATE = {PREROUTING: -100, OUTPUT: -100, INPUT: 100}
_AT_LEAVING = 100
POLICIES = "pycni_policy"  # the table of network policies
Say = Callable[[str, str], None]


class Hooks:
    """The packet filters of all stacks on the way of a packet, and of the answer to it."""

    def __init__(self, choose: Choose, say: Say) -> None:
        self._choose, self._say = choose, say
        self._connections: dict[str, Connection] = {}
        self._attached: dict[str, Attached] = {}
        self.judged: Packet | None = None  # as it came to the policies

    def turn_round(self) -> None:
        """The answer comes: what passed the stacks is known to them now."""
        self._connections = {owner: attached.connection for owner, attached in self._attached.items()}
        self._attached = {}

    def frame(self, hook: int, packet: Packet, scene: Scene) -> None:
        """A frame on a bridge. Raises StopError."""
        for base in _chains(scene.stack, hook, ("bridge",)):
            machine = Machine(scene, packet, Attached(packet, None), self._choose)
            self._judge(Run(machine).chain(base.key), base, scene)

    def untracked(self, hook: int, packet: Packet, scene: Scene) -> None:
        """A packet that connection tracking leaves alone. Raises StopError."""
        for base in _chains(scene.stack, hook, _FAMILIES[packet.version]):
            if base.kind != "nat":
                machine = Machine(scene, packet, Attached(packet, None, tracked=False), self._choose)
                self._judge(Run(machine).chain(base.key), base, scene)

    def packet(self, hook: int, packet: Packet, scene: Scene) -> Packet:
        """The packet as it comes out of a hook. Raises StopError."""
        chains = _chains(scene.stack, hook, _FAMILIES[packet.version])
        attached = self._attached.get(scene.stack.owner)
        translated = False
        for base in chains:
            if attached is None and base.priority >= _TRACK:
                attached = self._track(packet, scene)
            if not translated and base.priority >= _TRANSLATE.get(hook, _AT_LEAVING):
                packet, translated = self._back(packet, hook, scene), True
            packet = self._chain(base, packet, scene, attached or Attached(packet, None))
        attached = attached or self._track(packet, scene)
        packet = packet if translated else self._back(packet, hook, scene)
        if attached.fresh and (side := side_of(hook)):
            attached.connection.decided[side] = True
        return packet

    def _track(self, packet: Packet, scene: Scene) -> Attached:
        attached = Attached(packet, self._connections.get(scene.stack.owner))
        self._attached[scene.stack.owner] = attached
        return attached

    def _back(self, packet: Packet, hook: int, scene: Scene) -> Packet:
        """Answers are translated back."""
        after = self._attached[scene.stack.owner].untranslate(packet, hook)
        if after != packet:
            what = f"translated back: {_ends(packet)} becomes {_ends(after)}"
            self._say(f"{whose(scene.stack)} {HOOKS[hook]}", what)
        return after

    def _chain(self, base: BaseChain, packet: Packet, scene: Scene, attached: Attached) -> Packet:
        side = side_of(base.hook)
        if base.kind == "nat" and (not attached.fresh or not attached.valid or attached.connection.decided[side]):
            return packet
        if base.key[1] == POLICIES and attached.fresh:
            self.judged = packet
        machine = Machine(scene, packet, attached, self._choose)
        run = Run(machine)
        ended = run.chain(base.key)
        packet = machine.packet
        if base.kind == "nat" and run.translation is not None:
            return self._translated(run.translation, packet, scene, attached)
        self._judge(ended, base, scene)
        return packet

    def _judge(self, ended: Ended | None, base: BaseChain, scene: Scene) -> None:
        """Raise StopError for a verdict that is none of acceptance."""
        where = " ".join(base.key)
        at = f"{whose(scene.stack)} {HOOKS[base.hook]}"
        if ended is not None and ended.code != ACCEPT:
            what = "rejects it" if ended.rejects else "drops it"
            through = f" (through {', '.join(ended.trail)})" if ended.trail else ""
            kind = "policy" if base.key[1] == POLICIES else "spoofing" if base.key[0] == "bridge" else "filter"
            raise StopError(kind, at, f"{ended.where} {what}{through}")
        if ended is None and base.drops:
            raise StopError("filter", at, f"{where} has the policy drop, and none of its rules accepts it")

    def _translated(self, found: Translation, packet: Packet, scene: Scene, attached: Attached) -> Packet:
        connection, side = attached.connection, "source" if found.source else "destination"
        if connection.decided[side]:
            return packet
        connection.decided[side] = True
        if found.source:
            address = found.address or select_address(scene.stack, scene.outgoing, packet)
            if address is None:
                raise StopError("masquerade", found.where, f"{scene.outgoing} has no address to masquerade with")
            after = packet._replace(source=address)
            connection.translate_source(packet, address)
            how = "masqueraded" if found.address is None else "source translated"
        else:
            after = packet._replace(destination=found.address or packet.destination, port=found.port or packet.port)
            if is_echo(packet.protocol):
                after = after._replace(port=packet.port)
            connection.translate_destination(packet, after)
            how = "destination translated"
        self._say(f"{whose(scene.stack)} {HOOKS[_hook_of(found, scene)]}", f"{how}: {_ends(after)} ({found.where})")
        return after


def _hook_of(found: Translation, scene: Scene) -> int:
    if found.source:
        return 4 if scene.outgoing else INPUT
    return PREROUTING if scene.incoming else OUTPUT


def _chains(stack: Stack, hook: int, families: tuple[str, ...]) -> list[BaseChain]:
    return sorted(
        (base for base in stack.filter.bases if base.hook == hook and base.key[0] in families),
        key=lambda base: base.priority,
    )


def _ends(packet: Packet) -> str:
    if is_echo(packet.protocol):
        return f"{packet.source} to {packet.destination}"
    return f"{_end(packet.source, packet.source_port)} to {_end(packet.destination, packet.port)}"


def _end(address: object, port: int) -> str:
    text = f"[{address}]" if ":" in str(address) else str(address)
    return f"{text}:{port}" if port else text
