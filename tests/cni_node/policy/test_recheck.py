"""Established connections, when what allowed them is gone: cut whoever speaks next, or left alone."""

import socket
import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import cast

import pytest
from pytest_mock import MockerFixture

import cni_kernel.flows
from cni_kernel.errors import KernelError
from cni_kernel.flows import Flow, Flows
from cni_node.policy.evaluator import Evaluator
from cni_node.policy.model import Policy
from cni_node.policy.recheck import Rechecked, Rechecker, recheck
from cni_node.policy.rules import CUT
from cni_node.policy.table import PolicyTable
from cni_protocol.address import IP, parse_ip
from tests.cni_node.policy.cases import DENY_ALL, DENY_IN, let_in, spaces
from tests.cni_node.policy.kernel import A4, NODES, PODS, put, state_of
from tests.cni_node.policy.texts import policy
from tests.kit.pod_network import PodNetwork

pytestmark = pytest.mark.kernel


class Stream:
    """A TCP connection or a UDP flow from one pod to another."""

    def __init__(self, network: PodNetwork, protocol: str, source: IP, destination: IP) -> None:
        kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}[protocol]
        with network.at(destination):
            listener = socket.socket(destination.family, kind)
            listener.bind((str(destination), 0))
        with network.at(source):
            self.client = socket.socket(source.family, kind)
            self.client.bind((str(source), 0))
        self.client.settimeout(5)
        if protocol == "TCP":
            listener.listen()
            self.client.connect(listener.getsockname())
            self.server, _ = listener.accept()
            listener.close()
        else:
            self.client.connect(listener.getsockname())
            listener.connect(self.client.getsockname())
            self.server = listener
        self._number = 0

    def ends(self, first: str) -> tuple[socket.socket, socket.socket]:
        return (self.client, self.server) if first == "client" else (self.server, self.client)

    def says(self, who: str, bound: float) -> bool:
        """Whether what one end says now is heard at the other."""
        speaker, hearer = self.ends(who)
        self._number += 1
        text = b"<%d>" % self._number
        speaker.send(text)
        hearer.settimeout(bound)
        deadline = time.monotonic() + bound
        heard = b""
        with suppress(TimeoutError):
            while text not in heard and time.monotonic() < deadline:
                heard += hearer.recv(1000)
        return text in heard

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "deny", [DENY_IN, policy("y", "out", podSelector={}, policyTypes=["Egress"])], ids=["in", "out"]
)
def test_an_established_connection_is_cut_whoever_speaks_next(
    network: PodNetwork, table: PolicyTable, protocol: str, first: str, version: int, deny: Policy
) -> None:
    source, destination = (parse_ip(pair[version == 6]) for pair in (PODS["y-a"], PODS["x-a"]))
    put(table, state_of())
    stream = Stream(network, protocol, source, destination)
    assert stream.says("client", 3) and stream.says("server", 3)
    put(table, state_of(deny))
    assert stream.says(first, 3), "without a look at established connections they go on"
    with network.host.entered(), Flows() as flows:
        cut = recheck(flows, Evaluator(state_of(deny), "node1")).cut
    assert (source, destination) in [(flow.source, flow.destination) for flow in cut]
    second = {"client": "server", "server": "client"}[first]
    assert not stream.says(first, 0.3)
    assert not stream.says(second, 0.3)
    assert not stream.says(first, 0.3)
    put(table, state_of())
    with network.host.entered(), Flows() as flows:
        assert recheck(flows, Evaluator(state_of(), "node1")).freed
    assert stream.says(first, 5) and stream.says(second, 5)
    stream.close()


def test_connections_that_are_allowed_are_left_alone(network: PodNetwork, table: PolicyTable) -> None:
    allowing = state_of(DENY_ALL, let_in(spaces("ns=y"), pods={}))
    put(table, state_of())
    streams = [Stream(network, "TCP", parse_ip("10.0.2.1"), A4), Stream(network, "TCP", NODES["node1"][0], A4)]
    assert all(stream.says("client", 3) for stream in streams)
    put(table, allowing)
    with network.host.entered(), Flows() as flows:
        cut = recheck(flows, Evaluator(allowing, "node1")).cut
    ports = {stream.server.getsockname()[1] for stream in streams}
    assert not [flow for flow in cut if flow.port in ports]
    assert all(stream.says("server", 3) and stream.says("client", 3) for stream in streams)
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_stream_that_the_kernel_does_not_know_is_not_taken_up_half_way(
    network: PodNetwork, table: PolicyTable, first: str
) -> None:
    table.delete()
    stream = Stream(network, "TCP", parse_ip("10.0.2.1"), A4)
    assert stream.says("client", 3) and stream.says("server", 3)
    put(table, state_of(DENY_IN))
    assert not stream.says(first, 0.3)
    assert table.denied()["stray"] > 0
    stream.close()


