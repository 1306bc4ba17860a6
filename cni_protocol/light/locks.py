"""Waiting for flock(2) with a bound. Both plugins wait for locks, and neither for ever."""

import fcntl

from cni_protocol.errors import TRY_AGAIN_LATER, CNIError

from .standard import NoReturn, signal


def take_lock(descriptor: int, mode: int, seconds: float, obstacle: str) -> None:
    """Lock an open file (fcntl.LOCK_EX or LOCK_SH); closing it gives the lock back.

    An alarm interrupts the wait, so that the kernel's queue of waiters stays fair. Raises CNIError (code 11), saying
    what the obstacle was, when it takes more than `seconds`.
    """

    def give_up(*_: object) -> NoReturn:
        raise CNIError(TRY_AGAIN_LATER, f"{obstacle}, for more than {seconds:.0f} s")

    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])  # the caller may have blocked it
    previous = signal.signal(signal.SIGALRM, give_up)
    timer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))  # 0 would switch it off
    try:
        fcntl.flock(descriptor, mode)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *timer)
