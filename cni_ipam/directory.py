"""The open directory of a network's reservations: its files by address, and whether somebody else changes it, too.

Must not: know whose an address is beyond what its file says.
"""

import sys

from cni_protocol.address import IP
from cni_protocol.light.standard import Iterator, NamedTuple, contextmanager, suppress
from cni_protocol.light.system import os
from cni_protocol.request import is_identifier, is_interface_name

from .files import overwrite_file, read_content
from .stamp import read_stamp, set_back

_CONTENT_BYTES = 1 << 18  # more than a reservation can hold: an environment variable has 128 KiB (execve(2))


class Holder(NamedTuple):
    """What a file says: a container and an interface in it. Files of old versions name no interface."""

    container_id: str
    ifname: str

    @property
    def content(self) -> bytes:
        """What the file of a reservation has in it."""
        return "\r\n".join(self).encode()


class Directory:
    """A directory of reservations, open and locked. All methods raise OSError."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.changed = False  # by this command, since an index was signed
        self.sure = True  # nothing is there that the next command has to look at
        self._seen = (0, 0)

    def watch(self) -> None:
        """From here on changes of others are noticed."""
        self.sure, self._seen = True, self._look()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Around each change of ours: tells it from one that somebody makes in the meanwhile without the lock.

        That one then shows when the index is to be saved.
        """
        self.changed = True
        self.sure = self.sure and self._look() == self._seen
        yield
        self._seen = self._look()

    def make_stamp(self, records: int) -> str:
        """A stamp of this directory and that of the records, once nobody else has changed it; else ""."""
        if self._look() != self._seen:
            return ""
        set_back(self.descriptor, records)
        self._seen = self._look()
        return read_stamp(self.descriptor, records)

    def file_of(self, ip: IP) -> str:
        """The path of a reservation's file, for messages."""
        return os.path.join(self.path, str(ip))

    def remove(self, ip: IP) -> None:
        """Remove a reservation's file."""
        with self.change():
            os.unlink(str(ip), dir_fd=self.descriptor)

    def replace(self, ip: IP, records: int, name: str) -> None:
        """Put the file of a record in the place of a reservation's."""
        temporary = f".{ip}.new"  # one that a crash left is no address
        with self.change():
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.descriptor)
            os.link(name, temporary, src_dir_fd=records, dst_dir_fd=self.descriptor, follow_symlinks=False)
            os.rename(temporary, str(ip), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def read_holder(self, ip: IP) -> tuple[Holder | None, bool]:
        """Whom a file names, None when it makes no sense; and whether it is empty."""
        content = read_content(self.descriptor, ip, _CONTENT_BYTES)
        holder = Holder(*content.decode("utf-8", "replace").strip().partition("\r\n")[::2])
        if is_identifier(holder.container_id) and is_interface_name(holder.ifname):  # it becomes a file's name
            return holder, False
        return None, not content

    def repair(self, ip: IP, owner: str) -> None:
        """Write a damaged reservation anew, if its owner tells all that was in it; other plugins need that."""
        holder = Holder(*owner.split(",", 2)[1:])
        if not holder.ifname or "~" in holder.container_id:
            return  # of an old version, or the id is shortened
        with suppress(FileNotFoundError):
            if os.stat(str(ip), dir_fd=self.descriptor, follow_symlinks=False).st_size == len(holder.content):
                return
        try:
            overwrite_file(self.descriptor, str(ip), holder.content, create=False)
            say(f"{self.file_of(ip)} was damaged: written anew for container {holder[0]} interface {holder[1]}")
        except OSError:  # a full disk; the record holds as well
            self.sure = False

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_mtime_ns, status.st_ctime_ns


def say(text: str) -> None:
    """Tell the admin on stderr."""
    print(f"cni-ipam: {text}", file=sys.stderr)
