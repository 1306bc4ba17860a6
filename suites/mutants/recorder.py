"""A pytest plugin: notes of each test how it ended and which lines of our packages it ran, in whatever process.

The code under test is watched by what `watched()` appends to the packages of a copy; this tells it which test runs.
"""

import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

NOTES, LINES, CURRENT = "notes", "lines", "current"  # files in the directory that $MUTANTS_NOTES names
# It runs in every process that imports one of our packages, so it imports what is there anyhow. The file is opened for
# each line anew: whoever closes all descriptors, or is killed, does so without a word. A file that cannot be opened, as
# in another root directory, is no harm.
_WATCHER = """

def _watch(place):
    import posix, sys
    if sys.gettrace() is not None:
        return
    state = sys._mutants = {"test": b"0", "left": {}}
    opened, write, close = posix.open, posix.write, posix.close
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CLOEXEC
    try:
        fd = opened(place + "/current", posix.O_RDONLY)
        state["test"] = posix.read(fd, 20)
        close(fd)
    except OSError:
        return
    path = place + "/lines"

    def note(code, left, line):
        left.discard(line)
        name = code.co_filename
        text = b"%s %s:%d\\n" % (state["test"], name[name.rfind("/cni_") + 1 :].encode(), line)
        try:
            fd = opened(path, flags)
        except OSError:
            return
        write(fd, text)
        close(fd)

    def on_line(frame, event, _):
        if event == "line":
            left = lines_of(frame.f_code)
            if frame.f_lineno in left:
                note(frame.f_code, left, frame.f_lineno)
        return on_line

    def lines_of(code):
        left = state["left"]
        if code not in left:
            left[code] = {line for _, _, line in code.co_lines() if line}
        return left[code]

    def on_call(frame, event, _):
        code = frame.f_code
        name = code.co_filename
        if "/tests/" in name or not ("/cni_" in name or name[:4] == "cni_"):
            return None
        left = lines_of(code)
        if code.co_firstlineno in left:
            note(code, left, code.co_firstlineno)
        return on_line if left else None

    sys.settrace(on_call)
    if "threading" in sys.modules or __name__ == "cni_node":
        import threading
        threading.settrace(on_call)


_watch(@PLACE@)
"""


def watched(source: str, place: Path) -> str:
    """A package's __init__.py that has this process watched, with its notes in a directory."""
    return source + _WATCHER.replace("@PLACE@", repr(str(place)))


class Recorder:
    """Writes one line of JSON for each test: node id, number, whether it passed, seconds."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._number = 0
        self._failed = False
        self._begin = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Around a test with its fixtures."""
        self._number += 1
        self._failed = False
        self._tell(self._number)
        self._begin = time.monotonic()
        result = yield
        seconds = round(time.monotonic() - self._begin, 3)
        with (self._place / NOTES).open("a") as file:
            file.write(json.dumps([item.nodeid, self._number, not self._failed, seconds]) + "\n")
        self._tell(0)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that skips is none that could notice anything."""
        self._failed |= report.outcome != "passed"

    def _tell(self, number: int) -> None:
        (self._place / CURRENT).write_text(str(number))
        state = getattr(sys, "_mutants", None)
        if state is not None:
            state["test"] = str(number).encode()
            state["left"] = {}


def pytest_configure(config: pytest.Config) -> None:
    """For -p."""
    config.pluginmanager.register(Recorder(Path(os.environ["MUTANTS_NOTES"])))
