"""The cluster's policies and namespaces, and the pods that this node needs, by list and watch.

Each collection is followed by a thread of its own.
Must not: decide what is allowed, or touch the kernel.
"""

from collections.abc import Callable, Hashable, Iterator
from operator import is_
from threading import Event, Lock, Thread
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from cni_node.api.client import Client
from cni_node.api.listwatch import ListWatch
from cni_node.policy.model import Labels, Pod, Policy
from cni_node.policy.needs import EVERYWHERE, needed_namespaces
from cni_node.policy.parsing import parse_policy
from cni_node.policy.pods import parse_namespace, parse_pod
from cni_node.sources.kubernetes import KubernetesSettings

POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
NAMESPACES = "/api/v1/namespaces"
PODS = "/api/v1/pods"
_LOCAL = ""  # the scope of this node's own pods, beside namespaces and EVERYWHERE

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Known(NamedTuple):
    """The state of the cluster as far as it is known. `complete`: everything that is needed has been listed."""

    policies: tuple[Policy, ...]
    pods: tuple[Pod, ...]
    namespaces: dict[str, Labels]
    complete: bool
    problems: tuple[str, ...]


class Collection(Generic[_K, _V]):
    """The objects at one path of the API, each parsed: the Receiver of its own ListWatch.

    A dictionary of objects that was handed out is never changed, so that it tells by its identity whether anything has.
    """

    def __init__(self, what: str, parse: Callable[[Any], tuple[_K, _V]], changed: Callable[[], None]) -> None:
        """`what` is the word for one of the objects. `changed` is called after each change."""
        self._what, self._parse, self._changed = what, parse, changed
        self._lock = Lock()
        self._objects: dict[_K, _V] = {}
        self._refused: dict[Any, str] = {}  # problems of invalid objects by their keys; their last valid version stays
        self._problem = ""
        self._handed_out = False  # the next change is made in a copy
        self.listed = False

    @property
    def objects(self) -> dict[_K, _V]:
        """All of them at one moment; the same dictionary as long as nothing changes."""
        with self._lock:
            self._handed_out = True
            return self._objects

    @property
    def problems(self) -> list[str]:
        """Sentences about an API that cannot be reached, and about invalid objects."""
        with self._lock:
            return [text for text in (self._problem, *self._refused.values()) if text]

    def replace(self, items: Iterator[dict[str, Any]]) -> None:
        """See Receiver."""
        found: dict[_K, _V] = {}
        refused: dict[Any, str] = {}
        for item in items:
            try:
                key, value = self._parse(item)
            except ValueError as error:
                invalid = _key_of(item)
                refused[invalid] = self._explain(invalid, error)
                if invalid in self._objects:
                    found[invalid] = self._objects[invalid]
                continue
            before = self._objects.get(key)
            found[key] = (
                before if before is not None and before == value else value
            )  # the compiler knows it by identity
        with self._lock:
            self._objects, self._refused, self.listed = found, refused, True
            self._handed_out = False
        self._changed()

    def apply(self, kind: str, item: dict[str, Any]) -> None:
        """See Receiver."""
        with self._lock:
            key = _key_of(item)
            was_refused = self._refused.pop(key, None) is not None
            if kind == "DELETED":
                self._writable().pop(key, None)
            else:
                try:
                    _, value = self._parse(item)
                except ValueError as error:
                    self._refused[key] = self._explain(key, error)
                else:
                    if self._objects.get(key) == value and not was_refused:
                        return
                    objects = self._writable()
                    objects.pop(key, None)
                    objects[key] = value
        self._changed()

    def _writable(self) -> dict[Any, _V]:
        """The objects, as a copy if they were handed out."""
        if self._handed_out:
            self._objects, self._handed_out = dict(self._objects), False
        return self._objects

    def _explain(self, key: Any, error: ValueError) -> str:
        name = "/".join(key) if isinstance(key, tuple) else key
        return f"{self._what} {name or 'without a name'} is left as it was: {error}"

    def say(self, problem: str) -> None:
        """See Receiver."""
        before, self._problem = self._problem, problem
        if problem != before:
            self._changed()


