"""What the plugins use of typing, contextlib, collections.abc, signal, socket, struct, hashlib, without loading these.

A plugin is one short process per call, and importing those modules takes longer than all that a plugin does. So this
module takes the C modules underneath them, and adds the few missing parts in Python. Type checkers see the real
modules. So does a process with $PYCNI_REAL_MODULES in its environment; the tests run both ways.

Where these differ from the real ones:
- signal, socket, struct: the C modules. Numbers are plain integers instead of enums; socket.socket is the C class,
  whose accept and dup are private.
- NamedTuple: fields cannot be renamed or checked for bad names, `_make` and `_asdict` are missing, a field's docstring
  too; what is wrong with a call is said in other words.
- contextmanager: no decorator, and a block that is left by GeneratorExit or StopIteration is not treated apart.
- suppress: no exception groups.
- Any, Self, NoReturn, TextIO, and what is of collections.abc: good for annotations, and for nothing else.
Must not: do anything else in another way than the real ones.
"""

import posix

TYPE_CHECKING = False  # type checkers take this name for true
if TYPE_CHECKING or b"PYCNI_REAL_MODULES" in posix.environ:
    import signal
    import socket
    import struct
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import contextmanager, suppress
    from hashlib import sha256
    from typing import Any, NamedTuple, NoReturn, Self, TextIO
else:
    import _signal as signal
    import _socket as socket
    import _struct as struct
    from _collections import _tuplegetter

    try:
        from _sha256 import sha256
    except ImportError:  # from Python 3.12 on
        from _sha2 import sha256

    class _Named:
        def __class_getitem__(cls, _):
            return cls

    # annotations are evaluated, and then forgotten
    Any = NoReturn = Self = TextIO = object
    Callable = Collection = Generator = Iterable = Iterator = Mapping = Sequence = _Named

    class _Fields(type):
        def __new__(cls, name, bases, body):
            """A class whose annotations are the fields of a tuple."""
            made = type.__new__(cls, name, bases, {"__slots__": (), **body})
            fields = made._fields = tuple(made.__annotations__)
            made._defaults = {field: body[field] for field in fields if field in body}
            for index, field in enumerate(fields):
                setattr(made, field, _tuplegetter(index, None))
            return made

    class NamedTuple(tuple, metaclass=_Fields):
        """typing.NamedTuple: a tuple with names."""

        def __new__(cls, *values, **named):
            """Fields by position or by name; a field that is left out gets its default. Raises TypeError."""
            if named or len(values) != len(cls._fields):
                rest = cls._fields[len(values) :]
                given = {**cls._defaults, **named}
                missing, strange = [name for name in rest if name not in given], named.keys() - rest
                if missing or strange or len(values) > len(cls._fields):
                    raise TypeError(f"{cls.__name__} lacks {missing}, knows no {sorted(strange)}, has {cls._fields}")
                values = (*values, *(given[name] for name in rest))
            return tuple.__new__(cls, values)

        def __getnewargs__(self):
            """For copy and pickle."""
            return tuple(self)

        def __repr__(self):
            """Name=value for every field."""
            pairs = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({pairs})"

        def _replace(self, **named):
            return type(self)(**{**dict(zip(self._fields, self, strict=True)), **named})

    class _Block:
        def __init__(self, steps):
            self._steps = steps

        def __enter__(self):
            return next(self._steps)

        def __exit__(self, kind, error, trace):
            if error is None:
                next(self._steps, None)
                return False
            try:
                self._steps.throw(error)
            except StopIteration:
                return True
            except BaseException as raised:
                if raised is error:
                    return False
                raise
            raise RuntimeError("a context manager goes on after an error")

    def contextmanager(function):
        """contextlib.contextmanager: a `with` statement out of a generator that yields once."""

        def make(*values, **named):
            return _Block(function(*values, **named))

        return make

    class suppress:  # noqa: N801 (the real one has this name)
        """contextlib.suppress: end a block silently when it raises one of these exceptions."""

        def __init__(self, *kinds):
            self._kinds = kinds

        def __enter__(self):
            return None

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self._kinds)


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "Callable",
    "Collection",
    "Generator",
    "Iterable",
    "Iterator",
    "Mapping",
    "NamedTuple",
    "NoReturn",
    "Self",
    "Sequence",
    "TextIO",
    "contextmanager",
    "sha256",
    "signal",
    "socket",
    "struct",
    "suppress",
]
