"""Parses policies from the API's JSON to the values of model.py. Pure.

Missing, null and empty are the same, as in Go. An invalid or unknown part allows nothing, and is a problem: the API
server does not check everything, and a newer version may have fields that this one does not know.
Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
Must not: raise for an invalid part of a policy; it allows nothing, and the pods stay isolated.
"""

from collections.abc import Iterable
from typing import Any

from cni_node.policy.model import (
    DOES_NOT_EXIST,
    EGRESS,
    EXISTS,
    IN,
    INGRESS,
    LAST_PORT,
    NOT_IN,
    PROTOCOLS,
    Block,
    Labels,
    Peer,
    PodPeer,
    Policy,
    Port,
    PortName,
    PortRange,
    Requirement,
    Rule,
    Selector,
)
from cni_protocol.address import CIDR, parse_cidr

_PEERS_KEY = {INGRESS: "from", EGRESS: "to"}
_TYPES = {"Ingress": INGRESS, "Egress": EGRESS}
_SHOWN = 60  # characters of what was found


def parse_policy(item: Any) -> Policy:
    """A NetworkPolicy object. Raises ValueError for one that has no name and namespace."""
    namespace, name = parse_name(item)
    reader = _Reader(f"policy {namespace}/{name}", namespace)
    return reader.policy(name, item.get("spec"))


