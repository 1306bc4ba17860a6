"""An API server of the tests' own: it keeps objects, most often Nodes, answers list and watch as kube-apiserver does,
and plays its corners when told to: an expired history, half lines, refusals, silence.

In threads of the test's process, on the loopback, or elsewhere in the network in which it is made.
"""

import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from tests.kit.certificates import Pair

AN_AGE = "2026-01-01T00:00:00Z"
# of whoever wants to reach it, without TLS
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts:
- name: c
  context:
    cluster: c
    user: u
clusters:
- name: c
  cluster:
    server: {server}
users:
- name: u
  user:
    token: word
"""


class Asked(NamedTuple):
    """A request: its query, its headers in lower case, and its path."""

    query: dict[str, str]
    headers: dict[str, str]
    path: str = ""


class Scope(NamedTuple):
    """What a request is about: the objects of a collection, perhaps of one namespace, or on one node."""

    collection: str
    namespace: str = ""
    node: str = ""

    def has(self, collection: str, item: dict[str, Any]) -> bool:
        """Whether an object is among them."""
        return (
            collection == self.collection
            and self.namespace in ("", item["metadata"].get("namespace", ""))
            and self.node in ("", item.get("spec", {}).get("nodeName", ""))
        )


def scope_of(path: str, query: dict[str, str]) -> Scope:
    """What a request is about; /api/v1/namespaces/x/pods is about the pods of x."""
    *before, collection = path.strip("/").split("/")
    namespace = before[-1] if len(before) > 1 and before[-2] == "namespaces" else ""
    return Scope(collection, namespace, query.get("fieldSelector", "").removeprefix("spec.nodeName="))


class Refusal(NamedTuple):
    """What the next request gets instead of an answer; 200 answers `text` as it is."""

    status: int
    text: str = "{}"
    headers: tuple[tuple[str, str], ...] = ()


def node(name: str, pods: str = "", address: str = "", created: str = AN_AGE, **status: Any) -> dict[str, Any]:
    """A Node object; `pods` and `address` may have several texts between commas."""
    ranges = [text for text in pods.split(",") if text]
    addresses = [{"type": "InternalIP", "address": text} for text in address.split(",") if text]
    return {
        "metadata": {"name": name, "creationTimestamp": created, "managedFields": [{"manager": "kubelet"}]},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges} if ranges else {},
        "status": {"addresses": [{"type": "Hostname", "address": name}, *addresses], **status},
    }


class _Watch:
    """A watch that is open: who writes to it holds the server's lock."""

    def __init__(self, handler: "_Handler", scope: Scope, bookmarks: bool) -> None:
        self._handler, self.scope = handler, scope
        self.bookmarks = bookmarks  # it has asked for them
        self.over = threading.Event()

    def send(self, event: dict[str, Any]) -> None:
        self.send_bytes(json.dumps(event).encode() + b"\n")

    def send_bytes(self, data: bytes) -> None:
        with suppress(OSError):
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        """As the server does after timeoutSeconds."""
        with suppress(OSError):
            self._handler.wfile.write(b"0\r\n\r\n")
        self.over.set()

    def cut(self) -> None:
        """As when the server dies."""
        self._handler.close_connection = True
        self.over.set()


