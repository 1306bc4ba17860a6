"""Reads the subset of YAML that kubectl, kubeadm, kind and the kubelet write in a kubeconfig, and JSON.

The subset has block mappings, lists, and scalars of one line, plain or quoted. Anything else is refused with the number
of its line. Must not: guess.
"""

import json
from typing import Any, NamedTuple

from cni_protocol.errors import DECODING_FAILURE, CNIError

_REFUSED = {
    **dict.fromkeys("[{", "a list or mapping in brackets"),
    **dict.fromkeys("|>", "a text of several lines"),
    **dict.fromkeys("&*", "an anchor or alias"),
    **dict.fromkeys("!", "a tag"),
    **dict.fromkeys("%@`?,]}", "this sign in front"),
}
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    "{}": {},
    "[]": [],
}


class _Line(NamedTuple):
    number: int
    indent: int
    text: str  # without indentation, never empty


def parse_yaml(text: str) -> Any:
    """Parse a document. Scalars are strings (numbers too), except null, true and false. Raises CNIError."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CNIError(DECODING_FAILURE, f"this is no JSON: {error}") from None
    lines = [_line(number, line) for number, line in enumerate(text.splitlines(), 1) if _says_something(line)]
    if not lines:
        raise CNIError(DECODING_FAILURE, "the document is empty")
    try:
        value, rest = _block(lines, 0)
    except RecursionError:
        raise CNIError(DECODING_FAILURE, "the document is nested too deeply") from None
    if rest < len(lines):
        raise _refusal(lines[rest], "it is indented otherwise than what is above it")
    return value


def _says_something(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#") and stripped not in ("---", "...")


def _line(number: int, line: str) -> _Line:
    text = line.lstrip(" ")
    found = _Line(number, len(line) - len(text), text.rstrip())
    if text.startswith("\t"):
        raise _refusal(found, "it is indented by a tab")
    return found


def _refusal(line: _Line, reason: str) -> CNIError:
    return CNIError(DECODING_FAILURE, f"line {line.number} cannot be read: {reason}")


def _block(lines: list[_Line], start: int) -> tuple[Any, int]:
    """Parse the value that begins at a line. Returns it and the index after its last line."""
    if _is_item(lines[start].text):
        return _list(lines, start)
    if _find_key(lines[start]) is not None:
        return _mapping(lines, start)
    return _scalar(lines[start], lines[start].text), start + 1


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _list(lines: list[_Line], start: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    indent, index = lines[start].indent, start
    while index < len(lines) and lines[index].indent == indent and _is_item(lines[index].text):
        line = lines[index]
        inner = line.text[1:].lstrip()
        if inner:  # the item begins after the dash: parse that as a line of its own with more indentation
            lines[index] = line._replace(indent=indent + len(line.text) - len(inner), text=inner)
            value, index = _block(lines, index)
        else:
            value, index = _nested(lines, index + 1, indent)
        items.append(value)
    return items, index


def _mapping(lines: list[_Line], start: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    indent, index = lines[start].indent, start
    while index < len(lines) and lines[index].indent == indent and not _is_item(lines[index].text):
        line = lines[index]
        split = _find_key(line)
        if split is None:
            raise _refusal(line, 'a key and ":" were expected')
        key, text = split
        if key in found:
            raise _refusal(line, f"the key {key!r} is there twice")
        if text and not text.startswith("#"):
            found[key], index = _scalar(line, text), index + 1
        else:
            beside = index + 1 < len(lines) and _is_item(lines[index + 1].text)  # lists may stand right below their key
            found[key], index = _nested(lines, index + 1, indent - 1 if beside else indent)
    return found, index


def _nested(lines: list[_Line], start: int, indent: int) -> tuple[Any, int]:
    """Parse the value in the following lines that are indented more. It is None when there are none."""
    if start < len(lines) and lines[start].indent > indent:
        return _block(lines, start)
    return None, start


def _find_key(line: _Line) -> tuple[str, str] | None:
    """The key at the beginning of a line and the text after its colon. None when the line has no key."""
    text = line.text
    if text[0] in "\"'":
        end = text.find(text[0], 1)
        if end < 0 or not text[end + 1 :].startswith(":"):
            return None
        return text[1:end], text[end + 2 :].strip()
    key, colon, value = text.partition(": ")
    if not colon and key.endswith(":"):
        key, colon = key[:-1], ":"
    if not colon or key[0] in _REFUSED:
        return None
    return key.rstrip(), value.strip()


def _scalar(line: _Line, text: str) -> Any:
    if text[0] in "\"'":
        return _quoted(line, text)
    text = text.partition(" #")[0].rstrip()
    if text in _WORDS:
        value = _WORDS[text]
        return value.copy() if isinstance(value, (dict, list)) else value
    if text[0] in _REFUSED:
        raise _refusal(line, f"{_REFUSED[text[0]]} is more than this reader knows")
    if ": " in text or text.endswith(":"):
        raise _refusal(line, "a second key in one line; a text with a colon needs quotes")
    return text


def _quoted(line: _Line, text: str) -> str:
    quote = text[0]
    end = len(text)
    while (end := text.rfind(quote, 1, end)) > 0:  # a comment may hold quotes, too
        behind = text[end + 1 :].strip()
        if not behind or behind.startswith("#"):
            try:
                return str(json.loads(text[: end + 1])) if quote == '"' else _single(text[1:end])
            except ValueError:
                continue
    raise _refusal(line, "the quoted text does not end in its line, or has an escape that JSON does not know")


def _single(text: str) -> str:
    if "'" in text.replace("''", ""):
        raise ValueError(text)
    return text.replace("''", "'")
