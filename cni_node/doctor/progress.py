"""Says what is being read when a look at the node takes long, on a terminal.

Must not: say anything about what takes less than a second.
"""

from threading import Event, Thread
from types import TracebackType
from typing import Self, TextIO

LONG = 1.0  # seconds between two lines, and before the first


class Progress:
    """A context manager around the look. A stream of None is told nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._ended, self._what = stream, Event(), ""

    def begin(self, what: str) -> None:
        """From now on this is being read."""
        self._what = what

    def __enter__(self) -> Self:
        if self._stream is not None:
            Thread(target=self._tell, args=(self._stream,), name="progress", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()

    def _tell(self, stream: TextIO) -> None:
        told = ""
        while not self._ended.wait(LONG):
            what = self._what
            if what != told:
                told = what
                print(f"pycni: still reading {what}", file=stream, flush=True)
