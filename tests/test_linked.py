"""The linked modules of an installation: the same code as the sources, and what happens where they cannot be used."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import source_hash
from pathlib import Path
from types import CodeType

import pytest

from tests.kit.calls import bare_environment, call_environment
from tests.kit.linked import Linked, code_of, linked_file, read_linked

EXECUTABLES = ("cni-bridge", "cni-ipam")
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
CONFIG = '{"cniVersion": "1.1.0", "name": "mynet", "ipam": {"type": "cni-ipam"}}'
AGAIN = "run install.sh again"
CALL_BOUND = 60

INTERPRETER = ("/usr/bin/python3", "-ISBXutf8")
# an executable whose every look into a directory is told (Python's table of audit events)
LISTENING = """
import sys
sys.addaudithook(lambda event, args: event == "os.listdir" and print(*args, file=sys.stderr))
sys.argv = sys.argv[1:]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"))
"""

Answer = subprocess.CompletedProcess[str]


@pytest.fixture
def copy(bin_dir: str, tmp_path: Path) -> str:
    """A directory with the executables of an installation that may be damaged."""
    code = code_of(bin_dir)
    shutil.copytree(code, tmp_path / "code", ignore=shutil.ignore_patterns("pyroute2*", "cni_node"))
    for name in EXECUTABLES:
        target = tmp_path / name
        target.write_text(Path(bin_dir, name).read_text().replace(code, str(tmp_path / "code")))
        target.chmod(0o755)
    return str(tmp_path)


def call(bin_dir: str, command: str, executable: str = "cni-bridge") -> Answer:
    """A call that is answered without root: a configuration that lacks its ranges, or the versions."""
    return subprocess.run(
        [f"{bin_dir}/{executable}"],
        env=call_environment(command, path=[bin_dir]),
        input=CONFIG,
        capture_output=True,
        text=True,
        timeout=CALL_BOUND,
        check=False,
    )


@pytest.fixture(scope="module")
def linked(bin_dir: str) -> dict[tuple[str, str], Linked]:
    pairs = [(executable, command) for executable in EXECUTABLES for command in COMMANDS]
    return {pair: read_linked(linked_file(bin_dir, *pair)) for pair in pairs}


def functions_in(code: CodeType) -> Iterator[tuple[str, str, int]]:
    """Name, file and first line of all code in a module."""
    yield code.co_qualname, code.co_filename, code.co_firstlineno
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions_in(constant)


def test_linked_code_has_the_names_files_and_lines_of_the_sources(
    linked: dict[tuple[str, str], Linked], bin_dir: str
) -> None:
    found = {name: code for each in linked.values() for name, code in {**each.always, **each.late}.items()}
    assert {"cni_bridge.commands", "cni_bridge.sync", "cni_ipam.store", "cni_ipam.peek"} <= set(found)
    for name, code in found.items():
        base = Path(code_of(bin_dir)).joinpath(*name.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        plain = set(functions_in(compile(path.read_bytes(), str(path), "exec")))
        assert set(functions_in(code)) <= plain, name
        if "TYPE_CHECKING" not in path.read_text():
            assert set(functions_in(code)) == plain, name


def test_packages_come_before_what_they_hold(linked: dict[tuple[str, str], Linked]) -> None:
    for each in linked.values():
        seen = set[str]()
        for name in each.always:
            assert name.rpartition(".")[0] in {"", *seen}
            seen.add(name)
        assert not seen & set(each.late)


@pytest.mark.parametrize("executable", EXECUTABLES)
def test_a_command_that_there_is_none_of_gets_no_word_about_files(bin_dir: str, executable: str) -> None:
    for command in ("", "NONSENSE", "../../../../etc/passwd", "\udcff"):
        answer = call(bin_dir, command, executable)
        assert (answer.returncode, answer.stderr) == (1, "")


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * share)] ^= 1
    path.write_bytes(data)


def of_another_python(path: Path) -> None:
    """The first digest as an interpreter with another magic number makes it."""
    import _imp

    data = path.read_bytes()
    first = data[12 : 12 + int.from_bytes(data[8:12], "little")]
    other = _imp.source_hash(1, first)
    assert other != source_hash(first)
    path.write_bytes(other + data[8:])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": remove,
    "empty": lambda path: cut(path, 0),
    "cut in the head": lambda path: cut(path, 1e-5),
    **{f"cut at {share}": lambda path, share=share: cut(path, share) for share in (0.01, 0.5, 0.999)},  # type: ignore[misc]
    **{f"flipped at {share}": lambda path, share=share: flip(path, share) for share in (0, 0.01, 0.4, 1)},  # type: ignore[misc]
    "of another Python": of_another_python,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_where_the_file_cannot_be_used_the_answer_is_the_same_with_a_note(
    copy: str, damage: Callable[[Path], None]
) -> None:
    whole = call(copy, "ADD")
    assert (whole.returncode, whole.stderr) == (1, "")
    assert '"code": 4' in whole.stdout
    damage(linked_file(copy, "cni-bridge", "ADD"))
    answer = call(copy, "ADD")
    assert (answer.returncode, answer.stdout) == (whole.returncode, whole.stdout)
    (note,) = answer.stderr.splitlines()
    assert note.startswith("cni-bridge: it starts more slowly than it could (")
    assert AGAIN in note
    assert call(copy, "CHECK").stderr == "", "the other commands have files of their own"


LOAD = """
import os, sys
sys.path.insert(0, sys.argv[1])
import cni_protocol.linked as loader, marshal
before = set(sys.modules), set(dir(sys.modules["cni_protocol"])), list(sys.meta_path)
file = os.open(sys.argv[2], os.O_RDONLY)
first = os.read(file, int.from_bytes(os.read(file, 12)[8:], "little"))
try:
    loader.load(file, marshal.loads(first)[1], sys.argv[1])
