r"""The reservations on disk, and their lock. The format is that of host-local, so both can share a directory.

`DATADIR/NETWORK/` holds one file per reserved address, named by the address, with `CONTAINERID\r\nIFNAME` in it
(files of old versions hold the id alone), `last_reserved_ip.N` with the address that range set N gave out last, and
`lock`, which every change holds with flock(2) and which is never removed.

What is on disk after a crash at any instruction:
- A reservation is there whole or not at all: its file is written without a name (O_TMPFILE, open(2)) and then linked to
  its name, which fails when that name exists. A file system without that gets a file with a name that is no address.
- The record of it (records.py) is linked after it and removed after it; one that is missing or too many is put right by
  the next command, which finds that the index does not count, holds the lock and looks at everything (recovery.py).
- The index (index.py) counts only with the stamp of the directories (stamp.py), which any change to them undoes. A
  command changes files first, the index then, and signs it with the new stamp in the end.
- fsync(2) is not called: a power failure may leave the file without its content, but ends the boot, and with it every
  reservation. Only what a dying process leaves counts, and that the kernel keeps.
Must not: know ranges, or choose an address.
"""

import fcntl

from cni_protocol.address import IP, parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.light.locks import take_lock
from cni_protocol.light.standard import Any, Callable, Iterator, contextmanager, suppress
from cni_protocol.light.system import os

from .directory import Directory, Holder, say
from .files import Lock, make_file, open_directory, overwrite_file, read_file, storage_errors
from .index import Index, IndexDamagedError
from .records import UNKNOWN, Found, Records, open_records
from .stamp import read_stamp

LOCK_BOUND = 15.0  # seconds to wait for the lock; a command of ours holds it for milliseconds
_LAST_PREFIX = "last_reserved_ip."


