"""Established connections, when what allowed them is gone: cut whoever speaks next, or left alone."""

import socket
import time
from contextlib import suppress

import pytest

from cni_kernel.flows import Flows
from cni_node.policy.evaluator import Evaluator
from cni_node.policy.model import Policy
from cni_node.policy.recheck import recheck
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
