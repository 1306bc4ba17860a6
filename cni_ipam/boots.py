"""The directories of records: of which boot, instance and host each is, what they have, and the beginning of a new one.

Loaded only where everything is looked at.
Must not: know what is in a reservation's file, or decide what is stale.
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
    """A record: an address, whose it is, the inode number of its reservation's file, and its own file name."""

    ip: IP
    owner: str
    inode: int
    name: str


class Boots(NamedTuple):
    """The directories of records by their paths, oldest first.

    `own`: of this boot and instance, "" when there is none; and its `origin`, None when this version has not begun it.
    `living`: of other instances of this boot. `earlier`: of this host's past. `foreign`: of other hosts.
    `copies`: those that were copied or restored in this boot, while it was running. A directory whose name tells no
    host is of an older version, or of a host that the admin gave up: both count as this one.
    """

    own: str
    origin: Origin | None
    living: list[str]
    earlier: list[str]
    foreign: list[str]
    copies: list[str]


def sort_boots(records: Records) -> Boots:
    """Which directories a network has, and of when and whom each is. Raises OSError, as all that follow."""
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
    if begun is None:  # nothing of this boot tells whether what was restored is all that there was
        boots.copies.extend(restored)
    if old and boots.own:
        boots.living.append(old)
    return boots._replace(own=boots.own or old, origin=begun)


def begin(records: Records, boots: Boots, lock: str) -> None:
    """Make the earlier boot's records the previous ones, and open this instance's, which go with a lock.

    To be called after the files of earlier boots were removed; a crash in between repeats that.
    """
    for boot in boots.earlier:
        _remove_tree(records.previous_path)
        for name in (INDEX, ORIGIN):
            with suppress(OSError):
                os.unlink(os.path.join(boot, name))
        os.rename(boot, records.previous_path)
    if not boots.own:
        for place in (os.path.dirname(records.path), records.path, records.own_path):
            with suppress(FileExistsError):  # os.makedirs has the umask for all but one
                os.mkdir(place, 0o700)
    reopen(records, boots)
    if boots.origin is None or boots.origin.lock != lock:
        note_origin(records.own, lock)


def reopen(records: Records, boots: Boots) -> None:
    """Open what there is of this instance's, and begin nothing."""
    if boots.own not in ("", records.own_path):
        os.rename(boots.own, records.own_path)
    records.close()
    records.open()


def list_own(records: Records) -> list[Record]:
    """This instance's records, none when its directory is not open."""
    return list_records([records.own], records.network) if records.own >= 0 else []


def list_previous(records: Records) -> list[Record]:
    """The records of the boot before this one."""
    return list_records([records.previous_path], records.network)


def list_records(directories: Iterable[str | int], network: str) -> list[Record]:
    """The records in directories, named by path or open; none in one that is not there. What is no record is left out.

    Those of older versions are named `ADDRESS,CONTAINERID,IFNAME`.
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
    """Remove a directory of records; none is fine."""
    for entry in _scan(path):
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            os.unlink(entry.path)
    with suppress(FileNotFoundError):
        os.rmdir(path)
