"""Puts the plugins of the bundle that this program is part of on a node whose directories are mounted somewhere.

All of it arrives by renames: calls that run keep the code that they began with. It may be done again at any time.
Must not: configure the node, or touch what does not carry our mark.
"""

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

LIBRARY = Path("opt/cni/lib/pycni")  # below a root directory, as in install/bundle.sh
BIN = Path("opt/cni/bin")
MARK = ".put-here-by-pycni"  # as in install/code.sh: in a directory of code, with its checksums
KEPT = 2  # directories of code: a call that is running keeps the one that it began with
_LOCK = ".lock"  # nobody but root can open it, and so hold us off
_STAGE = ".image."  # beside its place, where it gets by rename


class NoBundleError(Exception):
    """This program does not run from a bundle, so it has nothing to bring."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `pycni install-plugins`."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        required=True,
        help=f"where the node's root directory is mounted, or its /{BIN} and /{LIBRARY} alone",
    )


def run(options: argparse.Namespace) -> int:
    """Put the plugins there, and say what was done. Returns the exit status."""
    try:
        changed = install_plugins(find_bundle(Path(__file__)), options.root)
    except NoBundleError as error:
        print(f"pycni: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"pycni: {error.filename or options.root}: {error.strerror}", file=sys.stderr)
        return 1
    for path in changed:
        print(f"pycni: {path} is written", file=sys.stderr)
    if not changed:
        print(f"pycni: the plugins in {options.root} are as they should be", file=sys.stderr)
    return 0


def find_bundle(module: Path) -> Path:
    """The bundle's directory of code that a module is part of: ROOT/opt/cni/lib/pycni/ID. Raises NoBundleError."""
    code = module.resolve().parents[2]  # ID/code/cni_node/module
    if not (code / MARK).is_file():
        raise NoBundleError(f"there is no {code / MARK}; only the program of a bundle, or of the image, brings plugins")
    return code


def install_plugins(code: Path, root: Path) -> list[Path]:
    """Have the bundle's code and what starts it below another root. Returns what was written; raises OSError.

    The code goes first, then the launchers, the plugins last: what a runtime finds can be run.
    """
    library = root / LIBRARY
    library.mkdir(parents=True, exist_ok=True)
    with _alone(library):
        changed = [library / code.name] if _put_code(code, library) else []
        launchers = [path for path in sorted(code.parent.iterdir()) if path.is_file() and path.name[0] != "."]
        plugins = sorted((code.parents[len(LIBRARY.parts)] / BIN).iterdir())
        for source, target in (*((path, library) for path in launchers), *((path, root / BIN) for path in plugins)):
            if put_file(target / source.name, source.read_bytes(), 0o755):
                changed.append(target / source.name)
        remove_old(library)
    return changed


def is_whole(code: Path, sums: str) -> bool:
    """Whether a directory of code is there with these checksums, and every file as they have it."""
    try:
        if (code / MARK).read_text() != sums:  # a power failure may have left it empty
            return False
        for line in sums.splitlines():
            digest, _, name = line.partition("  ")
            if sha256((code / name).read_bytes()).hexdigest() != digest:
                return False
    except (OSError, UnicodeDecodeError):
        return False
    return True


def put_file(path: Path, content: bytes, mode: int) -> bool:
    """Have a file with this content, by rename; one that has it is left alone. Returns whether it was written.

    Raises OSError.
    """
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.pycni")  # one name: what a crash leaves is written over
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.rename(path)
    return True


@contextmanager
def _alone(library: Path) -> Iterator[None]:
    """Keep others of our kind out; what those who were broken off have left goes."""
    descriptor = os.open(library / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path in library.glob(f"{_STAGE}*"):
            shutil.rmtree(path)
        yield
    finally:
        os.close(descriptor)


def _put_code(code: Path, library: Path) -> bool:
    """Have the directory of code there, whole. Returns whether it was copied."""
    place = library / code.name
    if is_whole(place, (code / MARK).read_text()):
        os.utime(place)  # the newest, whichever was there before
        return False
    with tempfile.TemporaryDirectory(dir=library, prefix=_STAGE) as stage:
        copy = Path(stage, "new")
        shutil.copytree(code, copy)
        os.utime(copy)
        if place.exists():
            place.rename(Path(stage, "damaged"))
        copy.rename(place)
    return True


def remove_old(library: Path) -> None:
    """Remove all directories of code but the newest KEPT. Raises OSError."""
    marks = sorted(library.glob(f"*/{MARK}"), key=lambda mark: mark.parent.stat().st_mtime_ns, reverse=True)
    for mark in marks[KEPT:]:
        shutil.rmtree(mark.parent)
