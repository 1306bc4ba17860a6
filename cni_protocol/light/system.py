"""os, as far as the plugins use it: loading the real one takes longer than all that cni-ipam does.

Its functions are those of the C module posix, here as there; the few that os adds in Python stand below. Where somebody
has loaded the real module already (the tests), that is it.
Must not: do anything else in another way than the real one.
"""

import posix
import sys

TYPE_CHECKING = False  # type checkers take this name for true
if TYPE_CHECKING or "os" in sys.modules or b"PYCNI_REAL_MODULES" in posix.environ:
    import os
else:

    def _join(path, *parts):
        for part in parts:
            if part.startswith("/"):
                path = part
            else:
                path += part if not path or path.endswith("/") else f"/{part}"
        return path

    def _dirname(path):
        head = path[: path.rfind("/") + 1]
        return head.rstrip("/") or head

    def _basename(path):
        return path[path.rfind("/") + 1 :]

    def _mode(path):
        try:
            return posix.stat(path).st_mode
        except (OSError, ValueError):
            return 0

    def _lexists(path):
        try:
            posix.lstat(path)
        except (OSError, ValueError):
            return False
        return True

    def _samestat(one, other):
        return (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)

    def _makedirs(path, mode=0o777, exist_ok=False):
        head = _dirname(path.rstrip("/"))
        if head and not _mode(head):
            try:  # noqa: SIM105  # contextlib is what is done without
                _makedirs(head, exist_ok=exist_ok)
            except FileExistsError:  # somebody else was quicker
                pass
        try:
            posix.mkdir(path, mode)
        except OSError:
            if not exist_ok or _mode(path) & _KIND != _DIRECTORY:
                raise

    _KIND, _DIRECTORY, _FILE = 0o170000, 0o040000, 0o100000  # inode(7)

    class _Path:
        """os.path."""

        join, dirname, basename = staticmethod(_join), staticmethod(_dirname), staticmethod(_basename)
        lexists, samestat = staticmethod(_lexists), staticmethod(_samestat)
        exists = staticmethod(lambda path: bool(_mode(path)))
        isfile = staticmethod(lambda path: _mode(path) & _KIND == _FILE)
        isdir = staticmethod(lambda path: _mode(path) & _KIND == _DIRECTORY)

    os = type(sys)("os")
    os.__dict__.update(posix.__dict__)
    os.path, os.makedirs, os.devnull, os.SEEK_SET = _Path, _makedirs, "/dev/null", 0
    _words = {key: value.decode("utf-8", "surrogateescape") for key, value in posix.environ.items()}
    os.__dict__["environ"] = {key.decode("utf-8", "surrogateescape"): value for key, value in _words.items()}

__all__ = ["os"]
