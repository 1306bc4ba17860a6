"""Runs a command, and kills the child that it forks where that enters its N-th system call (ptrace(2)).

    python3 -m tests.faults.child LOG N COMMAND...      with N of 0 nobody is killed

strace(1) counts the calls of each process by itself, and would strike the one that forks, too. The log gets a line for
each call of the child, with its number in the kernel's table, and at last how the child ended. The command goes on
undisturbed; its exit status is ours.
Must not: know what the command is.
"""

import ctypes
import os
import signal
import struct
import sys
from typing import TextIO

KILLED = "killed"
_TRACEME, _CONT, _DETACH, _SYSCALL = 0, 7, 17, 24
_SETOPTIONS, _GETEVENTMSG, _GET_SYSCALL_INFO = 0x4200, 0x4201, 0x420E
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000  # TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, EXITKILL
_FORKS = (1, 2, 3)  # PTRACE_EVENT_FORK, _VFORK, _CLONE
_AT_CALL = signal.SIGTRAP | 0x80
_INFO_BYTES, _ENTRY = 88, 1
_WALL = 0x40000000  # __WALL of waitpid(2)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def main() -> int:
    """Returns the command's exit status."""
    log, number, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    tracee = os.fork()
    if tracee == 0:
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.execvp(command[0], command)
    os.waitpid(tracee, 0)
    _ptrace(_SETOPTIONS, tracee, 0, _OPTIONS)
    with open(log, "w", encoding="utf-8") as file:
        child = _await_fork(tracee)
        if child:
            _ptrace(_DETACH, tracee)
            _follow(child, number, file)
            return os.waitstatus_to_exitcode(os.waitpid(tracee, 0)[1])
    raise SystemExit(f"{command[0]} forked no child")


def _await_fork(tracee: int) -> int:
    """Let it run until it forks. Returns the child's process id, 0 where it ended without one."""
    passed_on = 0
    while True:
        _ptrace(_CONT, tracee, 0, passed_on)
        _, status = os.waitpid(tracee, _WALL)
        if not os.WIFSTOPPED(status):
            return 0
        if status >> 16 in _FORKS:
            found = ctypes.c_ulong()
            _ptrace(_GETEVENTMSG, tracee, 0, ctypes.addressof(found))
            return found.value
        passed_on = os.WSTOPSIG(status) if os.WSTOPSIG(status) != signal.SIGTRAP else 0


def _follow(child: int, number: int, log: TextIO) -> None:
    """Write down the child's calls, and kill it at that one."""
    os.waitpid(child, _WALL)  # it begins with a stop
    made, passed_on = 0, 0
    while True:
        _ptrace(_SYSCALL, child, 0, passed_on)
        _, status = os.waitpid(child, _WALL)
        if not os.WIFSTOPPED(status):
            print("ended", file=log)
            return
        passed_on = 0 if os.WSTOPSIG(status) == _AT_CALL else os.WSTOPSIG(status)
        if passed_on:
            continue
        info = ctypes.create_string_buffer(_INFO_BYTES)
        _ptrace(_GET_SYSCALL_INFO, child, _INFO_BYTES, ctypes.addressof(info))
        operation, call = struct.unpack_from("=B23xQ", info)
        if operation == _ENTRY:
            made += 1
            print(call, file=log)
            if made == number:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, _WALL)
                print(KILLED, file=log)
                return


def _ptrace(request: int, process: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, process, address, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    sys.exit(main())
