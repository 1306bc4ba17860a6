"""The stamp of directories: every field of it counts, and a clock that stands still hides nothing."""

import os
from types import SimpleNamespace

import pytest

from cni_ipam.stamp import read_stamp, set_back

BEFORE = {"st_dev": 1, "st_ino": 2, "st_mtime_ns": 3, "st_ctime_ns": 4}


def stamp_of(monkeypatch: pytest.MonkeyPatch, **fields: int) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: SimpleNamespace(**{**BEFORE, **fields}))
        return read_stamp(0, 0)


@pytest.mark.parametrize(
    ("change", "is_one"),
    [
        ({"st_dev": 9}, True),
        ({"st_ino": 9}, True),
        ({"st_ctime_ns": 9}, True),
        ({"st_mtime_ns": 2}, True),
        ({"st_mtime_ns": 4}, False),  # a file was made, and the clock has not moved on since the stamp
        ({"st_mtime_ns": 9, "st_ctime_ns": 9}, False),
        ({"st_mtime_ns": 1, "st_ctime_ns": 1}, False),  # the clock was set back
    ],
    ids=str,
)
def test_any_field_makes_it_another_and_equal_times_make_none(
    change: dict[str, int], is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stamp_of(monkeypatch, **change)
    assert found != stamp_of(monkeypatch)
    assert bool(found) == is_one


def test_a_directory_has_one_from_set_back_until_something_is_made_in_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    paths = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")]
    directories = [os.open(path, os.O_RDONLY) for path in paths]
    assert read_stamp(*directories) == ""
    for path in paths:
        set_back(*directories)
        before = read_stamp(*directories)
        assert before == read_stamp(*directories) != ""
        (path / "file").touch()
        assert read_stamp(*directories) == ""
    for descriptor in directories:
        os.close(descriptor)
