"""The main process of the service: it keeps a number of forked workers waiting, each for one call.

Its only events are signals: a worker has taken a call, a worker has ended, the service is to end. So its loop waits for
signals.
Source: sigwaitinfo(2), fork(2).
"""

import gc
import os
import signal
import sys
import time
from contextlib import suppress

from .listening import Listener
from .worker import serve

_TAKEN = signal.SIGRTMIN  # sent by a worker; real-time signals are queued and carry the sender's pid
_ENDING = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (*_ENDING, signal.SIGCHLD, _TAKEN)
_RUN, _NOT_RUN = range(2)  # exit statuses of a worker
_PAUSE = 1.0  # seconds before the next start, after a worker could not be started or died while it waited


def run(listener: Listener, workers: int, idle_seconds: float | None) -> int:
    """Keep `workers` workers waiting. Returns the exit status, after calls under way have ended.

    Ends at SIGTERM or SIGINT, and after `idle_seconds` without a call (None: never).
    """
    _detach()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    gc.collect()
    gc.disable()
    gc.freeze()  # no collection of garbage, so that memory stays shared with the workers
    pool = _Pool(listener, workers)
    ending = False
    last = time.monotonic()
    while not ending or pool.busy:
        pause = 0.0 if ending else pool.fill()
        idle = None if idle_seconds is None or pool.busy else max(0.0, last + idle_seconds - time.monotonic())
        happened = _wait(pause or idle)
        if happened is None:
            ending = ending or not pause
        elif happened.si_signo in _ENDING:
            ending = True
            listener.remove()
            pool.reap()  # also notes calls that were taken just before
        elif happened.si_signo == _TAKEN:
            last = time.monotonic()
            pool.note_taken(happened.si_pid)
        else:
            pool.reap()
    print(f"pycni-warm: {pool.run} calls run, {pool.not_run} not taken", file=sys.stderr, flush=True)
    return 0  # the kernel ends the waiting workers (PR_SET_PDEATHSIG)


class _Pool:
    """The workers: those that wait for a call, and those that run one (`busy`)."""

    def __init__(self, listener: Listener, wanted: int) -> None:
        self.busy: set[int] = set()
        self.run = self.not_run = 0
        self._waiting: set[int] = set()
        self._listener = listener
        self._wanted = wanted
        self._pid = os.getpid()
        self._pidfd = os.pidfd_open(self._pid)
        self._not_before = 0.0

    def fill(self) -> float:
        """Start workers until enough of them wait. Returns in how many seconds to try again, 0 for no need to.

        While calls run and more than half of the workers still wait, it starts none, to leave the CPUs to the calls.
        """
        if self.busy and len(self._waiting) > self._wanted // 2:
            return 0.0
        while len(self._waiting) < self._wanted:
            pause = self._not_before - time.monotonic()
            if pause > 0:
                return pause
            try:
                self._waiting.add(self._start())
            except OSError as error:
                self._complain(f"no worker can be started: {error.strerror}")
        return 0.0

    def note_taken(self, pid: int) -> None:
        """Note that a worker has taken a call."""
        if pid in self._waiting:
            self._waiting.discard(pid)
            self.busy.add(pid)

    def reap(self) -> None:
        """Collect the workers that have ended. First reads their queued signals, since SIGCHLD overtakes them."""
        while taken := signal.sigtimedwait((_TAKEN,), 0):
            self.note_taken(taken.si_pid)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self.busy.discard(pid)
                self.run += status == 0
                self.not_run += status != 0
                if pid in self._waiting:
                    self._waiting.discard(pid)
                    self._complain(f"a worker ended while it waited (wait status {status})")

    def _complain(self, text: str) -> None:
        self._not_before = time.monotonic() + _PAUSE
        print(f"pycni-warm: {text}", file=sys.stderr, flush=True)

    def _start(self) -> int:
        pid = os.fork()
        if pid == 0:
            status = _NOT_RUN
            try:
                _as_a_fresh_process()
                leisure = not self.busy
                called = serve(self._listener.socket, self._pid, self._announce, at_leisure=leisure)
                status = _RUN if called else _NOT_RUN
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        return pid

    def _announce(self) -> None:
        """Tell the service, by pidfd: its pid may belong to another process by now."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, _TAKEN)


def _wait(seconds: float | None) -> signal.struct_siginfo | None:
    return signal.sigwaitinfo(_WATCHED) if seconds is None else signal.sigtimedwait(_WATCHED, seconds)


def _detach() -> None:
    """Drop all that the service inherited (files, directory, environment, signals), except stderr for messages."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    if null > 2:
        os.close(null)
    os.chdir("/")
    os.environ.clear()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        signal.signal(number, signal.SIG_DFL)  # SIGPIPE and SIGXFSZ are as the interpreter sets them


def _as_a_fresh_process() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
