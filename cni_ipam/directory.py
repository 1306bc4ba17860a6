"""The open directory of a network's reservations: its files, and whether another process changes it without the lock.

Must not: know of an address's owner more than its file says.
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
    """The content of a reservation's file: a container id and an interface (empty in files of an old host-local)."""

    container_id: str
    ifname: str

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return "\r\n".join(self).encode()


class Directory:
    """The open and locked directory of reservations. All methods raise OSError.

    `changed`: this command has changed it since the index was last signed. `sure`: the next command can rely on an
    index; false when another process changed the directory, or something could not be repaired.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.changed = False
        self.sure = True
        self._seen = (0, 0)

    def watch(self) -> None:
        """Note the directory's times: from here on changes by other processes are detected."""
        self.sure, self._seen = True, self._look()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Wraps each change of ours. It detects a change that another process has made since the last one of ours.

        `sure` is false from then on, so that no index is saved.
        """
        self.changed = True
        self.sure = self.sure and self._look() == self._seen
        yield
        self._seen = self._look()

    def make_stamp(self, records: int) -> str:
        """The stamp of this directory and the open directory `records`; "" if another process has changed this one."""
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
        """Replace a reservation's file by that of a record: `name` in the open directory `records`."""
        temporary = f".{ip}.new"  # not an address, so one that a crash leaves behind is no reservation
        with self.change():
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.descriptor)
            os.link(name, temporary, src_dir_fd=records, dst_dir_fd=self.descriptor, follow_symlinks=False)
            os.rename(temporary, str(ip), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def read_holder(self, ip: IP) -> tuple[Holder | None, bool]:
        """The holder that a reservation's file names, None when its content is invalid; and whether it is empty."""
        content = read_content(self.descriptor, ip, _CONTENT_BYTES)
        holder = Holder(*content.decode("utf-8", "replace").strip().partition("\r\n")[::2])
        if is_identifier(holder.container_id) and is_interface_name(holder.ifname):  # they become part of a file name
            return holder, False
        return None, not content

    def repair(self, ip: IP, owner: str) -> None:
        """Rewrite a damaged reservation's file, for other plugins that read it.

        This is possible only when the owner has the whole content: an interface, and a container id that is not cut.
        """
        holder = Holder(*owner.split(",", 2)[1:])
        if not holder.ifname or "~" in holder.container_id:
            return  # of an old version, or the id is shortened
        with suppress(FileNotFoundError):
            if os.stat(str(ip), dir_fd=self.descriptor, follow_symlinks=False).st_size == len(holder.content):
                return
        try:
            overwrite_file(self.descriptor, str(ip), holder.content, create=False)
            say(f"{self.file_of(ip)} was damaged: written anew for container {holder[0]} interface {holder[1]}")
        except OSError:  # a full disk; the record still says who holds the address
            self.sure = False

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_mtime_ns, status.st_ctime_ns


def say(text: str) -> None:
    """Tell the admin on stderr."""
    print(f"cni-ipam: {text}", file=sys.stderr)
