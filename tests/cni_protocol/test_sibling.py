"""Running the other plugin of the same installation within the process."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_ipam.__main__ import PLUGIN as IPAM
from cni_protocol.errors import CNIError
from cni_protocol.plugin import Plugin, interrupt
from cni_protocol.request import Request
from cni_protocol.sibling import find_sibling, run_sibling
from tests.kit.calls import call_environment

TEXT = "#!/usr/bin/python3 -I\n# cni-bridge\nfrom cni_bridge.__main__ import main\n"


@pytest.fixture
def ours(tmp_path: Path, mocker: MockerFixture) -> Path:
    """The executable that the process was started from."""
    (tmp_path / "cni-bridge").write_text(TEXT)
    mocker.patch.object(sys, "argv", [str(tmp_path / "cni-bridge")])
    return tmp_path


def beside(ours: Path, text: str, name: str = "cni-ipam") -> str:
    (ours / name).write_text(text)
    return str(ours / name)


def test_an_executable_that_differs_in_the_name_alone_is_of_our_installation(ours: Path) -> None:
    text = TEXT.replace("bridge", "ipam")
    assert find_sibling(beside(ours, text)) is IPAM
    (ours / "elsewhere").mkdir()
    assert find_sibling(beside(ours / "elsewhere", text)) is IPAM


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TEXT.replace("bridge", "ipam") + "\n", "cni-ipam"),
        (TEXT, "cni-ipam"),
        ("#!/bin/sh\n", "cni-ipam"),
        ("", "cni-ipam"),
        (TEXT.replace("bridge", "ipam").replace("-I", "-O"), "cni-ipam"),
        (TEXT.replace("bridge", "ipam"), "host-local"),
        (TEXT, "cni-bridge"),
    ],
    ids=["a line more", "ours itself", "a script", "empty", "another interpreter", "another name", "the same plugin"],
)
def test_any_other_executable_is_run(ours: Path, text: str, name: str) -> None:
    assert find_sibling(beside(ours, text, name)) is None


def test_what_cannot_be_read_is_run(ours: Path) -> None:
    assert find_sibling(str(ours / "missing")) is None
    assert find_sibling(str(ours)) is None
    path = beside(ours, TEXT.replace("bridge", "ipam"))
    (ours / "cni-bridge").unlink()
    assert find_sibling(path) is None


def test_a_program_that_is_no_plugin_has_no_sibling(ours: Path, mocker: MockerFixture) -> None:
    beside(ours, "import pytest", "pytest")
    mocker.patch.object(sys, "argv", [str(ours / "pytest")])
    assert find_sibling(beside(ours, "import cni-ipam")) is None


def plugin(function: Any) -> Plugin:
    return Plugin("cni-test", "for tests", {"ADD": function})


ENV = call_environment("ADD", X="y")
STDIN = b'{"cniVersion": "1.0.0", "name": "mynet"}'


def test_it_gets_environment_and_stdin_and_gives_status_and_stdout() -> None:
    seen: list[Request] = []

    def add(request: Request) -> dict[str, Any]:
        seen.append(request)
        return {"ok": True}

    assert run_sibling(plugin(add), ENV, STDIN) == (0, b'{\n    "ok": true\n}\n')
    assert (seen[0].env, seen[0].stdin) == (ENV, STDIN)


def test_its_error_is_its_output() -> None:
    def add(_: Request) -> None:
        raise CNIError(101, "no address")

    status, output = run_sibling(plugin(add), ENV, STDIN)
    assert status == 1
    assert b'"code": 101' in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_it_and_only_once(number: signal.Signals) -> None:
    def add(request: Request) -> None:
        request.finish_uninterrupted()  # of its own result, not of ours
        signal.pthread_kill(threading.get_ident(), number)  # a plugin has one thread; the test's process more

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        status, output = run_sibling(plugin(add), ENV, STDIN)
        assert (status, number.name.encode() in output, b'"code": 11' in output) == (1, True, True)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_afterwards_a_signal_interrupts_us_again() -> None:
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        run_sibling(plugin(lambda request: request.finish_uninterrupted()), ENV, STDIN)
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
