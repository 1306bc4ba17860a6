r"""The reservations on disk, and their lock. The format is that of host-local, so both can share a directory.

`DATADIR/NETWORK/` holds one file per reserved address, named by the address, with `CONTAINERID\r\nIFNAME` in it
(files of old versions hold the id alone), `last_reserved_ip.N` with the address that range set N gave out last, and
`lock`, which every change holds with flock(2) and which is never removed.

What is on disk after a crash at any instruction:
- A reservation is there whole or not at all: its file is written without a name (O_TMPFILE, open(2)) and then linked to
  its name, which fails when that name exists. A file system without that gets a file with a name that is no address.
- The record of it (records.py) is linked after it and removed after it; one that is missing or too many is put right by
  the next command, which holds the lock and looks.
- fsync(2) is not called: a power failure may leave the file without its content, but ends the boot, and with it every
  reservation. Only what a dying process leaves counts, and that the kernel keeps.
Must not: know ranges, or choose an address.
"""

import errno
import fcntl
import os
import sys

from cni_protocol.address import IP, parse_ip
from cni_protocol.errors import IO_FAILURE, CNIError
from cni_protocol.filelock import take_lock
from cni_protocol.lean import Iterable, Iterator, contextmanager, suppress
from cni_protocol.request import is_identifier, is_interface_name

from .records import Record, Records, list_records, make_label

LOCK_BOUND = 15.0  # seconds to wait for the lock; a command of ours holds it for milliseconds
_LAST_PREFIX = "last_reserved_ip."
_OWNER_BYTES = 1 << 18  # more than a reservation can hold: an environment variable has 128 KiB (execve(2))
UNKNOWN = ""  # the label of a reservation whose file says nothing, and of which there is no record