class _Followed(NamedTuple):
    """A collection with what is needed to end it."""

    collection: Collection[Any, Any]
    client: Client
    stopping: Event


class ClusterWatch:
    """All that a node needs to know for its policies. One thread uses it; other threads call `changed`."""

    def __init__(self, settings: KubernetesSettings, changed: Callable[[], None]) -> None:
        self._settings, self._changed = settings, changed
        self._policies = self._follow("policy", POLICIES, _keyed(parse_policy))
        self._namespaces = self._follow("namespace", NAMESPACES, parse_namespace)
        node = urlencode({"fieldSelector": f"spec.nodeName={settings.node_name}"})
        self._pods = {_LOCAL: self._follow("pod", f"{PODS}?{node}", _keyed(parse_pod))}
        self._merged: tuple[list[dict[tuple[str, str], Pod]], tuple[Pod, ...]] = ([], ())  # of what, and the result

    def close(self) -> None:
        """End all threads."""
        for followed in (self._policies, self._namespaces, *self._pods.values()):
            _end(followed)

    def look(self) -> Known:
        """The current state. Starts following pods that have become necessary, and stops following others."""
        policies = self._policies.collection.objects
        namespaces: dict[str, Labels] = self._namespaces.collection.objects
        local = self._pods[_LOCAL].collection.objects
        if self._policies.collection.listed and self._namespaces.collection.listed:
            self._need(needed_namespaces(policies.values(), local.values(), namespaces, self._pods))
        followed_all = (self._policies, self._namespaces, *self._pods.values())
        complete = all(followed.collection.listed for followed in followed_all)  # before the pods are taken from them
        pods = self._merge()
        problems = [text for followed in followed_all for text in followed.collection.problems]
        problems += [text for policy in policies.values() for text in policy.problems]
        return Known(tuple(policies.values()), pods, namespaces, complete, tuple(dict.fromkeys(problems)))

    def _merge(self) -> tuple[Pod, ...]:
        """All pods that are known, as the same tuple as long as they are the same; this node's by what it is told."""
        parts: list[dict[tuple[str, str], Pod]] = [followed.collection.objects for followed in self._pods.values()]
        before, merged = self._merged
        local = parts[0]  # _LOCAL's
        if len(parts) == len(before) and all(map(is_, parts, before)):
            return merged
        pods: dict[tuple[str, str], Pod] = {}
        for part in parts:
            pods.update(part)
        pods = {key: pod for key, pod in pods.items() if pod.node != self._settings.node_name or key in local} | local
        self._merged = (parts, tuple(pods.values()))
        return self._merged[1]

    def _need(self, namespaces: frozenset[str]) -> None:
        """Follow these. What was followed before goes on until all of them have been listed, so no peer is missing."""
        for name in namespaces - set(self._pods):
            path = PODS if name == EVERYWHERE else f"{NAMESPACES}/{quote(name)}/pods"
            self._pods[name] = self._follow("pod", path, _keyed(parse_pod))
        if all(self._pods[name].collection.listed for name in namespaces):
            for name in set(self._pods) - namespaces - {_LOCAL}:
                _end(self._pods.pop(name))

    def _follow(self, what: str, path: str, parse: Callable[[Any], tuple[Any, Any]]) -> _Followed:
        followed = _Followed(Collection(what, parse, self._changed), Client(self._settings.load), Event())
        watch = ListWatch(followed.client, path, followed.collection, self._settings.silence)
        Thread(target=watch.run, args=(followed.stopping,), name="policy-watch", daemon=True).start()
        return followed


def _keyed(parse: Callable[[Any], Any]) -> Callable[[Any], tuple[tuple[str, str], Any]]:
    def parsed(item: Any) -> tuple[tuple[str, str], Any]:
        value = parse(item)
        return (value.namespace, value.name), value

    return parsed


def _key_of(item: Any) -> Any:
    """The key of an object, valid or not: namespace and name, or the name alone of what is in none."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    found = metadata if isinstance(metadata, dict) else {}
    namespace, name = str(found.get("namespace") or ""), str(found.get("name") or "")
    return (namespace, name) if namespace else name


def _end(followed: _Followed) -> None:
    followed.stopping.set()
    followed.client.close()
