"""What we remember of reservations beside their files: whose each is, and in which boot it was there.

`DATADIR/.pycni/NETWORK/BOOT/` has for each reservation a hard link to its file, named `ADDRESS,CONTAINERID,IFNAME`.
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
from cni_protocol.light.standard import NamedTuple, sha256, suppress

from .boot import parse_boot, read_boot
from .index import NAME as INDEX

_PREVIOUS = "previous"
_LABEL_BYTES = 255 - 40  # NAME_MAX, less the longest address and a comma
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


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


class Records:
    """The records of one network. All methods raise OSError."""

    def __init__(self, path: str) -> None:
        """`path` is the directory of the network's records; it need not be there."""
        self._path = path
        self._boot = read_boot()

    def open_boot(self) -> int:
        """This boot's directory, -1 when there is none. Returns a directory descriptor."""
        with suppress(FileNotFoundError):
            return os.open(os.path.join(self._path, str(self._boot)), _DIRECTORY)
        same = self._list_boots(earlier=False)
        return os.open(os.path.join(self._path, same[-1]), _DIRECTORY) if same else -1

    def list_earlier(self) -> list[Record]:
        """The records of earlier boots, none when begin_boot has been called since this boot began."""
        boots = self._list_boots(earlier=True)
        return [record for boot in boots for record in list_records(os.path.join(self._path, boot))]

    def list_previous(self) -> list[Record]:
        """The records of the boot before this one."""
        return list_records(os.path.join(self._path, _PREVIOUS))

    def has_previous(self, record: Record) -> bool:
        """Whether a record is one of the boot before this one."""
        return os.path.lexists(os.path.join(self._path, _PREVIOUS, record.name))

    def begin_boot(self) -> int:
        """Make the earlier boot's records the previous ones, and open this boot's. Returns a directory descriptor.

        To be called after the files of earlier boots were removed; a crash in between repeats that.
        """
        for boot in self._list_boots(earlier=True):
            previous = os.path.join(self._path, _PREVIOUS)
            _remove_tree(previous)
            with suppress(OSError):
                os.unlink(os.path.join(self._path, boot, INDEX))
            os.rename(os.path.join(self._path, boot), previous)
        directory = self.open_boot()
        if directory < 0:
            path = os.path.join(self._path, str(self._boot))
            for place in (os.path.dirname(self._path), self._path, path):  # os.makedirs has the umask for all but one
                with suppress(FileExistsError):
                    os.mkdir(place, 0o700)
            directory = os.open(path, _DIRECTORY)
        return directory

    def _list_boots(self, *, earlier: bool) -> list[str]:
        """The earlier boots that have records, oldest first, or what may be this one."""
        try:
            entries = [entry for entry in os.scandir(self._path) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        entries.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_ctime_ns)  # mtime is set back (stamp.py)
        names = [entry.name for entry in entries if entry.name != _PREVIOUS]
        return [name for name in names if earlier != self._boot.may_be(parse_boot(name))]


def open_records(data_dir: str, network: str) -> Records:
    """The records of a network. Raises OSError."""
    return Records(os.path.join(data_dir, ".pycni", network))  # no network's name begins with a dot


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
