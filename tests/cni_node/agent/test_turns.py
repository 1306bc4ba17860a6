"""Turns of the agent's loop with parts that do as they are told: what is run, tried, named, counted and reported."""

from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_node import logs
from cni_node.agent import loop as agent
from cni_node.agent.keeper import EXEMPT, LOCAL, ROUTES, RULES, STAGES, SYSCTLS, Done
from cni_node.agent.loop import Agent
from cni_node.agent.watch import POLICIES, Disturbance
from cni_node.host.overlay import Overlay, Underlay
from cni_node.readiness.admission import Admitted
from cni_node.settings import Settings
from cni_node.snapshot import Node, Snapshot
from cni_node.sources.static import StaticSettings, StaticSource
from cni_protocol.address import parse_cidr, parse_ip

PODS = (parse_cidr("10.1.0.0/24"),)
OWN = Node("node1", PODS, (parse_ip("192.168.1.1"),))
PEER = Node("node2", (parse_cidr("10.2.0.0/24"),), (parse_ip("192.168.1.2"),))
SEEN = Snapshot(OWN, (PEER,))


class Loop:
    """An agent whose turns are made by hand."""

    def __init__(self, mocker: MockerFixture, root: Path, source: Any = None, overlay: Overlay | None = None) -> None:
        self.keeper = mocker.patch.object(agent, "Keeper").return_value
        self.keeper.configure_mock(
            unsettled=set(), problems={}, ports=frozenset(), interfaces=frozenset({2}), underlay=None
        )
        self.keeper.configure_mock(mtu=1450, routes=1, missing=0, exempted=2)
        self.keeper.place.overlay = 7
        self.keeper.settle.return_value = []
        mocker.patch.object(agent, "Watcher")
        self.admission = mocker.patch.object(agent, "Admission").return_value
        self.admission.configure_mock(serving=False, problem="", silent=(), path=root / "conf")
        self.admission.step.return_value = False
        self.persist = mocker.patch.object(agent, "persist", return_value=[])
        self.strangers = mocker.patch.object(agent, "list_strangers", return_value=[])
        self.clock = mocker.patch.object(agent, "time").monotonic
        self.clock.return_value = 1000.0
        self.warned = mocker.patch.object(logs, "warn")
        self.told = mocker.patch.object(logs, "info")
        settings = Settings(source or mocker.Mock(spec=StaticSettings), overlay, root=root)
        self.agent = Agent(settings, mocker.Mock(spec=StaticSource), "node1")

    def turn(self, *events: Any) -> Any:
        """One turn. Returns the report."""
        self.agent._turn(events)
        return self.agent.report

    @property
    def stages(self) -> list[set[str]]:
        """What the keeper was asked to run, turn by turn."""
        return [set(call.args[1]) for call in self.keeper.settle.call_args_list]


@pytest.fixture
def loop(mocker: MockerFixture, tmp_path: Path) -> Loop:
    return Loop(mocker, tmp_path)


def test_before_the_source_knows_the_nodes_nothing_is_touched(loop: Loop) -> None:
    assert loop.turn().state == "starting"
    assert loop.turn(Snapshot(None, (), ("no answer",), listed=False)).problems == ("no answer",)
    report = loop.turn(Snapshot(None, (), ("odd",)))
    kept = "the source lists no node, not even this one: the kernel stays as it is"
    assert (report.problems, report.state, loop.stages) == (("odd", kept), "waiting for the source", [])
    assert not loop.admission.step.called


def test_a_source_that_says_nothing_more_takes_nothing_away(loop: Loop) -> None:
    loop.turn(SEEN)
    loop.turn(Snapshot(None, ()), Snapshot(None, (), listed=False))
    assert [call.args[0] for call in loop.keeper.settle.call_args_list] == [SEEN, SEEN]


def test_all_stages_run_first_and_then_those_that_have_a_reason(loop: Loop) -> None:
    changed = SEEN._replace(own=OWN._replace(mtu=9))
    for events in (
        [SEEN],
        [],
        [SEEN._replace(peers=())],
        [changed],
        [Disturbance(ROUTES, "x"), Disturbance(RULES, "")],
    ):
        loop.turn(*events)
    assert loop.stages == [set(STAGES), {SYSCTLS}, {SYSCTLS}, {SYSCTLS, LOCAL}, {SYSCTLS, ROUTES, RULES}]
    loop.clock.return_value += agent.RESYNC - 1
    loop.turn()
    loop.clock.return_value += 1
    loop.turn()
    loop.turn()
    assert loop.stages[5:] == [{SYSCTLS}, set(STAGES), {SYSCTLS}]