class Store:
    """The reservations of one network. Made by open_store, under its lock."""

    def __init__(self, directory: Directory, records: Records, lock: Lock) -> None:
        self.path = directory.path
        self._directory = directory
        self._records = records
        self._lock = lock
        self._index = Index()
        self._found = Found()  # what this command has come across
        self._all_known = False
        self._has_index = False  # one that counts

    def open(self, *, need_records: bool) -> None:
        """Find out what is there: by the index if it counts, else by recovering. Raises OSError, CNIError (5, 7).

        Who only gives back does not `need_records`: that must work on a full disk too.
        """
        self._directory.watch()
        stamp = ""
        with suppress(OSError):
            if self._records.open():
                stamp = read_stamp(self._directory.descriptor, self._records.own)
        self._has_index = bool(stamp) and self._index.read(self._records.own, stamp, os.O_RDWR)
        if not self._has_index:
            self._recover(need_records)

    def save(self) -> None:
        """Have the next command find the index; it looks at the files if that is not to be had."""
        if not self._directory.changed or not self._directory.sure or self._records.own < 0:
            return
        if UNKNOWN in self._found.owners.values():  # their files may say more by then
            return
        with suppress(OSError):
            self._index.write(self._records.own)
            stamp = self._directory.make_stamp(self._records.own)
            if stamp:
                self._index.sign(stamp)
                self._directory.changed = False

    def close(self) -> None:
        """Close what open opened."""
        self._index.close()
        self._records.close()

    def addresses_of(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses that this instance gave an attachment; a file of an old version counts for every interface.

        A file that is damaged is written anew. Raises CNIError (code 5), as all that follow.
        """
        held = {}
        for owner in self._owners(container_id, ifname):
            for ip in self._ask(Index.find, owner):
                held[ip] = self._found.owners[ip] = owner
        with storage_errors(self.path):
            for ip, owner in held.items():
                self._directory.repair(ip, owner)
        return list(held)

    def addresses_elsewhere(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses that other instances of this boot gave an attachment: the runtime may have been moved."""
        held = {}
        for owner in self._owners(container_id, ifname):
            for ip in self._ask(Index.find_elsewhere, owner):
                held[ip] = self._found.elsewhere[ip] = owner
        return list(held)

    def list_previous(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses that an attachment had in the boot before this one."""
        owner = self._owners(container_id, ifname)[0]
        return [ip for ip in self._ask(Index.find_previous, owner) if self._records.has_previous(ip, owner)]

    def list_owners(self) -> dict[IP, str]:
        """Every address that this instance has reserved, with its owner. Looks at every file."""
        self._look_at_all()
        return dict(self._found.owners)

    def list_elsewhere(self) -> dict[IP, str]:
        """The same of the other instances of this boot."""
        self._look_at_all()
        return dict(self._found.elsewhere)

    def is_taken(self, ip: IP) -> bool:
        """Whether an address is reserved."""
        return bool(self._ask(Index.is_taken, ip))

    def is_nobodys(self, ip: IP) -> bool:
        """Whether an address is reserved, and nothing says for whom."""
        return self._found.owners.get(ip) == UNKNOWN  # with such a one there is no index, and all are known

    def find_free(self, first: IP, last: IP) -> IP | None:
        """The lowest address that is not reserved, from first to last inclusive."""
        found: IP | None = self._ask(Index.find_free, first, last)
        return found

    def refresh(self) -> bool:
        """Look again where another host's reservations are in the way. Whether more may be free afterwards.

        The admin may have told since that they are no more, which no stamp shows.
        """
        if self._all_known or not self._ask(Index.has_foreign):
            return False
        self._look_at_all()
        return True

    def explain_taken(self) -> str:
        """What other hosts have to do with a lack of addresses, for messages."""
        if not self._found.foreign:
            return ""
        from .recovery import explain_foreign

        return explain_foreign(self._records)

    def reserve(self, ip: IP, container_id: str, ifname: str) -> bool:
        """Reserve an address; False when it is taken. When it fails nothing is left behind."""
        content = Holder(container_id, ifname).content
        with storage_errors(self.file_of(ip)):
            try:
                with self._directory.change():
                    make_file(self._directory.descriptor, str(ip), lambda _: content)
            except FileExistsError:
                return False
            owner = self._found.owners[ip] = self._owners(container_id, ifname)[0]
            try:
                self._records.add(ip, owner, self._directory.descriptor)
            except OSError:
                self.release(ip)
                raise
        self._ask(Index.add, ip, owner)
        return True

    def release(self, ip: IP) -> None:
        """Give an address back that one of the methods above has named; one that is not reserved is fine."""
        is_own = ip not in self._found.elsewhere
        owner = (self._found.owners if is_own else self._found.elsewhere).pop(ip, UNKNOWN)
        with storage_errors(self.file_of(ip)):
            with suppress(FileNotFoundError):
                self._directory.remove(ip)
            if not is_own:
                self._records.remove_elsewhere(ip, owner)
            elif owner != UNKNOWN and self._records.own >= 0:
                self._records.remove(ip, owner)
        self._ask(Index.remove if is_own else Index.remove_elsewhere, ip, owner)

    def find_last(self, pool: int) -> IP | None:
        """The address that a range set gave out last, None when that is not known (then the search starts anew)."""
        name = _LAST_PREFIX + str(pool)
        try:
            return parse_ip(read_file(self._directory.descriptor, name, 64).decode().strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            say(f"{os.path.join(self.path, name)} holds no address: the search begins with the first one")
            return None

    def set_last(self, pool: int, ip: IP) -> None:
        """Note the address that a range set gave out last.

        Overwritten in place: a torn write costs no more than one round of the round robin.
        """
        name = _LAST_PREFIX + str(pool)
        with storage_errors(os.path.join(self.path, name)), self._directory.change():
            overwrite_file(self._directory.descriptor, name, str(ip).encode(), create=True)

    def file_of(self, ip: IP) -> str:
        """The path of the file that holds the reservation of an address, for messages."""
        return self._directory.file_of(ip)

    def describe(self, ip: IP) -> str:
        """Who holds an address and where that is written, for messages."""
        container_id, ifname = self._directory.read_holder(ip)[0] or ("unknown", "")
        return f"container {container_id}" + (f" interface {ifname}" if ifname else "") + f" ({self.file_of(ip)})"

    def _owners(self, container_id: str, ifname: str) -> tuple[str, str]:
        """The owner that an attachment is, and the one that files of old versions name, for every interface."""
        return Attachment(self._records.network, container_id, ifname).owner, Attachment(
            self._records.network, container_id, ""
        ).owner

    def _look_at_all(self) -> None:
        if not self._all_known:
            with storage_errors(self.path):
                self._recover(need_records=False)

    def _recover(self, need_records: bool) -> None:
        """Read all that is there, and put it right. Raises OSError, CNIError."""
        from .recovery import Recovery  # few commands have to look at everything

        look = Recovery(self._directory, self._records)
        self._found = look.run(self._lock.descriptor, lock_is_new=self._lock.is_new, need_records=need_records)
        self._all_known = True
        self._make_index()

    def _make_index(self) -> None:
        found = self._found
        index = Index(len(found.owners) + len(found.elsewhere) + len(found.foreign) + len(found.previous))
        for ip, owner in found.owners.items():
            index.add(ip, owner)
        for ip, owner in found.elsewhere.items():
            index.add_elsewhere(ip, owner)
        for ip in found.foreign:
            index.add_foreign(ip)
        for ip, owner in found.previous:
            index.add_previous(ip, owner)
        if self._has_index and not self._directory.changed and self._index.says_the_same(index):
            return
        self._index.close()
        self._index = index
        self._directory.changed = True
        self.save()

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the index; one that is damaged is made anew first."""
        try:
            return method(self._index, *arguments)
        except (IndexDamagedError, OSError):
            with storage_errors(self.path):
                self._recover(need_records=False)
            return method(self._index, *arguments)


@contextmanager
def open_store(data_dir: str, network: str, *, create: bool) -> Iterator[Store | None]:
    """The store of a network, locked until the block is left; None when it is not there and `create` is false.

    With `create` the reservations must be such that an address may be given out. Raises CNIError: 5 when the directory
    cannot be used, 7 for a file system of several hosts, 11 when the lock is not had within LOCK_BOUND seconds.
    """
    path = os.path.join(data_dir, network)
    directory, lock, store = -1, None, None
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
        name = os.path.join(path, "lock")
        with storage_errors(name):
            lock = Lock(directory)
        holder = f"{name} is locked by another process (`fuser -v {name}` names it)"
        take_lock(lock.descriptor, fcntl.LOCK_EX, LOCK_BOUND, holder)
        with storage_errors(path):
            store = Store(Directory(path, directory), open_records(data_dir, network), lock)
            store.open(need_records=create)
        yield store
        store.save()
    finally:
        if store is not None:
            store.close()
        for descriptor in (lock.descriptor if lock is not None else -1, directory):
            if descriptor >= 0:  # closing the lock's only descriptor releases it
                os.close(descriptor)
