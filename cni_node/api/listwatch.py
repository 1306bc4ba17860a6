"""Follows one collection of the Kubernetes API: it lists the objects, then watches for changes.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
Must not: write to the API, or know what the objects are.
"""

import time
from collections.abc import Iterator
from threading import Event
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from cni_node.api.backoff import Backoff, by_chance
from cni_node.api.client import LONGEST_QUOTE, SILENCE, CallError, Client

PAGE = 100  # objects; a node is 5 to 20 kB of JSON
WATCH_SECONDS = (300, 600)  # we ask the server to end a watch after a random time between these
SHORT = 1.0  # seconds; a watch that ends sooner counts as a failure

_T = TypeVar("_T")


class Receiver(Protocol):
    """The receiver of the objects. Its methods are called by the thread of ListWatch.run."""

    def replace(self, items: Iterator[dict[str, Any]]) -> None:
        """Replace all objects. They come in pages, so the old ones stay valid until the iterator has ended."""

    def apply(self, kind: str, item: dict[str, Any]) -> None:
        """Apply a change of one object: `kind` is "ADDED", "MODIFIED" or "DELETED"."""

    def say(self, problem: str) -> None:
        """Note the problem because of which no changes come at present, or "" when they come again."""


class ListWatch:
    """Follows the collection at a path of the API. The caller runs `run` in a thread."""

    def __init__(self, client: Client, path: str, receiver: Receiver, silence: float = SILENCE) -> None:
        """`path` may have a query. After `silence` seconds without any data the watch is begun again."""
        self._client, self._receiver, self._silence = client, receiver, silence
        self._path = path + ("&" if "?" in path else "?")
        self._backoff = Backoff()
        self._version = ""  # where the next watch begins; empty when all is to be listed

    def run(self, stopping: Event) -> None:
        """List and watch until `stopping` is set and the client is closed."""
        delay = 0.0
        while not stopping.wait(delay):
            try:
                delay = self._turn()
            except Exception:  # not even the failure can be told, as where no thread can be started any more
                delay = SHORT

    def _turn(self) -> float:
        """List if need be, and watch until that ends. Returns how many seconds to wait before the next turn."""
        try:
            if not self._version:
                self._list()
            self._watch()
        except CallError as error:
            if error.status:  # the server answers but refuses: list everything again
                self._version = ""
            if error.status != 410:  # 410 is usual: our position is older than the server's history
                self._receiver.say(_explained(error, self._path.partition("?")[0]))
            return max(self._backoff.after_failure(), error.retry_after)
        except Exception as error:  # a fault of ours must not end what others rely on
            self._version = ""
            self._receiver.say(f"internal error while following the API: {error!r}")
            return self._backoff.after_failure()
        return 0.0

    def _list(self) -> None:
        version = ""

        def items() -> Iterator[dict[str, Any]]:
            nonlocal version
            position = ""
            while True:
                query = {"limit": PAGE, **({"continue": position} if position else {})}
                page = self._client.call("GET", self._path + urlencode(query))
                yield from get(page, "items", list)
                metadata = get(page, "metadata", dict)
                position = metadata.get("continue") or ""
                if not position:
                    version = get(metadata, "resourceVersion", str)
                    return

        self._receiver.replace(items())
        self._version = version

    def _watch(self) -> None:
        """Apply changes as they come, until the server ends the watch or is silent."""
        begun = time.monotonic()
        query = {
            "watch": 1,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": int(by_chance(*WATCH_SECONDS)),
        }
        events = self._client.stream(self._path + urlencode(query), silence=self._silence)
        self._receiver.say("")
        for event in events:
            self._apply(get(event, "type", str), get(event, "object", dict))
        if time.monotonic() - begun < SHORT:
            raise CallError("the API server ends each watch at once")

    def _apply(self, kind: str, item: dict[str, Any]) -> None:
        if kind == "ERROR":
            code = item.get("code")
            sentence = f"the API server ends the watch: {item.get('message') or item}"[:LONGEST_QUOTE]
            raise CallError(sentence, code if isinstance(code, int) and code else 200)
        version = get(get(item, "metadata", dict), "resourceVersion", str)
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            self._receiver.apply(kind, item)
        elif kind != "BOOKMARK":
            raise CallError(f"the API server sends an event of the unknown kind {kind!r}"[:LONGEST_QUOTE], 200)
        self._version = version


def get(document: Any, key: str, kind: type[_T]) -> _T:
    """A value of the API server's answer. Raises CallError when it is missing or of another type."""
    found = document.get(key) if isinstance(document, dict) else None
    if found is None and kind is list and isinstance(document, dict):
        return kind()  # Go writes an empty list as null
    if not isinstance(found, kind):
        raise CallError(f"the API server's answer makes no sense: {key!r} is not there or of another kind", 200)
    return found


def _explained(error: CallError, path: str) -> str:
    if error.status == 401:
        return f"{error}: is the token or certificate still valid?"
    if error.status == 403:
        return f"{error}: its role needs the verbs list and watch on {path.rpartition('/')[2]}"
    return str(error)
