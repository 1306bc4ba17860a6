"""Runs a packet through the rules of a chain, as the kernel does. Pure.

Source: net/netfilter/nf_tables_core.c; nft(8).
Must not: know hooks, or what a verdict leads to.
"""

from typing import NamedTuple

from cni_node.why import extensions
from cni_node.why.machine import Machine, Outcome
from cni_node.why.values import DROP, Attributes, ChainKey, Expression, Rule, UnclearError
from cni_protocol.address import IP

_BREAK, _JUMP, _GOTO, _RETURN, _CONTINUE = -2, -3, -4, -5, -1  # NFT_*
_QUEUE, _DEPTH = 3, 16
_PASSED_OVER = {"counter", "log", "quota", "dynset", "last", "flow_offload", "connlimit"}
_SNAT = 0  # NFT_NAT_SNAT


class Translation(NamedTuple):
    """What a rule does to an end; without an address it is that of the interface, 0 for the port that it has."""

    address: IP | None
    port: int
    source: bool
    where: str


class Ended(NamedTuple):
    """A verdict: its code, the rule that says so, and the chains that led there."""

    code: int
    where: str
    trail: tuple[str, ...] = ()
    rejects: bool = False


class Run:
    """A packet in a base chain."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.translation: Translation | None = None

    def chain(self, key: ChainKey, trail: tuple[str, ...] = ()) -> Ended | None:
        """Go through a chain. None where the packet comes to its end. Raises UnclearError."""
        if len(trail) > _DEPTH:
            raise UnclearError(f"{' '.join(key)} leads to itself")
        for rule in self._machine.scene.stack.filter.chains.get(key, ()):
            place = f"{' '.join(key)} rule {rule.number}"
            code, target = self._rule(rule, key, place)
            if code == _RETURN:
                return None
            if code in (_JUMP, _GOTO):
                ended = self.chain((key[0], key[1], target), (*trail, target))
                if ended is not None or code == _GOTO:
                    return ended
            elif code == _QUEUE:
                raise UnclearError(f"{place} hands packets to a program")
            elif code is not None and code >= 0:
                rejects = any(
                    one.name == "reject" or (one.values or {}).get("NAME") == "REJECT" for one in rule.expressions
                )
                return Ended(code, place, trail, rejects)
        return None

    def _rule(self, rule: Rule, key: ChainKey, place: str) -> tuple[int | None, str]:
        """The verdict of a rule with its chain; None where the packet goes on."""
        for expression in rule.expressions:
            outcome = self._expression(expression, key, place)
            if outcome is None:
                outcome = bool(self._machine.choose(2, f"{place} cannot be followed ({_name(expression)})"))
            if outcome is False:
                return None, ""
            if outcome is not True:
                return (None, "") if outcome[0] in (_CONTINUE, _BREAK) else outcome
        return None, ""

    def _expression(self, expression: Expression, key: ChainKey, place: str) -> Outcome:
        name, values = expression
        if values is None:
            return None
        if name == "reject":
            return DROP, ""
        if name == "match":
            return extensions.match(values["NAME"], values["INFO"], self._machine)
        if name == "target":
            return self._target(values, place)
        if name in ("nat", "masq", "redir"):
            return self._translate(name, values, place)
        if name == "limit":
            return not values.get("FLAGS", 0) & 1  # what is asked about is below it
        return True if name in _PASSED_OVER else self._machine.run(name, values, key)

    def _target(self, values: Attributes, place: str) -> Outcome:
        found = extensions.target(values["NAME"], values["REV"], values["INFO"], self._machine)
        if isinstance(found, tuple) and len(found) == 3:
            self.translation = Translation(*found, place)
            return 1, ""
        return found

    def _translate(self, name: str, values: Attributes, place: str) -> Outcome:
        packet, size = self._machine.packet, self._machine.packet.source.bits // 8
        address, port = None, 0
        if "ADDR" in values:
            data = self._machine.load(values["ADDR"], size)
            if data != self._machine.load(values.get("ADDR_MAX") or values["ADDR"], size):
                return None
            address = IP(packet.version, int.from_bytes(data, "big"))
        if "PROTO" in values:
            port = int.from_bytes(self._machine.load(values["PROTO"], 2), "big")
        if name == "redir":
            address = self._machine.redirected()
        source = name == "masq" or (name == "nat" and values.get("TYPE", 0) == _SNAT)
        self.translation = Translation(address, port, source, place)
        return 1, ""


def _name(expression: Expression) -> str:
    values = expression.values or {}
    return str(values.get("NAME") or expression.name)