def test_an_overlay_that_could_not_be_made_is_tried_with_each_snapshot(mocker: MockerFixture, tmp_path: Path) -> None:
    loop = Loop(mocker, tmp_path, overlay=Overlay(42, 4789))
    loop.keeper.place.overlay = 0
    loop.turn(SEEN)
    loop.turn(SEEN)
    loop.keeper.place.overlay = 7
    loop.turn(SEEN)
    assert loop.stages == [set(STAGES), {SYSCTLS, LOCAL}, {SYSCTLS}]


def test_what_failed_is_tried_again_later_and_later(loop: Loop) -> None:
    loop.turn(SEEN)
    loop.keeper.unsettled = {EXEMPT}
    loop.turn()
    begun, tried = loop.clock.return_value, []
    for _ in range(200):
        loop.clock.return_value += 1.0
        loop.turn()
        if EXEMPT in loop.stages[-1]:
            tried.append(loop.clock.return_value - begun)
    assert tried == [1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0]
    loop.keeper.unsettled = set()
    loop.turn()
    loop.keeper.unsettled = {EXEMPT}
    for _ in range(2):
        loop.clock.return_value += 60.0
        loop.turn()
    loop.clock.return_value += 1.0
    loop.turn()
    assert [EXEMPT in stages for stages in loop.stages[-3:]] == [True, True, False]


@pytest.mark.parametrize(
    ("own", "unsettled", "steps"),
    [
        pytest.param(OWN, set(), True, id="settled"),
        pytest.param(OWN, {ROUTES, RULES, SYSCTLS}, True, id="what pods can do without"),
        pytest.param(OWN, {LOCAL}, False, id="no bridge"),
        pytest.param(OWN, {EXEMPT}, False, id="no exemptions"),
        pytest.param(OWN._replace(pods=()), set(), False, id="no pod range"),
        pytest.param(None, set(), False, id="no node"),
    ],
)
def test_the_runtime_is_told_once_pods_can_work(
    loop: Loop, own: Node | None, unsettled: set[str], *, steps: bool
) -> None:
    loop.keeper.unsettled = unsettled
    loop.turn(SEEN._replace(own=own))
    assert loop.admission.step.called is steps
    if steps:
        loop.admission.step.assert_called_once_with(PODS, (PEER,), 1450, 1000.0)


def test_results_of_trials_are_taken(loop: Loop) -> None:
    result = Admitted("text", "", ())
    loop.turn(result)
    loop.admission.take.assert_called_once_with(result, 1000.0)


def test_pods_with_a_former_range_are_named_once(loop: Loop) -> None:
    loop.strangers.return_value = ["10.9.0.2 (c1)"]
    assert loop.turn(SEEN).strangers == ()
    loop.keeper.settle.return_value = [Done(LOCAL, ["address 10.9.0.1/24 taken from cni0"])]
    assert loop.turn().strangers == ("10.9.0.2 (c1)",)
    loop.strangers.assert_called_once_with(loop.agent._settings.root, PODS)
    loop.keeper.settle.return_value = []
    loop.turn()
    remedy = "delete the pod, so that it gets one of this node's range"
    loop.warned.assert_called_once_with("old-address", pod="10.9.0.2 (c1)", remedy=remedy)
    loop.strangers.return_value = []
    assert loop.turn().strangers == ()


def test_what_others_made_necessary_counts_as_a_repair(loop: Loop) -> None:
    loop.keeper.settle.return_value = [Done(ROUTES, ["one", "two"])]
    assert loop.turn(SEEN).repairs == {}
    loop.told.assert_any_call("changed", what="one", by="")
    report = loop.turn(Disturbance(ROUTES, "ip pid 7"), Disturbance(RULES, "nft pid 8"), Disturbance(ROUTES, ""))
    assert (report.repairs, report.last_repair) == ({ROUTES: 2}, "one (ip pid 7, nft pid 8)")
    loop.warned.assert_any_call("repaired", what="two", by="ip pid 7, nft pid 8")
    report = loop.turn(Disturbance(ROUTES, ""))
    assert (report.repairs, report.last_repair) == ({ROUTES: 4}, "one")
    loop.keeper.settle.return_value = [Done(SYSCTLS, ["ip_forward"])]
    report = loop.turn()
    assert (report.repairs, report.last_repair) == ({ROUTES: 4, SYSCTLS: 1}, "ip_forward")


