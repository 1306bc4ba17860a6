"""Modules that are run out of a file, made up here; tests/test_linked.py has those of an installation."""

import importlib
import marshal
import os
import posix
import sys
from collections.abc import Callable, Iterator
from importlib.util import source_hash
from pathlib import Path
from typing import Any

import pytest

from cni_protocol.linked import COMMANDS, explain, load

SOON = {
    "toy": (True, "value = 7"),
    "toy.leaf": (False, "from toy import value\nname = __name__\npackage = __package__"),
}
LATE = {"toy.late": (True, "name = __name__"), "toy.alone": (False, "name = __name__")}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Has the modules above loaded; `damage` changes the bytes of the file."""
    code = tmp_path / "code"
    (code / "toy/late").mkdir(parents=True)
    (code / "toy/late/below.py").write_text("name = __name__")
    (code / "toy/plain.py").write_text("name = __name__")
    before = list(sys.meta_path)

    def compiled(name: str, text: str) -> Any:
        return compile(text, f"{code}/{name}.py", "exec")

    def loaded(damage: Callable[[bytes], bytes] = bytes) -> None:
        soon = marshal.dumps([(name, package, compiled(name, text)) for name, (package, text) in SOON.items()])
        late = {name: (package, marshal.dumps(compiled(name, text))) for name, (package, text) in LATE.items()}
        pieces = [soon, marshal.dumps(late)]
        path = tmp_path / "file"
        path.write_bytes(damage(b"".join(pieces)))
        load(os.open(path, os.O_RDONLY), [(source_hash(piece), len(piece)) for piece in pieces], str(code))

    yield loaded
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


def modules() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] == "toy"}


def test_modules_are_there_as_if_they_had_been_imported(run: Callable[..., None], tmp_path: Path) -> None:
    descriptors = os.listdir("/proc/self/fd")
    run()
    assert os.listdir("/proc/self/fd") == descriptors
    assert modules() == {"toy", "toy.leaf"}
    toy, leaf = sys.modules["toy"], sys.modules["toy.leaf"]
    assert (toy.value, toy.leaf, toy.__package__, list(toy.__path__)) == (7, leaf, "toy", [f"{tmp_path}/code/toy"])
    assert (leaf.value, leaf.name, leaf.package) == (7, "toy.leaf", "toy")
    assert leaf.__file__ == f"{tmp_path}/code/toy.leaf.py"


def test_the_rest_is_imported_when_it_is_asked_for(run: Callable[..., None], tmp_path: Path) -> None:
    run()
    for name in ("toy.late", "toy.alone", "toy.plain", "toy.late.below"):
        assert importlib.import_module(name).name == name
    assert list(sys.modules["toy.late"].__path__) == [f"{tmp_path}/code/toy/late"]
    assert sys.modules["toy.alone"].__file__ == f"{tmp_path}/code/toy.alone.py"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("toy.none")


def test_a_module_that_is_there_stays(run: Callable[..., None]) -> None:
    there = sys.modules["toy.leaf"] = type(sys)("toy.leaf")
    run()
    assert sys.modules["toy.leaf"] is there


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_of_a_damaged_file_nothing_stays(run: Callable[..., None], place: int) -> None:
    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[place] ^= 1
        return bytes(changed)

    before = list(sys.meta_path)
    with pytest.raises(ImportError, match="the file of its linked modules is damaged"):
        run(flip)
    assert (modules(), sys.meta_path) == (set(), before)


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "OTHER", None])
def test_who_asks_for_a_command_is_told_why_it_is_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str | None
) -> None:
    monkeypatch.setattr(posix, "environ", {b"CNI_COMMAND": command.encode()} if command is not None else {})
    explain("cni-bridge", ImportError("it is damaged"))
    said = "cni-bridge: it starts more slowly than it could (it is damaged); run install.sh again\n"
    assert tuple(capsys.readouterr()) == ("", said if command in COMMANDS else "")
    assert len(COMMANDS) == 6
    assert (command in COMMANDS) == bool(command and command != "OTHER")
