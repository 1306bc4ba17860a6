"""What the agent says of itself: the screen, the metrics, the log's lines, the runtime's configuration."""

import json

import pytest

from cni_node.agent.report import Report, parse_document, render, to_document, to_metrics
from cni_node.agent.status import is_well
from cni_node.logs import format_line
from cni_node.readiness.probe import checksum
from cni_node.readiness.runtime import render as render_configuration
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


FULL = Report(
    state="ready, with problems",
    ready=True,
    node="node1",
    source="static",
    pods=("10.1.0.0/24", "fd00::/64"),
    addresses=("192.168.1.1",),
    peers=2,
    overlay="vxlan.42",
    mtu=1450,
    routes=3,
    missing=1,
    exempt=5,
    configuration="/etc/conf",
    problems=("a problem",),
    silent=("node2",),
    strangers=("10.9.0.2 (c1)",),
    policies={
        "ready": True,
        "policies": 4,
        "isolated": 6,
        "changes": 8,
        "cut": 9,
        "denied": {"ingress": 10, "egress": 11},
    },
    repairs={"routes": 3, "local": 1},
    last_repair="one (ip)",
    syncs=12,
    started=1.0,
    pid=7,
)
VALUES = """
pycni_ready 1
pycni_peers 2
pycni_routes 3
pycni_entries_refused 1
pycni_exempt_networks 5
pycni_problems 1
pycni_syncs_total 12
process_cpu_seconds_total 0.1235
process_resident_memory_bytes 4096
pycni_uptime_seconds 3600.5
pycni_repairs_total{stage="local"} 1
pycni_repairs_total{stage="routes"} 3
pycni_policies 4
pycni_isolated_addresses 6
pycni_policy_changes_total 8
pycni_policy_cut_total 9
pycni_policy_denied_packets_total{why="egress"} 11
pycni_policy_denied_packets_total{why="ingress"} 10
"""


def test_all_metrics_have_a_type_and_a_value() -> None:
    lines = to_metrics(FULL, 3601.5, 0.123456, 4096).splitlines()
    assert [line for line in lines if line[0] != "#"] == VALUES.split("\n")[1:-1]
    types = dict(line.split()[2:] for line in lines if line.startswith("# TYPE"))
    counted = {name for name, kind in types.items() if kind == "counter"}
    assert set(types.values()) == {"gauge", "counter"}
    assert counted == {name for name in types if name.endswith("_total")}
    assert [line.split()[2] for line in lines if line.startswith("# HELP")] == list(types)


def test_the_whole_screen() -> None:
    assert render(FULL, 3701.0).splitlines() == [
        "agent      ready, with problems (pid 7, up 1 h)",
        "node       node1: 10.1.0.0/24, fd00::/64",
        "addresses  192.168.1.1",
        "source     static, 2 peers",
        "overlay    vxlan.42",
        "mtu        1450",
        "routes     3 to peers, 1 entries refused",
        "exempt     5 networks are not masqueraded towards",
        "policies   4, 6 addresses isolated, 21 packets denied",
        "runtime    /etc/conf",
        "repairs    4, last one (ip)",
        "problem:     a problem",
        "silent:      node2",
        "old address: 10.9.0.2 (c1)",
    ]
    bare = Report(node="n", source="etcd", policies={"ready": False}, repairs={"routes": 2})
    assert render(bare, 86400.0 * 2).splitlines() == [
        "agent      starting (pid 0, up 2 d)",
        "node       n: no pods",
        "addresses  not told",
        "source     etcd, 0 peers",
        "overlay    none, routes lead to the peers' addresses",
        "mtu        the link's",
        "routes     0 to peers, 0 entries refused",
        "exempt     0 networks are not masqueraded towards",
        "policies   not known yet; what was in force stays",
        "runtime    not told that this node is ready",
        "repairs    2",
    ]
    assert "policies   not put in force" in render(Report(), 0.0).splitlines()


@pytest.mark.parametrize(
    ("seconds", "span"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (86400, "1 d")],
)
def test_spans(seconds: float, span: str) -> None:
    assert render(Report(), seconds).splitlines()[0] == f"agent      starting (pid 0, up {span})"


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
