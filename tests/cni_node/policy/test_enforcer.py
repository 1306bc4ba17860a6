"""The loop of policies, between an API server and the kernel."""

import json
import socket
import time
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_node.agent.report import Report
from cni_node.agent.server import Page, serve
from cni_node.agent.status import fetch
from cni_node.agent.watch import POLICIES, View, Watcher
from cni_node.host.peer_routes import Wanted
from cni_node.policy.announced import GONE, IN_FORCE, PENDING, Announced
from cni_node.policy.enforcer import Enforcer
from cni_node.policy.recheck import Rechecked
from cni_protocol.address import parse_ip
from tests.cni_node.policy.kernel import A4, B4, PODS, passes
from tests.cni_node.policy.live import DENY, pod_item, put_policy, running
from tests.cni_node.policy.test_recheck import Stream
from tests.kit.api_server import ApiServer
from tests.kit.host import wait_until
from tests.kit.pod_network import PodNetwork

pytestmark = pytest.mark.kernel

YA4 = parse_ip("10.0.2.1")


def ready(enforcer: Enforcer) -> bool:
    return wait_until(lambda: enforcer.state.ready)


def test_policies_of_the_api_are_put_in_force_and_lifted(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    assert ready(enforcer)
    assert passes(network, B4, A4)
    put_policy(api, "x", "deny", DENY)
    assert wait_until(lambda: enforcer.state.isolated == 6)
    assert not passes(network, B4, A4)
    put_policy(api, "x", "deny", {**DENY, "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]})
    assert wait_until(lambda: passes(network, B4, A4))
    assert not passes(network, parse_ip("10.0.2.1"), A4)
    api.put(pod_item("x-b", *PODS["x-b"], labels={"pod": "other"}), "pods")
    assert wait_until(lambda: not passes(network, B4, A4))
    api.delete("deny", "networkpolicies", "x")
    assert wait_until(lambda: passes(network, B4, A4))


def test_the_plugin_asks_on_the_agents_socket(api: ApiServer, enforcer: Enforcer, tmp_path: Path) -> None:
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 6)
    serve(Page(Report, lambda: True, enforcer), tmp_path / "agent.sock", 0)
    pod = {"namespace": "x", "name": "a", "uid": "", "addresses": [str(A4)]}
    assert post(tmp_path / "agent.sock", pod) == (200, {"state": IN_FORCE})
    new = {**pod, "name": "new", "addresses": ["10.0.1.99"]}
    assert wait_until(lambda: post(tmp_path / "agent.sock", new) == (200, {"state": PENDING}))
    assert post(tmp_path / "agent.sock", {})[0] == 400
    serve(Page(Report, lambda: True), tmp_path / "other.sock", 0)
    assert post(tmp_path / "other.sock", pod) == (200, {"state": "off"})


def test_the_agent_says_which_policy_decides(api: ApiServer, enforcer: Enforcer, tmp_path: Path) -> None:
    asked = f"/policy?source={B4}&destination={A4}&protocol=TCP&port=80"
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer)
    serve(Page(Report, lambda: True, enforcer), tmp_path / "agent.sock", 0)
    assert wait_until(lambda: not json.loads(fetch(tmp_path / "agent.sock", asked))["allowed"])
    said = json.loads(fetch(tmp_path / "agent.sock", asked))
    assert (said["allowed"], said["ingress"]["policy"], said["egress"]["allowed"]) == (False, "x/deny", True)
    for path, answered in (("/policy?source=nobody", "400"), ("/policy", "400"), ("/other", "404")):
        with pytest.raises(ValueError, match=answered):
            fetch(tmp_path / "agent.sock", path)
    serve(Page(Report, lambda: True), tmp_path / "other.sock", 0)
    with pytest.raises(ValueError, match="404"):
        fetch(tmp_path / "other.sock", asked)


def test_what_root_may_ask_is_not_answered_to_everybody_of_the_host(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(Page(Report, lambda: True), tmp_path / "agent.sock", port)
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/pods", "{}")
    assert connection.getresponse().status == 501
    connection.close()
    assert (tmp_path / "agent.sock").stat().st_mode & 0o777 == 0o600


def post(path: Path, document: Any) -> tuple[int, Any]:
    """What the server answers."""
    connection = HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("POST", "/pods", json.dumps(document))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text) if answer.status == 200 else text


def test_only_pods_that_are_needed_are_followed(api: ApiServer, enforcer: Enforcer) -> None:
    assert ready(enforcer)
    assert "/api/v1/pods" not in [asked.path for asked in api.asked if "fieldSelector" not in asked.query]
    put_policy(api, "x", "p", {**DENY, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]})
    assert wait_until(lambda: "/api/v1/namespaces/y/pods" in [asked.path for asked in api.asked])
    assert wait_until(lambda: any(watch.scope.namespace == "y" for watch in api.watches))
    assert "/api/v1/namespaces/z/pods" not in [asked.path for asked in api.asked]


def test_a_pod_that_starts_is_told_when_its_policies_are_in_force(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    api.put(pod_item("x-a"), "pods")  # the API has no address of it yet
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 4)
    assert passes(network, B4, A4)
    begun = time.monotonic()
    assert enforcer.admit(Announced("x", "a", "", (A4,)), 20.0) == IN_FORCE
    assert time.monotonic() - begun < 20.0
    assert not passes(network, B4, A4)
    assert passes(network, A4, parse_ip("10.0.2.1"))


