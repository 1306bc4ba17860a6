"""What the kernel refused, as an exception: decisions are taken on its errno, people read what was asked.

Must not: know what a caller makes of it; each side of the house translates it once.
"""

from cni_protocol.light.standard import Callable, Iterator, contextmanager
from cni_protocol.light.system import os


class KernelError(Exception):
    """The kernel refused something, or what was waited for did not come.

    `errno` is the kernel's number (errno(3)), `what` says in words what was asked, `reason` why not. `parts` names the
    modules of the kernel that such a request needs, for the operator of a kernel without them.
    """

    def __init__(self, errno: int, what: str, reason: str = "", parts: str = "bridge, veth") -> None:
        self.errno = errno
        self.what = what
        self.reason = reason or os.strerror(errno)
        self.parts = parts
        super().__init__(f"{what}: {self.reason}")


@contextmanager
def asking(what: str | Callable[[int], str], parts: str = "bridge, veth") -> Iterator[None]:
    """Turn an OSError of the block into the KernelError that says what was asked ("bridge x cannot be created").

    Of many things at once `what` says it by the place of the one that was refused (NetlinkError.index).
    """
    try:
        yield
    except OSError as error:
        text = what if isinstance(what, str) else what(getattr(error, "index", 0))
        raise KernelError(error.errno or 0, text, error.strerror or str(error), parts) from None
