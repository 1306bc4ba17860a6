"""Addresses of isolated pods that the API has forgotten while the pod may still run: they stay closed. Pure.

So it is after `kubectl delete pod --force`, and when the pods of a node that cannot be reached are deleted: the runtime
ends them later, and sends DEL. Must not: know what runs on the node.
"""

from collections.abc import Container, Mapping
from typing import NamedTuple

from cni_node.policy.model import Pod
from cni_protocol.address import IP

HELD = 3600.0  # seconds; nobody sent DEL, and no pod with that address came


class Held(NamedTuple):
    """Addresses that stay closed, and those whose time is over."""

    closed: frozenset[IP]
    over: frozenset[IP]


class Orphans:
    """Of one node, from turn to turn."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._isolated: dict[IP, Pod] = {}
        self._since: dict[IP, float] = {}
        self._pods: tuple[Pod, ...] = ()

    def find(self, pods: tuple[Pod, ...], told_of: Container[IP], now: float) -> Held:
        """The addresses that stay closed at this time (monotonic seconds).

        `told_of` are those that the plugin has announced, for a pod that comes or goes: of these it is known better.
        """
        if pods is not self._pods:
            self._pods = pods
            there = {(pod.namespace, pod.name, pod.uid) for pod in pods if pod.node == self._node}
            for ip, pod in self._isolated.items():
                if (pod.namespace, pod.name, pod.uid) not in there:
                    self._since.setdefault(ip, now)
        self._since = {ip: since for ip, since in self._since.items() if ip not in told_of}
        over = frozenset(ip for ip, since in self._since.items() if now - since >= HELD)
        return Held(frozenset(self._since) - over, over)

    def note(self, isolated: Mapping[IP, Pod], settled: Container[bytes]) -> None:
        """Take what is in force now: the `isolated` addresses with their pods, and which (packed) wait no longer."""
        self._isolated = dict(isolated)
        self._since = {ip: since for ip, since in self._since.items() if ip.packed not in settled}
