"""Network namespaces: opening one, and running a block of code inside it.

Source: setns(2), ioctl_ns(2).
Must not: change anything inside a namespace.
"""

import errno
import fcntl

from cni_protocol.light.standard import Iterator, Self, contextmanager, signal
from cni_protocol.light.system import os

from .errors import KernelError, asking

_ENDING = (signal.SIGTERM, signal.SIGINT)
_OWN = "/proc/self/ns/net"
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace. Its open descriptor keeps it alive until the end of the `with` block."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.descriptor)

    def is_own(self) -> bool:
        """Whether this is the namespace that the process is in."""
        return os.path.samestat(os.fstat(self.descriptor), os.stat(_OWN))

    def is_at(self, path: str) -> bool:
        """Whether a path leads to this namespace. False when nothing is there."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except (OSError, ValueError):
            return False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run a short block inside the namespace. The process is back in its own namespace afterwards.

        SIGTERM and SIGINT are blocked meanwhile: the undoing that they start must happen in the host's namespace.
        """
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            _setns(self.descriptor)
            yield
        finally:
            try:
                _setns(home)
            finally:
                os.close(home)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def open_namespace(path: str) -> Namespace:
    """Open the network namespace at a path. Raises KernelError; its errno is EINVAL for a file of another kind."""
    what = f"network namespace {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise KernelError(getattr(error, "errno", errno.EINVAL), what, f"cannot be opened: {reason}") from None
    if not _is_network_namespace(descriptor):
        os.close(descriptor)
        raise KernelError(errno.EINVAL, what, "is not a network namespace")
    return Namespace(path, descriptor)


def open_own_namespace() -> Namespace:
    """The namespace that the process is in."""
    return Namespace(_OWN, os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))


def _is_network_namespace(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def _setns(descriptor: int) -> None:
    """setns(2). Raises KernelError."""
    from cni_protocol.light.libc import setns  # here: a DEL without a namespace need not load it

    number = setns(descriptor, _CLONE_NEWNET)
    with asking("the network namespace cannot be entered"):
        if number != 0:
            raise OSError(number, os.strerror(number))
