"""Waiting until the kernel has done by itself what it does a moment later: a port forwards, addresses are settled.

Must not: wait without a bound.
"""

import errno
import time

from .errors import KernelError
from .kernel import Kernel
from .values import Link

PORT_BOUND = 5.0  # seconds for a bridge port to come up; it takes milliseconds
DAD_BOUND = 10.0  # seconds; with the kernel's defaults it takes one to two
_PORT_POLL, _DAD_POLL = 0.001, 0.02


def wait_for_addresses(kernel: Kernel, link: Link) -> None:
    """Wait until duplicate address detection has passed all addresses of an interface.

    Raises KernelError for a duplicate, and after DAD_BOUND seconds.
    """
    deadline = time.monotonic() + DAD_BOUND
    while pending := [entry for entry in kernel.list_addresses(link) if entry.tentative or entry.duplicate]:
        duplicates = [str(entry.cidr) for entry in pending if entry.duplicate]
        if duplicates:
            raise KernelError(
                errno.EADDRINUSE,
                f"addresses of {link.name}",
                f"{', '.join(duplicates)} is in use by another host of the network",
            )
        if time.monotonic() > deadline:
            raise KernelError(
                errno.ETIMEDOUT,
                f"addresses of {link.name}",
                f"duplicate address detection did not end within {DAD_BOUND:.0f} s",
            )
        time.sleep(_DAD_POLL)


def wait_for_port(kernel: Kernel, name: str) -> None:
    """Wait until a bridge port forwards. Raises KernelError after PORT_BOUND seconds."""
    deadline = time.monotonic() + PORT_BOUND
    while not (link := kernel.get_link(name)).forwarding:
        if time.monotonic() > deadline:
            state = "up" if link.up else "down"
            raise KernelError(
                errno.ETIMEDOUT, f"bridge port {name}", f"it is {state} and does not forward; is the bridge up?"
            )
        time.sleep(_PORT_POLL)