def parse_name(item: Any) -> tuple[str, str]:
    """The namespace and the name of an object; of a namespace "" and its name. Raises ValueError."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    namespace = metadata.get("namespace") or "" if isinstance(metadata, dict) else ""
    if not isinstance(name, str) or not name or not isinstance(namespace, str):
        raise ValueError(f"an object of the API without a name: {_shown(item)}")
    return namespace, name


def parse_labels(found: Any) -> Labels:
    """Labels from a JSON object. Raises ValueError."""
    labels = _object(found)
    for key, value in labels.items():
        if not isinstance(value, str):
            raise ValueError(f"the label {key!r} is {_shown(value)}, not a text")
    return frozenset(labels.items())


def parse_selector(found: Any) -> Selector:
    """A LabelSelector. Raises ValueError."""
    selector = _object(found)
    _refuse_unknown(selector, "matchLabels", "matchExpressions")
    requirements = [_parse_requirement(each) for each in _list(selector.get("matchExpressions"))]
    return Selector(parse_labels(selector.get("matchLabels")), tuple(requirements))


class _Reader:
    """Reads one policy, and notes what it cannot read."""

    def __init__(self, subject: str, namespace: str) -> None:
        self._subject, self._namespace = subject, namespace
        self._problems: list[str] = []

    def policy(self, name: str, found: Any) -> Policy:
        try:
            spec = _object(found)
            _refuse_unknown(spec, "podSelector", "policyTypes", "ingress", "egress")
            selector = parse_selector(spec.get("podSelector"))
        except ValueError as error:
            self._note("spec", error, "all pods of the namespace are isolated")
            return Policy(self._namespace, name, Selector(), (), (), tuple(self._problems))
        directions = self._directions(spec)
        ingress, egress = (
            self._rules(direction, spec.get(direction)) if direction in directions else None
            for direction in (INGRESS, EGRESS)
        )
        return Policy(self._namespace, name, selector, ingress, egress, tuple(self._problems))

    def _directions(self, spec: dict[str, Any]) -> set[str]:
        try:
            types = _list(spec.get("policyTypes"))
            if not types:
                return {INGRESS, EGRESS} if _is_given(spec.get(EGRESS)) else {INGRESS}
            unknown = [each for each in types if not isinstance(each, str) or each not in _TYPES]
            if unknown:
                raise ValueError(f"{_shown(unknown[0])} is none of {', '.join(_TYPES)}")
            return {_TYPES[each] for each in types}
        except ValueError as error:
            self._note("spec.policyTypes", error, "its pods are isolated in both directions")
            return {INGRESS, EGRESS}

    def _rules(self, direction: str, found: Any) -> tuple[Rule, ...]:
        rules = []
        for place, entry in self._entries(direction, found):
            try:
                rule = _object(entry)
                _refuse_unknown(rule, "ports", _PEERS_KEY[direction])
            except ValueError as error:
                self._note(place, error, "this rule lets nothing through")
                continue
            peers, ports = rule.get(_PEERS_KEY[direction]), rule.get("ports")
            rules.append(
                Rule(
                    place,
                    self._parsed(f"{place}.{_PEERS_KEY[direction]}", peers, self._peer) if _is_given(peers) else None,
                    self._parsed(f"{place}.ports", ports, _parse_port) if _is_given(ports) else None,
                )
            )
        return tuple(rules)

    def _parsed(self, place: str, found: Any, parse: Any) -> tuple[Any, ...]:
        """The valid entries of a list; notes a problem for each of the others."""
        parsed = []
        for where, entry in self._entries(place, found):
            try:
                parsed.append(parse(entry))
            except ValueError as error:
                self._note(where, error, "this entry matches nothing")
        return tuple(dict.fromkeys(parsed))

    def _entries(self, place: str, found: Any) -> Iterable[tuple[str, Any]]:
        try:
            return [(f"{place}[{i}]", entry) for i, entry in enumerate(_list(found))]
        except ValueError as error:
            self._note(place, error, "it lets nothing through")
            return []

    def _peer(self, found: Any) -> Peer:
        peer = _object(found)
        _refuse_unknown(peer, "podSelector", "namespaceSelector", "ipBlock")
        given = {key for key, value in peer.items() if value is not None}
        if not given:
            raise ValueError("none of podSelector, namespaceSelector and ipBlock is given")
        if "ipBlock" in given:
            if len(given) > 1:
                raise ValueError("ipBlock stands beside a selector")
            return _parse_block(peer["ipBlock"])
        namespaces = parse_selector(peer["namespaceSelector"]) if "namespaceSelector" in given else self._namespace
        return PodPeer(parse_selector(peer.get("podSelector")), namespaces)

    def _note(self, place: str, error: ValueError, consequence: str) -> None:
        self._problems.append(f"{self._subject}: {place}: {error}; {consequence}")


def _parse_requirement(found: Any) -> Requirement:
    entry = _object(found)
    _refuse_unknown(entry, "key", "operator", "values")
    key, operator, values = entry.get("key"), entry.get("operator"), _list(entry.get("values"))
    if not isinstance(key, str) or not key:
        raise ValueError(f"the key {_shown(key)} of a match expression is no label's name")
    if not isinstance(operator, str) or operator not in (IN, NOT_IN, EXISTS, DOES_NOT_EXIST):
        raise ValueError(f"the operator {_shown(operator)} is none of In, NotIn, Exists, DoesNotExist")
    if bool(values) != (operator in (IN, NOT_IN)) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"the operator {operator} does not go with the values {_shown(values)}")
    return Requirement(key, operator, tuple(sorted(set(values))))


def _parse_block(found: Any) -> Block:
    block = _object(found)
    _refuse_unknown(block, "cidr", "except")
    return Block(_parse_network(block.get("cidr")), tuple(map(_parse_network, _list(block.get("except")))))


def _parse_network(found: Any) -> CIDR:
    if not isinstance(found, str):
        raise ValueError(f"{_shown(found)} is no network, as 10.0.0.0/8 is one")
    return parse_cidr(found).network


def _parse_port(found: Any) -> Port:
    entry = _object(found)
    _refuse_unknown(entry, "protocol", "port", "endPort")
    protocol, port, end = entry.get("protocol"), entry.get("port"), entry.get("endPort")
    protocol = "TCP" if protocol in (None, "") else protocol
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise ValueError(f"the protocol {_shown(protocol)} is none of {', '.join(PROTOCOLS)}")
    if end is not None and not _is_port(port):
        raise ValueError(f"endPort needs a port that is a number, and that is {_shown(port)}")
    if port is None:
        return PortRange(protocol)
    if isinstance(port, str) and port and not port.isdigit():
        return PortName(protocol, port)
    if not _is_port(port):
        raise ValueError(f"the port {_shown(port)} is neither a number from 1 to {LAST_PORT} nor a name")
    last = port if end is None else end
    if not _is_port(last) or last < port:
        raise ValueError(f"endPort {_shown(end)} is no port from {port} on")
    return PortRange(protocol, port, last)


def _is_port(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= LAST_PORT


def _is_given(found: Any) -> bool:
    """Whether a list is there and not empty. True also for a value that is no list, which then allows nothing."""
    return found is not None and found != []


def _object(found: Any) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{_shown(found)} stands where an object is expected")
    return found


def _list(found: Any) -> list[Any]:
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError(f"{_shown(found)} stands where a list is expected")
    return found


def _refuse_unknown(found: dict[str, Any], *known: str) -> None:
    """Raise ValueError for unknown keys, since they may restrict what is allowed."""
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise ValueError(f"the key {unknown[0]!r} is not known, only {', '.join(known)}")


def _shown(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
