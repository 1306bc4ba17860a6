"""Waiting for a lock with a bound. Both plugins wait for locks, and neither for ever."""

import fcntl

from cni_protocol.errors import TRY_AGAIN_LATER, CNIError

from .standard import Callable, NoReturn, signal


def take_lock(descriptor: int, mode: int, seconds: float, obstacle: str) -> None:
    """Lock an open file with flock(2) (fcntl.LOCK_EX or LOCK_SH); closing it gives the lock back.

    Raises CNIError as wait_for_lock.
    """
    wait_for_lock(
        lambda wait: fcntl.flock(descriptor, mode if wait else mode | fcntl.LOCK_NB), seconds=seconds, obstacle=obstacle
    )


def wait_for_lock(take: Callable[[bool], object], *, seconds: float, obstacle: str) -> None:
    """Take a lock by `take`, which is told whether it may wait, and raises BlockingIOError where it may not and has to.

    An alarm interrupts the wait, so that the kernel's queue of waiters stays fair. Raises CNIError (code 11), saying
    what the obstacle was, when it takes more than `seconds`.
    """

    def give_up(*_: object) -> NoReturn:
        raise CNIError(TRY_AGAIN_LATER, f"{obstacle}, for more than {seconds:.0f} s")

    try:
        take(False)
        return
    except BlockingIOError:
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])  # the caller may have blocked it
    previous = signal.signal(signal.SIGALRM, give_up)
    timer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))  # 0 would switch it off
    try:
        take(True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *timer)