class ApiServer:
    """Keeps objects. `put` and `delete` change them, and tell whoever watches; use it as a context manager."""

    def __init__(self, tls: Pair | None = None, page: int = 100, where: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.asked: list[Asked] = []
        self.tokens: set[str] | None = None  # who may ask; None is everybody
        self.forbidden: set[str] = set()  # paths that the role does not reach
        self.refusals: list[Refusal] = []  # for the next requests, one each
        self.before_page: Callable[[], None] | None = None  # called before each page but a list's first
        self.watches: list[_Watch] = []
        self.silent = False  # watches are told nothing more
        self.deaf_until = threading.Event()  # set: requests are answered
        self.deaf_until.set()
        self.lock = threading.RLock()
        self._page = page
        self._items: dict[tuple[str, str, str], dict[str, Any]] = {}  # by collection, namespace, name
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._version, self._oldest = 1000, 1000
        self._server = _Server(self, where)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{where[0]}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.deaf_until.set()
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    def put(self, item: dict[str, Any], collection: str = "nodes") -> None:
        """Add an object or change it."""
        with self.lock:
            key = (collection, item["metadata"].get("namespace", ""), item["metadata"]["name"])
            kind = "MODIFIED" if key in self._items else "ADDED"
            self._items[key] = self._new_version(item)
            self._tell(collection, {"type": kind, "object": self._items[key]})

    def delete(self, name: str, collection: str = "nodes", namespace: str = "") -> None:
        """Take an object away."""
        with self.lock:
            item = self._new_version(self._items.pop((collection, namespace, name)))
            self._tell(collection, {"type": "DELETED", "object": item})

    def bookmark(self) -> None:
        """Tell all watches which version they are at."""
        with self.lock:
            self._version += 1
            for watch in self.watches:
                if watch.bookmarks and not self.silent:
                    watch.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._version)}}})

    def compact(self) -> None:
        """Forget the history: who goes on from before is told to list again."""
        with self.lock:
            self._history, self._oldest = [], self._version

    def say(self, data: bytes) -> None:
        """Send bytes to all watches, as they are."""
        with self.lock:
            for watch in self.watches:
                watch.send_bytes(data)

    def end_watches(self) -> None:
        """End all watches in good order."""
        with self.lock:
            for watch in self.watches:
                watch.end()

    def cut(self) -> None:
        """Break all watches off."""
        with self.lock:
            for watch in self.watches:
                watch.cut()

    def queries(self, key: str) -> list[str]:
        """The values that requests had for a key of their query, in order."""
        return [asked.query[key] for asked in list(self.asked) if key in asked.query]

    def _new_version(self, item: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        return {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}

    def _tell(self, collection: str, event: dict[str, Any]) -> None:
        self._history.append((self._version, collection, event))
        for watch in self.watches:
            if not self.silent and watch.scope.has(collection, event["object"]):
                watch.send(event)

    def list_page(self, scope: Scope, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """A page of objects, as status and document."""
        with self.lock:
            begin, _, version = query.get("continue", f"0,{self._version}").partition(",")
            if int(version) < self._oldest:
                return 410, {"kind": "Status", "code": 410, "reason": "Expired", "message": "The continue is too old"}
            items = [item for key, item in sorted(self._items.items()) if scope.has(key[0], item)]
            end = int(begin) + min(self._page, int(query.get("limit", 500)))
            metadata = {"resourceVersion": version}
            if end < len(items):
                metadata["continue"] = f"{end},{version}"
            return 200, {"kind": "List", "metadata": metadata, "items": items[int(begin) : end]}

    def open_watch(self, handler: "_Handler", scope: Scope, query: dict[str, str]) -> _Watch:
        """Have a handler told of everything after the version in its query."""
        with self.lock:
            version = int(query["resourceVersion"])
            watch = _Watch(handler, scope, query.get("allowWatchBookmarks") == "true")
            if version < self._oldest:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                watch.send({"type": "ERROR", "object": status})
                watch.end()
                return watch
            for at, collection, event in self._history:
                if at > version and not self.silent and scope.has(collection, event["object"]):
                    watch.send(event)
            self.watches.append(watch)
            return watch


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: ApiServer, where: tuple[str, int]) -> None:
        self.api = api
        super().__init__(where, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or that does not like our certificate, is no error of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        pass

    def do_GET(self) -> None:
        api, parts = self.server.api, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        api.asked.append(Asked(query, headers, parts.path))
        api.deaf_until.wait()
        if api.tokens is not None and headers.get("authorization", "").removeprefix("Bearer ") not in api.tokens:
            self._answer(401, {"kind": "Status", "code": 401, "message": "Unauthorized"})
        elif parts.path in api.forbidden:
            self._answer(403, {"kind": "Status", "code": 403, "message": "Forbidden"})
        elif api.refusals:
            refusal = api.refusals.pop(0)
            self._send(refusal.status, refusal.text.encode(), refusal.headers)
        elif "watch" in query:
            self._watch(scope_of(parts.path, query), query)
        else:
            if "continue" in query and api.before_page:
                api.before_page()
            self._answer(*api.list_page(scope_of(parts.path, query), query))

    def _watch(self, scope: Scope, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        api = self.server.api
        watch = api.open_watch(self, scope, query)
        watch.over.wait()
        with api.lock:
            if watch in api.watches:
                api.watches.remove(watch)

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, json.dumps(document).encode(), ())

    def _send(self, status: int, data: bytes, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
