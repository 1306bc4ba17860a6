"""pycni why against real packets: on hosts by chance, with faults by chance, what it says happens."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.cni_node.why.hosts import FAULTS, HOST_PORT, NODE, OUTSIDE, SERVICES, WhyHost
from tests.cni_node.why.packets import Asked, Listeners
from tests.kit.host import Host

pytestmark = pytest.mark.kernel
HOSTS, QUESTIONS = 9, 20  # 540 cases: each host is asked three times
FAULTS_MORE = (0, 1, 2)  # before each of these times


def question(host: WhyHost, listeners: Listeners) -> Asked:
    """Two ends by chance."""
    chance = host.chance
    version = chance.choice((4, 4, 4, 6))
    pods = [addresses[version == 6] for addresses in host.addresses.values()]
    node, outside = NODE[version == 6], OUTSIDE[version == 6]
    source = chance.choice([*pods, *pods, *pods, node, outside])
    service = chance.choice(["icmp", "80/tcp", "80/tcp", "53/udp"])
    destination = chance.choice([*pods, *pods, node, *({outside} - {source})])
    if version == 4 and chance.random() < 0.25:
        destination, service = chance.choice(SERVICES), "80/tcp"
    elif chance.random() < 0.2:
        destination, service = node, f"{HOST_PORT}/tcp"
    return Asked(source, listeners.places[source], destination, service)


def judge(host: WhyHost, listeners: Listeners, faults: list[str]) -> list[str]:
    """Ask, send, and compare. Returns where the two differ."""
    host.forget()
    asked = [question(host, listeners) for _ in range(QUESTIONS)]
    answers = host.ask([(each.source, each.destination, each.service) for each in asked])
    passing = {number for number, (status, _) in enumerate(answers) if status == 0}
    answered = listeners.answered(asked, passing)
    return [
        f"{faults}: {each} {'has' if number in answered else 'has no'} answer, but {_text_of(document)}"
        for number, (each, (status, document)) in enumerate(zip(asked, answers, strict=True))
        if (status == 2 or (status == 0) != (number in answered)) and not _by_chance(document)
    ]


def _text_of(document: Any) -> str:
    steps = [f"  {step['where']}: {step['what']}{' (back)' if step['back'] else ''}" for step in document["steps"]]
    return "\n".join([f"{document['verdict']}: {document['reason']}", *steps])


def _by_chance(document: Any) -> bool:
    """Whether some of the ways that are taken by chance pass, and some do not."""
    return any("by chance" in note for note in document["notes"])


@pytest.mark.parametrize("seed", range(HOSTS))
def test_what_is_said_to_pass_passes_and_nothing_else(seed: int, new_host: Callable[[], Host], bin_dir: str) -> None:
    host = WhyHost(new_host(), bin_dir, random.Random(seed))
    listeners = Listeners(host)
    faults: list[str] = []
    try:
        for more in FAULTS_MORE:
            for fault in host.chance.sample(sorted(FAULTS.keys() - set(faults)), more):
                FAULTS[fault](host)
                faults.append(fault)
            differing = judge(host, listeners, faults)
            assert not differing, "\n".join(differing)
    finally:
        listeners.close()
        host.close()
