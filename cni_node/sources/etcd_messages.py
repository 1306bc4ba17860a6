"""The entries of etcd, and what a watch says of them, out of the documents of its JSON gateway and into them.

Source: https://etcd.io/docs/v3.5/dev-guide/api_reference_v3/ (KeyValue, RangeRequest, Event)
Must not: ask etcd.
"""

import base64
from typing import Any, NamedTuple

from cni_node.client import CallError


class Entry(NamedTuple):
    """A key with its value. The revisions say when it was made and changed; `lease` is 0 without one."""

    key: str
    value: str
    created: int
    modified: int
    lease: int


class Batch(NamedTuple):
    """What one moment changed. `replayed`: it is older than the watch."""

    revision: int
    put: tuple[Entry, ...]
    deleted: tuple[str, ...]
    replayed: bool


def encode(text: str) -> str:
    """A key or value as the gateway wants it."""
    return base64.b64encode(text.encode()).decode()


def _decode(text: Any) -> str:
    return base64.b64decode(text).decode(errors="replace")


def behind(prefix: str) -> str:
    """The first key that does not begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def to_entry(document: Any) -> Entry:
    """A KeyValue. Raises CallError, as all of these do."""
    try:
        return Entry(
            _decode(document["key"]),
            _decode(document.get("value", "")),
            *(int(document.get(key, 0)) for key in ("create_revision", "mod_revision", "lease")),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise nonsense("kv") from None


def to_batch(result: dict[str, Any], revision: int, newest: int) -> Batch:
    """What one answer of a watch brings; `newest` is the revision at which the watch began."""
    put, deleted = [], []
    events = result.get("events") or []
    for event in events if isinstance(events, list) else ():
        entry = to_entry(event.get("kv") if isinstance(event, dict) else None)
        if event.get("type") == "DELETE":
            deleted.append(entry.key)
        else:
            put.append(entry)
        revision = entry.modified  # the header's is the store's, and may be ahead of what was sent
    return Batch(revision, tuple(put), tuple(deleted), revision <= newest)


def to_number(document: Any, key: str) -> int:
    """A number, which comes as a text; one that is absent is 0."""
    try:
        return int(document.get(key, 0))
    except (AttributeError, TypeError, ValueError):
        raise nonsense(key) from None


def nonsense(what: str) -> CallError:
    """The error of an answer whose part is of another kind than the API has."""
    return CallError(f"etcd's answer makes no sense: {what!r} is of another kind than expected", 200)
