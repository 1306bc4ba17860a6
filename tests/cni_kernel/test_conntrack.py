"""Forgetting UDP flows: real ones on a throw-away host, judged by /proc/net/nf_conntrack."""

import errno
import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from pytest_mock import MockerFixture

from cni_kernel import conntrack
from cni_kernel.conntrack import forget_flows
from cni_kernel.netlink import NetlinkError, NetlinkSocket
from cni_protocol.address import IP, parse_ip
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

# Without a rule that needs it the kernel tracks nothing.
RULES = """
add table inet t; add chain inet t c { type filter hook output priority 0; }
add rule inet t c ct state new
add table ip n; add chain ip n c { type nat hook output priority -100; }
add rule ip n c ip daddr 127.0.0.9 udp dport 53 dnat to 127.0.0.5:5353
add table ip6 n; add chain ip6 n c { type nat hook output priority -100; }
add rule ip6 n c ip6 daddr fd00::9 udp dport 53 dnat to [fd00::5]:5353
"""


class Flow(NamedTuple):
    """A tracked flow: protocol, where it was sent, who answers it."""

    protocol: str
    destination: str
    port: int
    answerer: str


def flows(host: Host) -> set[Flow]:
    """What is tracked. One reading may miss an entry while flows of other hosts come and go: all share one table."""
    found = set()
    readings = (host.run("cat", "/proc/net/nf_conntrack").stdout for _ in range(5))
    for line in "".join(readings).splitlines():
        protocol = line.split()[2]
        sources, destinations = re.findall(r"src=(\S+)", line), re.findall(r"dst=(\S+)", line)
        if protocol in ("udp", "tcp"):
            port = int(re.findall(r"dport=(\d+)", line)[0])
            found.add(Flow(protocol, short(destinations[0]), port, short(sources[1])))
    return found


def short(address: str) -> str:
    return str(parse_ip(address))


def make_flow(flow: Flow) -> None:
    """Have the kernel track a flow: one UDP packet that nobody answers, or a TCP connection."""
    family = socket.AF_INET6 if ":" in flow.destination else socket.AF_INET
    there = flow.destination, flow.port
    if flow.protocol == "udp":
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", there)
        return
    with socket.create_server(there, family=family), socket.create_connection(there, timeout=5):
        pass


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    """Every test runs inside its host, which tracks flows and has several addresses."""
    for number in (5, 6, 7, 8, 9):
        host.run("ip", "address", "add", f"fd00::{number}/128", "dev", "lo", "nodad")
    host.run("nft", "-f", "-", input=RULES)
    with host.entered():
        yield


def addresses(*texts: str) -> list[IP]:
    return [parse_ip(text) for text in texts]


TO_5 = Flow("udp", "127.0.0.5", 53, "127.0.0.5")
REDIRECTED_TO_5 = Flow("udp", "127.0.0.9", 53, "127.0.0.5")
TO_6 = Flow("udp", "127.0.0.6", 53, "127.0.0.6")
V6_TO_5 = Flow("udp", "fd00::5", 53, "fd00::5")
V6_REDIRECTED_TO_5 = Flow("udp", "fd00::9", 53, "fd00::5")
V6_TO_6 = Flow("udp", "fd00::6", 53, "fd00::6")
OTHER_PORT, V6_OTHER_PORT = Flow("udp", "127.0.0.7", 54, "127.0.0.7"), Flow("udp", "fd00::7", 54, "fd00::7")
TCP, V6_TCP = Flow("tcp", "127.0.0.5", 53, "127.0.0.5"), Flow("tcp", "fd00::5", 53, "fd00::5")
ALL = {
    TO_5,
    REDIRECTED_TO_5,
    TO_6,
    V6_TO_5,
    V6_REDIRECTED_TO_5,
    V6_TO_6,
    OTHER_PORT,
    V6_OTHER_PORT,
    TCP,
    V6_TCP,
}


def make_flows(host: Host) -> None:
    for flow in ALL:
        make_flow(flow)
    assert flows(host) == ALL


@pytest.mark.parametrize(
    ("targets", "forgotten"),
    [
        (["127.0.0.5"], {TO_5, REDIRECTED_TO_5}),
        (["fd00::5"], {V6_TO_5, V6_REDIRECTED_TO_5}),
        (["127.0.0.5", "fd00::5"], {TO_5, REDIRECTED_TO_5, V6_TO_5, V6_REDIRECTED_TO_5}),
        (["127.0.0.6"], {TO_6}),
        (["fd00::6"], {V6_TO_6}),
        (["127.0.0.9"], set()),
        (["10.99.0.1", "fd00::99"], set()),
        ([], set()),
    ],
    ids=["IPv4", "IPv6", "both", "another", "another of IPv6", "only asked for", "nobody's", "none"],
)
def test_exactly_the_udp_flows_that_a_container_answers_are_forgotten(
    host: Host, targets: list[str], forgotten: set[Flow]
) -> None:
    make_flows(host)
    forget_flows([], addresses(*targets))
    assert flows(host) == ALL - forgotten


