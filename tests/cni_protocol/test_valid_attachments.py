"""The list of valid attachments that GC comes with."""

from typing import Any

import pytest

from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.valid_attachments import ValidAttachments, parse_valid_attachments
from tests.kit.calls import make_request

KEY, OLD_KEY = "cni.dev/valid-attachments", "cni.dev/attachments"
ONE = {"containerID": "c1", "ifname": "eth0"}
TWO = {"containerID": "c2", "ifname": "eth0"}


def parse(**keys: Any) -> ValidAttachments | None:
    return parse_valid_attachments(make_request({"cniVersion": "1.1.0", **keys}, "GC"))


@pytest.mark.parametrize(
    ("keys", "pairs"),
    [
        ({}, None),
        ({"cni.dev/other": []}, None),
        ({KEY: None}, set()),
        ({OLD_KEY: None}, set()),
        ({KEY: None, OLD_KEY: None}, set()),
        ({KEY: None, OLD_KEY: [TWO]}, {("c2", "eth0")}),
        ({"CNI.dev/valid-attachments": None}, set()),
        ({KEY: []}, set()),
        ({OLD_KEY: []}, set()),
        ({KEY: [ONE]}, {("c1", "eth0")}),
        ({OLD_KEY: [ONE]}, {("c1", "eth0")}),
        ({KEY: [ONE], OLD_KEY: [TWO]}, {("c1", "eth0"), ("c2", "eth0")}),
        ({KEY: [], OLD_KEY: [TWO]}, {("c2", "eth0")}),
        ({KEY: [ONE, ONE, TWO]}, {("c1", "eth0"), ("c2", "eth0")}),
        ({KEY: [{**ONE, "netns": 5}]}, {("c1", "eth0")}),
        ({KEY: [{"containerId": "c1", "ifName": "eth0"}]}, {("c1", "eth0")}),
        ({"Cni.Dev/Valid-Attachments": [ONE]}, {("c1", "eth0")}),
    ],
    ids=[
        *(
            "missing",
            "another-key",
            "null",
            "old-null",
            "both-null",
            "null-and-old",
            "null-case",
            "empty",
            "old-empty",
            "one",
            "old-one",
            "both",
            "empty-and-old",
            "twice",
        ),
        *("more-keys", "case", "case-of-the-key"),
    ],
)
def test_a_list_and_none_are_told_apart(keys: dict[str, Any], pairs: set[tuple[str, str]] | None) -> None:
    valid = parse(**keys)
    assert valid == (None if pairs is None else ValidAttachments(frozenset(pairs)))


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("x", "{key}: must be a list"),
        ({}, "{key}: must be a list"),
        (False, "{key}: must be a list"),
        ([5], "{key}[0]: must be an object, not 5"),
        ([None], "{key}[0]: must be an object, not null"),
        ([ONE, {}], "{key}[1]: must have containerID and ifname"),
        ([{"containerID": "c1"}], "{key}[0]: must have containerID and ifname"),
        ([{"ifname": "eth0"}], "{key}[0]: must have containerID and ifname"),
        ([{"containerID": "c1", "ifname": ""}], "{key}[0]: must have containerID and ifname"),
        ([{"containerID": 5, "ifname": "eth0"}], "{key}[0].containerID: must be a string, not 5"),
    ],
    ids=str,
)
def test_a_malformed_list_is_refused_whole(key: str, value: Any, problem: str) -> None:
    for other in ([ONE], []):
        with pytest.raises(CNIError) as caught:
            parse(**{KEY: other, OLD_KEY: other, key: value})
        assert caught.value.code == INVALID_CONFIG
        assert caught.value.msg.startswith("nothing was removed: ")
        assert problem.format(key=key) in caught.value.msg


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(CNIError) as caught:
        parse(**{KEY: [{}, ONE, 7], OLD_KEY: 5})
    assert [part in caught.value.msg for part in (f"{KEY}[0]", f"{KEY}[2]", f"{OLD_KEY}: ")] == [True] * 3
    assert f"{KEY}[1]" not in caught.value.msg
