r"""The reservations on disk, and their lock. The format is that of host-local, so both can share a directory.

`DATADIR/NETWORK/` holds one file per reserved address, named by the address, with `CONTAINERID\r\nIFNAME` in it
(files of old versions hold the id alone), `last_reserved_ip.N` with the address that range set N gave out last, and
`lock`, which every change holds with flock(2) and which is never removed.

A reservation is there whole or not at all: its file is written without a name (O_TMPFILE, open(2)) and then linked to
its name, which fails when that name exists.
Must not: know ranges, or choose an address.
"""

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from cni_protocol.address import IP, parse_ip
from cni_protocol.errors import IO_FAILURE, TRY_AGAIN_LATER, CNIError

LOCK_BOUND = 15.0  # seconds to wait for the lock; a command of ours holds it for milliseconds
_LAST_PREFIX = "last_reserved_ip."
_OWNER_BYTES = 1 << 18  # more than a reservation can hold: an environment variable has 128 KiB (execve(2))


class Owner(NamedTuple):
    """Who holds a reservation. `ifname` is empty in files of old versions: they count for every interface."""

    container_id: str
    ifname: str

    def covers(self, other: "Owner") -> bool:
        """Whether a reservation of this owner is one of `other`'s."""
        return self.container_id == other.container_id and self.ifname in ("", other.ifname)

    def __str__(self) -> str:
        return f"container {self.container_id}" + (f" interface {self.ifname}" if self.ifname else "")


class Store:
    """The reservations of one network. Made by open_store, under its lock."""

    def __init__(self, path: str, directory: int) -> None:
        self.path = path
        self._directory = directory

    def list_reservations(self) -> dict[IP, Owner]:
        """Every reserved address with its owner. Raises CNIError (code 5)."""
        with _storage_errors(self.path):
            names = os.listdir(self._directory)
        found = {}
        for name in names:
            ip = _address_of(name)
            if ip is not None:
                found[ip] = self._read_owner(name)
        return found

    def reserve(self, ip: IP, owner: Owner) -> bool:
        """Reserve an address; False when it is taken. Raises CNIError (code 5), and then nothing is left behind."""
        content = f"{owner.container_id}\r\n{owner.ifname}".encode()
        with _storage_errors(self.file_of(ip)):
            try:
                self._write_new(str(ip), content)
            except FileExistsError:
                return False
        return True

    def release(self, ip: IP) -> None:
        """Give an address back; one that is not reserved is fine. Raises CNIError (code 5)."""
        with _storage_errors(self.file_of(ip)), suppress(FileNotFoundError):
            os.unlink(str(ip), dir_fd=self._directory)

    def find_last(self, pool: int) -> IP | None:
        """The address that a range set gave out last, None when that is not known (then the search starts anew)."""
        try:
            return parse_ip(self._read(_LAST_PREFIX + str(pool), 64).decode("ascii").strip())
        except (OSError, ValueError):
            return None

    def set_last(self, pool: int, ip: IP) -> None:
        """Note the address that a range set gave out last. Raises CNIError (code 5).

        Overwritten in place: a torn write costs no more than one round of the round robin.
        """
        name = _LAST_PREFIX + str(pool)
        with _storage_errors(os.path.join(self.path, name)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(name, flags, 0o600, dir_fd=self._directory)
            try:
                os.ftruncate(descriptor, os.pwrite(descriptor, str(ip).encode(), 0))
            finally:
                os.close(descriptor)

    def file_of(self, ip: IP) -> str:
        """The path of the file that holds the reservation of an address, for messages."""
        return os.path.join(self.path, str(ip))

    def _read_owner(self, name: str) -> Owner:
        """The owner in a reservation file; an empty one for a file that cannot be read: the address stays taken."""
        try:
            container_id, _, ifname = (
                self._read(name, _OWNER_BYTES).decode("utf-8", "replace").strip().partition("\r\n")
            )
        except OSError:
            return Owner("", "")
        return Owner(container_id.strip(), ifname.strip())

    def _read(self, name: str, size: int) -> bytes:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._directory)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)

    def _write_new(self, name: str, content: bytes) -> None:
        """Make a file with its content in one step. Raises FileExistsError, OSError."""
        try:
            descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
            self._write_named(name, content)  # a file system without O_TMPFILE
            return
        try:
            os.write(descriptor, content)
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self._directory, follow_symlinks=True)
        finally:
            os.close(descriptor)

    def _write_named(self, name: str, content: bytes) -> None:
        temporary = f".{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._directory)
        try:
            os.write(descriptor, content)
            os.link(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        finally:
            os.close(descriptor)
            os.unlink(temporary, dir_fd=self._directory)


@contextmanager
def open_store(data_dir: str, network: str, *, create: bool) -> Iterator[Store | None]:
    """The store of a network, locked until the block is left; None when it is not there and `create` is false.

    Raises CNIError: 5 when the directory cannot be used, 11 when the lock is not had within LOCK_BOUND seconds.
    """
    path = os.path.join(data_dir, network)
    directory = lock = -1
    try:
        with _storage_errors(path):
            if create:
                os.makedirs(path, mode=0o755, exist_ok=True)
            try:
                directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if create:
                    raise
                yield None
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open("lock", flags, 0o600, dir_fd=directory)
        _take_lock(lock, os.path.join(path, "lock"))
        yield Store(path, directory)
    finally:
        for descriptor in (lock, directory):  # closing the lock's only descriptor releases it
            if descriptor >= 0:
                os.close(descriptor)


def _take_lock(lock: int, path: str) -> None:
    """flock with a bound: an alarm interrupts the wait, so that the kernel's queue of waiters stays fair."""

    def give_up(*_: object) -> NoReturn:
        raise CNIError(
            TRY_AGAIN_LATER,
            f"{path} is locked by another process for more than {LOCK_BOUND:.0f} s (`fuser -v {path}` names it)",
        )

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, LOCK_BOUND)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    """Turn an OSError into the error that names the path and what to do."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free some space there",
            errno.EDQUOT: "raise the quota",
            errno.EROFS: "mount it writable, or set ipam.dataDir to a directory that is",
            errno.EACCES: "check its owner and mode",
            errno.ENOTDIR: "something else than a directory is in the way; set ipam.dataDir to another directory",
        }.get(error.errno or 0, "check that directory, or set ipam.dataDir to another one")
        raise CNIError(IO_FAILURE, f"the reservations at {path} cannot be used: {error.strerror}; {remedy}") from None


def _address_of(name: str) -> IP | None:
    """The address that a file name stands for, None for `lock` and everything else that is no reservation.

    Another spelling of an address is none either: releasing that address would not remove the file.
    """
    try:
        ip = parse_ip(name)
    except ValueError:
        return None
    return ip if str(ip) == name else None