@pytest.mark.parametrize(
    ("version", "port", "forgotten"),
    [
        (4, 53, {TO_5, REDIRECTED_TO_5, TO_6}),
        (6, 53, {V6_TO_5, V6_REDIRECTED_TO_5, V6_TO_6}),
        (4, 54, {OTHER_PORT}),
        (6, 54, {V6_OTHER_PORT}),
        (4, 5353, set()),
        (4, 13568, set()),
    ],
    ids=["IPv4", "IPv6", "another port", "another port of IPv6", "the port behind", "the bytes swapped"],
)
def test_exactly_the_udp_flows_towards_a_host_port_are_forgotten(
    host: Host, version: int, port: int, forgotten: set[Flow]
) -> None:
    make_flows(host)
    forget_flows([(version, port)], [])
    assert flows(host) == ALL - forgotten


def test_ports_and_containers_are_looked_for_in_one_pass_of_each_family(host: Host, mocker: MockerFixture) -> None:
    make_flows(host)
    dumped, opened = mocker.spy(NetlinkSocket, "dump"), mocker.spy(NetlinkSocket, "__init__")
    ports = [(version, port) for version in (4, 6) for port in (54, *range(10000, 20000))]
    forget_flows(ports, addresses("127.0.0.5", "10.99.0.1", "fd00::5"))
    assert flows(host) == {TO_6, V6_TO_6, TCP, V6_TCP}
    assert (dumped.call_count, opened.call_count) == (2, 1)


def test_of_one_port_or_container_the_kernel_lists_the_flows_alone(host: Host, mocker: MockerFixture) -> None:
    make_flows(host)
    dumped = mocker.spy(NetlinkSocket, "dump")
    for ports, targets, number in ([(4, 54)], [], 1), ([], addresses("127.0.0.6"), 1), ([(4, 1), (4, 2)], [], 2):
        forget_flows(ports, targets)
        assert len(dumped.spy_return) == number


def test_where_nothing_is_wanted_no_socket_is_opened(mocker: MockerFixture) -> None:
    opened = mocker.patch.object(conntrack, "NetlinkSocket")
    forget_flows([], [])
    opened.assert_not_called()


def test_the_kernel_picks_the_flows_or_lists_all_and_it_is_the_same(host: Host, mocker: MockerFixture) -> None:
    """A kernel older than 5.8 takes no filter and lists everything."""
    make_flows(host)
    genuine = NetlinkSocket.dump

    def dump_all(sock: NetlinkSocket, kind: int, body: bytes) -> list[bytes]:
        return genuine(sock, kind, body[:4])

    mocker.patch.object(NetlinkSocket, "dump", dump_all)
    forget_flows([], addresses("127.0.0.5"))
    forget_flows([(6, 54)], [])
    assert flows(host) == ALL - {TO_5, REDIRECTED_TO_5, V6_OTHER_PORT}


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOENT, False), (errno.EPERM, True)], ids=["ended", "no right"])
def test_a_flow_that_ends_by_itself_meanwhile_is_fine(
    host: Host, mocker: MockerFixture, number: int, raised: bool
) -> None:
    make_flows(host)
    closed = mocker.spy(NetlinkSocket, "close")
    mocker.patch.object(NetlinkSocket, "send_all", return_value=[NetlinkError(number, "", 0)])
    if raised:
        with pytest.raises(OSError):
            forget_flows([], addresses("127.0.0.5"))
    else:
        forget_flows([], addresses("127.0.0.5"))
    assert closed.call_count == 1


def test_a_host_without_flows_is_fine(host: Host) -> None:
    forget_flows([], addresses("127.0.0.5", "fd00::5"))
    forget_flows([(4, 53)], [])
    assert flows(host) == set()


def test_a_kernel_without_connection_tracking_is_an_oserror(mocker: MockerFixture) -> None:
    mocker.patch.object(conntrack, "NetlinkSocket", side_effect=OSError(errno.EPROTONOSUPPORT, "not supported"))
    with pytest.raises(OSError):
        forget_flows([(4, 53)], [])
