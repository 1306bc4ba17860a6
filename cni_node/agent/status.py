"""`pycni status`: asks the agent on its socket for its report, and prints it.

Must not: look at the kernel (`pycni doctor` does).
"""

import argparse
import json
import socket
import sys
import time
from pathlib import Path

from cni_node.agent.report import Report, parse_document, render
from cni_node.settings import SOCKET

READY, NOT_READY, NO_AGENT = 0, 1, 2  # exit statuses
_BOUND = 10  # seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument("--socket", metavar="FILE", type=Path, default=SOCKET, help=f"of the agent [{SOCKET}]")


def run(options: argparse.Namespace) -> int:
    """Print the report. Returns 0 if the node is ready and has no problem, 1 if not, 2 if no agent answers."""
    try:
        text = fetch(options.socket, "/status")
        report = parse_document(json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        print(f"pycni: {_why_not(options.socket, error)}", file=sys.stderr)
        return NO_AGENT
    sys.stdout.write(text if options.json else render(report, time.monotonic()))
    return READY if is_well(report) else NOT_READY


def is_well(report: Report) -> bool:
    """Whether the node is ready and has no problem."""
    return report.ready and not report.problems


def fetch(path: Path, what: str) -> str:
    """GET the path `what` from the agent's socket. Returns the body. Raises OSError; ValueError unless status 200."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_BOUND)
        sock.connect(str(path))
        sock.sendall(f"GET {what} HTTP/1.0\r\n\r\n".encode())
        parts = []
        while part := sock.recv(1 << 16):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    first = head.partition(b"\r\n")[0].decode(errors="replace")
    if " 200 " not in first:
        raise ValueError(f"the agent answered {first!r}")
    return body.decode()


def refusal_path(path: Path) -> Path:
    """The file beside the agent's socket in which an agent that could not start has written why."""
    return path.with_suffix(".refused")


def _why_not(path: Path, error: Exception) -> str:
    try:
        return f"no agent runs: {refusal_path(path).read_text().strip()}"
    except OSError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"no agent answers on {path}: {reason} (pycni agent, or systemctl status pycni-agent)"
