"""Reading all files of the store, and repairing what a crash, a reboot, another plugin or a restored backup left.

Reservations of other instances of this boot and of other hosts stay. When it is not certain which reservations are in
use, ADD is refused and nothing is removed.
Must not: know ranges, or keep what it found.
"""

from cni_protocol.address import IP
from cni_protocol.attachment import Attachment
from cni_protocol.errors import INVALID_CONFIG, IO_FAILURE, CNIError
from cni_protocol.light.standard import suppress
from cni_protocol.light.system import os

from .boots import Boots, Record, begin, list_own, list_previous, list_records, reopen, sort_boots
from .directory import Directory, say
from .files import scan_addresses
from .filesystems import find_shared_filesystem
from .origin import NAME as ORIGIN
from .origin import identify
from .records import UNKNOWN, Found, Records, record_name


def find_copy(path: str, boots: Boots) -> CNIError | None:
    """The error for ADD when a directory of records is a copy, so that reservations may be missing; else None."""
    if not boots.copies:
        return None
    copy = boots.copies[0]
    return CNIError(
        IO_FAILURE,
        f"the reservations at {path} were copied or restored while this host was up, so those of living containers may "
        f"be missing; nothing was changed. If none is, remove {copy}/{ORIGIN}; else stop the containers of this "
        f"network, and remove {path} and {os.path.dirname(copy)}",
    )


def find_sharing(path: str) -> CNIError | None:
    """The error for ADD when the path is on a file system that several hosts share. None when it is not."""
    kind = find_shared_filesystem(path)
    if not kind:
        return None
    return CNIError(
        INVALID_CONFIG,
        f"ipam.dataDir: the reservations at {path} would be on {kind}, which several hosts can see; set ipam.dataDir "
        "to a directory on a file system of this host alone",
    )


def explain_foreign(records: Records) -> str:
    """A text for messages about a lack of addresses: that reservations of other hosts count. "" when there are none."""
    with suppress(OSError):
        directories = [path for path in sort_boots(records).foreign if list_records([path], records.network)]
        if directories:
            return (
                f"; those of another host count as taken (its records are in {', '.join(directories)}; when that "
                "host uses them no more, rename that directory to `gone`)"
            )
    return ""


class Recovery:
    """One pass over all files of a network's store."""

    def __init__(self, directory: Directory, records: Records) -> None:
        self._directory = directory
        self._records = records
        self._there: dict[IP, int] = {}
        self._found = Found()
        self._is_copy = False

    def run(self, lock: int, *, lock_is_new: bool, need_records: bool) -> Found:
        """Repair the store. Returns all reservations. Raises OSError, and CNIError when no address may be given out.

        DEL and GC do not `need_records`: they must work on a full disk too, where no record can be added.
        """
        self._directory.watch()
        boots = sort_boots(self._records)
        path = self._directory.path
        obstacle = find_copy(path, boots) or (find_sharing(path) if boots.origin is None else None)
        if obstacle is not None and need_records:
            raise obstacle
        self._is_copy = bool(boots.copies)
        self._there = scan_addresses(self._directory.descriptor)
        if not self._is_copy:
            self._remove_stale(boots)
        mark = identify(lock)
        try:
            if obstacle is None:
                begin(self._records, boots, mark)
            else:
                reopen(self._records, boots)
        except OSError:
            if need_records:
                raise
        self._directory.sure = self._directory.sure and obstacle is None
        if not (lock_is_new or self._is_copy or boots.origin is None or boots.origin.lock == mark):
            self._put_back()
        known = self._take_own()
        self._take_others(boots)
        for ip in [ip for ip in self._there if ip not in self._found]:
            self._adopt(ip, need_records=need_records)
        for ip, owner in known:
            self._directory.repair(ip, owner)
        with suppress(OSError):
            self._found.previous = [(record.ip, record.owner) for record in list_previous(self._records)]
        return self._found

    def _remove_stale(self, boots: Boots) -> None:
        """Remove the reservations of earlier boots of this host."""
        stale = {(record.ip, record.inode) for record in list_records(boots.earlier, self._records.network)}
        for ip in [ip for ip, inode in self._there.items() if (ip, inode) in stale]:
            self._directory.remove(ip)
            del self._there[ip]
            say(f"{self._directory.file_of(ip)} was of an earlier boot: the address is free again")

    def _put_back(self) -> None:
        """Add reservations that have a record but no file: an older copy of their directory was restored."""
        for record in list_own(self._records):
            if self._there.get(record.ip) != record.inode:
                self._directory.replace(record.ip, self._records.own, record.name)
                self._there[record.ip] = record.inode
                say(f"{self._directory.file_of(record.ip)} was lost when the directory was restored: put back")

    def _take_own(self) -> list[tuple[IP, str]]:
        """Note the reservations that have a record of this instance. Remove its records that match no reservation."""
        for record in list_own(self._records):
            if self._there.get(record.ip) == record.inode:
                self._found.owners[record.ip] = record.owner
                if record.name != record_name(record.ip, record.owner):
                    self._rename(record)
            elif not self._is_copy:
                os.unlink(record.name, dir_fd=self._records.own)
        return list(self._found.owners.items())

    def _rename(self, record: Record) -> None:
        """Rename a record of an older version to its current name."""
        own = self._records.own
        os.rename(record.name, record_name(record.ip, record.owner), src_dir_fd=own, dst_dir_fd=own)

    def _take_others(self, boots: Boots) -> None:
        """Note the reservations of other instances and of other hosts."""
        for record in list_records(boots.living, self._records.network):
            if self._there.get(record.ip) == record.inode and record.ip not in self._found:
                self._found.elsewhere[record.ip] = record.owner
        for record in list_records(boots.foreign, self._records.network):
            if record.ip in self._there and record.ip not in self._found and self._is_foreign(record):
                self._found.foreign.add(record.ip)
        if self._found.foreign and boots.origin is None:
            say(
                f"{len(self._found.foreign)} reservations at {self._directory.path} are another host's, and stay taken "
                f"(its records are in {', '.join(boots.foreign)})"
            )

    def _is_foreign(self, record: Record) -> bool:
        """Whether a reservation is another host's: its record is a link to it, or a copy that names the same owner."""
        if self._there[record.ip] == record.inode:
            return True
        holder, _ = self._directory.read_holder(record.ip)
        return holder is not None and Attachment(self._records.network, *holder).owner == record.owner

    def _adopt(self, ip: IP, *, need_records: bool) -> None:
        """Add the missing record of a reservation: another plugin made it, or a crash prevented the record.

        Removes an empty file instead; a file without a valid owner stays, with the owner UNKNOWN.
        """
        holder, is_empty = self._directory.read_holder(ip)
        if is_empty and self._records.own >= 0:  # without records an empty file may still be in use
            self._directory.remove(ip)
            say(f"{self._directory.file_of(ip)} was empty, left by a plugin that ended before it wrote it: removed")
            return
        self._found.owners[ip] = UNKNOWN
        if holder is None:
            path = self._directory.file_of(ip)
            say(f"{path} names no container: the address stays taken until GC, or a DEL whose prevResult has it")
            return
        self._found.owners[ip] = Attachment(self._records.network, *holder).owner
        try:
            self._records.add(ip, self._found.owners[ip], self._directory.descriptor)
        except OSError:
            self._directory.sure = False
            if need_records:
                raise
