"""Running another plugin: real little executables, found in CNI_PATH and kept within their bounds."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_protocol import delegate
from cni_protocol.delegate import find_plugin, run_plugin
from cni_protocol.errors import (
    DELEGATE_FAILED,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    TRY_AGAIN_LATER,
    CNIError,
    Interrupted,
)
from cni_protocol.request import Request
from tests.kit.calls import call_environment, make_request

ROOT = str(Path(__file__).resolve().parents[2])
SHORT = 0.3  # seconds; RUN_BOUND of tests in which it is reached


@pytest.fixture
def request_to(tmp_path: Path) -> Request:
    """A request whose CNI_PATH is the test's directory."""
    return make_request({}, path=[str(tmp_path)])


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def put_plugin(directory: Path, script: str, *, name: str = "ipam", mode: int = 0o755) -> Path:
    """A shell script as a plugin."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return path


def failure_of(request: Request, command: str = "ADD") -> CNIError:
    with pytest.raises(CNIError) as caught:
        run_plugin("ipam", command, request)
    return caught.value


def is_gone(pid_file: Path) -> bool:
    """Whether the process that a script named by `echo $$` has ended and was collected."""
    return not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_the_first_executable_in_the_order_of_the_path_is_taken(tmp_path: Path) -> None:
    put_plugin(tmp_path / "no-permission", "", mode=0o644)
    (tmp_path / "directory" / "ipam").mkdir(parents=True)
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "ipam").symlink_to("nowhere")
    first, second = put_plugin(tmp_path / "a", ""), put_plugin(tmp_path / "b", "")
    names = ("missing", "no-permission", "directory", "dangling")
    useless = ":".join(str(tmp_path / name) for name in names)
    for path, expected in ((f"{useless}:{tmp_path}/a:{tmp_path}/b", first), (f"{tmp_path}/b:{tmp_path}/a", second)):
        assert find_plugin("ipam", make_request({}, path=[path])) == str(expected)
    with pytest.raises(CNIError, match="no executable 'ipam' in CNI_PATH") as caught:
        find_plugin("ipam", make_request({}, path=[useless]))
    assert caught.value.code == INVALID_CONFIG
    assert useless in caught.value.msg


def test_an_executable_may_be_a_link(tmp_path: Path) -> None:
    target = put_plugin(tmp_path / "elsewhere", "echo '{}'")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ipam").symlink_to(target)
    assert run_plugin("ipam", "ADD", make_request({}, path=[f"{tmp_path}/bin"])) == {}


@pytest.mark.parametrize("kind", ["", ".", "..", "/bin/sh", "../ipam", "a/b", "a\0b"])
def test_a_type_that_is_no_file_name_is_refused(kind: str, request_to: Request) -> None:
    with pytest.raises(CNIError, match="must be the plain file name") as caught:
        find_plugin(kind, request_to)
    assert caught.value.code == INVALID_CONFIG
    assert repr(kind) in caught.value.msg


def test_without_a_path_nothing_is_searched() -> None:
    with pytest.raises(CNIError, match="CNI_PATH is not set") as caught:
        find_plugin("ipam", make_request({}))
    assert caught.value.code == INVALID_ENVIRONMENT


def test_the_plugin_gets_stdin_and_environment_as_they_are_but_for_the_command(tmp_path: Path) -> None:
    put_plugin(tmp_path, f"cat > {tmp_path}/stdin; cat /proc/$$/environ > {tmp_path}/environ; echo '{{\"ok\": 1}}'")
    path = f"{tmp_path}:/nowhere"
    request = make_request({"x": "ü\n"}, "ADD", path=[path], args="A=b;C=d", OTHER="\udcff =;", EMPTY="")
    stdin = b' {"name" :"mynet", "y": "\xc3\xbc"}\r\n\n'
    assert run_plugin("ipam", "DEL", request._replace(stdin=stdin)) == {"ok": 1}
    assert (tmp_path / "stdin").read_bytes() == stdin
    passed = (tmp_path / "environ").read_bytes().rstrip(b"\0").split(b"\0")
    expected = {**request.env, "CNI_COMMAND": "DEL"}
    assert sorted(passed) == sorted(os.fsencode(f"{key}={value}") for key, value in expected.items())
    assert request.env["CNI_COMMAND"] == "ADD"


def test_the_plugin_writes_to_the_stderr_of_this_one(
    tmp_path: Path, request_to: Request, capfd: pytest.CaptureFixture[str]
) -> None:
    put_plugin(tmp_path, "echo a warning >&2; echo '{}'")
    run_plugin("ipam", "ADD", request_to)
    assert capfd.readouterr() == ("", "a warning\n")


def test_signals_that_python_ignores_have_their_default_in_the_plugin(tmp_path: Path, request_to: Request) -> None:
    put_plugin(tmp_path, "sed -n 's/^SigIgn:.\\(.*\\)/\"\\1\"/p' /proc/self/status")
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    ignored = int(run_plugin("ipam", "ADD", request_to), 16)
    assert not [name for name in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << name - 1]


@pytest.mark.parametrize(
    ("script", "document"),
    [
        ("echo '{\"ips\": []}'", {"ips": []}),
        ("printf '  [1]\\n\\n'", [1]),
        ("exit 0", None),
        ("printf ' \\n'", None),
        ("echo '{}'; exec >&-; exit 0", {}),
        ("exec <&-; echo '{}'", {}),
        ("printf '{'; printf '}'", {}),
    ],
    ids=["object", "white-space", "nothing", "blank", "closes-stdout", "closes-stdin", "in-pieces"],
)
def test_what_the_plugin_prints_is_returned(script: str, document: Any, tmp_path: Path, request_to: Request) -> None:
    put_plugin(tmp_path, script)
    assert run_plugin("ipam", "ADD", request_to) == document


@pytest.mark.parametrize(
    ("printed", "code", "details"),
    [
        ({"cniVersion": "1.0.0", "code": 11, "msg": "busy", "details": "more"}, 11, "more"),
        ({"code": 7, "msg": "busy"}, 7, ""),
        ({"code": 150, "msg": "busy", "details": ["x"]}, 150, ""),
        ({"msg": "busy"}, DELEGATE_FAILED, ""),
        ({"code": 0, "msg": "busy"}, DELEGATE_FAILED, ""),
        ({"code": True, "msg": "busy"}, DELEGATE_FAILED, ""),
        ({"code": -1, "msg": "busy"}, DELEGATE_FAILED, ""),
        ({"code": "7", "msg": "busy"}, DELEGATE_FAILED, ""),
    ],
    ids=["whole", "no-details", "wrong-details", "no-code", "code-0", "code-true", "code-negative", "code-text"],
)
def test_an_error_object_is_passed_on(
    printed: dict[str, Any], code: int, details: str, tmp_path: Path, request_to: Request
) -> None:
    put_plugin(tmp_path, f"echo '{json.dumps(printed)}'; exit 1")
    error = failure_of(request_to, "CHECK")
    assert (error.code, error.msg, error.details) == (code, "ipam CHECK: busy", details)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 3", "exited with status 3"),
        ("echo nonsense; exit 4", "exited with status 4"),
        ("echo '[]'; exit 5", "exited with status 5"),
        ("echo '{\"code\": 7}'; exit 6", "exited with status 6"),
        ("echo '{\"msg\": 7}'; exit 7", "exited with status 7"),
        ("kill -KILL $$", "was ended by signal 9"),
        ("echo '{}'; kill -TERM $$", "was ended by signal 15"),
    ],
)
def test_a_failure_without_error_object_says_how_it_ended(
    script: str, how: str, tmp_path: Path, request_to: Request
) -> None:
    put_plugin(tmp_path, script)
    error = failure_of(request_to)
    assert error.code == DELEGATE_FAILED
    assert error.msg.startswith(f"ipam ADD {how} and printed no error object")


@pytest.mark.parametrize(
    ("script", "details"),
    [
        ("echo hello", "hello\n"),
        ("printf '{\"ips\": ['", '{"ips": ['),
        ("printf '\\377\\376'", "\ufffd\ufffd"),
        ("echo '{} {}'", "{} {}\n"),
        ("head -c 200000 /dev/zero | tr '\\0' '['", "[" * 500),
        ("head -c 200000 /dev/zero | tr '\\0' 9", "9" * 500),
    ],
    ids=["text", "cut-off", "no-utf-8", "two", "deep", "huge-int"],
)
def test_success_with_garbage_is_a_failure_that_shows_it(
    script: str, details: str, tmp_path: Path, request_to: Request
) -> None:
    put_plugin(tmp_path, script)
    error = failure_of(request_to)
    assert (error.code, error.msg, error.details) == (DELEGATE_FAILED, "ipam ADD printed no JSON", details)


@pytest.mark.parametrize(
    "content", [b"#!/nowhere/sh\n", b"", b"\x7fELF"], ids=["no-interpreter", "empty", "no-program"]
)
def test_what_cannot_be_started_is_named(content: bytes, tmp_path: Path, request_to: Request) -> None:
    path = put_plugin(tmp_path, "")
    path.write_bytes(content)
    error = failure_of(request_to)
    assert error.code == DELEGATE_FAILED
    assert error.msg.startswith(f"{path} cannot be started: ")


def test_an_output_up_to_the_bound_is_taken(tmp_path: Path, request_to: Request) -> None:
    length = delegate.OUTPUT_BOUND - 2
    put_plugin(tmp_path, f"printf '\"'; head -c {length} /dev/zero | tr '\\0' x; printf '\"'")
    assert run_plugin("ipam", "ADD", request_to) == "x" * length


def test_an_output_without_end_is_ended(tmp_path: Path, request_to: Request) -> None:
    path = put_plugin(tmp_path, f"echo $$ > {tmp_path}/pid; exec cat /dev/zero")
    error = failure_of(request_to)
    assert error.code == DELEGATE_FAILED
    assert error.msg == f"{path} printed more than {1 << 20} bytes and was ended"
    assert is_gone(tmp_path / "pid")


@pytest.mark.parametrize("stdout", ["", "exec >&-;"], ids=["silent", "stdout-closed"])
def test_a_plugin_that_hangs_is_ended_after_the_bound(
    stdout: str, tmp_path: Path, request_to: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegate, "RUN_BOUND", SHORT)
    path = put_plugin(tmp_path, f"trap '' TERM; echo $$ > {tmp_path}/pid; {stdout} exec sleep 10")
    begin = time.monotonic()
    error = failure_of(request_to)
    assert SHORT <= time.monotonic() - begin < SHORT + 5
    assert error.code == TRY_AGAIN_LATER
    assert error.msg.startswith(f"{path} did not answer within ")
    assert is_gone(tmp_path / "pid")


def test_a_drip_of_output_does_not_extend_the_bound(
    tmp_path: Path, request_to: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegate, "RUN_BOUND", SHORT)
    put_plugin(tmp_path, "while :; do printf ' '; sleep 0.02; done")
    begin = time.monotonic()
    assert failure_of(request_to).code == TRY_AGAIN_LATER
    assert time.monotonic() - begin < SHORT + 5


def test_a_grandchild_that_keeps_stdout_open_cannot_make_us_wait_for_ever(
    tmp_path: Path, request_to: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegate, "RUN_BOUND", SHORT)
    put_plugin(tmp_path, f"sleep 10 & echo $! > {tmp_path}/grandchild; echo $$ > {tmp_path}/pid; echo '{{}}'")
    begin = time.monotonic()
    error = failure_of(request_to)
    assert time.monotonic() - begin < SHORT + 5
    assert error.code == TRY_AGAIN_LATER
    assert is_gone(tmp_path / "pid")
    os.kill(int((tmp_path / "grandchild").read_text()), signal.SIGKILL)


def test_what_a_grandchild_writes_last_is_part_of_the_answer(tmp_path: Path, request_to: Request) -> None:
    put_plugin(tmp_path, "(sleep 0.1; echo '{}') & exit 0")  # as `exec > >(tee log)` of a shell does it
    assert run_plugin("ipam", "ADD", request_to) == {}


@pytest.mark.parametrize("script", ["echo '{}'", "exec <&-; echo '{}'", "wc -c"], ids=["ignored", "closed", "read"])
def test_a_large_stdin_need_not_be_read(script: str, tmp_path: Path, request_to: Request) -> None:
    put_plugin(tmp_path, script)
    document = run_plugin("ipam", "ADD", request_to._replace(stdin=b"x" * 1_000_000))
    assert document == (1_000_000 if script == "wc -c" else {})


# A caller that ends, or is told to

CALLER = f"""
import sys
sys.path.insert(0, {ROOT!r})
from cni_protocol import delegate, plugin
commands = {{"ADD": lambda request: delegate.run_plugin("ipam", "ADD", request)}}
sys.exit(plugin.main(plugin.Plugin("toy", "plays", commands)))
"""


def call_hanging_plugin(tmp_path: Path) -> "tuple[subprocess.Popen[bytes], int]":
    """A process that has called a plugin which hangs and ignores every signal that can be, and that one's id."""
    os.mkfifo(tmp_path / "pid")
    put_plugin(tmp_path, f"trap '' TERM INT HUP; echo $$ > {tmp_path}/pid; exec sleep 30")
    env = call_environment("ADD", path=[str(tmp_path)], PATH=os.environ["PATH"])
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert caller.stdin is not None
    caller.stdin.write(b'{"cniVersion": "1.0.0", "name": "mynet"}')
    caller.stdin.close()
    return caller, int((tmp_path / "pid").read_text())


