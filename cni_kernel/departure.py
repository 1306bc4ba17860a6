"""Removing an interface for everybody, without sitting out what the kernel does with it afterwards.

Within a millisecond after RTM_DELLINK the interface is off, its peer too, with addresses, routes and bridge port, and
the kernel announces that. It acknowledges the request only when no CPU can see the memory any more, some 20 ms later
(netdev_run_todo in net/core/dev.c): who has sent it is held so long, all of its threads. So a child sends it.
Must not: leave a child that holds a lock, or anything else that was its parent's.
"""

import errno
import select

from cni_protocol.light.standard import Sequence, signal, suppress
from cni_protocol.light.system import os

from .errors import asking
from .netlink import ACK, LINKS, REPLY_BOUND, ROUTE, Message, NetlinkError, NetlinkSocket
from .rtnetlink import gone_index, link_message
from .values import Link

_DELLINK = 17  # RTM_DELLINK
_DESCRIPTORS = "/proc/self/fd"


def remove_link(link: Link, kept: Sequence[int] = ()) -> None:
    """Remove an interface of the process's namespace, by its index, which no other gets; one that is gone is fine.

    `kept` are descriptors that the child closes last, when the kernel has done all. Raises KernelError.

    Whatever becomes of the child, the request of our own comes after its announcement or its end: it waits until nobody
    changes interfaces, and finds that this one is gone, or removes it, or is refused. So it takes longer, nothing else.
    """
    request = link_message(_DELLINK, ACK, [], ifindex=link.ifindex)
    with asking(f"interface {link.name} cannot be removed"):
        with suppress(OSError), NetlinkSocket(ROUTE, groups=LINKS) as announced:  # no room for a process, or for news
            _await_departure(announced, _start_child(request, kept), link.ifindex)
        with NetlinkSocket(ROUTE) as own:
            try:
                own.send([request])
            except NetlinkError as error:
                if error.errno != errno.ENODEV:
                    raise


def _start_child(request: Message, kept: Sequence[int]) -> int:
    """Have a child send the request. Returns a descriptor that says when it has ended; the child is not waited for.

    It is init's as soon as we have ended. Signals do not end it: they are for us. Raises OSError.
    """
    ended, writer = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        if os.fork() == 0:
            _be_child(request, {writer, *kept})
    except OSError:
        os.close(ended)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writer)
    return ended


def _be_child(request: Message, kept: set[int]) -> None:
    """Let go of all that is the parent's: its locks, what its caller reads. Then send, and end."""
    try:
        for name in os.listdir(_DESCRIPTORS):
            if int(name) not in kept:
                with suppress(OSError):  # that of the list itself
                    os.close(int(name))
        NetlinkSocket(ROUTE).send([request])
    finally:
        os._exit(0)


def _await_departure(announced: NetlinkSocket, ended: int, ifindex: int) -> None:
    """Wait until an interface is announced to be gone, or the child has ended, or neither comes. Raises OSError."""
    try:
        waited_for = select.poll()
        waited_for.register(announced.fileno(), select.POLLIN)
        waited_for.register(ended, select.POLLIN)
        while ready := dict(waited_for.poll(REPLY_BOUND * 1000)):
            if ended in ready or ifindex in [gone_index(kind, body) for kind, body in announced.announcements()]:
                return
    finally:
        os.close(ended)
