"""The cluster as the Kubernetes API has it: Nodes by list and watch, with no more rights than these two.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
Must not: write to the API, or act on events alone: a list replaces what is known in one step.
"""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from cni_node.backoff import Backoff, by_chance
from cni_node.client import LONGEST_QUOTE, SILENCE, CallError, Client
from cni_node.credentials import SERVICE_ACCOUNT, Access, load_kubeconfig, load_service_account
from cni_node.snapshot import Node, Snapshot
from cni_node.sources.board import Board
from cni_node.sources.members import Member, one_of_a_family
from cni_protocol.address import parse_cidr, parse_ip

NODES = "/api/v1/nodes"
PAGE = 100  # nodes; one is 5 to 20 kB of JSON
WATCH_SECONDS = (300, 600)  # the server ends a watch by chance in between
SHORT = 1.0  # seconds; a watch that ends sooner counts as a failure
JOIN_BOUND = 10.0  # seconds for a thread to notice that its connection is closed
TRUSTED_KINDS = ("InternalIP", "ExternalIP")  # in the order of Kubernetes' own rule for a node's address

_T = TypeVar("_T")


class KubernetesSettings(NamedTuple):
    """How to reach the API. `kubeconfig` may be empty: then the service account's files count, and `server`, a URL, is
    needed; it replaces the kubeconfig's where it is given. `silence`: after so many seconds without a word, bookmarks
    included, the watch is begun again.
    """

    node_name: str
    kubeconfig: str = ""
    server: str = ""
    service_account: str = SERVICE_ACCOUNT
    silence: float = SILENCE

    def load(self) -> Access:
        """Read the files. Raises CNIError."""
        if self.kubeconfig:
            return load_kubeconfig(self.kubeconfig, self.server)
        return load_service_account(self.server, self.service_account)