def await_end(pid: int) -> bool:
    """Whether a process that is not our child ends within a bound."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(descriptor, "rb", closefd=True):
        return bool(select.select([descriptor], [], [], 10)[0])


def test_a_plugin_ends_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    caller, pid = call_hanging_plugin(tmp_path)
    with caller:
        assert Path(f"/proc/{pid}").exists()
        caller.kill()
        assert await_end(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_caller_that_is_told_to_end_ends_the_plugin_first_and_answers(number: int, tmp_path: Path) -> None:
    caller, pid = call_hanging_plugin(tmp_path)
    with caller:
        assert caller.stdout is not None
        caller.send_signal(number)
        document = json.loads(caller.stdout.read())
        assert not Path(f"/proc/{pid}").exists()
        assert caller.wait(10) == 1
    assert document["code"] == TRY_AGAIN_LATER
    assert document["msg"] == f"ended by {signal.Signals(number).name}; what was begun is undone"


def test_a_signal_just_after_the_start_ends_the_plugin_too(
    tmp_path: Path, request_to: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on to reserve an address while its caller undoes."""
    put_plugin(tmp_path, "exec sleep 30")
    started: list[int] = []
    real = delegate._spawn

    def interrupt(*_: object) -> None:
        raise Interrupted("SIGTERM")

    def spawn(*args: Any) -> int:
        started.append(real(*args))
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # a plugin has one thread; the test's process more
        return started[0]

    monkeypatch.setattr(delegate, "_spawn", spawn)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(Interrupted, match="SIGTERM"):
            run_plugin("ipam", "ADD", request_to)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not Path(f"/proc/{started[0]}").exists()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGINT}


