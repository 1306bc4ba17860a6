"""What we remember of reservations beside their files: whose each is, and in which boot it was there.

`DATADIR/.pycni/NETWORK/BOOT_ID/` has for each reservation a hard link to its file, named `ADDRESS,CONTAINERID,IFNAME`.
- A file that an earlier boot's link leads to is of that boot: nothing of the network survived, its address is free. One
  that other plugins have written since is another file (another inode), and stays. No clock is asked: it may be wrong
  just after a boot.
- A reservation whose file was damaged is known all the same, and neither lost nor given out twice.
`previous/` has the names of the last boot: a container that comes back gets its address again if it is free.

The files are the truth; a record that does not match them is dropped, and one that is missing is made.
Must not: decide who gets an address.
"""

import os

from cni_protocol.address import IP, parse_ip
from cni_protocol.lean import NamedTuple, sha256, suppress

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PREVIOUS = "previous"
_LABEL_BYTES = 255 - 40  # NAME_MAX, less the longest address and a comma


class Record(NamedTuple):
    """A record: an address, whose it is (the owner's label), and the inode number of its reservation's file."""

    ip: IP
    label: str
    inode: int

    @property
    def name(self) -> str:
        """The file name of the record."""
        return f"{self.ip},{self.label}"


def make_label(container_id: str, ifname: str) -> str:
    """What stands for an owner in a file name. Without an `ifname` (files of old versions) it ends in the comma."""
    label = f"{container_id},{ifname}"
    if len(label.encode()) > _LABEL_BYTES:  # no file name has room for such an id
        label = f"{container_id[:100]}~{sha256(container_id.encode()).hexdigest()},{ifname}"
    return label


def read_boot_id() -> str:
    """The kernel's name for this boot (random(4))."""
    with open(_BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


class Records:
    """The records of one network. All methods raise OSError."""

    def __init__(self, path: str) -> None:
        """`path` is the directory of the network's records; it need not be there."""
        self._path = path
        self._boot = read_boot_id()

    def list_earlier(self) -> list[Record]:
        """The records of earlier boots, none when begin_boot has been called since this boot began."""
        return [record for boot in self._list_boots() for record in list_records(os.path.join(self._path, boot))]

    def list_previous(self) -> list[Record]:
        """The records of the boot before this one."""
        return list_records(os.path.join(self._path, _PREVIOUS))

    def begin_boot(self) -> int:
        """Make the earlier boot's records the previous ones, and open this boot's. Returns a directory descriptor.

        To be called after the files of earlier boots were removed; a crash in between repeats that.
        """
        for boot in self._list_boots():
            previous = os.path.join(self._path, _PREVIOUS)
            _remove_tree(previous)
            os.rename(os.path.join(self._path, boot), previous)
        path = os.path.join(self._path, self._boot)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(FileNotFoundError):
            return os.open(path, flags)
        for directory in (os.path.dirname(self._path), self._path, path):  # os.makedirs has the umask for all but one
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        return os.open(path, flags)

    def _list_boots(self) -> list[str]:
        """The earlier boots that have records, oldest first."""
        try:
            entries = [entry for entry in os.scandir(self._path) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        entries.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)
        return [entry.name for entry in entries if entry.name not in (self._boot, _PREVIOUS)]


def list_records(directory: str | int) -> list[Record]:
    """The records in a directory, named by path or open; none when it is not there. What is no record is left out."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return []
    found = []
    for entry in entries:
        address, _, label = entry.name.partition(",")
        with suppress(ValueError):
            record = Record(parse_ip(address), label, entry.inode())
            if label and record.name == entry.name and not entry.is_dir(follow_symlinks=False):
                found.append(record)
    return found


def _remove_tree(path: str) -> None:
    """Remove a directory of records; none is fine."""
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(path)
