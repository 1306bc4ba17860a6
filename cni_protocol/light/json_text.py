"""JSON text to values and back, with the C parts of the json module: importing all of it takes longer than a call.

Source: RFC 8259. Refused are: any encoding but UTF-8, a byte order mark, NaN, Infinity, a number too large for a float,
and a lone surrogate. Of a duplicate key the last one counts, as in Go's encoding/json. A text that the C scanner
refuses is parsed again by the json module, for its error message.
"""

from _json import encode_basestring_ascii, make_scanner

from .standard import Any, NoReturn

_WHITE_SPACE = " \t\n\r"
_INFINITY = float("inf")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (_INFINITY, -_INFINITY):
        raise ValueError(f"the number {text} is too large")
    return value


class _Scanner:
    """The settings of the C scanner: the attributes that it reads of a json.JSONDecoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = staticmethod(_parse_float)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


_scan = make_scanner(_Scanner)  # type: ignore[arg-type]  # any object with these attributes will do


def parse_json(data: bytes) -> Any:
    """Parse a JSON text. Raises ValueError; RecursionError when it is nested too deeply."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it must be UTF-8, and byte {error.start} is invalid") from None
    try:
        value, end = _scan(text.strip(_WHITE_SPACE), 0)
        if end != len(text.strip(_WHITE_SPACE)):
            raise ValueError
    except (StopIteration, ValueError, SystemError):  # SystemError: json.decoder is not loaded
        import json

        value = json.loads(text, parse_float=_parse_float, parse_constant=_refuse_constant)
    if "\\ud" in text or "\\uD" in text:
        _require_whole_characters(value)
    return value


def _require_whole_characters(value: Any) -> None:
    """Raise ValueError for a lone surrogate: it is no character and cannot be encoded as UTF-8."""
    import json

    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"\\u{ord(half):04x} is half of a surrogate pair") from None


def write_json(value: Any, indent: str = "\n") -> str:
    """The JSON text of a value, one line for each member. `indent` is a newline and the blanks before its last line."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{encode_basestring_ascii(key)}: {write_json(item, inner)}" for key, item in value.items()]
        return "{" + ",".join(lines) + indent + "}"
    if isinstance(value, list) and value:
        return "[" + ",".join(inner + write_json(item, inner) for item in value) + indent + "]"
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)
