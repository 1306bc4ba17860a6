"""The records: what the plugin remembers of each reservation beside its file: owner, boot, host and instance.

`DATADIR/.pycni/NETWORK/BOOT/` belongs to one instance in one boot of one host (boot.py). For each of its reservations
it has a record: a hard link to the reservation's file, named `ADDRESS,OWNER`. It also has the file `origin`
(origin.py).
- A reservation with a record of an earlier boot of this host is stale: no container survived, and its address is free.
  If another plugin has reserved the address since, the file has another inode, so the record is not of that file.
- A reservation with a record of another instance of this boot, or of another host, is in use.
- A reservation whose file is damaged is still known by its record, so it is neither lost nor given out twice.
`previous/` has the records of the previous boot: a container that comes back gets its old address again if it is free.

The reservations' files take precedence: a record that matches no file is removed, and a missing record is added.
Must not: decide who gets an address.
"""

from cni_protocol.address import IP
from cni_protocol.light.standard import suppress
from cni_protocol.light.system import os

from .boot import parse_boot, read_boot

UNKNOWN = ""  # the owner of a reservation whose file names none and that has no record
_PREVIOUS = "previous"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Found:
    """The reservations that a command has found so far.

    `owners` are those of this instance, `elsewhere` those of other instances of this boot, `foreign` those of other
    hosts. `previous` are the addresses of the previous boot and their owners.
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
        self.own = -1  # the descriptor of this instance's directory; -1 when it is not open
        self.path = path
        self.network = network
        self.boot = read_boot()
        self.own_path = os.path.join(path, str(self.boot))
        self.previous_path = os.path.join(path, _PREVIOUS)

    def open(self) -> bool:
        """Open this instance's directory of this boot. Returns False when there is none."""
        with suppress(FileNotFoundError):
            self.own = os.open(self.own_path, _DIRECTORY)
        return self.own >= 0

    def close(self) -> None:
        """Close the directory, if it is open."""
        if self.own >= 0:
            os.close(self.own)
            self.own = -1

    def add(self, ip: IP, owner: str, reservations: int) -> None:
        """Add the record of a reservation. `reservations` is the open directory of its file."""
        name = record_name(ip, owner)
        os.link(str(ip), name, src_dir_fd=reservations, dst_dir_fd=self.own, follow_symlinks=False)

    def remove(self, ip: IP, owner: str) -> None:
        """Remove a record of this instance, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(record_name(ip, owner), dir_fd=self.own)

    def remove_elsewhere(self, ip: IP, owner: str) -> None:
        """Remove a record of other instances of this boot, if it is there."""
        for path in self.list_directories():
            if parse_boot(os.path.basename(path)).kernel == self.boot.kernel and path != self.own_path:
                for name in _names(ip, owner):
                    with suppress(FileNotFoundError):
                        os.unlink(os.path.join(path, name))

    def has_previous(self, ip: IP, owner: str) -> bool:
        """Whether an owner had an address in the previous boot."""
        return any(os.path.lexists(os.path.join(self.previous_path, name)) for name in _names(ip, owner))

    def list_directories(self) -> list[str]:
        """The paths of all directories of records except `previous`, oldest first."""
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
    """The names that a record may have: in this version, and in older ones."""
    return record_name(ip, owner), record_name(ip, owner.partition(",")[2])
