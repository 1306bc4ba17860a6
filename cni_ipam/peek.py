"""Reading what is reserved for STATUS, without the lock.

Must not: write anything.
"""

from cni_protocol.light.standard import Any, Callable, suppress
from cni_protocol.light.system import os

from .boots import Boots, list_own, list_records, sort_boots
from .files import find_obstacle, open_directory, read_content, scan_addresses, storage_errors
from .index import Index, IndexDamagedError
from .records import Records, open_records
from .recovery import explain_foreign, find_copy, find_sharing
from .stamp import read_stamp


def peek(data_dir: str, network: str, question: Callable[[Index], Any]) -> tuple[Any, str]:
    """Call `question` with an index of what ADD would find reserved.

    Returns its answer, and a text to append to a message about exhausted ranges (about other hosts; "" for none).
    Raises CNIError when ADD could not reserve anything: 5, or 7 for a file system that several hosts share.
    """
    path = os.path.join(data_dir, network)
    existing = path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    with storage_errors(path):
        number = find_obstacle(existing)
        if number:
            raise OSError(number, os.strerror(number))
        obstacle = find_sharing(existing)
        if obstacle is not None:
            raise obstacle
        return _peek(path, open_records(data_dir, network), question) if existing == path else (question(Index()), "")


def _peek(path: str, records: Records, question: Callable[[Index], Any]) -> tuple[Any, str]:
    directory = -1
    index = Index()
    try:
        directory = open_directory(path)
        if records.open():
            stamp = read_stamp(directory, records.own)
            if stamp and index.read(records.own, stamp, os.O_RDONLY):
                with suppress(IndexDamagedError, OSError):
                    answer, is_alone = question(index), not index.has_foreign()
                    if is_alone and read_stamp(directory, records.own) == stamp:  # no change meanwhile
                        return answer, ""
        boots = sort_boots(records)
        obstacle = find_copy(path, boots)
        if obstacle is not None:
            raise obstacle
        return question(_read_files(directory, records, boots)), explain_foreign(records)
    finally:
        index.close()
        records.close()
        if directory >= 0:
            os.close(directory)


def _read_files(directory: int, records: Records, boots: Boots) -> Index:
    """An index of the files: all except those of an earlier boot, and empty ones without a record."""
    stale = {(record.ip, record.inode) for record in list_records(boots.earlier, records.network)}
    held = {
        (record.ip, record.inode)
        for record in list_own(records) + list_records(boots.living + boots.foreign, records.network)
    }
    index = Index()
    for ip, inode in scan_addresses(directory).items():
        if (ip, inode) not in stale and ((ip, inode) in held or read_content(directory, ip, 1)):
            index.add(ip, "")
    return index