class Store:
    """The reservations of one network. Made by open_store, under its lock."""

    def __init__(self, path: str, directory: int, records: Records) -> None:
        self.path = path
        self._directory = directory
        self._records = records
        self._boot = -1
        self.owners: dict[IP, str] = {}

    def recover(self, *, need_records: bool) -> None:
        """Read what is there, and put right what a crash, a reboot or another plugin left. Raises OSError.

        Afterwards `owners` has the owner's label of every reserved address. Who only gives back does not
        `need_records`: that must work on a full disk too.
        """
        stale = _inodes(self._records.list_earlier())
        for ip, inode in self._scan().items():
            if stale.get(ip) == inode:
                os.unlink(str(ip), dir_fd=self._directory)
                self._say(f"{self.file_of(ip)} was of an earlier boot: the address is free again")
        try:
            self._boot = self._records.begin_boot()
        except OSError:
            if need_records:
                raise
        there = self._scan()
        for record in list_records(self._boot) if self._boot >= 0 else []:
            if there.get(record.ip) == record.inode:
                self.owners[record.ip] = record.label
            else:
                os.unlink(record.name, dir_fd=self._boot)
        known = list(self.owners.items())
        for ip in there.keys() - self.owners.keys():
            self._adopt(ip, need_records)
        for ip, label in known:
            self._repair(ip, label)

    def close(self) -> None:
        """Close what recover opened."""
        if self._boot >= 0:
            os.close(self._boot)

    def addresses_of(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses of an attachment; a reservation of an old version counts for every interface."""
        labels = {make_label(container_id, ifname), make_label(container_id, "")}
        return [ip for ip, label in self.owners.items() if label in labels]

    def list_previous(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses that an attachment had in the boot before this one. Raises CNIError (code 5)."""
        label = make_label(container_id, ifname)
        with _storage_errors(self.path):
            return [record.ip for record in self._records.list_previous() if record.label == label]

    def reserve(self, ip: IP, container_id: str, ifname: str) -> bool:
        """Reserve an address; False when it is taken. Raises CNIError (code 5), and then nothing is left behind."""
        with _storage_errors(self.file_of(ip)):
            try:
                self._write_new(str(ip), _content(container_id, ifname))
            except FileExistsError:
                return False
            self.owners[ip] = make_label(container_id, ifname)
            try:
                self._record(ip)
            except OSError:
                self.release(ip)
                raise
        return True

    def release(self, ip: IP) -> None:
        """Give an address back; one that is not reserved is fine. Raises CNIError (code 5)."""
        label = self.owners.pop(ip, UNKNOWN)
        with _storage_errors(self.file_of(ip)):
            with suppress(FileNotFoundError):
                os.unlink(str(ip), dir_fd=self._directory)
            if label != UNKNOWN and self._boot >= 0:
                with suppress(FileNotFoundError):
                    os.unlink(Record(ip, label, 0).name, dir_fd=self._boot)

    def find_last(self, pool: int) -> IP | None:
        """The address that a range set gave out last, None when that is not known (then the search starts anew)."""
        name = _LAST_PREFIX + str(pool)
        try:
            return parse_ip(self._read(name, 64).decode("ascii").strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self._say(f"{os.path.join(self.path, name)} holds no address: the search begins with the first one")
            return None

    def set_last(self, pool: int, ip: IP) -> None:
        """Note the address that a range set gave out last. Raises CNIError (code 5).

        Overwritten in place: a torn write costs no more than one round of the round robin.
        """
        name = _LAST_PREFIX + str(pool)
        with _storage_errors(os.path.join(self.path, name)):
            descriptor = os.open(name, _WRITE | os.O_CREAT, 0o600, dir_fd=self._directory)
            try:
                os.ftruncate(descriptor, os.pwrite(descriptor, str(ip).encode(), 0))
            finally:
                os.close(descriptor)

    def file_of(self, ip: IP) -> str:
        """The path of the file that holds the reservation of an address, for messages."""
        return os.path.join(self.path, str(ip))

    def _scan(self) -> dict[IP, int]:
        """Every reserved address with the inode number of its file."""
        return _scan(self._directory)

    def describe(self, ip: IP) -> str:
        """Who holds an address and where that is written, for messages."""
        container_id, _, ifname = self.owners[ip].partition(",")
        holder = f"container {container_id or 'unknown'}" + (f" interface {ifname}" if ifname else "")
        return f"{holder} ({self.file_of(ip)})"

    def _adopt(self, ip: IP, need_records: bool) -> None:
        """Take note of a reservation that has no record: another plugin's, or one that a crash left without."""
        try:
            content = self._read(str(ip), _OWNER_BYTES)
        except OSError:
            content = b"?"  # a directory, a symbolic link (never followed): not ours to remove
        container_id, _, ifname = content.decode("utf-8", "replace").strip().partition("\r\n")
        if is_identifier(container_id) and is_interface_name(ifname):  # else it must not become a file's name
            self.owners[ip] = make_label(container_id, ifname)
            try:
                self._record(ip)
            except OSError:
                if need_records:
                    raise
        elif content or self._boot < 0:  # without the records nobody knows that an empty file is nobody's
            self.owners[ip] = UNKNOWN
            self._say(
                f"{self.file_of(ip)} says not whose it is: the address stays taken until GC or a DEL that names it"
            )
        else:
            os.unlink(str(ip), dir_fd=self._directory)
            self._say(f"{self.file_of(ip)} was empty, left by a plugin that ended before it wrote it: removed")

    def _record(self, ip: IP) -> None:
        name = Record(ip, self.owners[ip], 0).name
        os.link(str(ip), name, src_dir_fd=self._directory, dst_dir_fd=self._boot, follow_symlinks=False)

    def _repair(self, ip: IP, label: str) -> None:
        """Write a damaged reservation anew from its record; other plugins need its content."""
        container_id, _, ifname = label.partition(",")
        wanted = _content(container_id, ifname)
        if not ifname or "~" in container_id:
            return  # of an old version, or a record without the whole id
        if os.stat(str(ip), dir_fd=self._directory, follow_symlinks=False).st_size == len(wanted):
            return
        with suppress(OSError):  # a full disk; the record holds as well
            descriptor = os.open(str(ip), _WRITE, dir_fd=self._directory)
            try:
                os.ftruncate(descriptor, os.pwrite(descriptor, wanted, 0))
            finally:
                os.close(descriptor)
            self._say(f"{self.file_of(ip)} was damaged: written anew for container {container_id} interface {ifname}")

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
            _write_all(descriptor, content)
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self._directory, follow_symlinks=True)
        finally:
            os.close(descriptor)

    def _write_named(self, name: str, content: bytes) -> None:
        temporary = f".{name}.new"  # one that a crash left is overwritten
        descriptor = os.open(temporary, _WRITE | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=self._directory)
        try:
            _write_all(descriptor, content)
            os.link(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        finally:
            os.close(descriptor)
            os.unlink(temporary, dir_fd=self._directory)

    def _say(self, text: str) -> None:
        print(f"cni-ipam: {text}", file=sys.stderr)


_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO in our place would be waited for


@contextmanager
def open_store(data_dir: str, network: str, *, create: bool) -> Iterator[Store | None]:
    """The store of a network, locked until the block is left; None when it is not there and `create` is false.

    Raises CNIError: 5 when the directory cannot be used, 11 when the lock is not had within LOCK_BOUND seconds.
    """
    path = os.path.join(data_dir, network)
    directory = lock = -1
    store = None
    try:
        with _storage_errors(path):
            if create:
                os.makedirs(path, mode=0o755, exist_ok=True)
            try:
                directory = _open_directory(path)
            except FileNotFoundError:
                if create:
                    raise
                yield None
                return
        with _storage_errors(os.path.join(path, "lock")):
            lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        name = os.path.join(path, "lock")
        take_lock(lock, fcntl.LOCK_EX, LOCK_BOUND, f"{name} is locked by another process (`fuser -v {name}` names it)")
        with _storage_errors(path):
            store = Store(path, directory, _records_of(data_dir, network))
            store.recover(need_records=create)
        yield store
    finally:
        if store is not None:
            store.close()
        for descriptor in (lock, directory):  # closing the lock's only descriptor releases it
            if descriptor >= 0:
                os.close(descriptor)


def peek_addresses(data_dir: str, network: str) -> set[IP]:
    """The addresses that ADD would find taken, without the lock; for STATUS, changes nothing.

    Raises CNIError (code 5) when ADD could not write there.
    """
    path = os.path.join(data_dir, network)
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    with _storage_errors(path):
        obstacle = _find_obstacle(place)
        if obstacle:
            raise OSError(obstacle, os.strerror(obstacle))
        if place != path:
            return set()
        directory = _open_directory(path)
        try:
            there = _scan(directory)
        finally:
            os.close(directory)
        stale = _inodes(_records_of(data_dir, network).list_earlier())
    return {ip for ip, inode in there.items() if stale.get(ip) != inode}


def _records_of(data_dir: str, network: str) -> Records:
    return Records(os.path.join(data_dir, ".pycni", network))  # no network's name begins with a dot


def _open_directory(path: str) -> int:
    """The network's directory; a symbolic link in its place is not followed (one further up may be the admin's)."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _scan(directory: int) -> dict[IP, int]:
    """The files of a directory whose name is an address in its one spelling, with their inode numbers."""
    found = {}
    for entry in os.scandir(directory):
        with suppress(ValueError):
            ip = parse_ip(entry.name)
            if str(ip) == entry.name:
                found[ip] = entry.inode()
    return found


def _inodes(records: Iterable[Record]) -> dict[IP, int]:
    return {record.ip: record.inode for record in records}


def _content(container_id: str, ifname: str) -> bytes:
    return f"{container_id}\r\n{ifname}".encode()


def _write_all(descriptor: int, content: bytes) -> None:
    """Write a small file in one call; a short write means that the disk is full."""
    if os.write(descriptor, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _find_obstacle(place: str) -> int:
    """The errno that making a file in a directory would meet, 0 for none."""
    if not os.path.isdir(place):
        return errno.ENOTDIR
    system = os.statvfs(place)
    if system.f_flag & os.ST_RDONLY:
        return errno.EROFS
    if not os.access(place, os.W_OK | os.X_OK):
        return errno.EACCES
    return 0 if system.f_bavail and (system.f_favail or not system.f_files) else errno.ENOSPC


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
            errno.ELOOP: "a symbolic link is in the way, and none is followed here; remove it",
        }.get(error.errno or 0, "check that directory, or set ipam.dataDir to another one")
        raise CNIError(IO_FAILURE, f"the reservations at {path} cannot be used: {error.strerror}; {remedy}") from None
