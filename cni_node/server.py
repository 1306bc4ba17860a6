"""Answers on the agent's socket, and perhaps on 127.0.0.1: /status, /healthz, /readyz, /metrics; for root more.

Must not: decide or change anything; it reads the last report, and passes announced pods to the policy enforcer.
"""

import json
import os
import resource
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from cni_node.policy.announced import OFF, parse_announced
from cni_node.policy.enforcer import Enforcer
from cni_node.policy.evaluator import Connection
from cni_node.report import Report, to_document, to_metrics
from cni_protocol.address import parse_ip

_QUIET = 3600.0  # seconds between checks for a shutdown, which never comes: the threads end with the process
_CLIENT_BOUND = 10  # seconds for a request to arrive
_ADMISSION_BOUND = 0.9  # seconds to wait for a pod's policies; the plugin waits for 1 s
_LARGEST = 1 << 16  # bytes of a request
_LOOPBACK = "127.0.0.1"


class Page(NamedTuple):
    """Where the server gets its answers: the last report, whether the loop is alive, and the policy enforcer."""

    report: Callable[[], Report]
    alive: Callable[[], bool]
    policies: Enforcer | None = None


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_BOUND
    server_version = "pycni"
    page: Page

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":  # asks neither the kernel nor a lock
            alive = self.page.alive()
            self._answer(200 if alive else 503, "ok\n" if alive else "the loop does not turn\n")
            return
        report = self.page.report()
        if path == "/status":
            self._answer(200, json.dumps(to_document(report), indent=2) + "\n", "application/json")
        elif path == "/readyz":
            self._answer(200 if report.ready else 503, f"{report.state}\n")
        elif path == "/metrics":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            text = to_metrics(report, time.monotonic(), usage.ru_utime + usage.ru_stime, _resident_bytes())
            self._answer(200, text, "text/plain; version=0.0.4")
        else:
            self._answer(404, "there are /status, /healthz, /readyz and /metrics\n")

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


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class _TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True


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
