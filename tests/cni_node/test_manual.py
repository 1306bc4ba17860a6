"""The manual page and what bash completes: both have every command and option, and mean something to their programs."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cni_node.__main__ import COMMANDS, all_parsers
from cni_node.manual import completion_of, manual_of
from tests.conftest import ROOT

BOUND = 60  # seconds
SHOW = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_pycni
printf '%s\\n' "${COMPREPLY[@]}"
"""


def page() -> str:
    """The manual page as man(1) shows it."""
    source = "\n".join(manual_of(all_parsers()))
    command = ("groff", "-man", "-Tascii", "-ww", "-P-cbou")
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=BOUND, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
@pytest.mark.kernel
def test_the_page_names_every_command_and_option_with_its_help() -> None:
    shown = page()
    text = " ".join(re.sub(r"-\n\s+", "-", shown).split())
    for name, parser in all_parsers().items():
        assert f"pycni {name}" in text
        for action in parser._actions:
            assert all(option in text for option in action.option_strings if option not in ("-h", "--help"))
    assert "a pod (NAMESPACE/NAME), container id" in text
    assert "Exit status: 0 passes, 1 stopped, 2 cannot tell." in text


def test_what_means_something_to_roff_is_only_text() -> None:
    parser = argparse.ArgumentParser(description=".so /etc/passwd")
    parser.add_argument("--odd", metavar="X", help="'tis a \\n(.x 100%%")
    lines = list(manual_of({"odd": parser}))
    assert r"\&.so /etc/passwd." in lines
    assert r"\(aqtis a \en(.x 100%." in lines


def test_the_lines_of_a_command() -> None:
    parser = argparse.ArgumentParser(description="Who reaches whom")
    parser.add_argument("source", metavar="A", help="who asks")
    parser.add_argument("service", metavar="PORT", nargs="?", help="which one")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--state", choices=["on", "off"], help="of it")
    lines = list(manual_of({"why": parser}))
    assert lines[0] == '.TH PYCNI 1 "" "pycni" "User Commands"'
    first = lines.index(".SH COMMANDS") + 1
    assert lines[first : lines.index(".SH FILES")] == [
        ".SS pycni why A [PORT]",
        "Who reaches whom.",
        *(".TP", r"\fIA\fR", "Who asks.", ".TP", r"\fI[PORT]\fR", "Which one."),
        *(".TP", r"\fB\-\-json\fR", "For programs.", ".TP", r"\fB\-\-state\fR \fIon|off\fR", "Of it."),
        ".PP",
        "Exit status: 0 passes, 1 stopped, 2 cannot tell.",
    ]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    made = tmp_path / "pycni.bash"
    made.write_text("\n".join(completion_of(all_parsers())) + "\n")
    return made


def completed(script: Path, *words: str, cwd: Path | None = None) -> list[str]:
    command = ("bash", "--norc", "-c", SHOW, "bash", str(script), "pycni", *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=True, cwd=cwd)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), list(COMMANDS)),
        (("do",), ["doctor"]),
        (("why", "--j"), ["--json"]),
        (("completion", ""), ["-h", "--help", "bash"]),
        (("inspect", "--svg", "fi"), ["file"]),
        (("inspect", "--results", "di"), ["dir"]),
        (("agent", "--policies", "re"), ["recheck"]),
        (("agent", "--node-name", ""), []),
        (("doctor", "--watch", "--j"), ["--json"]),
        (("nothing", ""), []),
    ],
)
def test_bash_completes(script: Path, tmp_path: Path, words: tuple[str, ...], expected: list[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    assert completed(script, *words, cwd=tmp_path) == expected


def test_the_program_prints_both() -> None:
    for words, begin in ((("manual",), ".TH PYCNI 1"), (("completion", "bash"), "# What bash completes")):
        command = (sys.executable, "-m", "cni_node", *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=True, cwd=ROOT)
        assert done.stdout.startswith(begin)