def test_of_many_changes_some_are_told(loop: Loop) -> None:
    for number in (20, 21):
        loop.told.reset_mock()
        loop.keeper.settle.return_value = [Done(ROUTES, [f"route {each}" for each in range(number)])]
        loop.turn(SEEN)
        assert len([call for call in loop.told.call_args_list if "by" in call.kwargs]) == 20
        assert (("changed",), {"what": "and 1 more", "stage": ROUTES}) in loop.told.call_args_list or number == 20
    assert loop.told.call_args_list[-1].kwargs == {"what": "and 1 more", "stage": ROUTES}


def test_the_next_boot_is_prepared_when_this_node_changes(loop: Loop) -> None:
    loop.persist.return_value = ["no room"]
    for snapshot in (SEEN, SEEN._replace(peers=()), SEEN._replace(own=None), SEEN):
        loop.turn(snapshot)
    assert [call.args for call in loop.persist.call_args_list] == [(loop.agent._settings.root, {4})] * 2
    loop.warned.assert_any_call("notice", what="no room")


def test_the_report_has_all_of_it(loop: Loop) -> None:
    loop.keeper.problems = {ROUTES: ["a route", "twice"], "mtu": ["twice"]}
    loop.admission.configure_mock(serving=True, silent=("node2",))
    report = loop.turn(SEEN._replace(problems=("of the source",)))
    assert (report.state, report.ready) == ("ready, with problems", True)
    assert (report.node, report.pods, report.addresses, report.peers) == (
        "node1",
        ("10.1.0.0/24",),
        ("192.168.1.1",),
        1,
    )
    assert (report.mtu, report.routes, report.missing, report.exempt) == (1450, 1, 0, 2)
    assert report.problems == ("of the source", "a route", "twice")
    assert (report.silent, report.configuration) == (("node2",), str(loop.admission.path))
    assert (report.syncs, report.overlay) == (len(STAGES) - 1, "")
    assert [call.kwargs["what"] for call in loop.warned.call_args_list] == ["of the source", "a route", "twice"]
    loop.keeper.problems = {}
    assert loop.turn(SEEN).problems == ()
    loop.told.assert_any_call("over", what="twice")


def test_the_overlay_is_described(mocker: MockerFixture, tmp_path: Path) -> None:
    for direct, more in ((False, ""), (True, ", direct on links")):
        loop = Loop(mocker, tmp_path, overlay=Overlay(42, 4789, direct=direct))
        loop.keeper.underlay = Underlay(2, 1500, parse_ip("192.168.1.1"))
        assert loop.turn(SEEN).overlay == f"vxlan.42, UDP 4789, from 192.168.1.1{more}"


@pytest.mark.parametrize(
    ("own", "static", "serving", "problem", "state", "ready"),
    [
        (OWN, True, True, "", "ready", True),
        (OWN, True, False, "", "not ready: trying, and asking the peers", False),
        (OWN, True, False, "no plugin", "not ready", False),
        (OWN._replace(pods=()), True, False, "", "routes only: this node has no pod range", True),
        (OWN._replace(pods=()), False, False, "", "routes only: this node has no pod range", False),
        (None, True, False, "", "routes only: this node has no pod range", False),
    ],
)
def test_states(
    mocker: MockerFixture,
    tmp_path: Path,
    *,
    own: Node | None,
    static: bool,
    serving: bool,
    problem: str,
    state: str,
    ready: bool,
) -> None:
    loop = Loop(mocker, tmp_path, None if static else mocker.Mock())
    loop.admission.configure_mock(serving=serving, problem=problem)
    report = loop.turn(SEEN._replace(own=own))
    assert (report.state, report.ready) == (state, ready)


@pytest.mark.parametrize("stage", [LOCAL, EXEMPT, ROUTES])
def test_a_node_whose_stage_failed_is_not_ready_if_pods_need_it(loop: Loop, stage: str) -> None:
    loop.admission.serving = True
    loop.keeper.unsettled = {stage}
    assert loop.turn(SEEN).ready is (stage == ROUTES)


def test_policies_are_read_again_when_they_are_disturbed(loop: Loop, mocker: MockerFixture) -> None:
    loop.turn(Disturbance(POLICIES, "nft pid 7"))  # there is no enforcer
    enforcer = loop.agent._enforcer = mocker.Mock()
    loop.turn(SEEN, Disturbance(POLICIES, "nft pid 7"))
    assert (enforcer.disturb.call_count, loop.stages) == (1, [set(STAGES)])
    loop.clock.return_value += agent.RESYNC
    loop.turn()
    assert enforcer.disturb.call_count == 2
