"""The directories of records: sorting them by boot, instance and host, listing their records, beginning a new one.

Imported only when a command reads all files (recovery.py, peek.py).
Must not: know what is in a reservation's file, or remove reservations.
"""

from cni_protocol.address import IP, parse_ip
from cni_protocol.attachment import Attachment, spelt_anew
from cni_protocol.light.standard import Iterable, NamedTuple, suppress
from cni_protocol.light.system import os

from .boot import is_same_host, parse_boot
from .index import NAME as INDEX
from .origin import NAME as ORIGIN
from .origin import Origin, find_origin, note_origin
from .records import Records


class Record(NamedTuple):
    """A record: an address, its owner, the inode number that it shares with the reservation, and its own file name."""

    ip: IP
    owner: str
    inode: int
    name: str


class Boots(NamedTuple):
    """The paths of the directories of records, oldest first.

    `own`: of this boot and instance, "" when there is none. `origin`: of `own`; None unless this version has begun it.
    `living`: of other instances of this boot. `earlier`: of earlier boots of this host. `foreign`: of other hosts.
    `copies`: those of the above that were copied or restored during this boot. A directory whose name has no host
    counts as this host's: an older version made it, or the admin renamed it because its host is gone.
    """

    own: str
    origin: Origin | None
    living: list[str]
    earlier: list[str]
    foreign: list[str]
    copies: list[str]


def sort_boots(records: Records) -> Boots:
    """Sort a network's directories of records. Raises OSError, as do all functions below."""
    here = records.boot
    boots = Boots("", None, [], [], [], [])
    begun, old, restored = None, "", []
    for path in records.list_directories():
        boot, origin = parse_boot(os.path.basename(path)), find_origin(path)
        is_now, is_copy = boot.kernel == here.kernel, origin is not None and origin.is_copy
        if path == records.own_path:
            boots, begun = boots._replace(own=path), origin
        elif is_now and not boot.host and boot.instance in ("", here.instance) and not old:
            old = path
        elif not is_same_host(here.host, boot.host):
            boots.foreign.append(path)
        elif is_now:
            boots.living.append(path)
        else:
            boots.earlier.append(path)
            restored += [path] if is_copy and origin is not None and origin.is_recent() else []
        if is_copy and is_now and path not in boots.foreign:
            boots.copies.append(path)
    if begun is None:  # no record of this boot shows whether the restored directory is complete
        boots.copies.extend(restored)
    if old and boots.own:
        boots.living.append(old)
    return boots._replace(own=boots.own or old, origin=begun)


def begin(records: Records, boots: Boots, lock: str) -> None:
    """Rename the latest earlier boot's directory to `previous`, and open this instance's, creating it if necessary.

    `lock` identifies the lock's file (origin.identify); it is noted in the new directory. Call this after the
    reservations of earlier boots are removed, so that a crash before it only repeats the removal.
    """
    for boot in boots.earlier:
        _remove_tree(records.previous_path)
        for name in (INDEX, ORIGIN):
            with suppress(OSError):
                os.unlink(os.path.join(boot, name))
        os.rename(boot, records.previous_path)
    if not boots.own:
        for place in (os.path.dirname(records.path), records.path, records.own_path):
            with suppress(FileExistsError):  # os.makedirs would apply the mode to the last directory only
                os.mkdir(place, 0o700)
    reopen(records, boots)
    if boots.origin is None or boots.origin.lock != lock:
        note_origin(records.own, lock)


def reopen(records: Records, boots: Boots) -> None:
    """Open this instance's directory if it exists. Creates nothing."""
    if boots.own not in ("", records.own_path):
        os.rename(boots.own, records.own_path)
    records.close()
    records.open()


def list_own(records: Records) -> list[Record]:
    """This instance's records; none when its directory is not open."""
    return list_records([records.own], records.network) if records.own >= 0 else []


def list_previous(records: Records) -> list[Record]:
    """The records of the previous boot."""
    return list_records([records.previous_path], records.network)


def list_records(directories: Iterable[str | int], network: str) -> list[Record]:
    """The records in directories, each given by its path or as an open descriptor. Skips missing directories.

    Files that are no records are skipped. Older versions named a record `ADDRESS,CONTAINERID,IFNAME`.
    """
    prefix = Attachment(network, "", "").owner_prefix
    found = []
    for entry in [entry for directory in directories for entry in _scan(directory)]:
        address, _, owner = entry.name.partition(",")
        with suppress(ValueError):
            ip = parse_ip(address)
            if str(ip) == address and owner and not entry.is_dir(follow_symlinks=False):
                if not owner.startswith(prefix) or "," not in owner.removeprefix(prefix):
                    container_id, _, ifname = owner.partition(",")
                    owner = spelt_anew("/".join((network, container_id.replace("~", ":"), ifname)))
                found.append(Record(ip, owner, entry.inode(), entry.name))
    return found


def _scan(directory: str | int) -> "list[os.DirEntry[str]]":
    with suppress(FileNotFoundError):
        return list(os.scandir(directory))
    return []


def _remove_tree(path: str) -> None:
    """Remove a directory of records, if it is there."""
    for entry in _scan(path):
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            os.unlink(entry.path)
    with suppress(FileNotFoundError):
        os.rmdir(path)
