"""What the toy plugin of test_plugin.py does. It is loaded in processes of its own, so nothing slow is imported."""

import os
import sys
import time
from typing import Any

from cni_protocol.request import Request


def fail(error: BaseException) -> Any:
    def function(_: Request) -> dict[str, Any] | None:
        raise error

    return function


def wait_and_undo(_: Request) -> None:
    """Hang as an ADD would in a system call; undo when interrupted, which takes its time."""
    try:
        print("begun", file=sys.stderr)
        time.sleep(20)
    finally:
        print("undoing", file=sys.stderr)
        sys.stdin.buffer.read(1)  # until the test has sent another signal
        print("undone", file=sys.stderr)


def talk(_: Request) -> dict[str, Any]:
    """Warn more than once, and with more than a pipe or a buffer holds; then answer."""
    for _number in range(3):
        print("a warning " * 20_000, file=sys.stderr)
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.close(descriptor)
    return {"descriptor": descriptor}


def echo(request: Request) -> dict[str, Any]:
    return {"command": request.command, "config": request.config}


def announce(function: Any) -> Any:
    def stand_in() -> Any:
        print("waiting", file=sys.stderr)
        return function()

    return stand_in
