"""Which boot of which host this is: reservations of the past are told by that, since no network survives a boot.

A boot is over if and only if the kernel has another boot id and the host is the same. With the same boot id everything
is alive: a node that is itself a container may be restarted, and plugins may be called from several pid and network
namespaces; none of that proves that what another made is gone. And what another host made is never of the past here.

The host is known by the firmware's UUID of the machine, and where that is not to be had by /etc/machine-id. In this
order: a clone has the machine id of its original but another UUID, and where systems make a new machine id at each
start (nodes of kind, images without state) the UUID stays. The host's name is no part of it, since it changes.
"""

from cni_protocol.light.standard import NamedTuple, sha256, socket, suppress
from cni_protocol.light.system import os

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MACHINE_ID = "/etc/machine-id"
_PRODUCT_UUID = "/sys/class/dmi/id/product_uuid"
_SO_NETNS_COOKIE = 71  # <asm-generic/socket.h>; the number of no other namespace until the kernel ends
_DIGITS = 16  # of a digest; machine-id(5) asks not to show the id itself
_MANY_BOARDS_UUID = "03000200-0400-0500-0006-000700080009"  # what firmware has that nobody has filled in


class Boot(NamedTuple):
    """A boot of a host: the kernel's name for it (random(4)), the host, and the instance.

    The host is digests of its machine id and of its UUID, with a hyphen between; each may be empty. The instance is the
    number of the network namespace, or nothing. It tells apart who made which reservation, no more: reservations of all
    instances of a boot are alive. Older versions did not tell the host: then it is "".
    """

    kernel: str
    host: str
    instance: str

    def __str__(self) -> str:
        return ",".join(self)


def parse_boot(name: str) -> Boot:
    """The boot that a directory is named after; whatever the name is, it is one.

    Older versions named it by the boot id alone, or had the start of process 1 in the place of the host.
    """
    kernel, host, instance = [*name.split(",", 2), "", ""][:3]
    return Boot(kernel, host if "-" in host else "", instance)


def read_boot() -> Boot:
    """The boot that this process runs in. Raises OSError. The instance is empty for a kernel before 5.14.

    Also where it cannot be told just now whether the host has ids: it must not be taken for another.
    """
    return Boot(_read(_BOOT_ID), "-".join([_digest(path) for path in (_MACHINE_ID, _PRODUCT_UUID)]), _read_instance())


def is_same_host(host: str, other: str) -> bool:
    """Whether two of Boot are one. Nothing known on either side counts as the same, and so does an older version's.

    What is known of one side alone is no proof that they are one.
    """
    if not host or not other:
        return True
    for mine, theirs in zip(reversed(host.split("-")), reversed(other.split("-")), strict=False):
        if mine and theirs:
            return mine == theirs
    return host == other


def _digest(path: str) -> str:
    text = ""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        text = _read(path).lower()
    known = len(set(text) - {"-"}) > 1 and text not in ("uninitialized", _MANY_BOARDS_UUID)
    return sha256(text.encode()).hexdigest()[:_DIGITS] if known else ""


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 256).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def _read_instance() -> str:
    with suppress(OSError):
        any_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
            return str(int.from_bytes(cookie, "little"))
        finally:
            any_socket.close()
    return ""
