"""Merges announced pods into those of the API: the plugin announces a pod's addresses before the API has them. Pure."""

from collections.abc import Collection, Iterable
from operator import is_
from typing import Any, NamedTuple

from cni_node.policy.model import Pod, Policy
from cni_protocol.address import IP, parse_ip

IN_FORCE, PENDING, OFF, GONE = "in force", "pending", "off", "gone"  # what is told of a pod


class Announced(NamedTuple):
    """A pod that is about to start, or `gone`: its addresses are about to be free.

    `uid` may be empty where the runtime does not tell it, `container_id` and `ifname` where an older plugin does not. A
    pod has addresses of one sandbox at a time, there of one interface for each network.
    """

    namespace: str
    name: str
    uid: str
    addresses: tuple[IP, ...]
    gone: bool = False
    container_id: str = ""
    ifname: str = ""

    def replaces(self, earlier: "Announced") -> bool:
        """Whether what was announced before is over: of the same addresses, or of a sandbox or interface that was."""
        if not set(self.addresses).isdisjoint(earlier.addresses):
            return True
        if self.gone or earlier.gone or self[:3] != earlier[:3] or not (self.container_id and earlier.container_id):
            return False
        return self.container_id != earlier.container_id or self.ifname == earlier.ifname


def parse_announced(document: Any) -> Announced:
    """Parse an announcement of the plugin. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("an object with namespace, name, uid and addresses is expected")
    namespace, name, uid, container_id, ifname = (
        str(document.get(key) or "") for key in ("namespace", "name", "uid", "containerId", "ifname")
    )
    addresses = document.get("addresses")
    if not namespace or not name or not isinstance(addresses, list):
        raise ValueError("namespace, name and a list of addresses are expected")
    parsed = tuple(parse_ip(str(text)) for text in addresses)
    return Announced(namespace, name, uid, parsed, document.get("gone") is True, container_id, ifname)


class Admission(NamedTuple):
    """All pods with their current addresses, addresses of pods not known yet, and an answer per announcement."""

    pods: tuple[Pod, ...]
    pending: tuple[IP, ...]
    answers: dict[Announced, str]
    settled: tuple[Announced, ...]  # the API says the same


def admit(pods: tuple[Pod, ...], policies: Iterable[Policy], announced: Collection[Announced]) -> Admission:
    """Give the announced pods their addresses, and take these from whoever had them before, and from one that is gone.

    Of a pod that the API does not have yet the labels are unknown: its answer is PENDING if its namespace has a policy.
    Where that changes no pod, the tuple of pods is the same.
    """
    if not announced:
        return Admission(pods, (), {}, ())
    known = {(pod.namespace, pod.name): pod for pod in pods}
    by_name = dict(known)
    isolating = {policy.namespace for policy in policies}
    pending: list[IP] = []
    answers: dict[Announced, str] = {}
    settled = []
    taken: dict[IP, tuple[str, str]] = {}
    for each in announced:
        key = (each.namespace, each.name)
        pod = known.get(key)
        pod = pod if pod is not None and each.uid in ("", pod.uid) else None  # else another one of that name
        waits = pod is None and not each.gone and each.namespace in isolating
        answers[each] = GONE if each.gone else PENDING if waits else IN_FORCE
        if _is_settled(each, pod):
            settled.append(each)
        elif each.gone:
            by_name[key] = _without(by_name[key], key, dict.fromkeys(each.addresses, ("", "")))
        elif pod is None:
            taken.update(dict.fromkeys(each.addresses, ("", "")))
            pending += each.addresses if waits else ()
        else:
            taken.update(dict.fromkeys(each.addresses, key))
            own = dict.fromkeys((*by_name[key].addresses, *each.addresses))
            by_name[key] = by_name[key]._replace(addresses=tuple(own))
    if taken:
        by_name = {key: _without(pod, key, taken) for key, pod in by_name.items()}
    merged = tuple(by_name.values())
    return Admission(pods if all(map(is_, pods, merged)) else merged, tuple(pending), answers, tuple(settled))


class Admitter:
    """Remembers the last admission: as long as it is asked the same, all is the same, and nothing is worked out."""

    def __init__(self) -> None:
        self._pods: tuple[Pod, ...] = ()
        self._asked: tuple[tuple[Announced, ...], frozenset[str]] = ((), frozenset())
        self._last = Admission((), (), {}, ())

    def admit(self, pods: tuple[Pod, ...], policies: Iterable[Policy], announced: Collection[Announced]) -> Admission:
        """See the function."""
        asked = tuple(announced), frozenset(policy.namespace for policy in policies)
        if pods is not self._pods or asked != self._asked:
            self._pods, self._asked, self._last = pods, asked, admit(pods, policies, announced)
        return self._last


def _is_settled(each: Announced, pod: Pod | None) -> bool:
    """Whether the API says the same. Of a pod without addresses it may have heard of none yet, or of old ones."""
    if each.gone:
        return pod is None or pod.finished or (bool(pod.addresses) and set(each.addresses).isdisjoint(pod.addresses))
    return pod is not None and (pod.finished or set(each.addresses) <= set(pod.addresses))


def _without(pod: Pod, key: tuple[str, str], taken: dict[IP, tuple[str, str]]) -> Pod:
    kept = tuple(ip for ip in pod.addresses if taken.get(ip, key) == key)
    return pod if len(kept) == len(pod.addresses) else pod._replace(addresses=kept)
