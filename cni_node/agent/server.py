"""Answers on the agent's socket, and perhaps on 127.0.0.1: /status, /healthz, /readyz, /metrics; for root more.

Must not: decide or change anything; it reads the last report, and passes announced pods to the policy enforcer.
"""

import io
import json
import os
import resource
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from cni_kernel.errors import KernelError
from cni_node.agent.report import Report, to_document, to_metrics
from cni_node.policy.announced import OFF, parse_announced
from cni_node.policy.enforcer import Enforcer
from cni_node.policy.evaluator import Connection
from cni_protocol.address import parse_ip

_QUIET = 3600.0  # seconds between checks for a shutdown, which never comes: the threads end with the process
_CLIENT_BOUND = 5.0  # seconds for a whole request to arrive
_MOST = 8  # connections at a time on 127.0.0.1, where any user may connect; each takes a thread and a descriptor
_ADMISSION_BOUND = 0.9  # seconds to wait for a pod's policies; the plugin waits for 1 s
_LARGEST = 1 << 16  # bytes of a request
_LOOPBACK = "127.0.0.1"


class Page(NamedTuple):
    """Where the server gets its answers: the last report, whether the loop is alive, and the policy enforcer."""

    report: Callable[[], Report]
    alive: Callable[[], bool]
    policies: Enforcer | None = None


class _Arriving(io.RawIOBase):
    """What arrives on a socket within some seconds; then reading raises TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(self._end - time.monotonic(), 0.001))  # 0 would be: without waiting
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server_version = "pycni"
    page: Page

    def setup(self) -> None:
        """Bound the request as a whole: a timeout of the socket begins anew with each byte."""
        super().setup()
        self.rfile = io.BufferedReader(_Arriving(self.connection, _CLIENT_BOUND))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/status":
            self._answer(200, json.dumps(to_document(self._report_all()), indent=2) + "\n", "application/json")
        elif path == "/healthz":
            alive = self.page.alive()
            self._answer(200 if alive else 503, "ok\n" if alive else "the loop does not turn\n")
        elif path == "/readyz":
            report = self.page.report()
            self._answer(200 if report.ready else 503, f"{report.state}\n")
        elif path == "/metrics":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            used = usage.ru_utime + usage.ru_stime
            text = to_metrics(self._report_all(), time.monotonic(), used, _resident_bytes())
            self._answer(200, text, "text/plain; version=0.0.4")
        else:
            self._answer(404, "there are /status, /healthz, /readyz and /metrics\n")

    def _report_all(self) -> Report:
        """The last report, with the current state of the policies, whose counters are read from the kernel."""
        report = self.page.report()
        if self.page.policies is None:
            return report
        try:
            state = self.page.policies.state
        except KernelError as error:  # the counters alone
            state = self.page.policies.known_state
            state = state._replace(problems=(*state.problems, str(error)))
        return report._replace(policies=state._asdict(), problems=(*report.problems, *state.problems))

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log no requests."""


class _RootsHandler(_Handler):
    """The handler for the socket, which only root can use. On 127.0.0.1 any user could announce pods."""

    def do_GET(self) -> None:
        """Beside what everybody may ask: which policy lets a connection through, or does not."""
        path, _, query = self.path.partition("?")
        if path != "/policy":
            super().do_GET()
            return
        try:
            asked = {key: values[0] for key, values in parse_qs(query, strict_parsing=True).items()}
            source, destination = parse_ip(asked["source"]), parse_ip(asked["destination"])
            connection = Connection(source, destination, asked["protocol"], int(asked["port"]))
        except (ValueError, LookupError) as error:
            self._answer(400, f"this is no connection: {error!r}\n")
            return
        verdict = self.page.policies.judge(connection) if self.page.policies else None
        if verdict is None:
            self._answer(404, "no policies are in force\n")
            return
        ends = {key: end and end._asdict() for key, end in verdict._asdict().items()}
        self._answer(200, json.dumps({"allowed": verdict.allowed, **ends}) + "\n", "application/json")

    def do_POST(self) -> None:
        """POST /pods: the plugin announces a pod; answers once its policies are in force, or with status 503."""
        if self.path != "/pods":
            self._answer(404, "there is /pods\n")
            return
        try:
            announced = parse_announced(json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), _LARGEST))))
        except (ValueError, TypeError) as error:
            self._answer(400, f"this is no pod: {error}\n")
            return
        state = self.page.policies.admit(announced, _ADMISSION_BOUND) if self.page.policies else OFF
        self._answer(200 if state else 503, json.dumps({"state": state}) + "\n", "application/json")


class _Server(socketserver.ThreadingMixIn):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)  # type: ignore[misc]


class _UnixServer(_Server, socketserver.UnixStreamServer):
    pass


class _TcpServer(_Server, socketserver.TCPServer):
    """For any user of the node: a connection too many ends the oldest one, so that nobody keeps the others out."""

    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._room = threading.Semaphore(_MOST)
        self._open: dict[Any, None] = {}  # the oldest first

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread of its own, once there is room."""
        while not self._room.acquire(blocking=False):
            for oldest in list(self._open)[:1]:
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            if self._room.acquire(timeout=_CLIENT_BOUND):
                break
        self._open[request] = None
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # there is no thread for it
            self._leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle it, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: Any) -> None:
        del self._open[request]
        self._room.release()


def serve(page: Page, path: Path, metrics_port: int) -> None:
    """Start the server in threads that end with the process. Raises OSError.

    A socket that an earlier process has left is replaced. The caller has made sure that no other agent runs.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        servers: list[socketserver.BaseServer] = [_UnixServer(str(path), _of(page, _RootsHandler))]
    finally:
        os.umask(before)
    if metrics_port:
        servers.append(_TcpServer((_LOOPBACK, metrics_port), _of(page, _Handler)))
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(_QUIET,), name="server", daemon=True).start()


def _of(page: Page, handler: type[_Handler]) -> type[_Handler]:
    return type("Handler", (handler,), {"page": page})


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
