"""Waits until a file has been written or replaced (inotify(7)).

Must not: read the file, or poll it.
"""

import ctypes
import os
import select
import struct

IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE = 0x8, 0x80, 0x100  # linux/inotify.h
IN_DELETE, IN_MOVED_FROM, IN_DELETE_SELF, IN_MOVE_SELF = 0x200, 0x40, 0x400, 0x800
IN_NONBLOCK, IN_CLOEXEC, IN_ONLYDIR = 0o4000, 0o2000000, 0x1000000
GONE = 0x2000 | 0x8000 | IN_DELETE_SELF | IN_MOVE_SELF  # IN_UNMOUNT, IN_IGNORED
IN_DIRECTORY = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF
QUIET = 0.1  # seconds without another event, after which a file counts as written
LONGEST = 0.5  # seconds after which a file counts as written although events go on
_EVENT = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len; then the name
_LARGEST = 1 << 16

_LIBC = ctypes.CDLL(None, use_errno=True)


class Watch:
    """A watched file. Its directory is watched, so the file may be absent or be replaced.

    If it is a symbolic link, the file behind it is watched too. `stop` is an eventfd(2): waiting ends when it is
    written to. Raises OSError when the directory does not exist.
    """

    def __init__(self, path: str, stop: int) -> None:
        self._path = path
        self._name = os.path.basename(path).encode()
        self._stop = stop
        self._fd = _checked(_LIBC.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify")
        try:
            self._directory = self._add(os.path.dirname(path) or ".", IN_DIRECTORY | IN_ONLYDIR)
            self._watch_target()
        except OSError:
            self.close()
            raise

    def wait(self) -> bool:
        """Wait until the file has changed and no event has come for a moment. Returns False when it was stopped.

        Raises OSError when the directory is gone.
        """
        if not self._next(None):
            return False
        for _ in range(int(LONGEST / QUIET)):
            if not self._next(QUIET):
                break
        self._watch_target()
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def _add(self, path: str, mask: int) -> int:
        return _checked(_LIBC.inotify_add_watch(self._fd, os.fsencode(path), mask), path)

    def _watch_target(self) -> None:
        """Watch the file behind a symbolic link, since it is written in another directory."""
        if os.path.islink(self._path) and os.path.exists(self._path):
            self._add(self._path, IN_CLOSE_WRITE)

    def _next(self, seconds: float | None) -> bool:
        """Wait for an event of our file, for some seconds or (None) without a bound. Returns whether one came."""
        while True:
            waiting, _, _ = select.select((self._fd, self._stop), (), (), seconds)
            if not waiting or self._stop in waiting:
                return False
            if self._is_ours(os.read(self._fd, _LARGEST)):
                return True

    def _is_ours(self, events: bytes) -> bool:
        found, offset = False, 0
        while offset < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, offset)
            offset += _EVENT.size + length
            name = events[offset - length : offset].rstrip(b"\0")
            if watch == self._directory and mask & GONE:
                raise FileNotFoundError(2, "the directory is gone", os.path.dirname(self._path))
            if watch != self._directory or name.startswith(b".."):  # Kubernetes' volumes replace the link `..data`
                found = True
            elif name == self._name:  # a file that has just been made has not been written yet
                found = found or not mask & IN_CREATE or os.path.islink(self._path)
        return found


def _checked(result: int, path: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result
