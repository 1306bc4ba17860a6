"""What a case is, and how it says that something is not as it should be. Must not: know any plugin."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.conformance.world import World

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
WITH_INTERFACES = ALL[2:]  # results list interfaces, and plugins are chained, from 0.3.0 on
WITH_CHECK = ALL[4:]
WITH_STATUS_AND_GC = ALL[6:]

BRIDGE, IPAM = "bridge", "ipam"
PAIR = frozenset({BRIDGE, IPAM})
EACH: frozenset[str] = frozenset()  # a case that goes over whichever plugins are given

Function = Callable[["World"], None]


class Case(NamedTuple):
    """One demand of the specification.

    `versions` are those that it is judged for, one by one; none: the newest that the plugins speak. With `demanded`,
    a version that the plugins do not speak is judged too (and so fails), instead of being passed over.
    """

    number: int
    section: str
    sentence: str
    run: Function
    needs: frozenset[str]
    versions: tuple[str, ...]
    demanded: bool


class Mismatch(Exception):  # noqa: N818 - a verdict rather than an error
    """What was expected, and what was seen instead."""

    def __init__(self, expected: str, seen: object) -> None:
        super().__init__(expected, seen)
        self.expected = expected
        self.seen = seen if isinstance(seen, str) else repr(seen)


CASES: dict[int, Case] = {}


def case(
    number: int,
    sentence: str,
    *,
    needs: frozenset[str] = PAIR,
    versions: tuple[str, ...] = (),
    demanded: bool = False,
) -> Callable[[Function], Function]:
    """Register a function as a case; its section is the module that it stands in."""

    def register(function: Function) -> Function:
        assert number not in CASES, f"case {number} is there twice"
        section = function.__module__.rpartition(".")[2].removesuffix("_cases")
        CASES[number] = Case(number, section, sentence, function, needs, versions, demanded)
        return function

    return register


def expect(holds: bool, expected: str, seen: object) -> None:
    """Raise Mismatch unless it holds."""
    if not holds:
        raise Mismatch(expected, seen)


def expect_equal(seen: Any, wanted: Any, what: str) -> None:
    """Raise Mismatch unless both are the same."""
    expect(seen == wanted, f"{what}: {wanted!r}", seen)
