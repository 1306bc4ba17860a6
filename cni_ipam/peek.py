"""What ADD would find reserved, for STATUS: without the lock, and nothing is changed.

Must not: write anything.
"""

import os

from cni_protocol.light.standard import Any, Callable, suppress

from .files import find_obstacle, open_directory, read_content, scan_addresses, storage_errors
from .index import Index, IndexDamagedError
from .records import Records, list_records, open_records
from .stamp import read_stamp


def peek(data_dir: str, network: str, question: Callable[[Index], Any]) -> Any:
    """The answer to a question about what is reserved. Raises CNIError (code 5) when ADD could not write there."""
    path = os.path.join(data_dir, network)
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    with storage_errors(path):
        obstacle = find_obstacle(place)
        if obstacle:
            raise OSError(obstacle, os.strerror(obstacle))
        return _peek(path, open_records(data_dir, network), question) if place == path else question(Index())


def _peek(path: str, records: Records, question: Callable[[Index], Any]) -> Any:
    directory = boot = -1
    index = Index()
    try:
        directory = open_directory(path)
        boot = records.open_boot()
        stamp = read_stamp(directory, boot) if boot >= 0 else ""
        if stamp and index.read(boot, stamp, os.O_RDONLY):
            with suppress(IndexDamagedError, OSError):
                answer = question(index)
                if read_stamp(directory, boot) == stamp:  # nobody has written there in the meanwhile
                    return answer
        return question(_read_files(directory, boot, records))
    finally:
        index.close()
        for descriptor in (boot, directory):
            if descriptor >= 0:
                os.close(descriptor)


def _read_files(directory: int, boot: int, records: Records) -> Index:
    """What is reserved, by the files: all but those of an earlier boot, and those that are empty and nobody's."""
    stale = {record.ip: record.inode for record in records.list_earlier()}
    ours = {record.ip: record.inode for record in list_records(boot)} if boot >= 0 else {}
    index = Index()
    for ip, inode in scan_addresses(directory).items():
        if stale.get(ip) != inode and (ours.get(ip) == inode or read_content(directory, ip, 1)):
            index.add(ip, "")
    return index
