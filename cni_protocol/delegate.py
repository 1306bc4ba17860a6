"""Finding another plugin in CNI_PATH and running it (SPEC.md, section "Plugin Delegation").

The delegate gets the environment and the stdin of this plugin unchanged, except for CNI_COMMAND, and shares its stderr.
No shell is started. The delegate's running time and the size of its output are bounded.
"""

import select
import time

from .errors import DELEGATE_FAILED, INVALID_CONFIG, INVALID_ENVIRONMENT, TRY_AGAIN_LATER, CNIError
from .light.json_text import parse_json
from .light.standard import Any, signal
from .light.system import os
from .request import Request
from .sibling import find_sibling, run_sibling

RUN_BOUND = 60.0  # seconds; longer than any lock that a well-behaved IPAM plugin waits for
OUTPUT_BOUND = 1 << 20  # bytes of stdout
# Signals that this process ignores or handles. The child resets them: an ignored signal stays ignored over execve(2).
_ENDING = (signal.SIGTERM, signal.SIGINT)
_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, *_ENDING)


def find_plugin(kind: str, request: Request) -> str:
    """The path of a plugin type's executable: the first one in the order of CNI_PATH.

    Raises CNIError: 7 when the type is not a plain file name or is not installed, 4 when CNI_PATH is not set.
    """
    if "/" in kind or "\0" in kind or kind in ("", ".", ".."):
        raise CNIError(INVALID_CONFIG, f"plugin type {kind!r} must be the plain file name of an executable in CNI_PATH")
    if not request.path:
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_PATH is not set, and plugin {kind!r} has to be found there")
    for directory in request.path:
        candidate = os.path.join(directory, kind)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise CNIError(
        INVALID_CONFIG,
        f"no executable {kind!r} in CNI_PATH ({':'.join(request.path)}); install that plugin or correct the type",
    )


def is_own(kind: str, request: Request) -> bool:
    """Whether a plugin type is the other plugin of our own installation (sibling.py). False for an empty type.

    Raises CNIError as find_plugin does.
    """
    return bool(kind) and find_sibling(find_plugin(kind, request)) is not None


def run_plugin(kind: str, command: str, request: Request) -> Any:
    """Run `command` of a plugin. Returns the JSON document that it printed, None when it printed nothing.

    Raises CNIError: the plugin's own code and message when it printed an error object, otherwise 104; 11 when it ran
    longer than RUN_BOUND; and as find_plugin does.
    """
    path = find_plugin(kind, request)
    env = {**request.env, "CNI_COMMAND": command}
    sibling = find_sibling(path)
    status, output = run_sibling(sibling, env, request.stdin) if sibling else _execute(path, env, request.stdin)
    try:
        document = parse_json(output) if output.strip() else None
    except (ValueError, RecursionError):
        document = output
    if status != 0:
        raise _failure_of(kind, command, status, document)
    if isinstance(document, bytes):
        raise CNIError(DELEGATE_FAILED, f"{kind} {command} printed no JSON", output[:500].decode("utf-8", "replace"))
    return document


def _failure_of(kind: str, command: str, status: int, document: Any) -> CNIError:
    if isinstance(document, dict) and isinstance(document.get("msg"), str):
        code = document.get("code")
        details = document.get("details")
        return CNIError(
            code if type(code) is int and code > 0 else DELEGATE_FAILED,
            f"{kind} {command}: {document['msg']}",
            details if isinstance(details, str) else "",
        )
    how = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
    return CNIError(DELEGATE_FAILED, f"{kind} {command} {how} and printed no error object (its stderr may say more)")


def _execute(path: str, env: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
    """Run an executable to its end. Returns its exit status (negative: the signal that ended it) and its stdout."""
    source = os.memfd_create("cni-stdin")  # a file, since writing to a pipe could block when the delegate does not read
    reader, writer = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until _wait can end the child
    try:
        try:
            with open(source, "wb", closefd=False) as file:
                file.write(stdin)
            os.lseek(source, 0, os.SEEK_SET)
            child = _spawn(path, env, source, writer)
        except OSError as error:
            raise CNIError(DELEGATE_FAILED, f"{path} cannot be started: {error.strerror}") from None
        finally:
            os.close(source)
            os.close(writer)
        return _wait(path, child, reader)
    finally:
        os.close(reader)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _spawn(path: str, env: dict[str, str], stdin: int, stdout: int) -> int:
    """Start an executable as a child that the kernel kills when this process ends. Returns its pid. Raises OSError."""
    from .light.libc import PR_SET_PDEATHSIG, prctl

    us = os.getpid()
    told, tell = os.pipe()  # execve(2) closes it when it succeeds; otherwise the child writes the errno to it
    child = os.fork()
    if child == 0:
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != us:
                os._exit(1)
            for number in _RESET_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.execve(path, [path], env)
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(tell)
    with open(told, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(child, 0)
        raise OSError(int(failure), os.strerror(int(failure)))
    return child


def _wait(path: str, child: int, reader: int) -> tuple[int, bytes]:
    """Wait for a child. Returns its exit status and stdout. Kills it when it exceeds a bound or we are interrupted."""
    ended = os.pidfd_open(child)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        output = _collect(path, reader, ended)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(ended)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output


def _collect(path: str, reader: int, ended: int) -> bytes:
    """Read stdout until the pipe is closed and the process has ended. Raises CNIError (code 11 or 104)."""
    deadline = time.monotonic() + RUN_BOUND
    waited_for = select.poll()
    open_ends = {reader, ended}
    for descriptor in open_ends:
        waited_for.register(descriptor, select.POLLIN)
    output = b""
    while open_ends:
        ready = waited_for.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise CNIError(TRY_AGAIN_LATER, f"{path} did not answer within {RUN_BOUND:.0f} s and was ended")
        for descriptor, _ in ready:
            chunk = os.read(reader, 1 << 16) if descriptor == reader else b""
            output += chunk
            if not chunk:
                waited_for.unregister(descriptor)
                open_ends.discard(descriptor)
        if len(output) > OUTPUT_BOUND:
            raise CNIError(DELEGATE_FAILED, f"{path} printed more than {OUTPUT_BOUND} bytes and was ended")
    return output
