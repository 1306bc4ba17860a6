"""The part of a container runtime that the system tests need, and the world outside of its host.

Judges by itself: TCP connections are made by the test's own process inside the namespaces.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from tests.kit.host import Host, Outcome

OUTSIDE = "outside"
HOST_ADDRESSES = {4: "192.0.2.1", 6: "2001:db8::1"}  # the host's, on the wire to the outside
OUTSIDE_ADDRESSES = {4: "192.0.2.2", 6: "2001:db8::2"}
_PREFIXES = {4: 24, 6: 64}
_CONNECT_BOUND = 5.0  # seconds


class Runtime:
    """Calls one plugin on one host for containers by name, and remembers their results for CHECK and DEL."""

    def __init__(self, host: Host, executable: str, path: Sequence[str]) -> None:
        self.host = host
        self.executable = executable
        self.path = path
        self.results: dict[str, Any] = {}

    def call(self, command: str, name: str, config: Mapping[str, Any] | bytes, **options: Any) -> Outcome:
        """One call for a container, as it comes out."""
        arguments = {"netns": f"/run/netns/{name}", "path": self.path, **options}
        return self.host.cni(command, config, executable=self.executable, container_id=name, **arguments)

    def add(self, name: str, config: Mapping[str, Any], **options: Any) -> Any:
        """ADD, in a fresh container unless that one is there. Returns the result."""
        if self.host.run("test", "-e", f"/run/netns/{name}", check=False).returncode:
            self.host.add_container(name)
        outcome = self.call("ADD", name, config, **options)
        assert outcome.status == 0, outcome
        self.results[name] = outcome.document
        return outcome.document

    def check(self, name: str, config: Mapping[str, Any], **options: Any) -> None:
        """CHECK, with the result of ADD."""
        outcome = self.call("CHECK", name, {**config, "prevResult": self.results[name]}, **options)
        assert outcome[:3] == (0, None, ""), outcome

    def delete(self, name: str, config: Mapping[str, Any], **options: Any) -> None:
        """DEL, with the result of ADD where there is one."""
        previous = {"prevResult": self.results[name]} if name in self.results else {}
        outcome = self.call("DEL", name, {**config, **previous}, **options)
        assert outcome[:3] == (0, None, ""), outcome


def connect_outside(host: Host) -> None:
    """Put a machine on a wire to the host, with addresses of both families and without any route back to containers."""
    host.add_container(OUTSIDE)
    host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", OUTSIDE)
    for version in (4, 6):
        nodad = ["nodad"] if version == 6 else []
        inner, outer = (
            f"{HOST_ADDRESSES[version]}/{_PREFIXES[version]}",
            f"{OUTSIDE_ADDRESSES[version]}/{_PREFIXES[version]}",
        )
        host.run("ip", "address", "add", inner, "dev", "uplink", *nodad)
        host.run("ip", "-n", OUTSIDE, "address", "add", outer, "dev", "eth0", *nodad)
    host.run("ip", "link", "set", "uplink", "up")
    host.run("ip", "-n", OUTSIDE, "link", "set", "eth0", "up")


def find_source(
    host: Host,
    client: str | None,
    server: str | None,
    listening: tuple[str, int],
    target: tuple[str, int] | None = None,
    *,
    server_host: Host | None = None,
) -> str:
    """Connect over TCP from one container to another (None: the host itself), and send a word each way.

    The server listens at `listening`; the client asks for `target` (the same unless given). Returns the client's
    address as the server sees it; the server may be on another host. Raises OSError when there is no connection.
    """
    target = target or listening
    family = socket.AF_INET6 if ":" in listening[0] else socket.AF_INET
    with (server_host or host).entered(server):
        listener = socket.create_server(listening, family=family)
    with listener:
        listener.settimeout(_CONNECT_BOUND)
        with host.entered(client):
            asking = socket.create_connection(target, timeout=_CONNECT_BOUND)
        with asking:
            answering, peer = listener.accept()
            with answering:
                answering.settimeout(_CONNECT_BOUND)
                for sender, receiver, word in ((asking, answering, b"hither"), (answering, asking, b"thither")):
                    sender.sendall(word)
                    assert receiver.recv(16) == word
    return str(peer[0])


def without_bookkeeping(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What the snapshot fixture took, but for what the store keeps where a reservation was made and given back."""
    kept = ("lock", "index", "origin", "last_reserved_ip.")
    files = [line for line in snapshot["files"] if " f " in line and not line.rpartition("/")[2].startswith(kept)]
    return {**snapshot, "files": files}


def addresses_of(result: Mapping[str, Any]) -> list[str]:
    """The addresses of a result of version 0.3.0 or later, without their prefix lengths."""
    return [entry["address"].partition("/")[0] for entry in result.get("ips", ())]
