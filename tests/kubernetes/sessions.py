"""A client that goes on: tests/kit/kubernetes/pods/ask.py somewhere, which is started once and asked many times."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_END_BOUND = 10.0  # seconds


class Session:
    """The client behind a command that starts it; asked by one at a time. Close it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, questions: Sequence[Any], seconds: float) -> list[Any]:
        """The answers. A client that ended since it was asked last, as with its kubelet, is started anew.

        Raises AssertionError with what it said when it does not answer within `seconds`.
        """
        with self._turn:
            if self._process is not None:
                with suppress(AssertionError):
                    return self._exchange(self._process, questions, seconds)
            pipe = subprocess.PIPE
            options: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": subprocess.STDOUT, "text": True}
            self._process = subprocess.Popen(self._command, process_group=0, **options)
            return self._exchange(self._process, questions, seconds)

    def close(self) -> None:
        """End the client."""
        if self._process is not None:
            _kill(self._process)
            self._process.communicate(timeout=_END_BOUND)
            self._process = None

    def _exchange(self, process: "subprocess.Popen[str]", questions: Sequence[Any], seconds: float) -> list[Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        bound = threading.Timer(seconds, _kill, [process])
        bound.start()
        said = ""
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(questions) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                if line.startswith("["):
                    answers: list[Any] = json.loads(line)
                    return answers
                said += line  # kubectl's, of which container it takes, or of why there is none
        finally:
            bound.cancel()
        self.close()
        raise AssertionError(f"{self._command} did not answer within {seconds:.0f} s: {said}")


def _kill(process: "subprocess.Popen[str]") -> None:
    """With the children that it has, as nsenter has the program itself; unless it has been waited for."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
