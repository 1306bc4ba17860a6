"""`pycni install-plugins`: copies the plugins of the bundle that this program belongs to below another root directory.

Files are put in place by rename, so running calls keep the code that they began with. It can be repeated at any time.
Must not: configure the node, or touch directories without our mark.
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
KEPT = 2  # newest directories of code that stay, since running calls may still use the one before
_LOCK = ".lock"  # only root can open it, so only root can hold it
_STAGE = ".image."  # prefix of temporary directories, from which code is renamed to its place


class NoBundleError(Exception):
    """This program does not run from a bundle, so it has no plugins to install."""


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
    """Install the plugins, and print what was done. Returns the exit status."""
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
    """The bundle's directory ROOT/opt/cni/lib/pycni/ID that contains a module. Raises NoBundleError."""
    code = module.resolve().parents[2]  # ID/code/cni_node/module
    if not (code / MARK).is_file():
        raise NoBundleError(f"there is no {code / MARK}; only the program of a bundle, or of the image, brings plugins")
    return code


def install_plugins(code: Path, root: Path) -> list[Path]:
    """Copy the bundle's code, launchers and plugins below another root. Returns the written paths. Raises OSError.

    The plugins are written last, so that what a runtime finds can always be run.
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
    """Whether a directory of code exists, has these checksums, and all its files match them."""
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
    """Write a file by rename, unless it has this content and mode already. Returns whether it was written.

    Raises OSError.
    """
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.pycni")  # the same each time: overwrites a leftover
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.rename(path)
    return True


@contextmanager
def _alone(library: Path) -> Iterator[None]:
    """Hold a lock against other installations, and remove what interrupted ones have left."""
    descriptor = os.open(library / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path in library.glob(f"{_STAGE}*"):
            shutil.rmtree(path)
        yield
    finally:
        os.close(descriptor)


def _put_code(code: Path, library: Path) -> bool:
    """Copy the directory of code, unless it is there and complete. Returns whether it was copied."""
    place = library / code.name
    if is_whole(place, (code / MARK).read_text()):
        os.utime(place)  # make it the newest, so that remove_old keeps it
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
