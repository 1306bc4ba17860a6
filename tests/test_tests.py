"""The rules that the tests keep: what has one way of being made is made in tests/kit. Read with `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))
KIT = "tests/kit/"
VARIABLES = {f"CNI_{name}" for name in ("COMMAND", "CONTAINERID", "NETNS", "IFNAME", "PATH", "ARGS")}

# Who writes variables of a call beside the kit, and why. What stands here is laid over an environment of the kit's.
EXEMPT = {
    "tests/conformance/": "a sentence of the SPEC is about a variable, which its case gives or takes away by name",
    "tests/system/test_bad_input.py": "variables that are malformed",
    "tests/system/test_isolation.py": "variables that are no UTF-8",
    "tests/system/test_libcni.py": "CNI_PATH is a variable of libcni's client there",
}


def environments_in(text: str) -> Iterator[int]:
    """The lines with a dict that sets variables of a call, and has nothing underneath that they are laid over."""
    for node in ast.walk(ast.parse(text)) if "CNI_" in text else ():
        if isinstance(node, ast.Dict) and None not in node.keys:
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            keys = {keyword.arg for keyword in node.keywords} if not node.args else set()
        else:
            continue
        if keys & VARIABLES:
            yield node.lineno


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('env = {"CNI_COMMAND": "ADD"}', [1]),
        ('x = 1\nrun(env={"A": "b", "CNI_NETNS": netns})', [2]),
        ('dict(CNI_IFNAME="eth0")', [1]),
        ('{**call_environment("ADD"), "CNI_ARGS": "a"}', []),
        ('dict(env, CNI_ARGS="a")', []),
        ('env["CNI_COMMAND"] = "DEL"', []),
        ('{"CNI_COMMAND"}', []),
    ],
)
def test_an_environment_is_recognized(text: str, lines: list[int]) -> None:
    assert list(environments_in(text)) == lines


def test_the_environment_of_a_call_is_made_in_the_kit_alone() -> None:
    found = {file: list(environments_in((ROOT / file).read_text(encoding="utf-8"))) for file in TESTS}
    own = [f"{file}:{line}" for file, lines in found.items() for line in lines if not file.startswith((KIT, *EXEMPT))]
    assert own == [], "make them with tests/kit/calls.py"
    used = {start for start in EXEMPT if any(lines and file.startswith(start) for file, lines in found.items())}
    assert used == set(EXEMPT), "an exemption that nobody needs"
