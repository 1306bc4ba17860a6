"""Containers on one bridge of a throw-away host, one beyond the host, and probes between all of them.

The sockets are made by the test's own process, in the containers' namespaces: hundreds of probes take a second. What
arrives is judged, not what rules say.
"""

import select
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from cni_protocol.address import IP, parse_ip
from tests.kit.host import Host, open_host

GATEWAYS = ("10.0.0.1/16", "fd00::1/64")
OUTSIDE = ("203.0.113.7", "2001:db8::7")
RAW = {"SCTP": 132, "GRE": 47}
BOUND = 3.0  # seconds in which what should arrive does
GRACE = 0.15  # seconds more in which what should not arrive may


class Probe(NamedTuple):
    """A first packet from one address to another; a port only for TCP, UDP and SCTP."""

    source: IP
    destination: IP
    protocol: str
    port: int = 0


class PodNetwork:
    """Use open_network."""

    def __init__(self, host: Host, pods: Mapping[str, tuple[str, ...]], ports: Iterable[int]) -> None:
        self.host = host
        self.place: dict[IP, str | None] = {parse_ip(each.partition("/")[0]): None for each in GATEWAYS}
        for name, addresses in {**pods, "outside": OUTSIDE}.items():
            host.add_container(name)
            self.place.update({parse_ip(address): name for address in addresses})
        _wire(host, pods)
        self._ports = tuple(ports)
        self._listeners: dict[tuple[IP, str], list[socket.socket]] = defaultdict(list)
        self._number = 0
        for ip, place in self.place.items():
            with host.entered(place):
                self._listen(ip)

    def close(self) -> None:
        """Close the sockets."""
        for sockets in self._listeners.values():
            for each in sockets:
                each.close()

    @contextmanager
    def at(self, ip: IP) -> Iterator[None]:
        """This process in the namespace that has the address."""
        with self.host.entered(self.place[ip]):
            yield

    def arrived(self, probes: Iterable[Probe], expected: Iterable[Probe]) -> set[Probe]:
        """Send all probes at once. Returns which came through, once all that are expected to did and a little later."""
        probes, expected = sorted(set(probes)), set(expected)
        clients: list[tuple[Probe, socket.socket]] = []
        tokens: dict[bytes, Probe] = {}
        try:
            for place in {self.place[probe.source] for probe in probes}:
                with self.host.entered(place):
                    own = [probe for probe in probes if self.place[probe.source] == place]
                    for probe in own:
                        self._number += 1
                        token = b"pycni probe %08d" % self._number
                        tokens[token] = probe
                        clients.append((probe, _send(probe, token)))
            return self._collect(clients, tokens, expected)
        finally:
            for _, client in clients:
                client.close()

    def _collect(
        self, clients: list[tuple[Probe, socket.socket]], tokens: dict[bytes, Probe], expected: set[Probe]
    ) -> set[Probe]:
        found: set[Probe] = set()
        deadline = time.monotonic() + BOUND
        connecting = {client.fileno(): (probe, client) for probe, client in clients if probe.protocol == "TCP"}
        receiving = {
            each.fileno(): each for (_, kind), sockets in self._listeners.items() if kind != "TCP" for each in sockets
        }
        poller = select.poll()
        for number in connecting:
            poller.register(number, select.POLLOUT)
        for number in receiving:
            poller.register(number, select.POLLIN)
        graced = False
        while (left := deadline - time.monotonic()) > 0:
            if expected <= found and not graced:
                graced, deadline = True, time.monotonic() + GRACE
                left = GRACE
            for number, _ in poller.poll(left * 1000):
                if number in connecting:
                    poller.unregister(number)
                    probe, client = connecting[number]
                    if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        found.add(probe)
                else:
                    data = receiving[number].recv(2048)
                    found |= {probe for token, probe in tokens.items() if token in data}
        return found

    def _listen(self, ip: IP) -> None:
        for port in self._ports:
            for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
                listener = socket.socket(ip.family, kind)
                self._listeners[ip, name].append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((str(ip), port))
                if name == "TCP":
                    listener.listen(1000)
        for name, number in RAW.items():
            listener = socket.socket(ip.family, socket.SOCK_RAW, number)
            listener.bind((str(ip), 0))
            self._listeners[ip, name].append(listener)


def _send(probe: Probe, token: bytes) -> socket.socket:
    ip = probe.source
    kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}.get(probe.protocol, socket.SOCK_RAW)
    client = socket.socket(ip.family, kind, RAW.get(probe.protocol, 0))
    client.setblocking(False)
    client.bind((str(ip), 0))
    if probe.protocol == "TCP":
        with suppress(BlockingIOError):
            client.connect((str(probe.destination), probe.port))
    elif probe.protocol == "UDP":
        client.sendto(token, (str(probe.destination), probe.port))
    else:
        head = (4000).to_bytes(2, "big") + probe.port.to_bytes(2, "big") + bytes(8)
        client.sendto(head + token, (str(probe.destination), 0))
    return client


def _wire(host: Host, pods: Mapping[str, tuple[str, ...]]) -> None:
    """The containers' interfaces, by iproute2."""
    lines = ["link add cni0 type bridge", "link set cni0 up", "link add up0 type veth peer name eth0 netns outside"]
    lines += ["link set up0 up", "address add 203.0.113.1/24 dev up0", "address add 2001:db8::1/64 dev up0 nodad"]
    lines += [f"address add {address} dev cni0{' nodad' if ':' in address else ''}" for address in GATEWAYS]
    for i, name in enumerate(pods):
        lines += [f"link add veth{i} type veth peer name eth0 netns {name}"]
        lines += [f"link set veth{i} master cni0 up", f"link set veth{i} type bridge_slave hairpin on"]
    host.run("ip", "-batch", "-", input="\n".join(lines))
    for name, addresses in {**pods, "outside": OUTSIDE}.items():
        own = ["link set eth0 up"]
        for address in addresses:
            prefix = {True: 64, False: 24 if name == "outside" else 16}[":" in address]
            own.append(f"address add {address}/{prefix} dev eth0{' nodad' if ':' in address else ''}")
            gateway = {("outside", True): "2001:db8::1", ("outside", False): "203.0.113.1"}.get(
                (name, ":" in address), GATEWAYS[":" in address].partition("/")[0]
            )
            own.append(f"route add default via {gateway}")
        host.run("ip", "-n", name, "-batch", "-", input="\n".join(own))
    switches = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables", "net/ipv4/ip_forward")
    for switch in (*switches, "net/ipv6/conf/all/forwarding"):
        host.run("sh", "-c", f"echo 1 > /proc/sys/{switch}")


@contextmanager
def open_network(pods: Mapping[str, tuple[str, ...]], ports: Iterable[int]) -> Iterator[PodNetwork]:
    """A host with pods by their names, each with its addresses, listening on ports with TCP and UDP."""
    host = open_host()
    try:
        network = PodNetwork(host, pods, ports)
        try:
            yield network
        finally:
            network.close()
    finally:
        host.close()