def test_no_signal_is_blocked_in_the_plugin_or_afterwards(tmp_path: Path, request_to: Request) -> None:
    path = put_plugin(tmp_path, "")
    code = "import json, signal; print(json.dumps(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))))"
    path.write_text(f"#!{sys.executable} -IS\n{code}\n")  # a shell would clear its mask
    assert run_plugin("ipam", "ADD", request_to) == []
    (tmp_path / "ipam").write_bytes(b"#!/nowhere/sh\n")
    failure_of(request_to)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_a_plugin_is_not_started_for_a_caller_that_has_gone(
    tmp_path: Path, request_to: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_plugin(tmp_path, f"touch {tmp_path}/ran; echo '{{}}'")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert "exited with status 1 and printed no error object" in failure_of(request_to).msg
    assert not (tmp_path / "ran").exists()


def test_signals_that_are_handled_here_have_their_default_in_the_plugin(tmp_path: Path, request_to: Request) -> None:
    put_plugin(tmp_path, "sed -n 's/^SigIgn:.\\(.*\\)/\"\\1\"/p' /proc/self/status")
    endings = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.SIG_IGN) for number in endings]  # as in a plugin that is undoing
    try:
        ignored = int(run_plugin("ipam", "ADD", request_to), 16)
    finally:
        for number, handler in zip(endings, before, strict=True):
            signal.signal(number, handler)
    assert not [number for number in endings if ignored & 1 << number - 1]
