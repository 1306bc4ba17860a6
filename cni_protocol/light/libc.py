"""System calls that Python 3.11 has no function for, through the C part of ctypes: all of ctypes is slow to load."""

from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno

PR_SET_PDEATHSIG = 1  # prctl(2)


class _Int(_SimpleCData):  # type: ignore[type-arg]  # it takes none at run time
    _type_ = "i"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_found: dict[str, _Function] = {}


def setns(descriptor: int, kind: int) -> int:
    """Enter the namespace of an open descriptor; `kind` is its CLONE_NEW* flag (setns(2)). Returns 0 or the errno."""
    return _call("setns", descriptor, kind)


def prctl(option: int, argument: int) -> int:
    """Set an attribute of the process (prctl(2)). Returns 0 or the errno."""
    return _call("prctl", option, argument)


def _call(name: str, *arguments: int) -> int:
    if name not in _found:
        program = dlopen(None, 0)  # type: ignore[arg-type]  # None is the program itself (dlopen(3))
        _found[name] = _Function(dlsym(program, name))
    return 0 if _found[name](*arguments) == 0 else get_errno()
