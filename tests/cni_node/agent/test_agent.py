"""The agent on the kernel: what it makes, adopts, repairs and leaves. Judged by ip, nft, ping and TCP."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.cni_node.agents import NODES, PODS, REPAIR_BOUND, Agent, agents_on, state_of
from tests.kit.host import RUN_BOUND, open_host, wait_until

pytestmark = pytest.mark.kernel

ROUTED = {PODS[version][1]: NODES[version][1] for version in (4, 6)}


@pytest.fixture(scope="module")
def ready_pairs(bin_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[Agent, Agent]]]:
    """A maker of two agents that are ready; for the same options they are the same, since they repair themselves."""
    made: dict[tuple[str, ...], tuple[Agent, Agent]] = {}
    with ExitStack() as stack:

        def get(*options: str) -> tuple[Agent, Agent]:
            if options not in made:
                hosts = (open_host(), open_host())
                for host in hosts:
                    stack.callback(host.close)
                directory = tmp_path_factory.mktemp("agents")
                made[options] = stack.enter_context(contextmanager(agents_on)(hosts, bin_dir, directory))
                for agent in made[options]:
                    agent.start(*options)
                for agent in made[options]:
                    agent.await_ready()
            return made[options]

        yield get


def test_two_nodes_get_ready_when_their_peers_answer(pair: tuple[Agent, Agent]) -> None:
    for agent in pair:
        agent.start()
    for agent in pair:
        report = agent.await_ready()
        assert (report["problems"], report["silent"]) == ([], [])
    first = pair[0]
    assert first.routes() == ROUTED
    assert first.exempt() == ["10.240.2.0/24", "192.168.1.12"]
    assert first.exempt(6) == ["fd00:2::/64", "fd00:a::12"]
    assert sorted(first.host.addresses("cni0")) == ["10.240.1.1/24", "fd00:1::1/64"]
    [plugin] = json.loads(first.configuration.read_text())["plugins"]
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.240.1.0/24"}], [{"subnet": "fd00:1::/64"}]]


@pytest.fixture
def routed(ready_pairs: Callable[..., tuple[Agent, Agent]]) -> tuple[Agent, Agent]:
    """Two agents that are ready, with routes between them."""
    return ready_pairs()


@pytest.fixture
def overlaid(ready_pairs: Callable[..., tuple[Agent, Agent]]) -> tuple[Agent, Agent]:
    """Two agents that are ready, with an overlay between them."""
    return ready_pairs("--overlay=vxlan", "--vni=42")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("ip route del 10.240.2.0/24", id="route"),
        pytest.param("ip -6 route del fd00:2::/64", id="IPv6 route"),
        pytest.param("ip route flush proto 80", id="all routes"),
        pytest.param("ip route replace 10.240.2.0/24 via 192.168.1.77 proto 80 metric 16363691", id="another gateway"),
        pytest.param("ip route add 10.99.0.0/24 via 192.168.1.12 proto 80", id="a route of ours too many"),
        pytest.param("ip link set uplink down; ip link set uplink up", id="interface down and up"),
        pytest.param("ip address del 10.240.1.1/24 dev cni0", id="gateway address"),
        pytest.param("ip address add 10.77.0.1/24 dev cni0", id="an address too many"),
        pytest.param("ip link set cni0 down", id="bridge down"),
        pytest.param("ip link del cni0", id="bridge"),
        pytest.param("sysctl -qw net.ipv4.ip_forward=0", id="forwarding"),
        pytest.param("sysctl -qw net.ipv6.conf.all.forwarding=0", id="IPv6 forwarding"),
        pytest.param("nft flush ruleset", id="rule set"),
        pytest.param("nft flush set inet pycni exempt4", id="set flushed"),
        pytest.param("nft delete element inet pycni exempt4 '{ 192.168.1.12 }'", id="element"),
        pytest.param("nft add element inet pycni exempt4 '{ 1.2.3.4 }'", id="an element too many"),
        pytest.param("nft delete set inet pycni exempt6", id="set"),
    ],
)
def test_what_is_taken_away_is_back_within_a_second(routed: tuple[Agent, Agent], command: str) -> None:
    assert_repaired(routed[0], command)


def assert_repaired(agent: Agent, command: str) -> None:
    before, repairs = state_of(agent), agent.report()["repairs"]
    agent.host.run("sh", "-c", command)
    if not wait_until(lambda: state_of(agent) == before, REPAIR_BOUND):
        now = state_of(agent)
        differing = {key: (before[key], now[key]) for key in now if now[key] != before[key]}
        raise AssertionError(f"not within {REPAIR_BOUND} s: {differing}\n{agent.log.read_text()}")
    agent.await_report(lambda report: bool(report["repairs"] != repairs), 10)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("ip link del vxlan.42", id="device"),
        pytest.param("ip link set vxlan.42 down", id="device down"),
        pytest.param("ip link set vxlan.42 address 02:00:00:00:00:01", id="MAC"),
        pytest.param("ip link set vxlan.42 mtu 1300", id="MTU"),
        pytest.param("ip link set cni0 mtu 1300", id="MTU of the bridge"),
        pytest.param("ip neighbour flush dev vxlan.42 nud permanent", id="neighbours"),
        pytest.param("bridge fdb del $(bridge fdb show dev vxlan.42 | cut -d' ' -f1) dev vxlan.42", id="forward"),
        pytest.param("ip address flush dev vxlan.42 scope global", id="address"),
        pytest.param("ip route flush proto 80; ip -6 route flush proto 80", id="routes"),
    ],
)
def test_what_is_taken_from_the_overlay_is_back_within_a_second(overlaid: tuple[Agent, Agent], command: str) -> None:
    assert state_of(overlaid[0])["forwards"]
    assert_repaired(overlaid[0], command)


def test_the_log_says_who_took_something_away(routed: tuple[Agent, Agent]) -> None:
    first = routed[0]
    flushed = first.host.start("nft", "flush", "set", "inet", "pycni", "exempt4")
    flushed.wait(RUN_BOUND)
    line = f'what="2 exempt intervals added" by="nft pid {flushed.pid}"'
    first.await_true(lambda: line in first.log.read_text())
    gone = first.host.start("ip", "route", "del", PODS[4][1])
    gone.wait(RUN_BOUND)
    pattern = f'what="route .* made" by="(ip|netlink port) (pid )?{gone.pid}"'
    first.await_true(lambda: re.search(pattern, first.log.read_text()) is not None)
