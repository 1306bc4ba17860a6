"""Reading a JSON object key by key. Every value is checked, and a problem is noted instead of raised.

So one error message names all mistakes of a configuration. Where the exact key is absent, a key that differs only in
case is taken, as in the Go reference (runtimes send both `hostPort` and `HostPort`). A value of null means that the key
is not set.

Must not: know which keys there are.
"""

from __future__ import annotations

from .address import CIDR, IP, parse_cidr, parse_ip, parse_ip_or_cidr
from .light.standard import TYPE_CHECKING, Any, Callable, Mapping

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")
    U = TypeVar("U")

_TYPE_NAMES: dict[type[Any], str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a whole number",
}
_LIKENESS = 0.8  # how similar an unknown key must be to a known one to count as a typo, from 0 to 1 (difflib)
_SHOWN_LENGTH = 80  # characters of a wrong value that an error message repeats


def shown(value: object) -> str:
    """A JSON value as text for an error message: on one line, at most _SHOWN_LENGTH characters."""
    import json  # here, so that only a call with an error loads it

    try:
        text = json.dumps(value)
    except RecursionError:
        return "a value that is nested too deeply to be shown"
    return text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "..."


class Fields:
    """A JSON object that is being read. `where` is its path in the document.

    Every reading method returns its default and appends to `problems` when the value is wrong. All objects of one
    document share the list `problems`.
    """

    def __init__(self, value: object, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        self._object: Mapping[str, Any] = {}
        if isinstance(value, dict):
            self._object = value
        else:
            self.problem("", f"must be an object, not {shown(value)}")
        self._keys = {key.lower(): key for key in self._object}
        self._asked: dict[str, str] = {}
        self._children: dict[str, list[Fields]] = {}

    def path(self, key: str) -> str:
        """The path of a key from the top of the document, as in `ipam.ranges[0][1].subnet`."""
        return ".".join(part for part in (self.where, key) if part)

    def problem(self, key: str, text: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(f"{self.path(key)}: {text}")

    def raw(self, key: str) -> Any:
        """The unchecked value of a key, None when it is not set."""
        self._asked[key.lower()] = key
        if key in self._object:
            return self._object[key]
        return self._object.get(self._keys.get(key.lower(), ""))

    def has(self, key: str) -> bool:
        """Whether the key is there with a value other than null."""
        return self.raw(key) is not None

    def is_given(self, key: str) -> bool:
        """Whether the key is there, also with the value null."""
        return key in self._object or key.lower() in self._keys

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self._typed(key, str, default)
        if not value.isprintable():
            self.problem(key, f"{shown(value)} has characters that cannot be printed")
            return default
        return value

    def flag(self, key: str) -> bool:
        """True or false; false when it is not set."""
        return self._typed(key, bool, False)

    def number(self, key: str, low: int, high: int) -> int | None:
        """A whole number from low to high, None when it is not set."""
        value = self._typed(key, int, None)
        if value is not None and not low <= value <= high:
            self.problem(key, f"{shown(value)} is not between {low} and {high}")
            return None
        return value

    def ip(self, key: str) -> IP | None:
        """An IP address without prefix length, None when it is not set."""
        return self._parsed(key, parse_ip)

    def cidr(self, key: str) -> CIDR | None:
        """An IP address with its prefix length, None when it is not set."""
        return self._parsed(key, parse_cidr)

    def object(self, key: str) -> Fields:
        """The object under a key, an empty one when it is not set. Repeated calls return the same Fields."""
        if key not in self._children:
            self._children[key] = [Fields(self._typed(key, dict, {}), self.path(key), self.problems)]
        return self._children[key][0]

    def values(self, key: str) -> list[Any]:
        """The list under a key, an empty one when it is not set."""
        return self._typed(key, list, [])

    def objects(self, key: str) -> list[Fields]:
        """The objects in the list under a key. Repeated calls return the same Fields."""
        if key not in self._children:
            entries = enumerate(self.values(key))
            self._children[key] = [Fields(value, f"{self.path(key)}[{i}]", self.problems) for i, value in entries]
        return self._children[key]

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings in the list under a key."""
        values = self.values(key)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                self.problem(f"{key}[{i}]", f"must be a string, not {shown(value)}")
        return tuple(value for value in values if isinstance(value, str))

    def ips(self, key: str) -> tuple[IP, ...]:
        """The IP addresses in the list under a key; a prefix length behind an address is dropped."""
        found = []
        for i, text in enumerate(self.texts(key)):
            try:
                found.append(parse_ip_or_cidr(text))
            except ValueError as error:
                self.problem(f"{key}[{i}]", str(error))
        return tuple(found)

    def unknown(self) -> dict[str, str]:
        """The keys that no method was called for, each with the most similar known key, or with an empty text.

        Keys with a domain (`cni.dev/...`) are left out: they are meant for other programs.
        """
        strange = [key for key in self._object if key.lower() not in self._asked and "/" not in key]
        return {key: self._like(key) for key in strange}

    def _like(self, key: str) -> str:
        from difflib import get_close_matches  # here, so that only a call with a typo loads it

        found = get_close_matches(key.lower(), self._asked, n=1, cutoff=_LIKENESS)
        return self._asked[found[0]] if found else ""

    def _parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        text = self._typed(key, str, "")
        try:
            return parse(text) if text else None
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def _typed(self, key: str, kind: type[T], default: U) -> T | U:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.problem(key, f"must be {_TYPE_NAMES[kind]}, not {shown(value)}")
            return default
        return value
