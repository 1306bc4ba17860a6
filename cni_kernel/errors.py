"""The exception for a refusal of the kernel: an errno for the code, and a description of the request for people.

Must not: know how a caller handles it; the plugins and the agent each translate it in one place.
"""

from cni_protocol.light.standard import Callable, Iterator, contextmanager
from cni_protocol.light.system import os


class KernelError(Exception):
    """The kernel refused a request, or a wait for it timed out.

    `errno` is the kernel's number (errno(3)), `what` describes the request in words, and `reason` says why it failed.
    `parts` names the kernel modules that the request needs, for an operator whose kernel lacks them.
    """

    def __init__(self, errno: int, what: str, reason: str = "", parts: str = "bridge, veth") -> None:
        self.errno = errno
        self.what = what
        self.reason = reason or os.strerror(errno)
        self.parts = parts
        super().__init__(f"{what}: {self.reason}")


@contextmanager
def asking(what: str | Callable[[int], str], parts: str = "bridge, veth") -> Iterator[None]:
    """Turn an OSError of the block into a KernelError with the description `what` ("bridge x cannot be created").

    For a batch `what` is a function: it gets the index of the refused message (NetlinkError.index), and returns the
    description.
    """
    try:
        yield
    except OSError as error:
        text = what if isinstance(what, str) else what(getattr(error, "index", 0))
        raise KernelError(error.errno or 0, text, error.strerror or str(error), parts) from None
