"""`pycni status`: asks the agent on its socket, and shows what it says.

Must not: look at the kernel (that is the doctor's).
"""

import argparse
import json
import socket
import sys
import time
from pathlib import Path

from cni_node.report import Report, parse_document, render
from cni_node.settings import SOCKET

READY, NOT_READY, NO_AGENT = 0, 1, 2  # exit statuses
_BOUND = 10  # seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    parser.add_argument("--socket", metavar="FILE", type=Path, default=SOCKET, help=f"of the agent [{SOCKET}]")


def run(options: argparse.Namespace) -> int:
    """Show the status. Returns 0 for a node that is ready and has no problem, 1 for another, 2 without an agent."""
    try:
        text = fetch(options.socket, "/status")
        report = parse_document(json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        print(f"pycni: {_why_not(options.socket, error)}", file=sys.stderr)
        return NO_AGENT
    sys.stdout.write(text if options.json else render(report, time.monotonic()))
    return READY if is_well(report) else NOT_READY


def is_well(report: Report) -> bool:
    """Whether nothing is wanting."""
    return report.ready and not report.problems


def fetch(path: Path, what: str) -> str:
    """The body of an answer of the agent. Raises OSError without an agent, ValueError for another answer than 200."""
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
    """Where an agent that could not begin says why, beside its socket."""
    return path.with_suffix(".refused")


def _why_not(path: Path, error: Exception) -> str:
    try:
        return f"no agent runs: {refusal_path(path).read_text().strip()}"
    except OSError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"no agent answers on {path}: {reason} (pycni agent, or systemctl status pycni-agent)"
