r"""The reservations on disk, and their lock. The format is that of host-local, so both can share a directory.

`DATADIR/NETWORK/` holds
- a file for each reserved address. Its name is the address; it contains `CONTAINERID\r\nIFNAME` (host-local's old
  versions wrote the id alone);
- `last_reserved_ip.N` for each range set N, with the address that it gave out last;
- `lock`, which every change takes with flock(2), and which is never removed.

What is on disk after a crash at any instruction:
- A reservation is complete or absent. Its file is written without a name (O_TMPFILE, open(2)) and then linked to its
  name, which fails when the name exists. Without O_TMPFILE it is first written under a name that is no address.
- A reservation's record (records.py) is added after it and removed after it. When one is missing or left over, the
  index is not valid; the next command notices that, and repairs the store under the lock (recovery.py).
- The index (index.py) is valid only with the stamp of the directories (stamp.py), and any change to them changes that.
  A command changes the files first, then the index, and last writes the new stamp into it.
- fsync(2) is not called. A power failure may leave a file without its content, but it also ends the boot, and so all
  reservations are stale. The death of a process alone loses nothing that it has written.
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
    """The reservations of one network, while its lock is held. Use open_store to get one.

    Every method except open, save, close and those for messages raises CNIError (code 5) when the files fail.
    """

    def __init__(self, directory: Directory, records: Records, lock: Lock) -> None:
        self.path = directory.path
        self._directory = directory
        self._records = records
        self._lock = lock
        self._index = Index()
        self._found = Found()
        self._all_known = False  # _found has all reservations
        self._has_index = False  # a valid index was read

    def open(self, *, need_records: bool) -> None:
        """Read the index if it is valid; otherwise read and repair all files. Raises OSError, CNIError (5, 7).

        DEL and GC do not `need_records`: they must work on a full disk too.
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
        """Save the index for the next command. If that fails, the next command reads the files instead."""
        if not self._directory.changed or not self._directory.sure or self._records.own < 0:
            return
        if UNKNOWN in self._found.owners.values():  # read the files again next time: they may name an owner by then
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
        """The addresses that this instance gave an attachment. Rewrites their files where they are damaged.

        A reservation without an interface (of an old host-local) counts for every interface of the container.
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
        """The addresses that other instances of this boot gave an attachment: the runtime may have moved since ADD."""
        held = {}
        for owner in self._owners(container_id, ifname):
            for ip in self._ask(Index.find_elsewhere, owner):
                held[ip] = self._found.elsewhere[ip] = owner
        return list(held)

    def list_previous(self, container_id: str, ifname: str) -> list[IP]:
        """The addresses that an attachment had in the previous boot."""
        owner = self._owners(container_id, ifname)[0]
        return [ip for ip in self._ask(Index.find_previous, owner) if self._records.has_previous(ip, owner)]

    def list_owners(self) -> dict[IP, str]:
        """Every address that this instance has reserved, with its owner. Reads every file."""
        self._look_at_all()
        return dict(self._found.owners)

    def list_elsewhere(self) -> dict[IP, str]:
        """Every address that other instances of this boot have reserved, with its owner. Reads every file."""
        self._look_at_all()
        return dict(self._found.elsewhere)

    def is_taken(self, ip: IP) -> bool:
        """Whether an address is reserved."""
        return bool(self._ask(Index.is_taken, ip))

    def is_nobodys(self, ip: IP) -> bool:
        """Whether an address is reserved, but neither its file nor a record names an owner."""
        return self._found.owners.get(ip) == UNKNOWN  # no index is saved with such a one, so _found has it

    def find_free(self, first: IP, last: IP) -> IP | None:
        """The lowest free address from `first` to `last` inclusive, None when all are reserved."""
        found: IP | None = self._ask(Index.find_free, first, last)
        return found

    def refresh(self) -> bool:
        """Read all files again if other hosts have reservations. Returns whether more addresses may be free now.

        The admin may have renamed another host's directory (explain_foreign), which changes no stamp.
        """
        if self._all_known or not self._ask(Index.has_foreign):
            return False
        self._look_at_all()
        return True

    def explain_taken(self) -> str:
        """A text for messages about a lack of addresses: that reservations of other hosts count, or ""."""
        if not self._found.foreign:
            return ""
        from .recovery import explain_foreign

        return explain_foreign(self._records)

    def reserve(self, ip: IP, container_id: str, ifname: str) -> bool:
        """Reserve an address. Returns False when it is taken. When it raises, nothing is left reserved."""
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
        """Release an address that one of the methods above has returned or reserved, if it is still reserved."""
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
        """The address that range set number `pool` gave out last, None when it is not known."""
        name = _LAST_PREFIX + str(pool)
        try:
            return parse_ip(read_file(self._directory.descriptor, name, 64).decode().strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            say(f"{os.path.join(self.path, name)} holds no address: the search begins with the first one")
            return None

    def set_last(self, pool: int, ip: IP) -> None:
        """Note the address that range set number `pool` gave out last.

        The file is overwritten in place: after a torn write the search only starts at the beginning once.
        """
        name = _LAST_PREFIX + str(pool)
        with storage_errors(os.path.join(self.path, name)), self._directory.change():
            overwrite_file(self._directory.descriptor, name, str(ip).encode(), create=True)

    def file_of(self, ip: IP) -> str:
        """The path of the file that holds the reservation of an address, for messages."""
        return self._directory.file_of(ip)

    def describe(self, ip: IP) -> str:
        """The holder of an address and the path of its file, for messages."""
        container_id, ifname = self._directory.read_holder(ip)[0] or ("unknown", "")
        return f"container {container_id}" + (f" interface {ifname}" if ifname else "") + f" ({self.file_of(ip)})"

    def _owners(self, container_id: str, ifname: str) -> tuple[str, str]:
        """The owner of an attachment, and the owner without interface that a file of an old host-local names."""
        return Attachment(self._records.network, container_id, ifname).owner, Attachment(
            self._records.network, container_id, ""
        ).owner

    def _look_at_all(self) -> None:
        if not self._all_known:
            with storage_errors(self.path):
                self._recover(need_records=False)

    def _recover(self, need_records: bool) -> None:
        """Read and repair all files, and make a new index. Raises OSError, CNIError."""
        from .recovery import Recovery  # here, since few commands need it

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
        """Call a method of the index. If the index is damaged, rebuild it and call again."""
        try:
            return method(self._index, *arguments)
        except (IndexDamagedError, OSError):
            with storage_errors(self.path):
                self._recover(need_records=False)
            return method(self._index, *arguments)


@contextmanager
def open_store(data_dir: str, network: str, *, create: bool) -> Iterator[Store | None]:
    """The store of a network, locked while the block runs. None when it does not exist and `create` is false.

    `create` is for ADD: the directory is created, and the call fails where no address may be given out. Raises
    CNIError: 5 when the directory cannot be used or is a copy, 7 for a file system that several hosts share, 11 when
    the lock is not free within LOCK_BOUND seconds.
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
