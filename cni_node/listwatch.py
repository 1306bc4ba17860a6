"""One collection of the Kubernetes API, listed and then followed, for ever.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
Must not: write to the API, or know what the objects are.
"""

import time
from collections.abc import Iterator
from threading import Event
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from cni_node.backoff import Backoff, by_chance
from cni_node.client import LONGEST_QUOTE, SILENCE, CallError, Client

PAGE = 100  # objects; a node is 5 to 20 kB of JSON
WATCH_SECONDS = (300, 600)  # the server ends a watch by chance in between
SHORT = 1.0  # seconds; a watch that ends sooner counts as a failure

_T = TypeVar("_T")


class Keeper(Protocol):
    """Who keeps what the objects come to."""

    def replace(self, items: Iterator[dict[str, Any]]) -> None:
        """These are all objects that there are. They come in pages: what was there counts until the iterator ends."""

    def apply(self, kind: str, item: dict[str, Any]) -> None:
        """An object was "ADDED", "MODIFIED" or "DELETED"."""

    def say(self, problem: str) -> None:
        """Why nothing comes at present; "" when things do."""


class ListWatch:
    """Follows the collection at a path of the API, in a thread of the caller's."""

    def __init__(self, client: Client, path: str, keeper: Keeper, silence: float = SILENCE) -> None:
        """`path` may have a query. `silence`: after so many seconds without a word the watch is begun again."""
        self._client, self._keeper, self._silence = client, keeper, silence
        self._path = path + ("&" if "?" in path else "?")
        self._backoff = Backoff()
        self._version = ""  # where the next watch begins; empty when all is to be listed

    def run(self, stopping: Event) -> None:
        """List and watch until the event, and the client's end."""
        while not stopping.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except CallError as error:
                if error.status:  # the server is there, and does not go on from where we are
                    self._version = ""
                if error.status != 410:  # which is usual: a watch or the pages of a list took longer than its history
                    self._keeper.say(_explained(error, self._path.partition("?")[0]))
                stopping.wait(max(self._backoff.after_failure(), error.retry_after))
            except Exception as error:  # a fault of ours must not end what others rely on
                self._version = ""
                self._keeper.say(f"internal error while following the API: {error!r}")
                stopping.wait(self._backoff.after_failure())

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

        self._keeper.replace(items())
        self._version = version

    def _watch(self) -> None:
        """Take changes as they come, until the server ends the watch or is silent."""
        begun = time.monotonic()
        query = {
            "watch": 1,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": int(by_chance(*WATCH_SECONDS)),
        }
        events = self._client.stream(self._path + urlencode(query), silence=self._silence)
        self._keeper.say("")
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
            self._keeper.apply(kind, item)
        elif kind != "BOOKMARK":
            raise CallError(f"the API server sends an event of the unknown kind {kind!r}"[:LONGEST_QUOTE], 200)
        self._version = version


def get(document: Any, key: str, kind: type[_T]) -> _T:
    """A value of the API server's answer. Raises CallError where it is not there, or of another kind."""
    found = document.get(key) if isinstance(document, dict) else None
    if found is None and kind is list and isinstance(document, dict):
        return kind()  # Go's spelling of an empty list
    if not isinstance(found, kind):
        raise CallError(f"the API server's answer makes no sense: {key!r} is not there or of another kind", 200)
    return found


def _explained(error: CallError, path: str) -> str:
    if error.status == 401:
        return f"{error}: is the token or certificate still valid?"
    if error.status == 403:
        return f"{error}: its role needs the verbs list and watch on {path.rpartition('/')[2]}"
    return str(error)
