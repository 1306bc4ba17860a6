"""Reading JSON objects key by key: values, wrong types, the case of keys, null."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.fields import Fields, shown

Reader = Callable[[Fields], Any]

READERS: dict[str, Reader] = {
    "text": lambda fields: fields.text("key"),
    "flag": lambda fields: fields.flag("key"),
    "number": lambda fields: fields.number("key", 0, 100),
    "ip": lambda fields: fields.ip("key"),
    "cidr": lambda fields: fields.cidr("key"),
    "object": lambda fields: fields.object("key").where,
    "values": lambda fields: fields.values("key"),
    "objects": lambda fields: [entry.where for entry in fields.objects("key")],
    "texts": lambda fields: fields.texts("key"),
    "ips": lambda fields: fields.ips("key"),
}
UNSET: dict[str, Any] = {
    "text": "",
    "flag": False,
    "number": None,
    "ip": None,
    "cidr": None,
    "object": "key",
    "values": [],
    "objects": [],
    "texts": (),
    "ips": (),
}


def read(kind: str, document: object) -> tuple[Any, list[str]]:
    problems: list[str] = []
    return READERS[kind](Fields(document, "", problems)), problems


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("text", "mynet", "mynet"),
        ("text", "", ""),
        ("text", "ü", "ü"),
        ("flag", True, True),
        ("flag", False, False),
        ("number", 0, 0),
        ("number", 100, 100),
        ("ip", "10.1.2.3", parse_ip("10.1.2.3")),
        ("ip", "", None),
        ("cidr", "10.1.2.3/16", parse_cidr("10.1.2.3/16")),
        ("object", {"a": 1}, "key"),
        ("values", [1, "a", None], [1, "a", None]),
        ("objects", [{}, {}], ["key[0]", "key[1]"]),
        ("texts", ["a", "b"], ("a", "b")),
        ("ips", ["10.1.2.3", "::1/64"], (parse_ip("10.1.2.3"), parse_ip("::1"))),
    ],
)
def test_a_value_of_its_type_is_read(kind: str, value: object, expected: object) -> None:
    assert read(kind, {"key": value}) == (expected, [])


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("document", [{}, {"key": None}, {"KEY": None}], ids=["absent", "null", "null-in-capitals"])
def test_what_is_not_set_has_its_default_and_is_no_problem(kind: str, document: object) -> None:
    assert read(kind, document) == (UNSET[kind], [])


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("text", 1, "key: must be a string, not 1"),
        ("text", ["a"], 'key: must be a string, not ["a"]'),
        ("text", "a\nb", 'key: "a\\nb" has characters that cannot be printed'),
        ("text", "a\0", 'key: "a\\u0000" has characters that cannot be printed'),
        ("text", "\ud800", 'key: "\\ud800" has characters that cannot be printed'),
        ("flag", "true", 'key: must be true or false, not "true"'),
        ("flag", 1, "key: must be true or false, not 1"),
        ("number", "5", 'key: must be a whole number, not "5"'),
        ("number", 5.0, "key: must be a whole number, not 5.0"),
        ("number", True, "key: must be a whole number, not true"),
        ("number", -1, "key: -1 is not between 0 and 100"),
        ("number", 101, "key: 101 is not between 0 and 100"),
        ("ip", 10, "key: must be a string, not 10"),
        ("ip", "10.1.2", "key: '10.1.2' is no IP address"),
        ("ip", "10.1.2.3/16", "key: '10.1.2.3/16' is no IP address"),
        ("cidr", "10.1.2.3", "key: '10.1.2.3' is no address with a prefix length (as in 10.1.2.3/24)"),
        ("cidr", "::1", "key: '::1' is no address with a prefix length (as in ::1/96)"),
        ("cidr", "10/8", "key: '10' is no IP address"),
        ("object", [], "key: must be an object, not []"),
        ("object", "x", 'key: must be an object, not "x"'),
        ("values", {}, "key: must be a list, not {}"),
        ("values", "ab", 'key: must be a list, not "ab"'),
        ("objects", {}, "key: must be a list, not {}"),
        ("texts", "ab", 'key: must be a list, not "ab"'),
        ("ips", "10.1.2.3", 'key: must be a list, not "10.1.2.3"'),
    ],
)
def test_a_wrong_value_is_named_and_counts_as_unset(kind: str, value: object, problem: str) -> None:
    assert read(kind, {"key": value}) == (UNSET[kind], [problem])


@pytest.mark.parametrize(
    ("kind", "value", "kept", "problems"),
    [
        ("objects", [{}, 1], ["key[0]", "key[1]"], ["key[1]: must be an object, not 1"]),
        (
            "texts",
            ["a", 1, "b", None],
            ("a", "b"),
            ["key[1]: must be a string, not 1", "key[3]: must be a string, not null"],
        ),
        (
            "ips",
            ["x", "10.1.2.3", "::/129"],
            (parse_ip("10.1.2.3"),),
            ["key[0]: 'x' is no IP address", "key[2]: '::/129' is no address with a prefix length (as in ::/96)"],
        ),
    ],
)
def test_a_wrong_entry_of_a_list_is_named_by_its_place(
    kind: str, value: object, kept: object, problems: list[str]
) -> None:
    assert read(kind, {"key": value}) == (kept, problems)


@pytest.mark.parametrize("key", ["isGateway", "ISGATEWAY", "isgateway", "IsGateway"])
def test_keys_match_without_regard_to_case(key: str) -> None:
    fields = Fields({key: True}, "", [])
    assert fields.flag("isGateway")
    assert fields.has("isGateway")


def test_the_exact_key_goes_before_one_in_another_case() -> None:
    problems: list[str] = []
    fields = Fields({"MTU": 1, "mtu": 2, "Mtu": 3}, "", problems)
    assert fields.number("mtu", 0, 10) == 2
    assert problems == []


def test_problems_name_the_whole_path_and_none_stops_the_reading() -> None:
    problems: list[str] = []
    fields = Fields({"ipam": {"ranges": [{"subnet": 1}, 2], "dataDir": 3}, "mtu": "x"}, "", problems)
    ipam = fields.object("ipam")
    for entry in ipam.objects("ranges"):
        assert entry.cidr("subnet") is None
    assert ipam.text("dataDir") == ""
    assert fields.number("mtu", 0, 10) is None
    assert problems == [
        "ipam.ranges[1]: must be an object, not 2",
        "ipam.ranges[0].subnet: must be a string, not 1",
        "ipam.dataDir: must be a string, not 3",
        'mtu: must be a whole number, not "x"',
    ]


@pytest.mark.parametrize("document", [None, 1, "x", [], [{"key": 1}]])
def test_what_is_no_object_is_one_problem_and_reads_as_empty(document: object) -> None:
    problems: list[str] = []
    fields = Fields(document, "prevResult", problems)
    assert not fields.has("key")
    assert problems == [f"prevResult: must be an object, not {json.dumps(document)}"]


def test_a_long_value_is_shortened_to_one_line() -> None:
    assert shown("a\nb") == '"a\\nb"'
    text = shown(list(range(1000)))
    assert text.startswith("[0, 1, 2,")
    assert text.endswith("...")
    assert len(text) == 83


def test_a_value_that_is_nested_as_deep_as_python_goes_can_be_shown() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep)
    while deep:  # taken apart from the outside: an interpreter may not free such a thing in one go
        deep = deep.pop()
