"""Identifies the current boot and host. No container survives a boot, so reservations of earlier boots are stale.

A reservation is stale if and only if this host made it under another boot id of the kernel. Under the same boot id it
is in use: the node may be a container that was restarted, or the plugins may run in several pid and network namespaces,
but neither proves that a container is gone. A reservation that another host made is never stale here.

A host is identified by the firmware's UUID of the machine, and without one by /etc/machine-id. The UUID comes first for
two reasons: a cloned machine has the machine id of its original but another UUID; and some systems make a new machine
id at each start (nodes of kind, stateless images) but keep the UUID. The host name is not used, since it may change.
"""

from cni_protocol.light.standard import NamedTuple, sha256, socket, suppress
from cni_protocol.light.system import os

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MACHINE_ID = "/etc/machine-id"
_PRODUCT_UUID = "/sys/class/dmi/id/product_uuid"
_SO_NETNS_COOKIE = 71  # <asm-generic/socket.h>; the kernel never gives a cookie to a second namespace
_DIGITS = 16  # of a digest; machine-id(5) asks not to disclose the id itself
_MANY_BOARDS_UUID = "03000200-0400-0500-0006-000700080009"  # a vendor's default that many boards share


class Boot(NamedTuple):
    """A boot: the kernel's boot id (random(4)), the host, and the instance.

    `host` is a digest of the machine id and one of the UUID, joined by a hyphen; each may be empty. It is "" in
    directories of older versions, which did not record the host. `instance` is the cookie of the network namespace in
    which the plugin runs, or empty. Reservations of all instances of a boot are in use; the instance only says who made
    them.
    """

    kernel: str
    host: str
    instance: str

    def __str__(self) -> str:
        return ",".join(self)


def parse_boot(name: str) -> Boot:
    """Parse the name of a directory of records. Any name is accepted.

    Older versions used the boot id alone, or wrote the start time of process 1 instead of the host.
    """
    kernel, host, instance = [*name.split(",", 2), "", ""][:3]
    return Boot(kernel, host if "-" in host else "", instance)


def read_boot() -> Boot:
    """The current boot. The instance is empty on a kernel before 5.14.

    Raises OSError when the boot id or an id of the host exists but cannot be read just now: without it the host would
    look like another one.
    """
    return Boot(_read(_BOOT_ID), "-".join([_digest(path) for path in (_MACHINE_ID, _PRODUCT_UUID)]), _read_instance())


def is_same_host(host: str, other: str) -> bool:
    """Whether two values of Boot.host are the same host.

    The first id that both have decides: the UUID, then the machine id. If they have none in common, only equal values
    are the same host. An empty value (an older version's) is the same as any.
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
