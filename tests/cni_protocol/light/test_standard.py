"""The stand-ins of light/standard.py do what the real ones of the standard library do."""

import contextlib
import copy
import hashlib
import signal
import socket
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cni_protocol.light import standard as lean

Lean: Any = lean  # as it is at run time, not as type checkers see it


class Real(typing.NamedTuple):
    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        return self.first * 2


class Light(Lean.NamedTuple):  # type: ignore[misc]
    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        return self.first * 2


@pytest.mark.parametrize(
    "look",
    [
        lambda kind: tuple(kind(1)),
        lambda kind: kind(1, "b", (3,)) == (1, "b", (3,)),
        lambda kind: kind(second="b", first=4).doubled,
        lambda kind: kind(1, third=(2,)).third,
        lambda kind: kind(1)._replace(second="z"),
        lambda kind: kind._fields,
        lambda kind: repr(kind(1, "b")).partition("(")[2],
        lambda kind: sorted([kind(2), kind(1)])[0].first,
        lambda kind: {kind(1): "found"}[kind(1)],
        lambda kind: copy.copy(kind(1)) == kind(1),
        lambda kind: type(copy.deepcopy(kind(1))) is kind,
        lambda kind: hasattr(kind(1), "__dict__"),
        lambda kind: isinstance(kind(1), tuple),
    ],
)
def test_a_named_tuple_is_the_same(look: Callable[[Any], Any]) -> None:
    assert look(Light) == look(Real)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda kind: kind(),
        lambda kind: kind(second="b"),
        lambda kind: kind(1, 2, 3, 4),
        lambda kind: kind(1, fourth=4),
        lambda kind: kind(1, first=1),
        lambda kind: kind(1)._replace(fourth=4),
        lambda kind: setattr(kind(1), "first", 2),
        lambda kind: setattr(kind(1), "fourth", 2),
    ],
)
def test_a_named_tuple_refuses_the_same(misuse: Callable[[Any], Any]) -> None:
    for kind in (Real, Light):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            misuse(kind)


def blocks(make: Any) -> dict[str, Any]:
    """What comes of blocks that end in every way, with one or the other contextmanager."""
    log: list[str] = []

    @make  # type: ignore[untyped-decorator]
    def guarded(name: str) -> Iterator[str]:
        log.append(f"{name} in")
        try:
            yield name.upper()
        except KeyError:
            log.append(f"{name} key")
        except ValueError as error:
            raise OSError("another") from error
        finally:
            log.append(f"{name} out")

    def attempt(error: BaseException | None) -> Any:
        try:
            with guarded("a") as outer, guarded("b") as inner:
                log.append(outer + inner)
                if error is not None:
                    raise error
        except BaseException as raised:
            return type(raised), raised is error
        return None

    errors = (None, KeyError("k"), ValueError("v"), RuntimeError("r"), StopIteration("s"), KeyboardInterrupt())
    return {"outcomes": [attempt(error) for error in errors], "log": log}


def test_a_block_is_left_in_the_same_way() -> None:
    real, light = blocks(contextlib.contextmanager), blocks(Lean.contextmanager)
    # a StopIteration out of the block comes out of a generator as RuntimeError; the real one tells them apart
    assert (light["log"], light["outcomes"][:4]) == (real["log"], real["outcomes"][:4])
    assert light["outcomes"][5] == real["outcomes"][5]


def test_suppress_passes_over_what_it_names() -> None:
    for suppress in (contextlib.suppress, Lean.suppress):
        with suppress(FileNotFoundError, ValueError):
            raise FileNotFoundError
        with pytest.raises(KeyError), suppress(ValueError):
            raise KeyError


def test_the_c_modules_are_those_behind_the_real_ones() -> None:
    assert Lean.sha256(b"pycni").hexdigest() == hashlib.sha256(b"pycni").hexdigest()
    assert issubclass(socket.socket, Lean.socket.socket)
    assert Lean.signal.SIGTERM == signal.SIGTERM


def test_nothing_is_said_to_be_there_that_is_not() -> None:
    assert [name for name in lean.__all__ if not hasattr(lean, name)] == []
