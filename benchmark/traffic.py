"""Measurement of new TCP connections through NAT, with one container on the host and with many.

Each case is a host of its own: a network namespace with the attachments, made by the plugins, and another one outside
with a server. The cases take turns in short windows, each of so many connections one after the other.
"""

import multiprocessing
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from benchmark.calls import Bench, Side, make_call, run_calls
from benchmark.rows import Row, Target
from suites import sandbox

_SERVER, _HOST, _PORT = "192.0.2.2", "192.0.2.1", 80
_BOUND = 60.0  # seconds for a window
_BACKLOG = 4096  # more than a window's connections: the client need not wait for the server
# SO_LINGER: close(2) resets the connection. No TIME_WAIT is left, and connection tracking takes the next one from the
# same port for a new one, which goes through the rules again (not so if the server had reset it).
_RESET = struct.pack("ii", 1, 0)
_WORKERS = 8
_Fork = multiprocessing.get_context("fork")


def measure_nat(bench: Bench) -> list[Row]:
    """Connections per second out of a container that is alone on its host, and of one that is not."""
    many, windows, connections = (4, 1, 100) if bench.quick else (300, 100, 1000)
    cases = {
        (side.name, count): _Case(side, f"nat-{side.name}-{count}", count, connections)
        for side in (bench.ours, bench.reference)
        for count in (1, many)
    }
    jobs = {f"{name} {count}": case.window for (name, count), case in cases.items()}
    rates = {name: found["rate"] for name, found in bench.medians(jobs, windows).items()}
    for case in cases.values():
        case.close()
    what = f"TCP connections through NAT, {many} containers over one"
    row = Row("nat", what, "/s", rates[f"ours {many}"], rates["ours 1"], target=Target(0.95, at_least=True))
    return [row._replace(reference=rates[f"reference {many}"], reference_over=rates["reference 1"])]


class _Case:
    """A host with so many containers; the last of them is the client."""

    def __init__(self, side: Side, name: str, count: int, connections: int) -> None:
        outside = f"{name}-out"
        _make_host(name, outside)
        containers = sandbox.add_containers([f"{name}-c{number}" for number in range(count)])
        config = side.network("nat", "10.120.0.0/16", isGateway=True, ipMasq=True)
        config["name"] = name  # the stores are in one place, the bridges are not
        with sandbox.entered(f"/run/netns/{name}"):
            run_calls([make_call(side, "ADD", config, container) for container in containers], _WORKERS)
        self._processes = [_start(_serve, outside)]
        parent, child = _Fork.Pipe()
        self._pipe: Connection[Any, Any] = parent
        self._processes.append(_start(_connect, containers[-1], child, connections))
        child.close()

    def window(self) -> Mapping[str, float]:
        """One window. Returns the connections per second, named rate."""
        self._pipe.send(None)
        if not self._pipe.poll(_BOUND):
            raise RuntimeError("the connections through NAT take too long")
        return {"rate": self._pipe.recv()}

    def close(self) -> None:
        """End the client and the server."""
        for process in self._processes:
            process.terminate()
            process.join(_BOUND)


def _make_host(name: str, outside: str) -> None:
    for each in (name, outside):
        sandbox.add_container(each)
    commands = (
        ("link", "add", "up0", "netns", name, "type", "veth", "peer", "name", "eth0", "netns", outside),
        ("-n", name, "address", "add", f"{_HOST}/24", "dev", "up0"),
        ("-n", outside, "address", "add", f"{_SERVER}/24", "dev", "eth0"),
        ("-n", name, "link", "set", "up0", "up"),
        ("-n", outside, "link", "set", "eth0", "up"),
    )
    for command in commands:
        sandbox.run("ip", *command)


def _start(work: Callable[..., None], container: str, *arguments: Any) -> multiprocessing.process.BaseProcess:
    """A process that works in a container; it goes with this one."""
    with sandbox.entered(f"/run/netns/{container}"):
        process = _Fork.Process(target=work, args=arguments, daemon=True)
        process.start()
    return process


def _serve() -> None:
    """Take connections. One that does not come from the host's address was not masqueraded: then there is no server."""
    sandbox.die_with_parent()
    with socket.create_server((_SERVER, _PORT), backlog=_BACKLOG) as server:
        while True:
            accepted, (source, _) = server.accept()
            if source != _HOST:
                raise RuntimeError(f"a connection came from {source}, not from {_HOST}")
            accepted.close()


def _connect(pipe: "Connection[Any, Any]", connections: int) -> None:
    """For each word in the pipe make so many connections and say how many that were per second."""
    sandbox.die_with_parent()
    _await_server()
    while True:
        pipe.recv()
        began = time.perf_counter()
        for _ in range(connections):
            _connect_once()
        pipe.send(connections / (time.perf_counter() - began))


def _connect_once() -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.settimeout(_BOUND)
        client.connect((_SERVER, _PORT))


def _await_server() -> None:
    deadline = time.monotonic() + _BOUND
    while time.monotonic() < deadline:
        with suppress(OSError):
            _connect_once()
            return
        time.sleep(0.02)
