"""Answers as text and as JSON, with what the agent says of policies."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from cni_node.why import command
from cni_node.why.command import add_options, explain, render, to_document
from cni_node.why.names import End
from cni_node.why.values import PASSES, STOPPED, Answer, Question, Step
from cni_protocol.address import parse_ip

A, B = parse_ip("10.1.0.2"), parse_ip("10.1.0.3")
ENDS = (End("shop/a", "a", (A,)), End("shop/b", "b", (B,)))
STEPS = (Step("shop/a route", "to cni0"), Step("cni0", "arrives"), Step("shop/b", "answers", back=True))
FOUND = Answer(STOPPED, (*STEPS, Step("end", "is there", back=True)), "it is down", "cni0", "link-down", ("one",))
JUDGED = Answer(STOPPED, (), "a rule drops it", "node", "policy", ("one",), (A, B, 6, 80))


def test_a_way_as_text() -> None:
    assert list(render(FOUND, ENDS, Question("a", "b", 6, 80))) == [
        "shop/a -> shop/b 80/tcp",
        "  shop/a route  to cni0",
        "  cni0          arrives",
        "  and the answer:",
        "  shop/b        answers",
        "  end           is there",
        "note: one",
        "stopped at cni0: it is down",
    ]
    assert list(render(Answer(PASSES, ()), ENDS, Question("a", "b", 1))) == ["shop/a -> shop/b icmp", "passes"]


def test_a_way_for_programs() -> None:
    assert to_document(FOUND._replace(steps=STEPS[2:]), ENDS, Question("a", "b", 6, 80)) == {
        "source": {"name": "shop/a", "addresses": ["10.1.0.2"]},
        "destination": {"name": "shop/b", "addresses": ["10.1.0.3"]},
        "protocol": "tcp",
        "port": 80,
        "verdict": "stopped",
        "kind": "link-down",
        "where": "cni0",
        "reason": "it is down",
        "steps": [{"where": "shop/b", "what": "answers", "back": True}],
        "notes": ["one"],
    }
    bare = to_document(Answer(2, ()), ENDS, Question("a", "b", 17))
    assert [bare[key] for key in ("protocol", "port", "verdict")] == ["udp", None, "cannot tell"]
    assert [bare[key] for key in ("kind", "where", "reason", "notes")] == [None, None, None, []]


def judgement(*, allowed: bool, policy: str = "", rule: str = "", reason: str = "") -> dict[str, Any]:
    return {"allowed": allowed, "policy": policy, "rule": rule, "reason": reason}


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ({"egress": None, "ingress": None}, ()),
        (
            {"egress": judgement(allowed=True, policy="shop/p", rule="rule 1"), "ingress": None},
            ("egress: shop/p rule 1 allows it",),
        ),
        ({"egress": None, "ingress": judgement(allowed=True, reason="none is there")}, ("ingress: none is there",)),
        (
            {"egress": None, "ingress": judgement(allowed=False, policy="shop/p", reason="no rule")},
            ("ingress: no rule (shop/p)",),
        ),
    ],
)
def test_policies_have_names(monkeypatch: pytest.MonkeyPatch, verdict: Any, said: tuple[str, ...]) -> None:
    asked = []

    def fetch(socket: Path, path: str) -> str:
        asked.append((socket, path))
        return json.dumps(verdict)

    monkeypatch.setattr(command, "fetch", fetch)
    assert explain(JUDGED, Path("/s")).notes == ("one", *said)
    assert asked == [(Path("/s"), "/policy?source=10.1.0.2&destination=10.1.0.3&protocol=TCP&port=80")]
    assert explain(FOUND, Path("/s")) == FOUND
    assert len(asked) == 1


@pytest.mark.parametrize("text", ["", "7", "{}", '{"egress": {"policy": "p"}}'])
def test_an_agent_that_does_not_say_it_is_missed_only_where_a_policy_decides(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(command, "fetch", lambda *_: text)
    missing = ("one", "which policy that is only the agent knows, and it does not answer")
    assert explain(JUDGED, Path("/s")).notes == missing
    assert explain(JUDGED._replace(kind="filter"), Path("/s")).notes == ("one",)


def test_options_have_their_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    found = parser.parse_args(["a", "b"])
    assert vars(found) == {
        "source": "a",
        "destination": "b",
        "service": "icmp",
        "json": False,
        "results": Path("/var/lib/cni/results"),
        "socket": Path("/run/pycni/agent.sock"),
    }
    more = parser.parse_args(["a", "b", "80/tcp", "--json", "--results", "/r", "--socket", "/s"])
    assert (more.service, more.json, more.results, more.socket) == ("80/tcp", True, Path("/r"), Path("/s"))