except ImportError:
    ours = {name for name in sys.modules if name.startswith("cni_")}
    print(ours <= before[0], set(dir(sys.modules["cni_protocol"])) == before[1], sys.meta_path == before[2])
"""


def test_nothing_stays_of_a_file_that_is_damaged_at_its_end(copy: str) -> None:
    """Beside a part of it a module imported as ever would be there twice, its exceptions too."""
    path = linked_file(copy, "cni-bridge", "ADD")
    flip(path, 1)
    command = ["/usr/bin/python3", "-ISB", "-c", LOAD, code_of(copy), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_BOUND, check=True)
    assert done.stdout.split() == ["True"] * 3


FAIL = """
from cni_bridge import commands
import traceback
try:
    commands.add(None)
except Exception:
    traceback.print_exc()
"""


@pytest.mark.parametrize("command", ["VERSION", "ADD"])
def test_no_directory_is_searched_for_modules(bin_dir: str, command: str) -> None:
    done = subprocess.run(
        [*INTERPRETER, "-c", LISTENING, f"{bin_dir}/cni-bridge"],
        env=call_environment(command, path=[bin_dir]),
        input=CONFIG,
        capture_output=True,
        text=True,
        timeout=CALL_BOUND,
        check=False,
    )
    assert '"supportedVersions"' in done.stdout or '"code"' in done.stdout
    assert done.stderr == ""


def test_a_traceback_shows_the_lines_of_the_sources(bin_dir: str) -> None:
    program = Path(bin_dir, "cni-bridge").read_text().partition("posix._exit(main())")[0] + FAIL
    command = ["/usr/bin/python3", "-ISB", "-c", program]
    done = subprocess.run(
        command, env=bare_environment("ADD"), capture_output=True, text=True, timeout=CALL_BOUND, check=True
    )
    path = Path(code_of(bin_dir), "cni_bridge", "commands.py")
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if line == "    config = parse_config(request)")
    assert f'File "{path}", line {number}, in add\n{lines[number - 1]}\n' in done.stderr


def test_the_interpreter_of_the_tests_is_the_one_of_the_installation() -> None:
    """Else the other tests here could not read its files."""
    magic = "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"
    told = [subprocess.check_output([python, "-Ic", magic]) for python in ("/usr/bin/python3", sys.executable)]
    assert told[0] == told[1]