def test_an_error_about_a_connection_that_is_allowed_reaches_an_isolated_pod(
    network: PodNetwork, table: PolicyTable
) -> None:
    put(table, state_of(DENY_IN))
    with network.at(A4), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect(("10.0.2.1", 9))  # nobody listens there
        client.send(b"hello")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


@pytest.mark.parametrize("version", [4, 6])
def test_of_connections_of_others_only_the_addresses_are_read(
    network: PodNetwork, table: PolicyTable, version: int, mocker: MockerFixture
) -> None:
    x_a, y_a, z_a = (parse_ip(PODS[name][version == 6]) for name in ("x-a", "y-a", "z-a"))
    put(table, state_of())
    streams = [Stream(network, "UDP", y_a, x_a), Stream(network, "UDP", x_a, z_a), Stream(network, "UDP", y_a, z_a)]
    assert all(stream.says("client", 3) for stream in streams)
    with network.host.entered(), Flows() as flows:
        everything = {(flow.source, flow.destination) for flow in flows.iterate({x_a.packed, y_a.packed, z_a.packed})}
        assert {(y_a, x_a), (x_a, z_a), (y_a, z_a)} <= everything
        parsed = mocker.spy(cni_kernel.flows, "_parse")
        found = [(flow.source, flow.destination) for flow in flows.iterate({x_a.packed})]
        assert found and all(x_a in ends for ends in found)
        assert parsed.call_count == len(found)
        assert {(y_a, x_a), (x_a, z_a)} <= set(found)
    for stream in streams:
        stream.close()


class SlowFlows(Flows):
    """One connection, and a state of the cluster that becomes newer while it is read."""

    def __init__(self, flow: Flow, meanwhile: Callable[[], None]) -> None:
        self.flow, self.marked = flow, dict[int, list[Flow]]()
        self._meanwhile = meanwhile

    def iterate(self, ends: Collection[bytes]) -> Generator[Flow, None, None]:
        assert self.flow.destination.packed in ends
        yield self.flow
        self._meanwhile()

    def mark(self, flows: Iterable[Flow], mark: int, mask: int) -> None:
        assert mask == CUT
        self.marked.setdefault(mark, []).extend(flows)


def test_a_connection_that_became_allowed_while_they_were_read_is_not_cut() -> None:
    flow = Flow(parse_ip("10.0.2.1"), A4, 6, 80, 0, b"")
    denied, let_through = Evaluator(state_of(DENY_IN), "node1"), Evaluator(state_of(), "node1")
    done: SimpleQueue[object] = SimpleQueue()
    flows = SlowFlows(flow, lambda: rechecker.ask(let_through) if done.empty() else None)
    rechecker = Rechecker(flows, done.put)
    rechecker.ask(denied)
    rechecker.start()
    assert done.get(timeout=20) == Rechecked([], [])
    rechecker.close()
    assert flows.marked == {CUT: [], 0: []}


def test_what_the_kernel_refuses_is_told_and_tried_again() -> None:
    done: SimpleQueue[object] = SimpleQueue()
    refusals = [OSError(1, "no"), None]

    def refuse() -> None:
        if (refusal := refusals.pop(0) if refusals else None) is not None:
            raise refusal

    rechecker = Rechecker(SlowFlows(Flow(parse_ip("10.0.2.1"), A4, 6, 80, 0, b""), refuse), done.put)
    rechecker.ask(Evaluator(state_of(DENY_IN), "node1"))
    rechecker.start()
    assert isinstance(done.get(timeout=20), KernelError)
    assert len(cast(Rechecked, done.get(timeout=20)).cut) == 1
    rechecker.close()
