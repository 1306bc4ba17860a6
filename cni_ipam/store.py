r"""The reservations on disk, and their lock. The format is that of host-local, so both can share a directory.

`DATADIR/NETWORK/` holds one file per reserved address, named by the address, with `CONTAINERID\r\nIFNAME` in it
(files of old versions hold the id alone), `last_reserved_ip.N` with the address that range set N gave out last, and
`lock`, which every change holds with flock(2) and which is never removed.

What is on disk after a crash at any instruction:
- A reservation is there whole or not at all: its file is written without a name (O_TMPFILE, open(2)) and then linked to
  its name, which fails when that name exists. A file system without that gets a file with a name that is no address.
- The record of it (records.py) is linked after it and removed after it; one that is missing or too many is put right by
  the next command, which finds that the index does not count, holds the lock and looks.
- The index (index.py) counts only with the stamp of the directories (stamp.py), which any change to them undoes. A
  command changes files first, the index then, and signs it with the new stamp in the end.
- fsync(2) is not called: a power failure may leave the file without its content, but ends the boot, and with it every
  reservation. Only what a dying process leaves counts, and that the kernel keeps.
Must not: know ranges, or choose an address.
"""

import fcntl
import os
import sys

from cni_protocol.address import IP, parse_ip
from cni_protocol.light.locks import take_lock
from cni_protocol.light.standard import Any, Callable, Iterator, contextmanager, suppress
from cni_protocol.request import is_identifier, is_interface_name

