"""An agent gives its table over, or is away, while packets flow: restart, upgrade, reboot, no API, another kube-proxy.

Datagrams that policies deny and others that nobody denies are sent all the while: none of the former may arrive, and
all of the latter must.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cni_bridge.hold_back import hold_back
from cni_node.policy.enforcer import Enforcer
from cni_protocol.address import IP, parse_ip
from tests.cni_node.policy.kernel import A4, B4, PODS, passes
from tests.cni_node.policy.live import DENY, pod_item, put_policy, running
from tests.kit.api_server import ApiServer
from tests.kit.host import wait_until
from tests.kit.pod_network import PodNetwork

BOUND = 30.0  # seconds for whatever must come to pass
PACE = 0.001  # seconds from one datagram to the next
YB4, ZA4 = parse_ip("10.0.2.2"), parse_ip("10.0.3.1")
_PORT = 9
# Tables as earlier versions might have left them, in which nothing passes to x/a: with other rules in the same chains;
# with a map that is of another type now; with a base chain that is at another place now.
_OLD = """
table inet pycni_policy {
    set old_1 { type ipv4_addr; elements = { 10.0.1.1 }; }
    %s
    chain i_old { counter drop; }
    chain forward {
        type filter hook forward priority %s; policy accept;
        ip daddr @old_1 goto i_old
    }
}
"""
_MAP = "map ingress4 { type ipv4_addr : verdict; elements = { 10.0.1.1 : jump i_old }; }"
OLDER = {
    "with other rules": _OLD % (_MAP, "filter + 10"),
    "with a map of another type": _OLD % ("set ingress4 { type ipv4_addr . inet_proto; }", "filter + 10"),
    "with a chain at another place": _OLD % (_MAP, "filter + 20"),
}
# As kube-proxy replaces its own: in one transaction.
_PROXY = """
add table ip kube-proxy
delete table ip kube-proxy
table ip kube-proxy {
    chain services { type nat hook prerouting priority dstnat; ip daddr 10.96.0.%d dnat to 10.0.1.1; }
    chain forward { type filter hook forward priority filter; accept; }
}
"""


class Struck(NamedTuple):
    """A fault, and what is wrong after it; "" if nothing is. `seconds` until a damage was mended."""

    name: str
    problem: str
    seconds: float = 0.0


class Streams:
    """Datagrams of x/b, to x/a and to y/b. Use streaming."""

    def __init__(self, network: PodNetwork) -> None:
        self._receivers = {ip: _bound(network, ip) for ip in (A4, YB4)}
        self._sender = _bound(network, B4)
        self._sent, self._arrived = 0, dict.fromkeys(self._receivers, 0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End them."""
        self._ending.set()
        self._thread.join(BOUND)
        for each in (self._sender, *self._receivers.values()):
            each.close()

    def await_more(self, count: int = 100) -> None:
        """Wait until so many more were sent."""
        wanted = self._sent + count
        assert wait_until(lambda: self._sent >= wanted, BOUND)

    def problem(self) -> str:
        """End them. Returns what was wrong."""
        self._ending.set()
        self._thread.join(BOUND)
        wait_until(lambda: self._receive() == self._sent, 3)
        found = [f"{self._arrived[A4]} of {self._sent} datagrams reached x/a"] if self._arrived[A4] else []
        if self._arrived[YB4] != self._sent:
            found.append(f"{self._sent - self._arrived[YB4]} of {self._sent} datagrams did not reach y/b")
        return "; ".join(found)

    def _run(self) -> None:
        while not self._ending.wait(PACE):
            for ip in self._receivers:
                self._sender.sendto(b"let through?", (str(ip), _PORT))
            self._sent += 1
            self._receive()

    def _receive(self) -> int:
        """Returns how many have reached y/b."""
        for ip, receiver in self._receivers.items():
            with suppress(BlockingIOError):
                while receiver.recv(64):
                    self._arrived[ip] += 1
        return self._arrived[YB4]


def _bound(network: PodNetwork, ip: IP) -> socket.socket:
    with network.at(ip):
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind((str(ip), _PORT))
    found.setblocking(False)
    return found


