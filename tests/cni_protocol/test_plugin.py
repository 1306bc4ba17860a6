"""The main() of both plugins: whatever comes in, one JSON document goes out and the exit status is right."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from cni_protocol.errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INTERNAL,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    TRY_AGAIN_LATER,
    CNIError,
    Interrupted,
)
from cni_protocol.plugin import Plugin, answer
from cni_protocol.version import SUPPORTED
from tests.cni_protocol.toys import echo, fail
from tests.kit.calls import bare_environment, call_environment
from tests.kit.host import wait_until

ROOT = str(Path(__file__).resolve().parents[2])
ADD = call_environment("ADD")
DUMMY = call_environment("VERSION", "", "dummy", "dummy", path=["dummy"])  # what podman sends


def call(function: Any, stdin: bytes, env: dict[str, str] = ADD) -> tuple[int, Any]:
    """Exit status, and the one document on stdout."""
    status, output = answer(Plugin("toy", "plays", {"ADD": function, "DEL": function}), env, lambda: stdin)
    assert output.endswith(b"\n")
    return status, json.loads(output.decode("ascii"))


def config(**keys: Any) -> bytes:
    return json.dumps({"cniVersion": "0.4.0", "name": "mynet", **keys}).encode()


def test_a_command_is_given_the_request_and_its_answer_is_printed() -> None:
    status, document = call(echo, config(x="ü😀"))
    assert status == 0
    assert document == {"command": "ADD", "config": {"cniVersion": "0.4.0", "name": "mynet", "x": "ü😀"}}


def test_no_answer_is_no_output() -> None:
    assert answer(Plugin("toy", "plays", {"ADD": lambda _: None}), ADD, lambda: config()) == (0, b"")


def test_an_error_becomes_the_error_object_of_the_specification() -> None:
    error = CNIError(103, "it is ü\ud800", "more\nof it")
    assert call(fail(error), config()) == (
        1,
        {"cniVersion": "0.4.0", "code": 103, "msg": "it is ü\ud800", "details": "more\nof it"},
    )


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (7, ""),
        (11, ""),
        (102, ""),
        *((code, "pycni doctor on this node tells more") for code in (50, 51, 100, 101, 103)),
    ],
)
def test_an_error_of_the_node_points_at_what_tells_more(code: int, details: str) -> None:
    assert call(fail(CNIError(code, "so it is")), config())[1]["details"] == details


@pytest.mark.parametrize(
    "error",
    [KeyError("k"), OSError(28, "No space left on device"), RecursionError(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_the_unforeseen_becomes_an_error_object_too(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    status, document = call(fail(error), config())
    assert status == 1
    assert (document["cniVersion"], document["code"]) == ("0.4.0", INTERNAL)
    assert document["msg"] == f"unforeseen failure of toy: {error!r}"
    assert "Traceback" in document["details"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Traceback")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_interruption_becomes_an_error_object_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, document = call(fail(Interrupted(name)), config())
    assert (status, document["code"], document["cniVersion"]) == (1, TRY_AGAIN_LATER, "0.4.0")
    assert document["msg"] == f"ended by {name}; what was begun is undone"
    assert capsys.readouterr() == ("", "")


def test_an_interruption_is_no_failure_that_somebody_goes_on_from() -> None:
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize("version", SUPPORTED)
def test_an_error_has_the_version_of_the_configuration(version: str) -> None:
    assert call(fail(CNIError(7, "")), config(cniVersion=version))[1]["cniVersion"] == version


@pytest.mark.parametrize(
    ("stdin", "code", "version"),
    [
        (b'{"name": "mynet"}', 7, "0.1.0"),
        (b'{"name": "mynet", "cniVersion": ""}', 7, "0.1.0"),
        (b'{"name": "mynet", "cniVersion": "3.0.0"}', INCOMPATIBLE_VERSION, "1.1.0"),
        (b'{"name": "mynet", "cniVersion": 1}', INVALID_CONFIG, "1.1.0"),
        (b'{"name": "mynet", "cniVersion": NaN}', DECODING_FAILURE, "1.1.0"),
        (b'{"name": "mynet", "cniVersion": "0.4.0", "x": -Infinity}', DECODING_FAILURE, "1.1.0"),
        (b'{"name": "mynet", "cniVersion": "0.4.0", "x": 1e999}', DECODING_FAILURE, "1.1.0"),
        (b'{"name": "mynet", "cniVersion": "0.4.0", "x": "\\ud800"}', DECODING_FAILURE, "1.1.0"),
        ('{"name": "mynet", "cniVersion": "0.4.0"}'.encode("utf-16"), DECODING_FAILURE, "1.1.0"),
        ('{"name": "mynet", "cniVersion": "0.4.0"}'.encode("utf-8-sig"), DECODING_FAILURE, "1.1.0"),
        (b'{"name": "mynet", "cniVersion": ["0.4.0"]}', INVALID_CONFIG, "1.1.0"),
        (b'{"name": ".", "cniVersion": "0.4.0"}', INVALID_CONFIG, "0.4.0"),
        (b"", DECODING_FAILURE, "1.1.0"),
        (b"{", DECODING_FAILURE, "1.1.0"),
        (b"[]", DECODING_FAILURE, "1.1.0"),
        (b"\xff\xff", DECODING_FAILURE, "1.1.0"),
        (b"[" * 200_000, DECODING_FAILURE, "1.1.0"),
        (b'{"mtu": ' + b"1" * 5000 + b"}", DECODING_FAILURE, "1.1.0"),
    ],
    ids=[
        "no-version",
        "empty-version",
        "unknown-version",
        "number",
        "nan",
        "infinity",
        "huge-float",
        "half-a-pair",
        "utf-16",
        "bom",
        "list",
        "bad-name",
        "empty",
        "cut-off",
        "no-object",
        "no-utf-8",
        "deep",
        "huge-int",
    ],
)
def test_bad_stdin_is_an_error_object_in_a_version_that_exists(stdin: bytes, code: int, version: str) -> None:
    status, document = call(fail(CNIError(7, "")), stdin)
    assert (status, document["code"], document["cniVersion"]) == (1, code, version)
    assert list(document) == ["cniVersion", "code", "msg", "details"]


def test_a_wrong_environment_is_told_in_the_version_of_the_configuration() -> None:
    status, document = call(echo, config(), bare_environment("ADD"))
    assert (status, document["code"], document["cniVersion"]) == (1, INVALID_ENVIRONMENT, "0.4.0")


@pytest.mark.parametrize("command", ["CHECK", "STATUS", "GC"])
def test_a_command_that_the_plugin_lacks_is_named(command: str) -> None:
    status, document = call(echo, config(cniVersion="1.1.0"), call_environment(command))
    assert (status, document["code"]) == (1, INVALID_ENVIRONMENT)
    assert document["msg"] == f"CNI_COMMAND={command} is not implemented by toy"


@pytest.mark.parametrize(
    "env", [bare_environment("VERSION"), call_environment("VERSION"), DUMMY], ids=["bare", "attachment", "dummy"]
)
@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b"", "1.1.0"),
        (b" \n", "1.1.0"),
        (b"{}", "1.1.0"),
        (b'{"cniVersion": "0.2.0"}', "0.2.0"),
        (b'{"cniVersion": "7.0.0", "name": 5}', "7.0.0"),
        (b'{"cniVersion": null}', "1.1.0"),
    ],
)
def test_version_needs_nothing_but_its_name(env: dict[str, str], stdin: bytes, version: str) -> None:
    expected = {"cniVersion": version, "supportedVersions": list(SUPPORTED)}
    assert call(fail(AssertionError()), stdin, env) == (0, expected)


@pytest.mark.parametrize("stdin", [b"{", b"[]", b"1", b"\xff", b"[" * 200_000])
def test_version_with_a_stdin_that_is_no_object_is_refused(stdin: bytes) -> None:
    status, document = call(echo, stdin, bare_environment("VERSION"))
    assert (status, document["code"], document["cniVersion"]) == (1, DECODING_FAILURE, "1.1.0")


def read() -> bytes:
    """A stdin that cannot be read."""
    raise CNIError(IO_FAILURE, "stdin cannot be read")


def test_a_stdin_that_cannot_be_read_is_an_error_object() -> None:
    status, output = answer(Plugin("toy", "plays", {}), ADD, read)
    assert status == 1
    assert json.loads(output) == {"cniVersion": "1.1.0", "code": 5, "msg": "stdin cannot be read", "details": ""}


def test_version_does_without_a_stdin_that_cannot_be_read() -> None:
    status, output = answer(Plugin("toy", "plays", {}), bare_environment("VERSION"), read)
    assert (status, json.loads(output)) == (0, {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)})


# The whole process: main() with its real descriptors.

MAIN = f"""
import sys
import termios
sys.path.insert(0, {ROOT!r})
from cni_protocol import plugin
from tests.cni_protocol.toys import echo, fail, talk, wait_and_undo
plugin.STDIN_SECONDS, plugin.STDIN_BOUND = 0.3, 100_000
commands = {{"ADD": echo, "DEL": lambda request: None, "CHECK": fail(KeyError("k"))}}
commands |= {{"GC": wait_and_undo, "STATUS": talk}}
sys.exit(plugin.main(plugin.Plugin("toy", "plays", commands)))
"""


def run(
    *arguments: str, env: dict[str, str] = ADD, shell: str = "", **options: Any
) -> "subprocess.CompletedProcess[bytes]":
    """Run main() in a process of its own; `shell` holds redirections such as `2>&-`."""
    command = [sys.executable, "-c", MAIN, *arguments]
    if shell:
        command = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 20, **options}
    return subprocess.run(command, env=env, check=False, **options)


def test_main_reads_a_configuration_and_prints_one_document() -> None:
    result = run(input=config(x="y" * 90_000))
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(result.stdout)["config"]["x"] == "y" * 90_000


@pytest.mark.parametrize("shell", ["<&-", "</dev/null", "0>/dev/null", "<&- 2>&-"])
def test_version_is_answered_whatever_stdin_is(shell: str) -> None:
    result = run(env=bare_environment("VERSION"), shell=shell)
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(result.stdout) == {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)}


def test_version_on_a_terminal_waits_for_nothing() -> None:
    terminal, stdin = os.openpty()
    try:
        result = run(env=bare_environment("VERSION"), stdin=stdin)
    finally:
        os.close(terminal)
        os.close(stdin)
    assert (result.returncode, json.loads(result.stdout)["cniVersion"]) == (0, "1.1.0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_cut_an_answer_short(number: int) -> None:
    # an answer that is larger than a pipe is being written for as long as nobody reads it
    with subprocess.Popen(
        [sys.executable, "-c", MAIN], env=ADD, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        process.stdin.write(config(x="y" * 90_000))
        process.stdin.close()
        assert wait_until(lambda: waiting_bytes(process.stdout) == 4096)
        process.send_signal(number)
        output = process.stdout.read()
        assert process.wait(timeout=20) == 0
    assert json.loads(output)["config"]["x"] == "y" * 90_000


def waiting_bytes(pipe: Any) -> int:
    """How many bytes wait in a pipe to be read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_main_without_an_answer_prints_nothing() -> None:
    result = run(input=config(), env=call_environment("DEL"))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.parametrize("shell", ["", "2>&-", "2>/dev/full"], ids=["stderr-open", "stderr-closed", "stderr-full"])
