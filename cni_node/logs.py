"""The agent's log: one line per event on stderr, key=value, so that people and programs read the same.

Must not: know an event's meaning.
"""

import json
import sys


def format_line(level: str, event: str, **fields: object) -> str:
    """One line; a value with anything but plain characters is quoted as in JSON. Empty values are left out."""
    pairs = {"level": level, "event": event, **fields}
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items() if value not in ("", None))


def info(event: str, **fields: object) -> None:
    """Say what happened."""
    print(format_line("info", event, **fields), file=sys.stderr, flush=True)


def warn(event: str, **fields: object) -> None:
    """Say what is wrong, or what somebody else did."""
    print(format_line("warning", event, **fields), file=sys.stderr, flush=True)


def _quoted(value: str) -> str:
    plain = value.isascii() and value.isprintable() and not any(character in value for character in ' "=\\')
    return value if plain else json.dumps(value, ensure_ascii=False)