def test_a_pod_of_which_nothing_is_known_waits_in_isolation(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    api.delete("a", "pods", "x")
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 4)
    assert wait_until(lambda: enforcer.admit(Announced("x", "a", "", (A4,)), 0.3) == PENDING)
    assert not passes(network, A4, parse_ip("10.0.2.1"))
    answers: list[str] = []
    waiting = Thread(target=lambda: answers.append(enforcer.admit(Announced("x", "a", "", (A4,)), 60.0)))
    waiting.start()
    api.put(pod_item("x-a"), "pods")
    waiting.join(60)
    assert answers == [IN_FORCE]
    assert passes(network, A4, parse_ip("10.0.2.1"))


def test_what_others_do_to_the_table_is_mended(api: ApiServer, enforcer: Enforcer, network: PodNetwork) -> None:
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 6)
    view = View(frozenset({enforcer.port}), frozenset(), Wanted)
    with network.host.entered():
        watcher = Watcher(view, lambda found: enforcer.disturb() if found.stage == POLICIES else None)
    Thread(target=watcher.run, daemon=True).start()
    network.host.run("nft", "flush", "ruleset")
    assert wait_until(lambda: not passes(network, B4, A4))


def test_policies_that_make_no_sense_are_named(api: ApiServer, enforcer: Enforcer) -> None:
    put_policy(api, "x", "odd", {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}})
    assert wait_until(lambda: any("'Like'" in problem for problem in enforcer.state.problems))
    assert wait_until(lambda: enforcer.state.isolated == 6)
    api.delete("odd", "networkpolicies", "x")
    assert wait_until(lambda: enforcer.state.problems == ())


def test_packets_that_no_policy_can_judge_are_named(enforcer: Enforcer, network: PodNetwork) -> None:
    """75. kube-proxy in IPVS mode has an interface of this name; the kernel's own part of it is not needed here."""
    assert ready(enforcer)
    network.host.run("ip", "link", "add", "kube-ipvs0", "type", "bridge")
    [problem] = enforcer.state.problems
    assert "kube-proxy is in IPVS mode" in problem
    network.host.run("ip", "link", "delete", "kube-ipvs0")
    assert enforcer.state.problems == ()


def test_without_an_api_what_stands_in_the_kernel_stays(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork, tmp_path: Path
) -> None:
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 6)
    enforcer.close()
    with running(network.host, "http://127.0.0.1:1", tmp_path) as later:
        assert wait_until(lambda: later.state.problems != ())
        assert not later.state.ready
        assert later.admit(Announced("x", "a", "", (A4,)), 0.2) == ""
        assert not passes(network, B4, A4)


def test_no_connection_is_cut_before_all_peers_are_known(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    put_policy(api, "x", "p", from_space("y"))
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 6)
    assert wait_until(lambda: passes(network, YA4, A4))
    stream = Stream(network, "TCP", YA4, A4)
    api.deaf_until.clear()  # pods of z are not listed
    before = enforcer.state.changes
    put_policy(api, "x", "p", from_space("z"))
    assert wait_until(lambda: enforcer.state.changes > before)
    assert enforcer.admit(Announced("z", "a", "", (parse_ip("10.0.3.1"),)), 5.0) != ""  # a turn later
    assert stream.says("client", 3) and stream.says("server", 3)
    api.deaf_until.set()
    assert wait_until(lambda: not stream.says("client", 0.1))
    stream.close()


def from_space(name: str) -> dict[str, Any]:
    return {**DENY, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": name}}}]}]}


def test_a_pod_that_starts_does_not_wait_for_the_look_at_connections(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork, mocker: MockerFixture
) -> None:
    begun, going_on = Event(), Event()

    def slow(*_: Any) -> Rechecked:
        begun.set()
        going_on.wait(60)
        return Rechecked([], [])

    mocker.patch("cni_node.policy.recheck.recheck", slow)
    put_policy(api, "x", "deny", DENY)
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 6)
    assert begun.wait(20)
    assert enforcer.admit(Announced("x", "a", "", (A4,)), 20.0) == IN_FORCE
    assert not going_on.is_set()
    going_on.set()


def test_a_pod_that_is_deleted_while_it_runs_is_closed_until_the_runtime_ends_it(
    api: ApiServer, enforcer: Enforcer, network: PodNetwork
) -> None:
    put_policy(api, "x", "p", from_space("y"))
    assert ready(enforcer) and wait_until(lambda: enforcer.state.isolated == 6)
    assert wait_until(lambda: passes(network, YA4, A4))
    api.delete("a", "pods", "x")
    assert wait_until(lambda: not passes(network, YA4, A4))
    assert not passes(network, A4, YA4)
    assert enforcer.admit(Announced("-", "c1", "", (A4,)), 20.0) == IN_FORCE  # a container that is no pod
    assert passes(network, YA4, A4)
    enforcer.disturb()
    put_policy(api, "x", "other", from_space("y"))
    assert wait_until(lambda: enforcer.state.policies == 2)
    assert passes(network, YA4, A4)
    assert enforcer.admit(Announced("-", "c1", "", (A4,), gone=True), 20.0) == GONE
    assert wait_until(lambda: enforcer.state.isolated == 5)  # the other family's address is told of by nobody
    assert enforcer.admit(Announced("z", "new", "", (parse_ip(PODS["x-a"][1]),)), 20.0) == IN_FORCE
    assert wait_until(lambda: enforcer.state.isolated == 4)