class KubernetesSource:
    """The Source of a cluster whose API server hands out the pod ranges."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._client = Client(settings.load)
        self._backoff = Backoff()
        self._version = ""  # where the next watch begins; empty when all is to be listed
        self._refused: dict[str, str] = {}  # nodes that make no sense

    def follow(self, publish: Callable[[Snapshot], None], stopping: Event) -> None:
        """See Source."""
        name = self._settings.node_name
        board = Board(name, publish, f"the API has no node {name!r}, which this node is to be: see kubectl get nodes")
        thread = Thread(target=self._run, args=(board, stopping), name="kubernetes", daemon=True)
        thread.start()
        stopping.wait()
        board.close()
        self._client.close()
        thread.join(JOIN_BOUND)

    def _run(self, board: Board, stopping: Event) -> None:
        while not stopping.is_set():
            try:
                if not self._version:
                    self._list(board)
                self._watch(board)
            except CallError as error:
                if error.status:  # the server is there, and does not go on from where we are
                    self._version = ""
                if error.status != 410:  # which is usual: a watch or the pages of a list took longer than its history
                    board.say("api", _explained(error))
                stopping.wait(max(self._backoff.after_failure(), error.retry_after))
            except Exception as error:  # a fault of ours must not end what others rely on
                self._version = ""
                board.say("api", f"internal error while following the API: {error!r}")
                stopping.wait(self._backoff.after_failure())

    def _list(self, board: Board) -> None:
        """Take all nodes, a page at a time."""
        members: dict[str, Member] = {}
        self._refused = {}
        position = ""
        while True:
            query = {"limit": PAGE, **({"continue": position} if position else {})}
            page = self._client.call("GET", f"{NODES}?{urlencode(query)}")
            for item in _get(page, "items", list):
                name = _get(_get(item, "metadata", dict), "name", str)
                if member := self._understood(name, item):
                    members[name] = member
            metadata = _get(page, "metadata", dict)
            position = metadata.get("continue") or ""
            if not position:
                break
        version = _get(metadata, "resourceVersion", str)
        if not members and not self._refused and not board.is_empty():
            raise CallError("the API lists no node at all: those known before are kept", 200)
        with board.together():
            board.replace(members, keep=self._refused)
            self._say_what_is_odd(board, members.get(self._settings.node_name))
        self._version = version

    def _watch(self, board: Board) -> None:
        """Take changes as they come, until the server ends the watch or is silent."""
        begun = time.monotonic()
        query = {
            "watch": 1,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": int(by_chance(*WATCH_SECONDS)),
        }
        events = self._client.stream(f"{NODES}?{urlencode(query)}", silence=self._settings.silence)
        board.say("api", "")
        for event in events:
            with board.together():
                self._apply(board, _get(event, "type", str), _get(event, "object", dict))
        if time.monotonic() - begun < SHORT:
            raise CallError("the API server ends each watch at once")

    def _apply(self, board: Board, kind: str, item: dict[str, Any]) -> None:
        if kind == "ERROR":
            code = item.get("code")
            sentence = f"the API server ends the watch: {item.get('message') or item}"[:LONGEST_QUOTE]
            raise CallError(sentence, code if isinstance(code, int) and code else 200)
        metadata = _get(item, "metadata", dict)
        version = _get(metadata, "resourceVersion", str)
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            name = _get(metadata, "name", str)
            if kind == "DELETED":
                self._refused.pop(name, None)
                board.remove(name)
                self._say_what_is_odd(board, None)
            elif member := self._understood(name, item):
                board.put(name, member)
                self._say_what_is_odd(board, member if name == self._settings.node_name else None)
            else:
                self._say_what_is_odd(board, None)
        elif kind != "BOOKMARK":
            raise CallError(f"the API server sends an event of the unknown kind {kind!r}"[:LONGEST_QUOTE], 200)
        self._version = version

    def _understood(self, name: str, item: dict[str, Any]) -> Member | None:
        try:
            member = parse_member(item)
        except ValueError as error:
            self._refused[name] = f"node {name} is left as it was: {error}"
            return None
        self._refused.pop(name, None)
        return member

    def _say_what_is_odd(self, board: Board, own: Member | None) -> None:
        board.say("nodes", "; ".join(sorted(self._refused.values())[:3]))
        if own is not None:
            name = own.node.name
            missing = "" if own.node.pods else f"node {name} has no pod range; the controller manager gives it one"
            board.say("range", f"{missing} if it runs with --allocate-node-cidrs" if missing else "")


def parse_member(item: dict[str, Any]) -> Member:
    """A Node object of the API. Raises ValueError.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/
    """
    try:
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        ranges = spec.get("podCIDRs") or list(filter(None, [spec.get("podCIDR")]))
        pods = sorted(parse_cidr(text).network for text in ranges)
        entries = [(str(each["type"]), each) for each in status.get("addresses") or ()]
        texts = [each["address"] for trusted in TRUSTED_KINDS for kind, each in entries if kind == trusted]
        node = Node(str(metadata["name"]), tuple(pods), one_of_a_family(parse_ip(text) for text in texts))
        age = (0, str(metadata.get("creationTimestamp") or ""))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the API's object is not that of a node ({error})") from None
    if len({cidr.version for cidr in pods}) < len(pods):
        raise ValueError(f"two pod ranges of one family: {', '.join(map(str, pods))}")
    return Member(node, age)


def _get(document: Any, key: str, kind: type[_T]) -> _T:
    found = document.get(key) if isinstance(document, dict) else None
    if found is None and kind is list and isinstance(document, dict):
        return kind()  # Go's spelling of an empty list
    if not isinstance(found, kind):
        raise CallError(f"the API server's answer makes no sense: {key!r} is not there or of another kind", 200)
    return found


def _explained(error: CallError) -> str:
    if error.status == 401:
        return f"{error}: is the token or certificate still valid?"
    if error.status == 403:
        return f"{error}: its role needs the verbs list and watch on nodes"
    return str(error)
