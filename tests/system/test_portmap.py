"""Port mappings by cni-bridge itself: connections, datagrams and packets from everywhere to a container."""

import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calls import call_environment
from tests.kit.frames import (
    IPV4,
    SILENCE,
    Wire,
    ask_over_udp,
    ethernet,
    open_udp,
    sctp_init,
    udp_packet,
)
from tests.kit.host import Host, wait_until
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE, OUTSIDE_ADDRESSES, Runtime, connect_outside, find_source
from tests.system.networks import BOTH_FAMILIES, address, find_differences, mac_of, mapped, network, refused, sysctl

pytestmark = pytest.mark.kernel

HOST_PORT, PORT = 8080, 80
TCP = {"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}
UDP = {**TCP, "protocol": "udp"}
SCTP = {**TCP, "protocol": "sctp"}
NETWORK = network(1)
GATEWAYS = {4: "10.1.0.1", 6: "fd00:1::1"}
_SCTP_NUMBER = 132  # IPPROTO_SCTP
# Who asks, and which address of the host for: the wire's or the bridge's.
WAYS = {
    "from-outside": (OUTSIDE, HOST_ADDRESSES),
    "from-the-host-itself-by-its-wire": (None, HOST_ADDRESSES),
    "from-the-host-itself-by-its-bridge": (None, GATEWAYS),
    "from-another-container-by-the-wire": ("c2", HOST_ADDRESSES),
    "from-another-container-by-the-bridge": ("c2", GATEWAYS),
    "hairpin-by-the-wire": ("c1", HOST_ADDRESSES),
    "hairpin-by-the-bridge": ("c1", GATEWAYS),
}


def set_bridge_filtering(host: Host, value: int) -> None:
    """Whether bridged packets go through the chains of IP (br_netfilter), as Kubernetes has it."""
    for name in ("iptables", "ip6tables"):
        sysctl(host, f"bridge/bridge-nf-call-{name}", value)


@pytest.mark.parametrize("bridge_filtering", [0, 1], ids=["nf-call-0", "nf-call-1"])
@BOTH_FAMILIES
@pytest.mark.parametrize("way", WAYS)
def test_host_port_leads_to_the_container(bridge: Runtime, bridge_filtering: int, version: int, way: str) -> None:
    connect_outside(bridge.host)
    set_bridge_filtering(bridge.host, bridge_filtering)
    result = bridge.add("c1", mapped(NETWORK, TCP, UDP))
    bridge.add("c2", NETWORK)
    client, addresses = WAYS[way]
    listening, target = (address(result, version), PORT), (addresses[version], HOST_PORT)
    source = find_source(bridge.host, client, "c1", listening, target)
    assert ask_over_udp(bridge.host, client, "c1", listening, target) == source
    if client == OUTSIDE:  # the container learns who is asking
        assert source == OUTSIDE_ADDRESSES[version]


@pytest.mark.parametrize("bridge_filtering", [0, 1], ids=["nf-call-0", "nf-call-1"])
@pytest.mark.parametrize("keys", [{}, {"promiscMode": True}, {"ipMasq": True}], ids=["plain", "promisc", "ipMasq"])
def test_host_port_leads_to_the_container_from_127_0_0_1(
    bridge: Runtime, bridge_filtering: int, keys: dict[str, Any]
) -> None:
    set_bridge_filtering(bridge.host, bridge_filtering)
    result = bridge.add("c1", mapped(network(1, **keys), TCP, UDP))
    listening, target = (address(result), PORT), ("127.0.0.1", HOST_PORT)
    assert find_source(bridge.host, None, "c1", listening, target) == GATEWAYS[4]
    assert ask_over_udp(bridge.host, None, "c1", listening, target) == GATEWAYS[4]


@pytest.mark.parametrize("bridge_filtering", [0, 1], ids=["nf-call-0", "nf-call-1"])
@BOTH_FAMILIES
@pytest.mark.parametrize("keys", [{"promiscMode": True}, {"ipMasq": True}], ids=["promisc", "ipMasq"])
def test_container_reaches_its_own_host_port_with_other_options_too(
    bridge: Runtime, bridge_filtering: int, version: int, keys: dict[str, Any]
) -> None:
    set_bridge_filtering(bridge.host, bridge_filtering)
    result = bridge.add("c1", mapped(network(1, **keys), TCP))
    listening, target = (address(result, version), PORT), (GATEWAYS[version], HOST_PORT)
    assert find_source(bridge.host, "c1", "c1", listening, target) == GATEWAYS[version]


@BOTH_FAMILIES
def test_container_of_another_network_reaches_the_host_port(bridge: Runtime, version: int) -> None:
    result = bridge.add("c1", mapped(NETWORK, TCP))
    other = bridge.add("c2", network(2))
    listening, target = (address(result, version), PORT), ("10.2.0.1" if version == 4 else "fd00:2::1", HOST_PORT)
    assert find_source(bridge.host, "c2", "c1", listening, target) == address(other, version)


@BOTH_FAMILIES
def test_host_ip_leads_there_from_that_address_only(bridge: Runtime, version: int) -> None:
    connect_outside(bridge.host)
    result = bridge.add("c1", mapped(NETWORK, {**TCP, "hostIP": HOST_ADDRESSES[version]}))
    listening = (address(result, version), PORT)
    assert find_source(bridge.host, OUTSIDE, "c1", listening, (HOST_ADDRESSES[version], HOST_PORT))
    for client in ("c1", None):
        with pytest.raises(ConnectionRefusedError):
            find_source(bridge.host, client, "c1", listening, (GATEWAYS[version], HOST_PORT))
    if version == 4:  # what is for another address than the host port's is not disguised, and then stays
        with pytest.raises(ConnectionRefusedError):
            _ask(bridge.host, ("127.0.0.1", 0), (HOST_ADDRESSES[4], HOST_PORT))
    assert find_source(bridge.host, None, "c1", listening, (HOST_ADDRESSES[version], HOST_PORT))


@pytest.mark.parametrize(("every", "versions"), [("", (4, 6)), ("0.0.0.0", (4,)), ("::", (6,))])
def test_host_ip_without_a_bit_stands_for_every_address_of_its_family(
    bridge: Runtime, every: str, versions: tuple[int, ...]
) -> None:
    config = mapped(NETWORK, {**TCP, "hostIP": every})
    result = bridge.add("c1", config)
    bridge.check("c1", config)
    for version in (4, 6):
        listening = (address(result, version), PORT)
        if version in versions:
            assert find_source(bridge.host, None, "c1", listening, (GATEWAYS[version], HOST_PORT))
        else:
            with pytest.raises(ConnectionRefusedError):
                find_source(bridge.host, None, "c1", listening, (GATEWAYS[version], HOST_PORT))


def test_host_port_0_is_not_published(bridge: Runtime) -> None:
    bridge.add("c1", mapped(NETWORK, {**TCP, "hostPort": 0}))
    assert bridge.host.nft() == []


def test_connection_through_the_host_to_somebody_else_is_left_alone(bridge: Runtime) -> None:
    # only what is for the host itself is redirected, not what has the same port and passes through
    connect_outside(bridge.host)
    bridge.add("c1", mapped(network(1, ipMasq=True), TCP))
    outside = (OUTSIDE_ADDRESSES[4], HOST_PORT)
    assert find_source(bridge.host, "c1", OUTSIDE, outside) == HOST_ADDRESSES[4]


@BOTH_FAMILIES
@pytest.mark.parametrize("host_ip", [False, True], ids=["every-address", "hostIP"])
def test_sctp_packet_from_outside_arrives_translated(bridge: Runtime, version: int, host_ip: bool) -> None:
    connect_outside(bridge.host)
    mapping = {**SCTP, "hostIP": HOST_ADDRESSES[version]} if host_ip else SCTP
    result = bridge.add("c1", mapped(NETWORK, mapping))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with bridge.host.entered("c1"):
        receiving = socket.socket(family, socket.SOCK_RAW, _SCTP_NUMBER)
    with bridge.host.entered(OUTSIDE):
        sending = socket.socket(family, socket.SOCK_RAW, _SCTP_NUMBER)
    with receiving, sending:
        receiving.bind((address(result, version), 0))
        receiving.settimeout(3)
        sending.sendto(sctp_init(40000, HOST_PORT), (HOST_ADDRESSES[version], 0))
        packet, peer = receiving.recvfrom(2048)
    header = packet[20:] if version == 4 else packet  # a raw socket of IPv4 gives the IP header too
    assert peer[0] == OUTSIDE_ADDRESSES[version]
    assert struct.unpack("!HH", header[:4]) == (40000, PORT)
    assert header[12:] == sctp_init(40000, HOST_PORT)[12:]


def test_each_protocol_has_ports_of_its_own(bridge: Runtime) -> None:
    first = bridge.add("c1", mapped(NETWORK, TCP))
    second = bridge.add("c2", mapped(NETWORK, UDP))
    bridge.add("c3", mapped(NETWORK, SCTP))
    target = (GATEWAYS[4], HOST_PORT)
    assert find_source(bridge.host, None, "c1", (address(first), PORT), target)
    assert ask_over_udp(bridge.host, None, "c2", (address(second), PORT), target)


def _reaches_loopback(host: Host, container: str, source: tuple[str, str], gateway_mac: str) -> bool:
    """Whether a datagram that a container sends to 127.0.0.1 over its interface arrives at a service of the host."""
    mac, ip = source
    with open_udp(host, None, ("127.0.0.1", 5353)) as service, Wire(host, container) as wire:
        service.settimeout(SILENCE)
        wire.send(ethernet(gateway_mac, mac, IPV4, udp_packet((ip, 5000), ("127.0.0.1", 5353), b"knock")))
        try:
            return service.recv(16) == b"knock"
        except TimeoutError:
            return False


def _leave_killed(runtime: Runtime) -> None:
    """An ADD that is killed while it waits for its addresses: the rules are there, the gateway is not."""
    environment = call_environment("ADD", "c2", runtime.host.add_container("c2"), path=runtime.path)
    adding = runtime.host.start(runtime.executable, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with adding, suppress(BrokenPipeError):
        assert adding.stdin is not None
        adding.stdin.write(json.dumps(mapped({**NETWORK, "enabledad": True}, UDP)))
        adding.stdin.close()
        assert wait_until(lambda: "net1,c2,eth0" in str(runtime.host.nft()))
        adding.kill()
    assert adding.returncode == -signal.SIGKILL


def _leave_failed(runtime: Runtime) -> None:
    runtime.host.add_container("c2")
    error = refused(runtime, "ADD", "c2", mapped(network(3, bridge="br1"), UDP))
    assert "forceAddress" in error["msg"]  # which it comes to last of all


def _flush(runtime: Runtime) -> None:
    runtime.host.run("nft", "flush", "ruleset")


def _delete(runtime: Runtime) -> None:
    runtime.delete("c1", NETWORK)


STATES: dict[str, list[Callable[[Runtime], None]]] = {
    "added": [],
    "deleted": [_delete],
    "flushed": [_flush],
    "flushed and deleted": [_flush, _delete],
    "failed": [_leave_failed],
    "deleted and failed": [_delete, _leave_failed],
    "killed": [_leave_killed],
    "killed and flushed": [_leave_killed, _flush],
}


@pytest.mark.parametrize("state", STATES)
def test_container_never_reaches_what_listens_on_the_hosts_127_0_0_1(bridge: Runtime, state: str) -> None:
    host = bridge.host
    observer = bridge.add("observer", NETWORK)
    bridge.add("c1", mapped(NETWORK, TCP))
    for step in STATES[state]:
        step(bridge)
    source, gateway = (mac_of(observer), address(observer)), observer["interfaces"][0]["mac"]
    assert not _reaches_loopback(host, "observer", source, gateway)
    sysctl(host, "ipv4/conf/br1/route_localnet", 1)
    assert _reaches_loopback(host, "observer", source, gateway), "the datagram is one that could arrive"


@pytest.mark.parametrize(
    ("who", "host_ip"), [(OUTSIDE, "127.0.0.1"), ("c2", "")], ids=["neighbour", "another container"]
)
def test_nobody_but_the_host_reaches_a_host_port_by_127_0_0_1(bridge: Runtime, who: str, host_ip: str) -> None:
    host = bridge.host
    connect_outside(host)
    result = bridge.add("c1", mapped(NETWORK, {**TCP, "hostIP": host_ip}))
    bridge.add("c2", NETWORK)
    _send_loopback_to_the_host(host, who)
    assert not _is_answered(host, who, 1.0)
    assert find_source(host, None, "c1", (address(result), PORT), ("127.0.0.1", HOST_PORT)) == GATEWAYS[4]
    [rule] = [
        str(entry["rule"]["handle"])
        for entry in host.nft()
        if "rule" in entry and entry["rule"]["chain"] == "portmap_prerouting" and "return" in str(entry["rule"])
    ]
    host.run("nft", "delete", "rule", "inet", "pycni", "portmap_prerouting", "handle", rule)
    assert _is_answered(host, who, 20.0), "the packet is one that could arrive"
    bridge.add("c3", mapped(NETWORK, {**TCP, "hostPort": HOST_PORT + 1}))  # it finds the chain without the rule
    assert not _is_answered(host, who, 1.0)


def _is_answered(host: Host, client: str, bound: float) -> bool:
    """Whether somebody refuses a connection to the host port at 127.0.0.1 within that many seconds."""
    with host.entered(client), suppress(TimeoutError):
        try:
            socket.create_connection(("127.0.0.1", HOST_PORT), timeout=bound)
        except ConnectionRefusedError:
            return True
    return False


def _send_loopback_to_the_host(host: Host, container: str) -> None:
    """Have a container send what is for 127.0.0.1 to the host by its eth0."""
    sysctl(host, "ipv4/conf/all/route_localnet", 1, container)
    host.run("ip", "address", "delete", "127.0.0.1/8", "dev", "lo", container=container)
    router, own = (HOST_ADDRESSES[4], OUTSIDE_ADDRESSES[4]) if container == OUTSIDE else (GATEWAYS[4], "")
    own = own or host.addresses("eth0", container)[0].partition("/")[0]
    host.run("ip", "route", "add", "127.0.0.1/32", "via", router, "dev", "eth0", "src", own, container=container)


def _ask(host: Host, source: tuple[str, int], target: tuple[str, int]) -> socket.socket:
    with host.entered():
        return socket.create_connection(target, timeout=3, source_address=source)


REDIRECT = "add table ip other; add chain ip other out { type nat hook output priority -110; }; add rule ip other out "


@pytest.mark.parametrize("port", [5432, 5433], ids=["direct", "redirected-by-others"])
def test_local_connection_whose_own_port_is_a_host_port_is_left_alone(bridge: Runtime, port: int) -> None:
    bridge.add("c1", mapped(NETWORK, {**TCP, "hostPort": 40000}))
    bridge.host.run("nft", f"{REDIRECT} tcp dport 5433 redirect to :5432")
    with bridge.host.entered():
        listener = socket.create_server(("127.0.0.1", 5432))
    with listener, _ask(bridge.host, ("127.0.0.1", 40000), ("127.0.0.1", port)) as asking:
        answering, peer = listener.accept()
        with answering:
            answering.sendall(b"welcome")
            assert (asking.recv(16), peer) == (b"welcome", ("127.0.0.1", 40000))


def test_local_connection_from_before_the_mapping_goes_on(bridge: Runtime) -> None:
    bridge.add("c0", mapped(NETWORK, {**TCP, "hostPort": 1}))  # from then on the host tracks connections
    with bridge.host.entered():
        listener = socket.create_server(("127.0.0.1", HOST_PORT))
    with listener, _ask(bridge.host, ("127.0.0.1", 0), ("127.0.0.1", HOST_PORT)) as asking:
        answering, _ = listener.accept()
        with answering:
            bridge.add("c1", mapped(NETWORK, TCP))
            for sender, receiver in ((asking, answering), (answering, asking)):
                sender.sendall(b"still here")
                receiver.settimeout(3)
                assert receiver.recv(16) == b"still here"


def test_connections_to_127_0_0_1_from_one_port_of_two_addresses_are_told_apart(bridge: Runtime) -> None:
    result = bridge.add("c1", mapped(NETWORK, TCP))
    with bridge.host.entered("c1"):
        listener = socket.create_server((address(result), PORT))
    sources = [("127.0.0.1", 50000), ("127.0.0.2", 50000), (GATEWAYS[4], 50000)]
    with listener, ExitStack() as stack:
        pairs = []
        for source in sources:
            asking = stack.enter_context(_ask(bridge.host, source, ("127.0.0.1", HOST_PORT)))
            answering, peer = listener.accept()
            pairs.append((asking, stack.enter_context(answering), peer))
        assert {peer[0] for _, _, peer in pairs} == {GATEWAYS[4]}
        assert len({peer[1] for _, _, peer in pairs}) == len(sources)
        for number, (asking, answering, _) in enumerate(pairs):
            answering.sendall(b"to %d" % number)
            assert asking.recv(16) == b"to %d" % number


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_refusal_by_the_container_comes_back_to_127_0_0_1_at_once(bridge: Runtime, kind: socket.SocketKind) -> None:
    bridge.add("c1", mapped(NETWORK, TCP, UDP))
    with bridge.host.entered():
        asking = socket.socket(socket.AF_INET, kind)
    with asking, pytest.raises(ConnectionRefusedError):
        asking.settimeout(3)
        asking.connect(("127.0.0.1", HOST_PORT))
        asking.send(b"anybody there?")
        asking.recv(16)


def test_socket_that_is_not_connected_gets_its_answer_from_127_0_0_1(bridge: Runtime) -> None:
    result = bridge.add("c1", mapped(NETWORK, UDP))
    with (
        open_udp(bridge.host, "c1", (address(result), PORT)) as answering,
        open_udp(bridge.host, None, ("0.0.0.0", 0)) as asking,
    ):
        for word in (b"first", b"second"):
            asking.sendto(word, ("127.0.0.1", HOST_PORT))
            assert answering.recvfrom(16)[0] == word
        answering.sendto(b"answer", (GATEWAYS[4], asking.getsockname()[1]))
        assert asking.recvfrom(16) == (b"answer", ("127.0.0.1", HOST_PORT))


def test_host_port_of_one_address_in_127_0_0_0_is_of_no_other(bridge: Runtime) -> None:
    result = bridge.add("c1", mapped(NETWORK, {**TCP, "hostIP": "127.0.0.5"}))
    listening = (address(result), PORT)
    assert find_source(bridge.host, None, "c1", listening, ("127.0.0.5", HOST_PORT)) == GATEWAYS[4]
    with pytest.raises(ConnectionRefusedError):
        find_source(bridge.host, None, "c1", listening, ("127.0.0.1", HOST_PORT))
    assert find_source(bridge.host, None, None, ("127.0.0.1", HOST_PORT)) == "127.0.0.1"


def test_127_0_0_1_leads_to_the_container_over_a_gateway_that_others_made(bridge: Runtime) -> None:
    config = {key: value for key, value in NETWORK.items() if key != "isDefaultGateway"}
    result = bridge.add("c1", mapped(config, TCP))
    bridge.host.run("ip", "address", "add", "10.1.7.7/16", "dev", "br1")
    assert find_source(bridge.host, None, "c1", (address(result), PORT), ("127.0.0.1", HOST_PORT)) == "10.1.7.7"


def test_host_port_on_the_hosts_ipv6_loopback_is_refused_at_once(bridge: Runtime) -> None:
    # Linux lets no packet from ::1 out; a client that tries `localhost` must get to 127.0.0.1 without a timeout
    bridge.add("c1", mapped(NETWORK, TCP))
    with bridge.host.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", HOST_PORT), timeout=2)


def test_service_of_the_host_on_another_port_is_not_disturbed(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    bridge.add("c1", mapped(NETWORK, TCP))
    for client in (OUTSIDE, None):
        assert find_source(bridge.host, client, None, (HOST_ADDRESSES[4], HOST_PORT + 1))
    assert find_source(bridge.host, None, None, ("127.0.0.1", HOST_PORT + 1)) == "127.0.0.1"


@pytest.mark.parametrize(
    ("first", "second", "claim"),
    [
        (TCP, TCP, "8080/tcp"),
        (UDP, {**UDP, "containerPort": 53}, "8080/udp"),
        (SCTP, SCTP, "8080/sctp"),
        ({**TCP, "hostIP": "10.1.0.1"}, {**TCP, "hostIP": "10.1.0.1"}, "10.1.0.1 8080/tcp"),
        ({**TCP, "hostIP": "fd00:1::1"}, {**TCP, "hostIP": "fd00:1:0::1"}, "fd00:1::1 8080/tcp"),
    ],
    ids=["tcp", "udp", "sctp", "hostIP", "hostIP-spelt-differently"],
)
def test_second_claim_of_a_host_port_names_the_holder_and_leaves_nothing(
    bridge: Runtime, snapshot: Callable[[], Any], first: dict[str, Any], second: dict[str, Any], claim: str
) -> None:
    bridge.add("c1", mapped(NETWORK, first))
    bridge.host.add_container("c2")
    before = snapshot()
    error = refused(bridge, "ADD", "c2", mapped(NETWORK, second))
    assert error["code"] == 102
    for word in (claim, "container c1", "interface eth0", "network net1"):
        assert word in error["msg"]
    after = snapshot()
    # round robin goes on from the last address that was given, also to a container that was undone
    after["files"], before["files"] = (
        [line for line in entries["files"] if "last_reserved_ip" not in line] for entries in (after, before)
    )
    assert after == before
    bridge.check("c1", mapped(NETWORK, first))
    bridge.delete("c1", mapped(NETWORK, first))
    bridge.add("c2", mapped(NETWORK, second))


@BOTH_FAMILIES
def test_container_on_two_networks_has_its_ports_on_the_first_and_then_on_the_second(
    bridge: Runtime, version: int
) -> None:
    # as podman does it: every network of the container gets its port mappings
    host, first_net = bridge.host, mapped(NETWORK, TCP, UDP)
    second_net = mapped(network(2, isDefaultGateway=False, isGateway=True), TCP, UDP)
    connect_outside(host)
    first = bridge.add("c1", first_net)
    outcome = bridge.call("ADD", "c1", second_net, ifname="eth1")
    assert (outcome.status, "host port 8080/tcp (and 1 more) stays" in outcome.stderr) == (0, True), outcome
    second = outcome.document
    target = (HOST_ADDRESSES[version], HOST_PORT)

    def check(config: Any, result: Any, ifname: str) -> Any:
        return bridge.call("CHECK", "c1", {**config, "prevResult": result}, ifname=ifname)[:3]

    assert check(first_net, first, "eth0") == check(second_net, second, "eth1") == (0, None, "")
    assert find_source(host, OUTSIDE, "c1", (address(first, version), PORT), target)
    bridge.delete("c1", first_net)
    assert check(second_net, second, "eth1") == (0, None, "")
    gateway = GATEWAYS[version].replace("10.1.", "10.2.").replace("fd00:1:", "fd00:2:")
    host.run("ip", "-n", "c1", "route", "add", "default", "via", gateway)
    assert find_source(host, OUTSIDE, "c1", (address(second, version), PORT), target)
    assert ask_over_udp(host, OUTSIDE, "c1", (address(second, version), PORT), target)
    assert bridge.call("DEL", "c1", second_net, ifname="eth1") == (0, None, "", "")
    assert host.nft() == []


def test_holder_whose_namespace_is_gone_gives_way(bridge: Runtime) -> None:
    bridge.add("c1", mapped(NETWORK, TCP, UDP))
    port = bridge.results["c1"]["interfaces"][1]["name"]
    bridge.host.remove_container("c1")
    assert wait_until(lambda: port not in bridge.host.link_names())
    second = bridge.add("c2", mapped(NETWORK, TCP, UDP))
    assert find_source(bridge.host, None, "c2", (address(second), PORT), ("127.0.0.1", HOST_PORT))
    outcome = bridge.call("DEL", "c1", NETWORK, netns="")
    assert outcome == (0, None, "", "")
    bridge.check("c2", mapped(NETWORK, TCP, UDP))
    assert find_source(bridge.host, None, "c2", (address(second), PORT), ("127.0.0.1", HOST_PORT))


@pytest.mark.parametrize("number", [270, 10000])
def test_as_many_host_ports_as_anybody_asks_for(bridge: Runtime, snapshot: Callable[[], Any], number: int) -> None:
    first, last = (
        [{"hostPort": start + i, "containerPort": 80 + i, "protocol": kind} for i in range(number)]
        for start, kind in ((10000, "tcp"), (30000, "udp"))
    )
    result = bridge.add("c1", mapped(NETWORK, *first))
    bridge.host.add_container("c2")
    before = snapshot()
    error = refused(bridge, "ADD", "c2", mapped(NETWORK, *last, first[-1]))
    assert (error["code"], f"host port {10000 + number - 1}/tcp" in error["msg"]) == (102, True), error
    after = snapshot()
    for state in (before, after):
        state["files"] = [line for line in state["files"] if "last_reserved_ip" not in line]
    assert after == before
    bridge.add("c2", mapped(NETWORK, *last))
    for name, mappings in (("c1", first), ("c2", last)):
        bridge.check(name, mapped(NETWORK, *mappings))
    listening, target = (address(result), 80 + number - 1), ("127.0.0.1", 10000 + number - 1)
    assert find_source(bridge.host, None, "c1", listening, target) == GATEWAYS[4]
    for name in ("c1", "c2"):
        bridge.delete(name, NETWORK)
    assert bridge.host.nft() == []


def test_second_claim_from_another_network_names_that_network(bridge: Runtime) -> None:
    bridge.add("c1", mapped(NETWORK, TCP))
    bridge.host.add_container("c2")
    assert "network net1" in refused(bridge, "ADD", "c2", mapped(network(2), TCP))["msg"]


def test_same_host_port_on_different_addresses_of_the_host(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    first = bridge.add("c1", mapped(NETWORK, {**TCP, "hostIP": HOST_ADDRESSES[4]}))
    second = bridge.add("c2", mapped(NETWORK, {**TCP, "hostIP": GATEWAYS[4]}))
    third = bridge.add("c3", mapped(NETWORK, {**TCP, "hostIP": HOST_ADDRESSES[6]}))
    for name, result, target in (
        ("c1", first, HOST_ADDRESSES[4]),
        ("c2", second, GATEWAYS[4]),
        ("c3", third, HOST_ADDRESSES[6]),
    ):
        listening = (address(result, 6 if ":" in target else 4), PORT)
        assert find_source(bridge.host, None, name, listening, (target, HOST_PORT))
    bridge.delete("c2", NETWORK)
    assert find_source(bridge.host, OUTSIDE, "c1", (address(first), PORT), (HOST_ADDRESSES[4], HOST_PORT))


def _rules_by_chain(host: Host) -> dict[str, int]:
    """How many rules each chain has that the kernel runs at a hook, or that belongs to a subnet."""
    counts: dict[str, int] = {}
    for entry in host.nft():
        if "chain" in entry:
            counts.setdefault(entry["chain"]["name"], 0)
        if "rule" in entry:
            counts[entry["rule"]["chain"]] = counts.get(entry["rule"]["chain"], 0) + 1
    return counts


def test_rules_do_not_grow_with_the_containers(bridge: Runtime) -> None:
    bridge.add("c1", mapped(NETWORK, TCP, UDP))
    alone = _rules_by_chain(bridge.host)
    for number in range(2, 21):
        port = 9000 + number
        bridge.add(f"c{number}", mapped(NETWORK, {**TCP, "hostPort": port}, {**UDP, "hostPort": port}))
    assert sum(alone.values()) > 0
    assert _rules_by_chain(bridge.host) == alone
    maps = [entry["map"] for entry in bridge.host.nft() if "map" in entry]
    assert len(next(entry["elem"] for entry in maps if entry["name"] == "portmap_any4")) == 40


@pytest.mark.parametrize(
    "mapping",
    [
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""},
        {"hostport": 8080, "CONTAINERPORT": 80},
        {"hostPort": 8080, "containerPort": 80, "protocol": "Tcp", "hostIP": "127.0.0.1"},
    ],
    ids=["containerd", "odd", "podman-with-hostIP"],
)
def test_keys_and_protocols_in_any_case(bridge: Runtime, mapping: dict[str, Any]) -> None:
    result = bridge.add("c1", mapped(NETWORK, mapping))
    assert find_source(bridge.host, None, "c1", (address(result), PORT), ("127.0.0.1", HOST_PORT))


@pytest.mark.parametrize(
    ("mappings", "word"),
    [
        ([{"containerPort": 80}], "portMappings[0].hostPort"),
        ([{"hostPort": 80}], "portMappings[0].containerPort"),
        ([TCP, {**TCP, "hostPort": -2}], "portMappings[1].hostPort"),
        ([{**TCP, "hostPort": 65536}], "65536"),
        ([{**TCP, "hostPort": -1}], "-1"),
        ([{**TCP, "hostPort": "8080"}], '"8080"'),
        ([{**TCP, "hostPort": True}], "true"),
        ([{**TCP, "hostPort": 80.5}], "80.5"),
        ([{**TCP, "containerPort": None}], "containerPort"),
        ([{**TCP, "protocol": "icmp"}], "icmp"),
        ([{**TCP, "protocol": 6}], "protocol"),
        ([{**TCP, "hostIP": "localhost"}], "localhost"),
        ([{**TCP, "hostIP": "10.1.0.1/16"}], "10.1.0.1/16"),
        ([TCP, {**TCP, "containerPort": 81}], "leads to two ports"),
        (["8080:80"], "portMappings[0]"),
        ({"hostPort": 1}, "portMappings"),
        ("8080:80", "portMappings"),
    ],
    ids=lambda value: json.dumps(value)[:50] if not isinstance(value, str) else value,
)
def test_malformed_mapping_is_an_error_of_the_configuration(
    bridge: Runtime, snapshot: Callable[[], Any], mappings: Any, word: str
) -> None:
    bridge.host.add_container("c1")
    before = snapshot()
    error = refused(bridge, "ADD", "c1", {**NETWORK, "runtimeConfig": {"portMappings": mappings}})
    assert (error["code"], word in error["msg"]) == (7, True), error
    assert snapshot() == before


def test_mapping_without_addresses_is_an_error_of_the_configuration(bridge: Runtime) -> None:
    bridge.host.add_container("c1")
    config = {key: value for key, value in NETWORK.items() if key not in ("ipam", "isDefaultGateway")}
    assert refused(bridge, "ADD", "c1", mapped(config, TCP))["code"] == 7


@pytest.mark.parametrize(
    "command",
    [
        "flush map inet pycni portmap_any4",
        "flush map inet pycni portmapped4",
        "flush chain inet pycni portmap_prerouting",
        "flush chain inet pycni portmap_output",
        "flush chain inet pycni portmap_postrouting",
        "flush set inet pycni portmap_any_loopback",
        "flush chain inet pycni portmap_loopback_output",
        "flush chain inet pycni portmap_loopback_prerouting",
        "flush chain inet pycni portmap_loopback_input",
        "flush ruleset",
    ],
)
def test_check_sees_what_was_flushed(bridge: Runtime, command: str) -> None:
    config = mapped(NETWORK, TCP)
    bridge.add("c1", config)
    bridge.check("c1", config)
    bridge.host.run("nft", *command.split())
    assert "nftables table pycni" in find_differences(bridge, "c1", config)


def test_check_sees_a_mapping_that_leads_elsewhere(bridge: Runtime) -> None:
    config = mapped(NETWORK, TCP)
    bridge.add("c1", config)
    key = "tcp . 8080"
    bridge.host.run("nft", f"delete element inet pycni portmap_any4 {{ {key} }}")
    bridge.host.run("nft", f"add element inet pycni portmap_any4 {{ {key} : 10.1.0.99 . 80 }}")
    assert "portmap_any4" in find_differences(bridge, "c1", config)


def test_next_mapping_mends_what_was_flushed(bridge: Runtime) -> None:
    connect_outside(bridge.host)
    result = bridge.add("c1", mapped(NETWORK, TCP))
    bridge.host.run("nft", "flush", "chain", "inet", "pycni", "portmap_prerouting")
    bridge.add("c2", mapped(NETWORK, UDP))
    assert find_source(bridge.host, OUTSIDE, "c1", (address(result), PORT), (HOST_ADDRESSES[4], HOST_PORT))


@pytest.mark.parametrize("namespace", ["there", "gone"])
def test_delete_without_runtime_config_removes_everything(
    bridge: Runtime, snapshot: Callable[[], Any], namespace: str
) -> None:
    bridge.add("c1", NETWORK)
    before = snapshot()
    bridge.add("c2", mapped(NETWORK, TCP, UDP, SCTP, {**TCP, "hostPort": 1, "hostIP": GATEWAYS[6]}))
    outcome = bridge.call("DEL", "c2", NETWORK, netns="" if namespace == "gone" else "/run/netns/c2")
    assert outcome == (0, None, "", "")
    bridge.host.remove_container("c2")
    after = snapshot()
    assert after["nft"] == before["nft"] == []
    assert after["host"] == before["host"]


def test_delete_leaves_the_mappings_of_others(bridge: Runtime) -> None:
    first = bridge.add("c1", mapped(NETWORK, TCP))
    bridge.add("c2", mapped(NETWORK, UDP))
    bridge.delete("c2", NETWORK)
    bridge.check("c1", mapped(NETWORK, TCP))
    assert find_source(bridge.host, None, "c1", (address(first), PORT), ("127.0.0.1", HOST_PORT))


def _flows(host: Host) -> list[str]:
    """The entries of connection tracking in the host's namespace, as the kernel lists them in any of five readings: one
    may miss an entry while flows of other hosts come and go."""
    with host.entered():
        return [line for _ in range(5) for line in Path(f"/proc/{os.getpid()}/net/nf_conntrack").open()]


@BOTH_FAMILIES
def test_flow_of_datagrams_moves_with_the_mapping(bridge: Runtime, version: int) -> None:
    host = bridge.host
    connect_outside(host)
    bridge.add("c0", network(1, ipMasq=True))  # the kernel tracks connections only where some rule wants it
    target = (HOST_ADDRESSES[version], HOST_PORT)
    with open_udp(host, OUTSIDE, (OUTSIDE_ADDRESSES[version], 5000)) as client:
        with open_udp(host, None, target) as service:  # while nobody has the port mapped, it is the host's
            client.sendto(b"host", target)
            service.recv(16)
            service.sendto(b"yes", client.getsockname()[:2])
            client.recv(16)
        assert any("dport=8080" in line for line in _flows(host))
        for name in ("c1", "c2"):
            result = bridge.add(name, mapped(NETWORK, UDP))
            with open_udp(host, name, (address(result, version), PORT)) as service:
                client.sendto(name.encode(), target)
                word, peer = service.recvfrom(16)
                assert (word, peer[0]) == (name.encode(), OUTSIDE_ADDRESSES[version])
                service.sendto(b"yes", peer)
                assert client.recv(16) == b"yes"
            container = socket.inet_ntop(*_packed(address(result, version)))
            assert any(_is_flow_to(line, container) for line in _flows(host))
            bridge.delete(name, NETWORK)
            assert not any(_is_flow_to(line, container) for line in _flows(host))


def _packed(text: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return family, socket.inet_pton(family, text)


def _is_flow_to(line: str, container: str) -> bool:
    """Whether an entry of /proc/net/nf_conntrack is a UDP flow that a container answers."""
    words = line.split()
    sources = [word.partition("=")[2] for word in words if word.startswith("src=")]
    return words[2] == "udp" and _packed(sources[1])[1] == _packed(container)[1]


def test_flow_of_somebody_else_stays_through_the_end_of_a_mapping(bridge: Runtime) -> None:
    host = bridge.host
    connect_outside(host)
    result = bridge.add("c1", mapped(NETWORK, UDP))
    bridge.add("c2", mapped(NETWORK, {**UDP, "hostPort": 9090}))
    assert ask_over_udp(host, OUTSIDE, "c1", (address(result), PORT), (HOST_ADDRESSES[4], HOST_PORT))
    bridge.delete("c2", NETWORK)
    assert any(_is_flow_to(line, address(result)) for line in _flows(host))


def test_connection_over_tcp_ends_with_the_container(bridge: Runtime) -> None:
    host = bridge.host
    connect_outside(host)
    first = bridge.add("c1", mapped(NETWORK, TCP))
    target = (HOST_ADDRESSES[4], HOST_PORT)
    assert find_source(host, OUTSIDE, "c1", (address(first), PORT), target)
    bridge.delete("c1", NETWORK)
    with pytest.raises(ConnectionRefusedError):
        find_source(host, OUTSIDE, None, ("127.0.0.1", 1), target)
    second = bridge.add("c2", mapped(NETWORK, TCP))
    assert find_source(host, OUTSIDE, "c2", (address(second), PORT), target)


def test_chained_portmap_of_the_reference_works_behind_ours(bridge: Runtime, bin_dir: str) -> None:
    # it starts iptables, which keeps to the host's own namespace
    host = bridge.host
    connect_outside(host)
    result = bridge.add("c1", network(1, cniVersion="1.0.0"))
    reference = Runtime(host, "/usr/lib/cni/portmap", bridge.path)
    config = {**mapped({}, TCP), "cniVersion": "1.0.0", "name": "net1", "type": "portmap", "snat": True}
    outcome = reference.call("ADD", "c1", {**config, "prevResult": result})
    assert outcome.status == 0, outcome
    assert find_source(host, OUTSIDE, "c1", (address(result), PORT), (HOST_ADDRESSES[4], HOST_PORT))
    assert find_source(host, None, "c1", (address(result), PORT), ("127.0.0.1", HOST_PORT))
    bridge.check("c1", network(1, cniVersion="1.0.0"))
    assert reference.call("DEL", "c1", {**config, "prevResult": result}).status == 0
    bridge.delete("c1", network(1, cniVersion="1.0.0"))
    assert wait_until(lambda: host.link_names() == ["uplink", "br1"] or set(host.link_names()) == {"uplink", "br1"})