from .files import make_file, open_directory, overwrite_file, read_content, read_file, scan_addresses, storage_errors
from .index import Index, IndexDamagedError
from .records import Record, Records, list_records, make_label, open_records
from .stamp import read_stamp, set_back

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
        self._index = Index()
        self._owners: dict[IP, str] = {}  # the labels that this command has come across
        self._all_known = False
        self._found = False  # an index that counts
        self._changed = False
        self._sure = True  # nothing is there that the next command has to look at
        self._seen = (0, 0)

    def open(self, *, need_records: bool) -> None:
        """Find out what is there: by the index if it counts, else by recovering. Raises OSError.

        Who only gives back does not `need_records`: that must work on a full disk too.
        """
        self._seen = self._look()
        with suppress(OSError):
            self._boot = self._records.open_boot()
        stamp = read_stamp(self._directory, self._boot) if self._boot >= 0 else ""
        self._found = bool(stamp) and self._index.read(self._boot, stamp, os.O_RDWR)
        if not self._found:
            self._recover(need_records)

    def save(self) -> None:
        """Have the next command find the index; it looks at the files if that is not to be had."""
        if not self._changed or not self._sure or self._boot < 0:
            return
        if UNKNOWN in self._owners.values():  # their files may say more by then
            return
        with suppress(OSError):
            self._index.write(self._boot)
            if self._look() == self._seen:
                set_back(self._directory, self._boot)
                stamp = read_stamp(self._directory, self._boot)
                if stamp:
                    self._index.sign(stamp)
                    self._changed = False
                self._seen = self._look()

    def close(self) -> None:
        """Close what open opened."""
        self._index.close()
        self._close_boot()

    def addresses_of(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses of an attachment; a reservation of an old version counts for every interface.

        A file of it that is damaged is written anew. Raises CNIError (code 5), as all that follow.
        """
        held = {}
        for label in (make_label(container_id, ifname), make_label(container_id, "")):
            for ip in self._ask(Index.find, label):
                held[ip] = self._owners[ip] = label
        with storage_errors(self.path):
            for ip, label in held.items():
                self._repair(ip, label)
        return list(held)

    def list_previous(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses that an attachment had in the boot before this one."""
        label = make_label(container_id, ifname)
        found: list[IP] = self._ask(Index.find_previous, label)
        return [ip for ip in found if self._records.has_previous(Record(ip, label, 0))]

    def list_owners(self) -> dict[IP, str]:
        """Every reserved address with the label of its owner. Looks at every file."""
        if not self._all_known:
            with storage_errors(self.path):
                self._recover(need_records=False)
        return dict(self._owners)

    def is_taken(self, ip: IP) -> bool:
        """Whether an address is reserved."""
        return bool(self._ask(Index.is_taken, ip))

    def is_nobodys(self, ip: IP) -> bool:
        """Whether an address is reserved, and nothing says for whom."""
        return self._owners.get(ip) == UNKNOWN  # with such a one there is no index, and all are known

    def find_free(self, first: IP, last: IP) -> IP | None:
        """The lowest address that is not reserved, from first to last inclusive."""
        found: IP | None = self._ask(Index.find_free, first, last)
        return found

    def reserve(self, ip: IP, container_id: str, ifname: str) -> bool:
        """Reserve an address; False when it is taken. When it fails nothing is left behind."""
        with storage_errors(self.file_of(ip)):
            try:
                with self._change():
                    make_file(self._directory, str(ip), _content(container_id, ifname))
            except FileExistsError:
                return False
            label = self._owners[ip] = make_label(container_id, ifname)
            try:
                self._record(ip)
            except OSError:
                self.release(ip)
                raise
        self._ask(Index.add, ip, label)
        return True

    def release(self, ip: IP) -> None:
        """Give an address back, one that addresses_of or list_owners has named; one that is not reserved is fine."""
        label = self._owners.pop(ip, UNKNOWN)
        with storage_errors(self.file_of(ip)):
            with suppress(FileNotFoundError), self._change():
                os.unlink(str(ip), dir_fd=self._directory)
            if label != UNKNOWN and self._boot >= 0:
                with suppress(FileNotFoundError):
                    os.unlink(Record(ip, label, 0).name, dir_fd=self._boot)
        self._ask(Index.remove, ip, label)

    def find_last(self, pool: int) -> IP | None:
        """The address that a range set gave out last, None when that is not known (then the search starts anew)."""
        name = _LAST_PREFIX + str(pool)
        try:
            return parse_ip(read_file(self._directory, name, 64).decode().strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            _say(f"{os.path.join(self.path, name)} holds no address: the search begins with the first one")
            return None

    def set_last(self, pool: int, ip: IP) -> None:
        """Note the address that a range set gave out last.

        Overwritten in place: a torn write costs no more than one round of the round robin.
        """
        name = _LAST_PREFIX + str(pool)
        with storage_errors(os.path.join(self.path, name)), self._change():
            overwrite_file(self._directory, name, str(ip).encode(), create=True)

    def file_of(self, ip: IP) -> str:
        """The path of the file that holds the reservation of an address, for messages."""
        return os.path.join(self.path, str(ip))

    def describe(self, ip: IP) -> str:
        """Who holds an address and where that is written, for messages."""
        container_id, _, ifname = self._read_label(ip)[0].partition(",")
        holder = f"container {container_id or 'unknown'}" + (f" interface {ifname}" if ifname else "")
        return f"{holder} ({self.file_of(ip)})"

    def _recover(self, need_records: bool) -> None:
        """Read all that is there, and put right what a crash, a reboot or another plugin left. Raises OSError."""
        self._sure, self._seen = True, self._look()
        stale = {record.ip: record.inode for record in self._records.list_earlier()}
        there = scan_addresses(self._directory)
        for ip in [ip for ip, inode in there.items() if stale.get(ip) == inode]:
            with self._change():
                os.unlink(str(ip), dir_fd=self._directory)
            del there[ip]
            _say(f"{self.file_of(ip)} was of an earlier boot: the address is free again")
        self._close_boot()
        try:
            self._boot = self._records.begin_boot()
        except OSError:
            if need_records:
                raise
        self._owners = {}
        for record in list_records(self._boot) if self._boot >= 0 else []:
            if there.get(record.ip) == record.inode:
                self._owners[record.ip] = record.label
            else:
                os.unlink(record.name, dir_fd=self._boot)
        known = list(self._owners.items())
        for ip in there.keys() - self._owners.keys():
            self._adopt(ip, need_records)
        for ip, label in known:
            self._repair(ip, label)
        self._all_known = True
        self._make_index()

    def _make_index(self) -> None:
        previous: list[Record] = []
        with suppress(OSError):
            previous = self._records.list_previous()
        index = Index(len(self._owners) + len(previous))
        for ip, label in self._owners.items():
            index.add(ip, label)
        for record in previous:
            index.add_previous(record.ip, record.label)
        if self._found and not self._changed and self._index.says_the_same(index):
            return
        self._index.close()
        self._index = index
        self._changed = True
        self.save()

    def _close_boot(self) -> None:
        if self._boot >= 0:
            os.close(self._boot)
            self._boot = -1

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the index; one that is damaged is made anew first."""
        try:
            return method(self._index, *arguments)
        except (IndexDamagedError, OSError):
            with storage_errors(self.path):
                self._recover(need_records=False)
            return method(self._index, *arguments)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Around each change to the directory: tells it from one that somebody makes in the meanwhile without the lock.

        That one then shows when the index is to be saved.
        """
        self._changed = True
        self._sure = self._sure and self._look() == self._seen
        yield
        self._seen = self._look()

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self._directory)
        return status.st_mtime_ns, status.st_ctime_ns

    def _adopt(self, ip: IP, need_records: bool) -> None:
        """Take note of a reservation that has no record: another plugin's, or one that a crash left without."""
        label, is_empty = self._read_label(ip)
        if is_empty and self._boot >= 0:  # without the records nobody knows that an empty file is nobody's
            with self._change():
                os.unlink(str(ip), dir_fd=self._directory)
            _say(f"{self.file_of(ip)} was empty, left by a plugin that ended before it wrote it: removed")
            return
        self._owners[ip] = label
        if label == UNKNOWN:
            _say(f"{self.file_of(ip)} says not whose it is: the address stays taken until GC or a DEL that names it")
            return
        try:
            self._record(ip)
        except OSError:
            self._sure = False
            if need_records:
                raise

    def _read_label(self, ip: IP) -> tuple[str, bool]:
        """The label of the owner that a file names, or UNKNOWN; and whether the file is empty."""
        content = read_content(self._directory, ip, _OWNER_BYTES)
        container_id, _, ifname = content.decode("utf-8", "replace").strip().partition("\r\n")
        if is_identifier(container_id) and is_interface_name(ifname):  # else it must not become a file's name
            return make_label(container_id, ifname), False
        return UNKNOWN, not content

    def _record(self, ip: IP) -> None:
        name = Record(ip, self._owners[ip], 0).name
        os.link(str(ip), name, src_dir_fd=self._directory, dst_dir_fd=self._boot, follow_symlinks=False)

    def _repair(self, ip: IP, label: str) -> None:
        """Write a damaged reservation anew from its record; other plugins need its content."""
        container_id, _, ifname = label.partition(",")
        wanted = _content(container_id, ifname)
        if not ifname or "~" in container_id:
            return  # of an old version, or a record without the whole id
        with suppress(FileNotFoundError):
            if os.stat(str(ip), dir_fd=self._directory, follow_symlinks=False).st_size == len(wanted):
                return
        try:
            overwrite_file(self._directory, str(ip), wanted, create=False)
            _say(f"{self.file_of(ip)} was damaged: written anew for container {container_id} interface {ifname}")
        except OSError:  # a full disk; the record holds as well
            self._sure = False


@contextmanager
def open_store(data_dir: str, network: str, *, create: bool) -> Iterator[Store | None]:
    """The store of a network, locked until the block is left; None when it is not there and `create` is false.

    Raises CNIError: 5 when the directory cannot be used, 11 when the lock is not had within LOCK_BOUND seconds.
    """
    path = os.path.join(data_dir, network)
    directory = lock = -1
    store = None
    try:
        with storage_errors(path):
            try:
                directory = open_directory(path)
            except FileNotFoundError:
                if not create:
                    yield None
                    return
                os.makedirs(path, mode=0o755, exist_ok=True)
                directory = open_directory(path)
        with storage_errors(os.path.join(path, "lock")):
            lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        name = os.path.join(path, "lock")
        take_lock(lock, fcntl.LOCK_EX, LOCK_BOUND, f"{name} is locked by another process (`fuser -v {name}` names it)")
        with storage_errors(path):
            store = Store(path, directory, open_records(data_dir, network))
            store.open(need_records=create)
        yield store
        store.save()
    finally:
        if store is not None:
            store.close()
        for descriptor in (lock, directory):  # closing the lock's only descriptor releases it
            if descriptor >= 0:
                os.close(descriptor)


def _content(container_id: str, ifname: str) -> bytes:
    return f"{container_id}\r\n{ifname}".encode()


def _say(text: str) -> None:
    print(f"cni-ipam: {text}", file=sys.stderr)
