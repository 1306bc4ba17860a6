"""The agent's log: one line per event on stderr, as key=value pairs, for people and programs.

Must not: know the events.
"""

import json
import sys


def format_line(level: str, event: str, **fields: object) -> str:
    """Format an event as one line. A value with blanks or special characters is quoted as in JSON. Skips empty ones."""
    pairs = {"level": level, "event": event, **fields}
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items() if value not in ("", None))


def info(event: str, **fields: object) -> None:
    """Log an event."""
    print(format_line("info", event, **fields), file=sys.stderr, flush=True)


def warn(event: str, **fields: object) -> None:
    """Log a problem, or a change by another program."""
    print(format_line("warning", event, **fields), file=sys.stderr, flush=True)


def _quoted(value: str) -> str:
    plain = value.isascii() and value.isprintable() and not any(character in value for character in ' "=\\')
    return value if plain else json.dumps(value, ensure_ascii=False)