@contextmanager
def streaming(network: PodNetwork) -> Iterator[Streams]:
    """Streams that flow already."""
    streams = Streams(network)
    try:
        streams.await_more(10)
        yield streams
    finally:
        streams.close()


@contextmanager
def open_api() -> Iterator[ApiServer]:
    """An API with all pods, and a policy that lets nothing in to those of x."""
    with ApiServer() as api:
        for name, addresses in PODS.items():
            api.put(pod_item(name, *addresses), "pods")
        for space in "xyz":
            api.put({"metadata": {"name": space, "labels": {}}}, "namespaces")
        put_policy(api, "x", "deny", DENY)
        yield api


def is_in_force(enforcer: Enforcer) -> bool:
    """Whether it isolates the pods of x."""
    return wait_until(lambda: enforcer.state.isolated == 6, BOUND)


def restart(network: PodNetwork, directory: Path) -> str:
    """One agent ends, another one begins."""
    with open_api() as api:
        with running(network.host, api.url, directory) as first:
            assert is_in_force(first)
        with streaming(network) as streams:
            streams.await_more()
            with running(network.host, api.url, directory) as second:
                assert is_in_force(second)
                streams.await_more()
                return streams.problem()


def upgrade(network: PodNetwork, directory: Path, older: str) -> str:
    """An agent begins that makes another table of the same policies."""
    network.host.run("nft", "-f", "-", input=OLDER[older])
    with open_api() as api, streaming(network) as streams, running(network.host, api.url, directory) as enforcer:
        assert is_in_force(enforcer)
        streams.await_more()
        listed = network.host.run("nft", "list", "table", "inet", "pycni_policy").stdout
        left = "something of the old table is left" if "old" in listed else ""
        return streams.problem() or left


def be_without_api(network: PodNetwork, directory: Path) -> str:
    """The API goes away; the table is flushed meanwhile, and mended from what is known."""
    with open_api() as api, running(network.host, api.url, directory) as enforcer:
        assert is_in_force(enforcer)
        with streaming(network) as streams:
            api.deaf_until.clear()
            api.cut()
            streams.await_more()
            problem = streams.problem()
        network.host.run("nft", "flush", "ruleset")
        enforcer.disturb()
        mended = wait_until(lambda: not passes(network, B4, A4), BOUND)
        api.deaf_until.set()
        return problem or ("" if mended else "without the API the table is not mended")


def replace_proxy(network: PodNetwork, directory: Path) -> str:
    """kube-proxy makes its table anew, again and again."""
    with open_api() as api, running(network.host, api.url, directory) as enforcer:
        assert is_in_force(enforcer)
        with streaming(network) as streams:
            for number in range(10):
                network.host.run("nft", "-f", "-", input=_PROXY % (number + 1))
            problem = streams.problem()
        network.host.run("nft", "delete", "table", "ip", "kube-proxy")
        return problem


def reboot(network: PodNetwork, directory: Path) -> str:
    """There is no table, and no agent yet; the plugin holds back the pods that start: x/a, and z/a, which is free."""
    network.host.run("nft", "flush", "ruleset")
    with network.host.entered():
        hold_back([A4, ZA4])
    with open_api() as api, streaming(network) as streams:
        streams.await_more()
        if passes(network, B4, ZA4):
            return "z/a is not held back"
        with running(network.host, api.url, directory) as enforcer:
            assert is_in_force(enforcer)
            streams.await_more()
            free = wait_until(lambda: passes(network, B4, ZA4), BOUND)
            return streams.problem() or ("" if free else "z/a is still held back")


HANDOVERS: dict[str, Callable[[PodNetwork, Path], str]] = {
    "agent restarted": restart,
    **{
        f"agent upgraded, from a table {older}": lambda network, directory, older=older: upgrade(  # type: ignore[misc]
            network, directory, older
        )
        for older in OLDER
    },
    "API away": be_without_api,
    "kube-proxy replaced": replace_proxy,
    "node rebooted": reboot,
}


def hand_over(network: PodNetwork, directory: Path, name: str) -> Struck:
    """One of them, beginning without any table."""
    network.host.run("nft", "flush", "ruleset")
    return Struck(name, HANDOVERS[name](network, directory))
