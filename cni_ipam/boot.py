"""Which boot this is: what reservations of an earlier one are told by, since nothing of a network survives it.

The kernel's boot id says it for a machine. A node that is itself a container keeps that id over its restart, but gets
another process 1 and another network namespace. So a boot is named by three things, and a boot is over when its boot id
is another one, or when both of the others are. One of the two alone is no proof: plugins may be called from several pid
namespaces of a host, or from several network namespaces, and must not take each other's reservations for stale.

What cannot be found out (process 1 is hidden, a kernel before 5.14) is empty, and counts as the same.
"""

import os

from cni_protocol.light.standard import NamedTuple, socket, suppress

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PROCESS_1 = "/proc/1/stat"
_START_TIME = 19  # proc_pid_stat(5), field 22; the third is the first behind the name
_SO_NETNS_COOKIE = 71  # <asm-generic/socket.h>; the number of no other namespace until the kernel ends


class Boot(NamedTuple):
    """A boot: the kernel's name for it (random(4)), when process 1 began, the number of the network namespace."""

    kernel: str
    start: str
    network: str

    def __str__(self) -> str:
        return ",".join(self)

    def may_be(self, other: "Boot") -> bool:
        """Whether it is not certain that these are two boots."""
        pairs = ((self.start, other.start), (self.network, other.network))
        return self.kernel == other.kernel and any(one == two or not one or not two for one, two in pairs)


def parse_boot(text: str) -> Boot:
    """The boot of a name; whatever the name is, it is one."""
    kernel, start, network = [*text.split(","), "", ""][:3]
    return Boot(kernel, start, network)


def read_boot() -> Boot:
    """The boot that this process runs in. Raises OSError."""
    with open(_BOOT_ID, encoding="utf-8") as file:
        return Boot(file.read().strip(), _read_start(), _read_network())


def _read_start() -> str:
    """In clock ticks since the kernel began; empty when it cannot be read."""
    with suppress(OSError, IndexError):
        descriptor = os.open(_PROCESS_1, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 4096).rpartition(b")")[2].split()[_START_TIME].decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    return ""


def _read_network() -> str:
    with suppress(OSError):
        any_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
            return str(int.from_bytes(cookie, "little"))
        finally:
            any_socket.close()
    return ""
