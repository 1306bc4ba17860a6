"""Keys that nobody asked for: what counts as one, and what is made of it."""

from typing import Any

import pytest

from cni_protocol.errors import UNSUPPORTED_FIELD, CNIError
from cni_protocol.fields import Fields
from cni_protocol.typos import check_keys


def examined(document: Any) -> list[Fields]:
    """A document of which `name`, `mtu`, and `range.start` have been read."""
    fields = Fields(document, "", [])
    fields.text("name")
    fields.number("mtu", 0, 10)
    inner = fields.object("range")
    inner.text("start")
    return [fields, inner]


@pytest.mark.parametrize(
    ("document", "unknown"),
    [
        ({}, {}),
        ({"name": "x", "mtu": 5}, {}),
        ({"NAME": "x", "Mtu": None}, {}),
        ({"name": 5, "mtu": "wrong"}, {}),
        ({"nmae": "x"}, {"nmae": ""}),
        ({"names": "x"}, {"names": "name"}),
        ({"mtuu": 5, "MTUS": 5}, {"mtuu": "mtu", "MTUS": "mtu"}),
        ({"other": {}, "cni.dev/other": 1, "a/": 2}, {"other": ""}),
        ({"": 1}, {"": ""}),
        ([], {}),
    ],
    ids=str,
)
def test_what_nobody_asked_for_is_unknown(document: Any, unknown: dict[str, str]) -> None:
    assert examined(document)[0].unknown() == unknown


def test_only_a_likely_typo_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    check_keys("toy", False, examined({"names": "x", "other": 1, "range": {"strat": 1, "sart": 2, "rest": 3}}))
    assert capsys.readouterr() == (
        "",
        "toy: names is not known; did you mean 'name'?\n"
        "toy: range.strat is not known; did you mean 'start'?\n"
        "toy: range.sart is not known; did you mean 'start'?\n",
    )


def test_strict_names_all_with_their_values_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CNIError) as caught:
        check_keys("toy", True, examined({"names": "x", "other": [1], "range": {"rest": "y" * 100}, "a/b": 1}))
    assert caught.value.code == UNSUPPORTED_FIELD
    assert caught.value.msg == (
        "unsupported keys in a strict configuration: names=\"x\" is not known; did you mean 'name'?; "
        f'other=[1] is not known; range.rest="{"y" * 79}... is not known'
    )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("strict", [True, False])
def test_known_keys_are_no_matter(strict: bool, capsys: pytest.CaptureFixture[str]) -> None:
    check_keys("toy", strict, examined({"name": "x", "mtu": 1, "range": {"Start": "y"}, "example.com/x": 1}))
    assert capsys.readouterr() == ("", "")


def test_objects_are_the_same_every_time() -> None:
    fields = Fields({"a": {"x": 1}, "b": [{"y": 2}, {}]}, "", [])
    assert fields.object("a") is fields.object("a")
    assert [a is b for a, b in zip(fields.objects("b"), fields.objects("b"), strict=True)] == [True, True]
    fields.object("a").raw("x")
    assert fields.object("a").unknown() == {}


def test_a_wrong_object_is_one_problem_however_often_it_is_read() -> None:
    problems: list[str] = []
    fields = Fields({"a": 5, "b": [1]}, "", problems)
    for _ in range(2):
        fields.object("a")
        fields.objects("b")
    assert problems == ["a: must be an object, not 5", "b[0]: must be an object, not 1"]
