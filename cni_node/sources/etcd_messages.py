"""Encoding and decoding the messages of etcd's JSON gateway: entries, and changes that a watch reports.

Source: https://etcd.io/docs/v3.5/dev-guide/api_reference_v3/ (KeyValue, RangeRequest, Event)
Must not: call etcd.
"""

import base64
from typing import Any, NamedTuple

from cni_node.api.client import CallError


class Entry(NamedTuple):
    """A key and its value, with the revisions of its creation and its last change. `lease` is an id, 0 for none."""

    key: str
    value: str
    created: int
    modified: int
    lease: int


class Batch(NamedTuple):
    """The changes of one message of a watch, up to `revision`: of each key the last one.

    `replayed`: they happened before the watch began.
    """

    revision: int
    put: tuple[Entry, ...]
    deleted: tuple[str, ...]
    replayed: bool


def encode(text: str) -> str:
    """A key or value in base64, as the gateway takes it."""
    return base64.b64encode(text.encode()).decode()


def _decode(text: Any) -> str:
    return base64.b64decode(text).decode(errors="replace")


def behind(prefix: str) -> str:
    """The first key after all keys that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def to_entry(document: Any) -> Entry:
    """Decode a KeyValue. Raises CallError, as do the functions below."""
    try:
        return Entry(
            _decode(document["key"]),
            _decode(document.get("value", "")),
            *(int(document.get(key, 0)) for key in ("create_revision", "mod_revision", "lease")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise nonsense("kv") from None


def to_batch(result: dict[str, Any], revision: int, newest: int) -> Batch:
    """Decode one message of a watch. `newest` is the revision at which the watch began."""
    put: dict[str, Entry] = {}
    deleted: dict[str, None] = {}
    events = result.get("events") or []
    for event in events if isinstance(events, list) else ():
        entry = to_entry(event.get("kv") if isinstance(event, dict) else None)
        put.pop(entry.key, None)  # a message that is replayed may have a key more than once
        deleted.pop(entry.key, None)
        if event.get("type") == "DELETE":
            deleted[entry.key] = None
        else:
            put[entry.key] = entry
        revision = entry.modified  # the header's is the store's, and may be ahead of what was sent
    return Batch(revision, tuple(put.values()), tuple(deleted), revision <= newest)


def to_number(document: Any, key: str) -> int:
    """Decode a number, which the gateway writes as a string; an absent one is 0."""
    try:
        return int(document.get(key, 0))
    except (AttributeError, TypeError, ValueError):
        raise nonsense(key) from None


def nonsense(what: str) -> CallError:
    """The error for an answer in which `what` has another type than the API defines."""
    return CallError(f"etcd's answer makes no sense: {what!r} is of another kind than expected", 200)