def test_main_prints_an_error_object_and_nothing_else(shell: str) -> None:
    result = run(input=config(), env=call_environment("CHECK"), shell=shell)
    assert result.returncode != 0
    assert json.loads(result.stdout)["code"] == INTERNAL
    assert result.stderr.startswith(b"" if shell else b"Traceback")


def test_a_stdin_in_pieces_is_read_to_its_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAIN], env=ADD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        for byte in config():
            process.stdin.write(bytes([byte]))
        output, _ = process.communicate(timeout=20)
    assert json.loads(output)["command"] == "ADD"


def test_a_stdin_without_end_is_given_up() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b'{"cniVersion": "1.0.0",')
        result = run(stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert result.returncode == 1
    assert json.loads(result.stdout)["code"] == IO_FAILURE
    assert "stdin did not end" in json.loads(result.stdout)["msg"]


@pytest.mark.parametrize(
    ("shell", "said"),
    [("<&-", "stdin cannot be read"), ("< /dev/zero", "is larger than 100000 bytes")],
    ids=["closed", "endless"],
)
def test_a_stdin_that_is_no_use_is_told(shell: str, said: str) -> None:
    result = run(shell=shell)
    document = json.loads(result.stdout)
    assert (result.returncode, document["code"], result.stderr) == (1, IO_FAILURE, b"")
    assert said in document["msg"]


def test_from_a_terminal_without_a_command_nobody_waits_for_stdin() -> None:
    master, terminal = pty.openpty()
    try:
        result = run(env={}, stdin=terminal)
    finally:
        os.close(master)
        os.close(terminal)
    assert json.loads(result.stdout)["code"] == INVALID_ENVIRONMENT
    assert "CNI_COMMAND is not set" in json.loads(result.stdout)["msg"]


def test_from_a_terminal_with_a_command_a_configuration_may_be_typed() -> None:
    master, terminal = pty.openpty()
    try:
        os.write(master, config() + b"\n\x04")
        result = run(stdin=terminal)
    finally:
        os.close(master)
        os.close(terminal)
    assert (result.returncode, json.loads(result.stdout)["command"]) == (0, "ADD")


def test_help_goes_to_stdout_and_an_unknown_option_to_stderr() -> None:
    known, unknown = run("--help", env={}), run("--halp", env={})
    assert (known.returncode, known.stderr) == (0, b"")
    assert (unknown.returncode, unknown.stdout) == (2, b"")
    for text in (known.stdout, unknown.stderr):
        assert text.startswith(b"toy: plays\n")
        assert b"ADD, DEL, CHECK, GC, STATUS, VERSION" in text
        assert text.endswith(b"this text\n")


# Signals, and a stderr that is no use


NEWEST_CONFIG = config(cniVersion="1.1.0")


@pytest.mark.parametrize("blocked", [False, True], ids=["alone", "with-another-signal"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_undoes_and_answers_and_a_second_one_does_not_disturb(
    number: signal.Signals, blocked: bool, tmp_path: Path
) -> None:
    stdin = tmp_path / "stdin"
    stdin.write_bytes(NEWEST_CONFIG)
    reader, writer = os.pipe()
    script = MAIN.replace("sys.exit(", f"plugin._read_stdin = lambda env: open({str(stdin)!r}, 'rb').read(); sys.exit(")
    with (
        open(reader, "rb") as stdin_pipe,
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=call_environment("GC"),
            stdin=stdin_pipe,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == b"begun\n"
        process.send_signal(number)
        assert process.stderr.readline() == b"undoing\n"
        if blocked:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        os.write(writer, b"x")
        os.close(writer)
        document = json.loads(process.stdout.read())
        assert process.stderr.read() == b"undone\n"
        assert process.wait(10) == 1
    assert document == {
        "cniVersion": "1.1.0",
        "code": TRY_AGAIN_LATER,
        "msg": f"ended by {number.name}; what was begun is undone",
        "details": "",
    }


def test_a_signal_while_stdin_is_awaited_is_answered_too() -> None:
    reader, writer = os.pipe()
    script = MAIN.replace("0.3", "20").replace(
        "sys.exit(", "plugin.select.poll = announce(plugin.select.poll); sys.exit("
    )
    script = script.replace("commands =", "from tests.cni_protocol.toys import announce\ncommands =")
    with (
        open(reader, "rb") as stdin,
        open(writer, "wb"),
        subprocess.Popen(
            [sys.executable, "-c", script], env=ADD, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline() == b"waiting\n"
        process.terminate()
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert json.loads(output)["code"] == TRY_AGAIN_LATER


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
def test_what_cannot_be_said_on_stderr_disturbs_nothing(shell: str) -> None:
    result = run(input=NEWEST_CONFIG, env=call_environment("STATUS"), shell=shell)
    assert result.returncode == 0
    assert json.loads(result.stdout)["descriptor"] > 2  # a file that a warning would be written into otherwise


def test_a_stderr_whose_reader_has_gone_disturbs_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run(input=NEWEST_CONFIG, env=call_environment("STATUS"), stderr=writer)
    finally:
        os.close(writer)
    assert (result.returncode, list(json.loads(result.stdout))) == (0, ["descriptor"])
