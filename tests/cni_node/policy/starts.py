"""Pods that send, and are sent to, from the moment that they can, while their policies deny everything: captured."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cni_node.agent.report import Report
from cni_node.agent.server import Page, serve
from tests.cni_node.policy.live import pod_item, put_policy, running
from tests.kit.api_server import ApiServer
from tests.kit.host import Host, wait_until
from tests.kit.runtime import Runtime
from tests.system.networks import address, network, sysctl

ETH_P_IP = 0x0800
PORT = 9
PACE = 0.0005  # seconds between two packets
AFTERWARDS = 0.05  # seconds in which a pod goes on sending once its ADD has returned
BOUND = 30.0


class Seen(NamedTuple):
    """Of some pods: packets that they sent, those that came out, those that came in, and the seconds of each ADD."""

    sent: int
    out: int
    into: int
    seconds: list[float]


class Starts:
    """A node whose namespace x denies everything, and whose namespace z nothing. Use open_starts."""

    def __init__(self, runtime: Runtime, api: ApiServer, agent: Path) -> None:
        self._runtime, self._api, self._number = runtime, api, 0
        self._config = network(1, agent=str(agent))
        sink = runtime.add("sink", self._config)
        self._sink = address(sink)
        with runtime.host.entered("sink"):
            self._capture = listen()
            self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._last = int(self._sink.rpartition(".")[2])

    def close(self) -> None:
        """Close the sockets."""
        self._capture.close()
        self._sender.close()

    def run(self, namespace: str, count: int) -> Seen:
        """Start pods one after the other, and take each away again."""
        found = [self._start(namespace) for _ in range(count)]
        return Seen(
            sum(each.sent for each in found),
            sum(each.out for each in found),
            sum(each.into for each in found),
            [seconds for each in found for seconds in each.seconds],
        )

    def _start(self, namespace: str) -> Seen:
        self._number += 1
        self._last += 1
        name, host = f"p{self._number}", self._runtime.host
        host.add_container(name)
        self._api.put(pod_item(f"{namespace}-{name}"), "pods")
        with host.entered(name):
            capture = listen()
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stopping, sent = threading.Event(), [0, 0]
        threads = [
            threading.Thread(target=flood, args=(sender, self._sink, stopping, sent, 0)),
            threading.Thread(target=flood, args=(self._sender, f"10.1.0.{self._last}", stopping, sent, 1)),
        ]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"
        result = self._runtime.add(name, self._config, args=args)
        seconds = time.monotonic() - begun
        assert address(result) == f"10.1.0.{self._last}"
        assert wait_until(lambda: sent[0] > 0, BOUND)
        time.sleep(AFTERWARDS)
        stopping.set()
        for thread in threads:
            thread.join(BOUND)
        seen = Seen(sent[0], count_from(self._capture, address(result)), count_from(capture, self._sink), [seconds])
        for each in (capture, sender):
            each.close()
        self._runtime.delete(name, self._config, args=args)
        host.remove_container(name)
        self._api.delete(name, "pods", namespace)
        return seen


def listen() -> socket.socket:
    """A capture of what comes in by any interface of this network namespace, also by those that are made later."""
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    capture.setblocking(False)
    return capture


def count_from(capture: socket.socket, source: str) -> int:
    """How many IPv4 packets were captured with this source; the capture is empty afterwards."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += capture.recv(2048)[12:16] == socket.inet_aton(source)
    return count


def flood(sender: socket.socket, to: str, stopping: threading.Event, sent: list[int], index: int) -> None:
    """Send until the event, and count what the kernel took."""
    while not stopping.is_set():
        with suppress(OSError):  # there is no way there yet
            sender.sendto(b"first?", (to, PORT))
            sent[index] += 1
        time.sleep(PACE)


@contextmanager
def open_starts(host: Host, bin_dir: str, directory: Path) -> Iterator[Starts]:
    """A loop of policies with its socket, and the plugin."""
    sysctl(host, "bridge/bridge-nf-call-iptables", 1)
    with ExitStack() as stack:
        api = stack.enter_context(ApiServer())
        for namespace in "xz":
            api.put({"metadata": {"name": namespace, "labels": {}}}, "namespaces")
        deny: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        put_policy(api, "x", "deny", deny)
        enforcer = stack.enter_context(running(host, api.url, directory))
        assert wait_until(lambda: enforcer.state.ready, BOUND)
        serve(Page(Report, lambda: True, enforcer), directory / "agent.sock", 0)
        starts = Starts(Runtime(host, f"{bin_dir}/cni-bridge", (bin_dir,)), api, directory / "agent.sock")
        stack.callback(starts.close)
        yield starts
