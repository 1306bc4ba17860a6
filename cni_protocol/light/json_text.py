"""JSON text to values and back, with the C parts of the json module: loading the whole of it takes longer than a call.

Whatever the quick way does not take is given to the json module, which knows it or puts the mistake into words.
"""

from _json import encode_basestring_ascii, make_scanner

from .standard import Any

_WHITE_SPACE = " \t\n\r"
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Scanner:
    """How values are made of a text (json.JSONDecoder)."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = _CONSTANTS.__getitem__


_scan = make_scanner(_Scanner)  # type: ignore[arg-type]  # it wants these attributes, of whatever


def parse_json(data: bytes) -> Any:
    """The value that a JSON text stands for. Raises ValueError, RecursionError."""
    try:
        text = data.decode().strip(_WHITE_SPACE)
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError, SystemError):  # the last where json.decoder with its exception is not loaded
        pass
    import json

    return json.loads(data)


def write_json(value: Any, indent: str = "\n") -> str:
    """The JSON text of a value, a line for each member; `indent` is what a line of it begins with."""
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
