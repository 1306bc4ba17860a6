"""JSON in and out as the json module has it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cni_protocol.light.json_text import parse_json, write_json

ROOT = Path(__file__).resolve().parents[3]
TEXTS = (
    "{}",
    "[]",
    ' \r\n\t{"a": [1, -2.5, 1e3, true, false, null, "\\u00e4\\n\\ud83d\\ude00"], "a": {"b": []}} \n',
    '"text"',
    "12345678901234567890123",
    '{"":{"":[[],{}]}}',
    '["\\\\ud800", "\\\\uD83D", "\\uD83D\\uDE00", "\\\\\\ud83d\\ude00"]',
    '["\ud7ff\ue000\ufeff\U0010ffff", "\\ufeff", 1.7976931348623157e308, -0.0, 1e-999]',
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_document_is_read_as_json_reads_it(text: str) -> None:
    assert repr(parse_json(text.encode())) == repr(json.loads(text))


# RFC 8259: section 8.1 (UTF-8, no byte order mark), 6 (numbers), 8.2 (halves of surrogate pairs)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("text", ["{}", ' {"cniVersion": "1.0.0", "name": "\u00e4"}'])
def test_no_other_encoding_is_taken(text: str, encoding: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text.encode(encoding))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        *((b"NaN", "NaN is no value"), (b"[-Infinity ]", "-Infinity is no value"), (b'{"a": Infinity}', "Infinity")),
        *((b"1e999", "1e999 is too large"), (b'{"a": [-1.5e309]}', "-1.5e309 is too large")),
        *((b'"\\ud800"', "ud800 is half"), (b'{"\\uDFFF": 1}', "udfff is half"), (b'["\\ude00\\ud83d"]', "ude00")),
        *((b'"\xed\xa0\x80"', "UTF-8, and byte 1"), (b'{"a": "\xe4"}', "UTF-8, and byte 7"), (b'"\xc0\x80"', "byte 1")),
    ],
)
def test_what_is_no_json_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(data)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b" ", b"{", b"[1,]", b'{"a":1,}', b"{'a': 1}", b'{"a" 1}', b"1 2", b"nul"),
        *(b'"\n"', b'"\\x"', b"{}\x00", b"\x0b{}", b"01", b"+1", b".5"),
    ],
)
def test_what_is_no_document_is_refused_in_the_words_of_json(data: bytes) -> None:
    with pytest.raises(ValueError) as expected:
        json.loads(data)
    with pytest.raises(ValueError) as raised:
        parse_json(data)
    assert str(raised.value) == str(expected.value)


def test_nesting_without_end_is_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        parse_json(b"[" * 100_000)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [1, -2, 2.5, True, False, None, 'ä"\\\n\x00😀\ud800'], "b": {"c": [], "d": {}}, "": [[[]]]},
        "text",
        7,
        [{"x": 1}, {"y": [2]}],
    ],
)
def test_a_document_is_written_as_json_writes_it(value: Any) -> None:
    assert write_json(value) == json.dumps(value, indent=4)


def test_what_was_written_is_read_again() -> None:
    value = {"numbers": [0, 1 << 70, 1.5], "text": "\u2028"}
    assert parse_json(write_json(value).encode()) == value


def test_a_mistake_is_told_also_where_json_was_not_loaded_before() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from cni_protocol.light import json_text as j; j.parse_json(b'{')"
    )
    told = subprocess.run(
        [sys.executable, "-I", "-c", code, str(ROOT)], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    ).stderr
    assert told.splitlines()[-1].startswith("json.decoder.JSONDecodeError: Expecting property name")
