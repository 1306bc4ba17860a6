"""What the agent says of itself: the screen, the metrics, the log's lines, the runtime's configuration."""

import json

import pytest

from cni_node.logs import format_line
from cni_node.probe import checksum
from cni_node.report import Report, parse_document, render, to_document, to_metrics
from cni_node.runtime import render as render_configuration
from cni_node.status import is_well
from cni_protocol.address import parse_cidr

REPORT = Report("ready", True, "node1", "static", ("10.1.0.0/24",), peers=2, routes=2, repairs={"routes": 3}, pid=7)


def test_a_report_survives_json() -> None:
    text = json.dumps(to_document(REPORT))
    assert parse_document(json.loads(text)) == REPORT
    assert parse_document({**json.loads(text), "of a later version": 1}) == REPORT


def test_one_screen_holds_all() -> None:
    busy = REPORT._replace(
        problems=tuple(map(str, range(99))), silent=tuple(map(str, range(99))), strangers=("x",) * 99
    )
    lines = render(busy, 3700.0).splitlines()
    assert lines[0] == "agent      ready (pid 7, up 1 h)"
    assert len(lines) <= 50
    assert [line for line in lines if line.startswith("problem:")] == [
        *(f"problem:     {number}" for number in range(10)),
        "problem:     and 89 more (--json has all)",
    ]
    assert render(busy, 3700.0).endswith("\nold address: and 89 more (--json has all)\n")


def test_an_agent_that_begins_is_not_ready_and_has_nothing() -> None:
    assert not Report().ready
    assert render(Report(), 0.0).splitlines()[0] == "agent      starting (pid 0, up 0 s)"


def test_metrics_are_prometheus_text() -> None:
    text = to_metrics(REPORT, 5.0, 0.25, 4096)
    assert 'pycni_repairs_total{stage="routes"} 3\n' in text
    assert "pycni_ready 1\n" in text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {line.partition("{")[0].split()[0] for line in text.splitlines() if line[0] != "#"} <= names


@pytest.mark.parametrize(("ready", "problems", "well"), [(True, (), True), (False, (), False), (True, ("x",), False)])
def test_whether_all_is_well(ready: bool, problems: tuple[str, ...], well: bool) -> None:
    assert is_well(Report(ready=ready, problems=problems)) == well


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain/1.2", "plain/1.2"), ("two words", '"two words"'), ('a"b', '"a\\"b"'), ("a=b", '"a=b"'), ("ü\n", '"ü\\n"')],
)
def test_values_in_the_log_are_quoted_where_needed(value: str, text: str) -> None:
    assert format_line("info", "x", key=value, empty="") == f"level=info event=x key={text}"


def test_the_configuration_names_no_peer() -> None:
    [plugin] = json.loads(render_configuration([parse_cidr("10.1.0.0/24"), parse_cidr("fd00::/64")], 1450))["plugins"]
    assert plugin == {
        "type": "cni-bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "capabilities": {"portMappings": True},
        "mtu": 1450,
        "ipam": {
            "type": "cni-ipam",
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    }
    [plugin] = json.loads(render_configuration([], 0, "/run/agent.sock", policies=True))["plugins"]
    assert (plugin["agent"], plugin["requireBridgeNetfilter"]) == ("/run/agent.sock", True)
    assert "mtu" not in json.loads(render_configuration([parse_cidr("10.1.0.0/24")], 0))["plugins"][0]


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
