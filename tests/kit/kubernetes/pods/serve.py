"""A pod's web server: who answers, and whom it saw, as JSON for every GET; and the same over UDP.

Only this image's Python runs it; it must not need anything but the standard library.
Usage: serve.py PORT
"""

import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say who, whom and what."""
        seen = {"by": socket.gethostname(), "source": self.client_address[0].removeprefix("::ffff:")}
        body = json.dumps({**seen, "host": self.headers.get("Host"), "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """For both families, and with room for who comes while all are busy."""

    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True


def answer_datagrams(port: int) -> None:
    """The same without HTTP, for whatever comes by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", port))
        while True:
            _, sender = ear.recvfrom(2048)
            ear.sendto(json.dumps({"by": socket.gethostname(), "source": sender[0]}).encode(), sender)


if __name__ == "__main__":
    own = int(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # the first process of a pod does not end by itself
    threading.Thread(target=answer_datagrams, args=(own,), daemon=True).start()
    Server(("::", own), Answer).serve_forever()
