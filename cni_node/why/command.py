"""`pycni why A B [80/tcp]`: the way from one to another through this node, what changes the packet, what stops it.

Must not: change anything on the node.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

from cni_kernel.errors import KernelError
from cni_node.agent.status import fetch
from cni_node.inspect.reading import Places
from cni_node.inspect.store import DIRECTORY as STORE
from cni_node.results import DIRECTORY as RESULTS
from cni_node.settings import SOCKET
from cni_node.why.ask import answer
from cni_node.why.names import End, find_end, parse_service
from cni_node.why.reading import Node
from cni_node.why.values import (
    PASSES,
    PROTOCOL_NAMES,
    STOPPED,
    UNKNOWN,
    Answer,
    NeededError,
    Question,
    StopError,
)

_WORDS = {PASSES: "passes", STOPPED: "stopped", UNKNOWN: "cannot tell"}
_END = "a pod (NAMESPACE/NAME), container id, service, node or address"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("source", metavar="A", help=f"who asks: {_END}")
    parser.add_argument("destination", metavar="B", help="who is asked: the same")
    parser.add_argument("service", metavar="PORT/PROTOCOL", nargs="?", default="icmp", help="80/tcp, 53/udp [icmp]")
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=RESULTS, help=f"what the runtime remembers [{RESULTS}]"
    )
    parser.add_argument("--socket", metavar="FILE", type=Path, default=SOCKET, help=f"of the agent [{SOCKET}]")


def run(options: argparse.Namespace) -> int:
    """Show the way. Returns 0 for one that passes, 1 for one that is stopped, 2 where that cannot be told."""
    node = Node(Places(options.results, STORE))
    try:
        question = Question(options.source, options.destination, *parse_service(options.service))
        ends = find_end(question.source, node.world), find_end(question.destination, node.world)
    except ValueError as error:
        for text in node.world.unreadable:
            print(f"pycni: {text}", file=sys.stderr)
        print(f"pycni: {error}", file=sys.stderr)
        return UNKNOWN
    found = explain(ask(node, ends, question), options.socket)
    if options.json:
        print(json.dumps(to_document(found, ends, question), indent=2))
    else:
        for line in render(found, ends, question):
            print(line)
    return found.status


def ask(node: Node, ends: tuple[End, End], question: Question) -> Answer:
    """The answer; what it depends on is read on the way."""
    while True:
        try:
            return answer(node.world, *ends, question)
        except NeededError as needed:
            try:
                node.read(needed.owner)
            except StopError as stopped:
                return Answer(STOPPED, (), stopped.reason, stopped.where, stopped.kind)
            except (KernelError, OSError) as error:
                return Answer(UNKNOWN, (), f"the pod of {needed.owner} cannot be read: {error}", "", "unreadable")


def explain(found: Answer, socket: Path) -> Answer:
    """The answer with the names of policies, which the agent knows, where policies were asked."""
    if found.judged is None:
        return found
    source, destination, protocol, port = found.judged
    name = PROTOCOL_NAMES[protocol].upper()
    query = urlencode({"source": source, "destination": destination, "protocol": name, "port": port})
    try:
        verdict = json.loads(fetch(socket, f"/policy?{query}"))
        said = [_of_policy(end, verdict[end]) for end in ("egress", "ingress") if verdict[end]]
    except (OSError, ValueError, LookupError, TypeError):
        if found.kind != "policy":
            return found
        said = ["which policy that is only the agent knows, and it does not answer"]
    return found._replace(notes=(*found.notes, *said))


def _of_policy(direction: str, judgement: Mapping[str, str]) -> str:
    if judgement["allowed"]:
        rule = f"{judgement['policy']} {judgement['rule']} allows it" if judgement["policy"] else judgement["reason"]
        return f"{direction}: {rule}"
    return f"{direction}: {judgement['reason']} ({judgement['policy']})"


def to_document(found: Answer, ends: tuple[End, End], question: Question) -> dict[str, object]:
    """The answer as JSON has it."""
    return {
        "source": _end(ends[0]),
        "destination": _end(ends[1]),
        "protocol": PROTOCOL_NAMES[question.protocol],
        "port": question.port or None,
        "verdict": _WORDS[found.status],
        "kind": found.kind or None,
        "where": found.where or None,
        "reason": found.reason or None,
        "steps": [step._asdict() for step in found.steps],
        "notes": list(found.notes),
    }


def _end(end: End) -> dict[str, object]:
    return {"name": end.name, "addresses": [str(ip) for ip in end.addresses]}


def render(found: Answer, ends: tuple[End, End], question: Question) -> Iterator[str]:
    """The answer as lines of text."""
    asked = PROTOCOL_NAMES[question.protocol]
    yield f"{ends[0].name} -> {ends[1].name} {f'{question.port}/{asked}' if question.port else asked}"
    width = max([len(step.where) for step in found.steps], default=0)
    back = False
    for step in found.steps:
        if step.back and not back:
            back = True
            yield "  and the answer:"
        yield f"  {step.where:<{width}}  {step.what}"
    yield from (f"note: {note}" for note in found.notes)
    reason = f": {found.reason}" if found.reason else ""
    yield f"{_WORDS[found.status]}{f' at {found.where}' if found.where else ''}{reason}"
