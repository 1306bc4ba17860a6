"""The source kubernetes: Nodes of the Kubernetes API, by list and watch. It needs no other rights.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
Must not: write to the API, or rely on events alone: each list replaces all nodes in one step.
"""

from collections.abc import Callable, Iterator, Mapping
from threading import Event, Thread
from typing import Any, NamedTuple

from cni_node.api.client import SILENCE, CallError, Client
from cni_node.api.connection import parse_server
from cni_node.api.credentials import (
    SERVICE_ACCOUNT,
    Access,
    load_kubeconfig,
    load_service_account,
    parse_service_environment,
)
from cni_node.api.listwatch import ListWatch, get
from cni_node.snapshot import Node, Snapshot
from cni_node.sources.board import Board
from cni_node.sources.members import Member, one_of_a_family
from cni_protocol.address import parse_cidr, parse_ip

NODES = "/api/v1/nodes"
JOIN_BOUND = 10.0  # seconds for a thread to notice that its connection is closed
TRUSTED_KINDS = ("InternalIP", "ExternalIP")  # in the order of Kubernetes' own rule for a node's address


class KubernetesSettings(NamedTuple):
    """How to reach the API: by a kubeconfig, or if `kubeconfig` is empty by the service account's files.

    `server` is a URL. It is needed with the service account; with a kubeconfig it replaces that one's server. After
    `silence` seconds without any message, bookmarks included, a watch is begun again.
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
    """The Source of a Kubernetes cluster, whose controller manager assigns pod ranges to Nodes."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._client = Client(settings.load)

    def follow(self, publish: Callable[[Snapshot], None], stopping: Event) -> None:
        """See Source."""
        name = self._settings.node_name
        board = Board(name, publish, f"the API has no node {name!r}, which this node is to be: see kubectl get nodes")
        nodes = ListWatch(self._client, NODES, _Nodes(board, name), self._settings.silence)
        thread = Thread(target=nodes.run, args=(stopping,), name="kubernetes", daemon=True)
        thread.start()
        stopping.wait()
        board.close()
        self._client.close()
        thread.join(JOIN_BOUND)


class _Nodes:
    """The Receiver that puts Nodes on the board."""

    def __init__(self, board: Board, name: str) -> None:
        self._board, self._name = board, name
        self._refused: dict[str, str] = {}  # invalid nodes, with the problem

    def replace(self, items: Iterator[dict[str, Any]]) -> None:
        """See Receiver."""
        members: dict[str, Member] = {}
        self._refused = {}
        for item in items:
            name = get(get(item, "metadata", dict), "name", str)
            if member := self._understood(name, item):
                members[name] = member
        if not members and not self._refused and not self._board.is_empty():
            raise CallError("the API lists no node at all: those known before are kept", 200)
        with self._board.together():
            self._board.replace(members, keep=self._refused)
            self._say_what_is_odd(members.get(self._name))

    def apply(self, kind: str, item: dict[str, Any]) -> None:
        """See Receiver."""
        name = get(get(item, "metadata", dict), "name", str)
        with self._board.together():
            member = None
            if kind == "DELETED":
                self._refused.pop(name, None)
                self._board.remove(name)
            elif member := self._understood(name, item):
                self._board.put(name, member)
            self._say_what_is_odd(member if name == self._name else None)

    def say(self, problem: str) -> None:
        """See Receiver."""
        self._board.say("api", problem)

    def _understood(self, name: str, item: dict[str, Any]) -> Member | None:
        try:
            member = parse_member(item)
        except ValueError as error:
            self._refused[name] = f"node {name} is left as it was: {error}"
            return None
        self._refused.pop(name, None)
        return member

    def _say_what_is_odd(self, own: Member | None) -> None:
        self._board.say("nodes", "; ".join(sorted(self._refused.values())[:3]))
        if own is not None:
            name = own.node.name
            missing = "" if own.node.pods else f"node {name} has no pod range; the controller manager gives it one"
            self._board.say("range", f"{missing} if it runs with --allocate-node-cidrs" if missing else "")


def parse_api_server(server: str, kubeconfig: str, environment: Mapping[str, str]) -> str:
    """The URL of KubernetesSettings: `server` if it is given, else "" with a kubeconfig, else that of the service.

    `environment` is that of a pod. Raises CNIError, also for a URL that names no server.
    """
    if not server and not kubeconfig:
        server = parse_service_environment(environment)
    if server:
        parse_server(server)
    return server


def parse_member(item: dict[str, Any]) -> Member:
    """Parse a Node object of the API. Raises ValueError.

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
