"""The source static: nodes from options, or from a file that is watched. It needs no server.

The file has a line for each node, this one included: `CIDR[,CIDR] ADDRESS[,ADDRESS] [NAME]`, with at most one CIDR and
one address per family. `#` begins a comment.

    10.240.1.0/24               192.168.1.11   node1
    10.240.2.0/24,fd00:2::/64   192.168.1.12

Must not: use a file in part. A file with an invalid line, an empty one or a missing one changes nothing.
"""

import os
from collections.abc import Callable, Iterable
from threading import Event, Thread
from typing import NamedTuple

from cni_node.api.credentials import read_text
from cni_node.inotify import Watch
from cni_node.snapshot import Node, Snapshot
from cni_node.sources.members import Member, Members
from cni_protocol.address import IP, parse_cidr, parse_ip
from cni_protocol.errors import INVALID_CONFIG, CNIError

AGAIN = 10.0  # seconds until a missing directory is looked for again


class StaticSettings(NamedTuple):
    """This node, its peers, and the path of a file with more of them ("" for none).

    If `own` has no pod ranges, this node gets those of the line with one of its addresses.
    """

    own: Node
    peers: tuple[Node, ...] = ()
    file: str = ""


class StaticSource:
    """The Source without a server."""

    def __init__(self, settings: StaticSettings) -> None:
        self._settings = settings
        self._last: Snapshot | None = None

    def follow(self, publish: Callable[[Snapshot], None], stopping: Event) -> None:
        """See Source."""
        if not self._settings.file:
            self._read(publish)
            stopping.wait()
            return
        stop = os.eventfd(0, os.EFD_CLOEXEC)
        thread = Thread(target=self._run, args=(publish, stopping, stop), name="static", daemon=True)
        thread.start()
        stopping.wait()
        os.eventfd_write(stop, 1)
        thread.join()
        os.close(stop)

    def _run(self, publish: Callable[[Snapshot], None], stopping: Event, stop: int) -> None:
        while not stopping.is_set():
            try:
                watch = Watch(self._settings.file, stop)  # before the first look: nothing is missed in between
            except OSError as error:
                self._show(publish, None, f"{self._settings.file} cannot be watched: {error.strerror}")
                stopping.wait(AGAIN)
                continue
            try:
                self._read(publish)
                while watch.wait():
                    self._read(publish)
            except OSError:  # the directory is gone: perhaps another is there
                continue
            finally:
                watch.close()

    def _read(self, publish: Callable[[Snapshot], None]) -> None:
        settings = self._settings
        try:
            listed = parse_nodes(read_text(settings.file), settings.file) if settings.file else ()
            self._show(publish, arrange(settings.own, (*settings.peers, *listed)), "")
        except CNIError as error:
            self._show(publish, None, error.msg)

    def _show(self, publish: Callable[[Snapshot], None], snapshot: Snapshot | None, problem: str) -> None:
        """Publish a snapshot, or the last one with a problem."""
        if snapshot is None:
            snapshot = (self._last or Snapshot(None, (), listed=False))._replace(problems=(problem,))
        if snapshot != self._last:
            self._last = snapshot
            publish(snapshot)


def parse_peer(text: str) -> Node:
    """Parse --peer: `CIDR[,CIDR]=ADDRESS[,ADDRESS]`. The node's name is its first address. Raises CNIError."""
    ranges, equals, addresses = text.partition("=")
    if not equals:
        raise CNIError(INVALID_CONFIG, f"{text!r} is no peer, as in 10.244.2.0/24=192.168.1.12")
    try:
        return _node(ranges, addresses, "")
    except ValueError as error:
        raise CNIError(INVALID_CONFIG, f"peer {text}: {error}") from None


def parse_nodes(text: str, path: str) -> tuple[Node, ...]:
    """Parse the text of a file of nodes; `path` is for messages. Raises CNIError naming every invalid line."""
    nodes, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            if len(words) not in (2, 3):
                raise ValueError("CIDR[,CIDR] ADDRESS[,ADDRESS] [NAME] was expected")
            nodes.append(_node(words[0], words[1], words[2] if len(words) == 3 else ""))
        except ValueError as error:
            problems.append(f"{path} line {number}: {error}")
    if problems:
        raise CNIError(INVALID_CONFIG, "; ".join(problems))
    if not nodes:
        raise CNIError(INVALID_CONFIG, f"{path} has no node; where there is but this one, a line for it is expected")
    return tuple(nodes)


def arrange(own: Node, nodes: Iterable[Node]) -> Snapshot:
    """Make a snapshot out of this node and all listed nodes. Raises CNIError when pod ranges overlap. Pure.

    Entries with the same addresses are one node: two options --peer may name a peer's ranges of both families.
    """
    joined: dict[tuple[IP, ...], Node] = {}
    for node in nodes:
        before = joined.get(node.addresses)
        pods = {*node.pods, *(before.pods if before else ())}
        joined[node.addresses] = (before or node)._replace(pods=tuple(sorted(pods)))
    members = Members()
    for node in joined.values():
        if len({cidr.version for cidr in node.pods}) < len(node.pods):
            raise CNIError(INVALID_CONFIG, f"{node.name} has two pod ranges of one family: {_ranges(node)}")
        if set(node.addresses) & set(own.addresses):
            own = own._replace(pods=own.pods or node.pods)
            if not set(node.pods) <= set(own.pods):
                raise CNIError(INVALID_CONFIG, f"this node has {_ranges(own)}, but is listed with {_ranges(node)}")
        elif not set(node.pods) & set(own.pods):  # else it is this node, too, by another address
            members.put(f"{node.name} {node.addresses}", Member(node, (0, "")))
    members.put("", Member(own, (0, "")))
    snapshot = members.snapshot("")
    if snapshot.problems:
        raise CNIError(INVALID_CONFIG, "; ".join(snapshot.problems))
    return snapshot


def _ranges(node: Node) -> str:
    return ", ".join(map(str, node.pods))


def _node(ranges: str, addresses: str, name: str) -> Node:
    """Raises ValueError."""
    pods = []
    for text in ranges.split(","):
        cidr = parse_cidr(text)
        if cidr != cidr.network:
            raise ValueError(f"{text} has host bits set; the network is {cidr.network}")
        pods.append(cidr)
    found = sorted(parse_ip(text) for text in addresses.split(","))
    for what, text, versions in (("pod ranges", ranges, pods), ("addresses", addresses, found)):
        if len({each.version for each in versions}) < len(versions):
            raise ValueError(f"two {what} of one family: {text}")
    return Node(name or str(found[0]), tuple(sorted(pods)), tuple(found))
