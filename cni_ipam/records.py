"""What we remember of reservations beside their files: whose each is, by which instance of which host, in which boot.

`DATADIR/.pycni/NETWORK/BOOT/` is one instance's in one boot of one host (boot.py). It has for each of its reservations
a hard link to the file, named `ADDRESS,OWNER`, and the file `origin` (origin.py), by which a copy is known.
- A file that a link of an earlier boot of this host leads to is of that boot: nothing of the network survived, its
  address is free. One that other plugins have written since is another file (another inode), and stays.
- What a link of another instance of this boot leads to is alive, and so is all that another host has links to.
- A reservation whose file was damaged is known all the same, and neither lost nor given out twice.
`previous/` has the names of the last boot: a container that comes back gets its address again if it is free.

The files are the truth; a record that does not match them is dropped, and one that is missing is made.
Must not: decide who gets an address.
"""

from cni_protocol.address import IP
from cni_protocol.light.standard import suppress
from cni_protocol.light.system import os

from .boot import parse_boot, read_boot

UNKNOWN = ""  # the owner of a reservation whose file says nothing, and of which there is no record
_PREVIOUS = "previous"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Found:
    """What is reserved, as far as it was looked at: by this instance, elsewhere in this boot, by other hosts.

    `previous` is what the owners had in the boot before this one.
    """

    def __init__(self) -> None:
        self.owners: dict[IP, str] = {}
        self.elsewhere: dict[IP, str] = {}
        self.foreign: set[IP] = set()
        self.previous: list[tuple[IP, str]] = []

    def __contains__(self, ip: object) -> bool:
        return ip in self.owners or ip in self.elsewhere or ip in self.foreign


class Records:
    """The records of one network. All methods raise OSError."""

    def __init__(self, path: str, network: str) -> None:
        """`path` is the directory of the network's records; it need not be there."""
        self.own = -1  # a descriptor of this instance's directory, when it is open
        self.path = path
        self.network = network
        self.boot = read_boot()
        self.own_path = os.path.join(path, str(self.boot))
        self.previous_path = os.path.join(path, _PREVIOUS)

    def open(self) -> bool:
        """Open this instance's directory of this boot. False when there is none."""
        with suppress(FileNotFoundError):
            self.own = os.open(self.own_path, _DIRECTORY)
        return self.own >= 0

    def close(self) -> None:
        """Close what is open."""
        if self.own >= 0:
            os.close(self.own)
            self.own = -1

    def add(self, ip: IP, owner: str, reservations: int) -> None:
        """Make the record of a reservation, whose file is in an open directory."""
        name = record_name(ip, owner)
        os.link(str(ip), name, src_dir_fd=reservations, dst_dir_fd=self.own, follow_symlinks=False)

    def remove(self, ip: IP, owner: str) -> None:
        """Remove a record of this instance's; none is fine."""
        with suppress(FileNotFoundError):
            os.unlink(record_name(ip, owner), dir_fd=self.own)

    def remove_elsewhere(self, ip: IP, owner: str) -> None:
        """Remove a record of another instance of this boot; none is fine."""
        for path in self.list_directories():
            if parse_boot(os.path.basename(path)).kernel == self.boot.kernel and path != self.own_path:
                for name in _names(ip, owner):
                    with suppress(FileNotFoundError):
                        os.unlink(os.path.join(path, name))

    def has_previous(self, ip: IP, owner: str) -> bool:
        """Whether there is a record of the boot before this one."""
        return any(os.path.lexists(os.path.join(self.previous_path, name)) for name in _names(ip, owner))

    def list_directories(self) -> list[str]:
        """The paths of all directories of records but the previous ones, oldest first."""
        try:
            entries = [entry for entry in os.scandir(self.path) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        entries.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_ctime_ns)  # mtime is set back (stamp.py)
        return [entry.path for entry in entries if entry.name != _PREVIOUS]


def open_records(data_dir: str, network: str) -> Records:
    """The records of a network. Raises OSError."""
    return Records(os.path.join(data_dir, ".pycni", network), network)  # no network's name begins with a dot


def record_name(ip: IP, owner: str) -> str:
    """The file name of a record."""
    return f"{ip},{owner}"


def _names(ip: IP, owner: str) -> tuple[str, str]:
    """The names that a record may have, of this version and of those before."""
    return record_name(ip, owner), record_name(ip, owner.partition(",")[2])
