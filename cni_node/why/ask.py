"""Answers a question: a packet goes and its answer comes back, by every way that chance or ignorance leaves open. Pure.

Must not: read anything; a stack that was not read yet is asked for (NeededError).
"""

from cni_node.why.names import End
from cni_node.why.packets import Packet
from cni_node.why.routing import find_route, select_source
from cni_node.why.values import (
    NODE,
    PASSES,
    STOPPED,
    UNKNOWN,
    Answer,
    Question,
    StopError,
    UnclearError,
    World,
)
from cni_node.why.walk import Arrival, Walk
from cni_protocol.address import IP

_SOURCE_PORT = 40000
_MOST = 64  # ways that are tried


class _Choices:
    """What is open, decided as it was said beforehand; beyond that the first way is taken."""

    def __init__(self, given: tuple[int, ...]) -> None:
        self.given = given
        self.made: list[tuple[int, int, str]] = []  # which, of how many, why

    def __call__(self, count: int, why: str) -> int:
        place = len(self.made)
        chosen = self.given[place] if place < len(self.given) else 0
        self.made.append((chosen, count, why))
        return chosen


def answer(world: World, source: End, destination: End, question: Question) -> Answer:
    """What becomes of it. Raises NeededError."""
    waiting: list[tuple[int, ...]] = [()]
    found: list[tuple[Answer, _Choices]] = []
    while waiting:
        choices = _Choices(waiting.pop())
        found.append((_one(world, source, destination, _Asked(question, choices)), choices))
        made = [chosen for chosen, _, _ in choices.made]
        for place in range(len(choices.given), len(made)):
            waiting += [(*made[:place], other) for other in range(1, choices.made[place][1])]
        if len(found) > _MOST:
            return found[0][0]._replace(status=UNKNOWN, reason="too many rules cannot be followed")
    return _together(found)


class _Asked:
    """A question with one way through what is open."""

    def __init__(self, question: Question, choices: _Choices) -> None:
        self.question, self.choices = question, choices


def _together(found: list[tuple[Answer, _Choices]]) -> Answer:
    """One answer from those of all ways."""
    first = found[0][0]
    if len({one.status for one, _ in found}) == 1:
        return first
    obscure = [why for _, choices in found for _, _, why in choices.made if "cannot be followed" in why]
    if obscure:
        return first._replace(status=UNKNOWN, reason=obscure[0], where="", kind="unknown-rule")
    worst = next(one for one, _ in found if one.status != PASSES)
    return worst._replace(notes=(*worst.notes, f"{len(found)} ways are taken by chance, and not all of them pass"))


def _one(world: World, source: End, destination: End, asked: _Asked) -> Answer:
    walk = Walk(world, asked.choices)
    try:
        _walk(world, walk, (source, destination), asked.question)
        status, stop = PASSES, StopError("", "", "")
    except StopError as stopped:
        status, stop = STOPPED, stopped
    except UnclearError as unclear:
        status, stop = UNKNOWN, StopError("unknown", "", str(unclear))
    blind = [text for stack in world.stacks.values() for text in stack.unreadable]
    if blind and status == PASSES:
        status, stop = UNKNOWN, StopError("unreadable", "", blind[0])
    seen = [f"{what}, which is not followed" for what in walk.programs]
    if seen and status == PASSES:
        status, stop = UNKNOWN, StopError("program", "", f"{seen[0]}: it may drop packets or lead them elsewhere")
    walk.notes |= dict.fromkeys(seen)
    judged = walk.judged
    asked_of = (judged.source, judged.destination, judged.protocol, judged.port) if judged is not None else None
    return Answer(status, tuple(walk.steps), stop.reason, stop.where, stop.kind, tuple(walk.notes), asked_of)


def _walk(world: World, walk: Walk, ends: tuple[End, End], question: Question) -> None:
    """There and back. Raises StopError, UnclearError, NeededError."""
    source, destination = ends
    target = _pick(destination, source)
    if source.owner is None and target in source.addresses:
        raise UnclearError(f"{target} is beyond this node, and asks itself")
    first = _first_packet(walk, source, target, question)
    there = _travel(world, walk, source, first)
    if there.owner is None:
        walk.notes["what is beyond this node is not seen from here"] = None
    walk.turn_round()
    back = there.packet.back()
    home = walk.send(walk.stack(there.owner), back) if there.owner is not None else walk.come_in(there.link, back)
    if home.owner != source.owner:
        raise StopError("answer", "", f"the answer goes to {_whose(world, home)}, which did not ask")
    if home.packet.ends != first.back().ends:
        what = f"the answer comes from {home.packet.source}, and {target} was asked"
        raise StopError("answer", "", what)


def _whose(world: World, home: Arrival) -> str:
    return world.stacks[home.owner].name if home.owner is not None else "beyond the node"


def _pick(destination: End, source: End) -> IP:
    """The address that is asked for: of a family that both have, IPv4 first."""
    versions = {ip.version for ip in source.addresses} or {4, 6}
    fitting = sorted((ip for ip in destination.addresses if ip.version in versions), key=lambda ip: ip.version)
    if not fitting:
        raise StopError("no-address", "", f"{source.name} has no address of the family of {destination.name}")
    return fitting[0]


def _first_packet(walk: Walk, source: End, target: IP, question: Question) -> Packet:
    own = [ip for ip in source.addresses if ip.version == target.version]
    address = own[0] if own else None
    if source.owner is not None and source.picks:
        stack = walk.stack(source.owner)
        route = find_route(stack, target)
        chosen = None if route.refuses else select_source(stack, route, target)
        address = chosen or address
    if address is None:
        raise StopError("no-address", "", f"{source.name} has no address that {target} could answer to")
    protocol = question.protocol
    if protocol == 1 and target.version == 6:
        protocol = 58  # IPPROTO_ICMPV6
    ports = (_SOURCE_PORT, question.port or _SOURCE_PORT)
    return Packet(address, target, protocol, *ports)


def _travel(world: World, walk: Walk, source: End, packet: Packet) -> Arrival:
    if source.owner is not None:
        return walk.send(walk.stack(source.owner), packet)
    node = world.stacks[NODE]
    route = find_route(node, packet.source)
    link = None if route.refuses else node.at(route.ifindex)
    if link is None or route.local:
        raise StopError("no-route", "node", f"no route of the node leads to {packet.source}, so it gets no answer")
    return walk.come_in(link.name, packet)
