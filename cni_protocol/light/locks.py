"""Waiting for a lock, at most a given time."""

import fcntl

from cni_protocol.errors import TRY_AGAIN_LATER, CNIError

from .standard import Callable, NoReturn, signal


def take_lock(descriptor: int, mode: int, seconds: float, obstacle: str) -> None:
    """Lock an open file with flock(2); `mode` is fcntl.LOCK_EX or LOCK_SH. Closing the file releases the lock.

    Raises CNIError as wait_for_lock does.
    """
    wait_for_lock(
        lambda wait: fcntl.flock(descriptor, mode if wait else mode | fcntl.LOCK_NB), seconds=seconds, obstacle=obstacle
    )


def wait_for_lock(take: Callable[[bool], object], *, seconds: float, obstacle: str) -> None:
    """Take a lock by calling `take(wait)`: with False it must raise BlockingIOError instead of waiting.

    The wait is one system call that an alarm interrupts, so that waiters keep their place in the kernel's queue. Raises
    CNIError (code 11) after `seconds`; its message begins with `obstacle`.
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
