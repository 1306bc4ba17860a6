"""The main() of both plugins. In: environment and stdin. Out: one JSON document on stdout and an exit status.

Source: SPEC.md, sections "Protocol", "Error" and "VERSION". An unexpected exception becomes an error object too.
"""

import select
import sys
import time
from io import TextIOBase

from .errors import (
    DIAGNOSIS,
    INTERNAL,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    OF_THE_NODE,
    TRY_AGAIN_LATER,
    CNIError,
    Interrupted,
)
from .light.json_text import write_json
from .light.standard import Any, Callable, Mapping, NamedTuple, TextIO, signal, suppress
from .light.system import os
from .request import Request, find_version, parse_config, parse_request, supported_versions_reply
from .version import NEWEST, SUPPORTED

STDIN_BOUND = 16 << 20  # bytes; a network configuration has a few hundred
STDIN_SECONDS = 30.0  # within which the runtime must have written all of stdin

ENDING: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}

HELP = """\
{name}: {what}

A CNI plugin (https://www.cni.dev), called by a container runtime: parameters in the environment, the network
configuration as JSON on stdin, the answer as JSON on stdout, exit status 0 or not 0. By hand:

  echo '{{"cniVersion": "1.0.0"}}' | CNI_COMMAND=VERSION {name}

  CNI_COMMAND       {commands}
  CNI_CONTAINERID   the container's id
  CNI_NETNS         path of its network namespace, as in /run/netns/NAME
  CNI_IFNAME        name of the interface inside it
  CNI_ARGS          further arguments, K=V;K=V (optional)
  CNI_PATH          directories with plugin executables, separated by ':'

  --help            this text
"""


class Plugin(NamedTuple):
    """A plugin: its name, one line about it for --help, and a function for each command except VERSION.

    A function takes the Request and returns the JSON object to print, or None for no output. It raises CNIError.
    """

    name: str
    what: str
    commands: Mapping[str, Callable[[Request], dict[str, Any] | None]]


def main(plugin: Plugin) -> int:
    """Serve one call from the process's own environment, stdin and stdout. Returns the exit status."""
    sys.stderr = _Stderr(sys.stderr)
    if sys.argv[1:]:
        return _print_help(plugin)
    for number in ENDING:
        signal.signal(number, interrupt)
    env = dict(os.environ)
    try:
        status, output = answer(plugin, env, lambda: _read_stdin(env), finish_uninterrupted)
    except Interrupted as signal_name:  # it came while an error object was being made
        status, output = 1, _encode(_interruption_json(signal_name, NEWEST))
    finish_uninterrupted()
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()
    return status


def finish_uninterrupted() -> None:
    """Ignore SIGTERM and SIGINT from here on: the command is done, and reporting a failure would be wrong."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def answer(
    plugin: Plugin, env: Mapping[str, str], read: Callable[[], bytes], finish: Callable[[], None] = lambda: None
) -> tuple[int, bytes]:
    """Serve one call. `read` returns all of stdin; `finish` becomes Request.finish_uninterrupted.

    Returns the exit status and the bytes for stdout. Raises nothing, except Interrupted while it makes an error object.
    """
    version = NEWEST
    try:
        if env.get("CNI_COMMAND") == "VERSION":
            data = _read_if_possible(read)
            document: dict[str, Any] | None = supported_versions_reply(parse_config(data) if data.strip() else {})
        else:
            data = read()
            version = _version_for_errors(data)
            document = _run_command(plugin, env, data, finish)
        status = 0
    except CNIError as error:
        document = error_json(error, version)
        status = 1
    except Interrupted as signal_name:
        document = _interruption_json(signal_name, version)
        status = 1
    except Exception as error:
        import traceback

        traceback.print_exc()
        unforeseen = CNIError(INTERNAL, f"unforeseen failure of {plugin.name}: {error!r}", traceback.format_exc())
        document = error_json(unforeseen, version)
        status = 1
    return status, b"" if document is None else _encode(document)


def error_json(error: CNIError, version: str) -> dict[str, Any]:
    """The error object of the specification; where the node's state is the cause, it says what tells more."""
    details = error.details or (DIAGNOSIS if error.code in OF_THE_NODE else "")
    return {"cniVersion": version, "code": error.code, "msg": error.msg, "details": details}


def _interruption_json(signal_name: Interrupted, version: str) -> dict[str, Any]:
    return error_json(CNIError(TRY_AGAIN_LATER, f"ended by {signal_name}; what was begun is undone"), version)


def _encode(document: dict[str, Any]) -> bytes:
    return write_json(document).encode() + b"\n"


def _read_if_possible(read: Callable[[], bytes]) -> bytes:
    """All of stdin, or no bytes when it cannot be read: VERSION works without a configuration."""
    try:
        return read()
    except CNIError:
        return b""


def _run_command(
    plugin: Plugin, env: Mapping[str, str], data: bytes, finish: Callable[[], None]
) -> dict[str, Any] | None:
    request = parse_request(env, data)._replace(finish_uninterrupted=finish)
    function = plugin.commands.get(request.command)
    if function is None:
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_COMMAND={request.command} is not implemented by {plugin.name}")
    return function(request)


def _version_for_errors(data: bytes) -> str:
    """The cniVersion of an error object: the configuration's, or the newest when that is unreadable or unsupported."""
    try:
        version = find_version(parse_config(data))
    except CNIError:
        return NEWEST
    return version if version in SUPPORTED else NEWEST


def _read_stdin(env: Mapping[str, str]) -> bytes:
    """All of stdin. Raises CNIError (code 5) when it cannot be read, does not end, or is too large."""
    if env.get("CNI_COMMAND", "") in ("", "VERSION") and os.isatty(0):
        return b""  # a person runs it in a terminal: do not wait for stdin, report the missing variable
    deadline = time.monotonic() + STDIN_SECONDS
    data = b""
    try:
        waited_for = select.poll()
        waited_for.register(0, select.POLLIN)
        while True:
            if not waited_for.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise CNIError(IO_FAILURE, f"stdin did not end within {STDIN_SECONDS:.0f} s")
            chunk = os.read(0, 1 << 16)
            data += chunk
            if not chunk:
                return data
            if len(data) > STDIN_BOUND:
                raise CNIError(IO_FAILURE, f"the configuration on stdin is larger than {STDIN_BOUND} bytes")
    except OSError as error:
        raise CNIError(IO_FAILURE, f"stdin cannot be read: {error.strerror}") from None


class _Stderr(TextIOBase):
    """Stderr that never raises. It may be closed or broken, and the plugin must still undo its work and answer."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if stream is None:  # it was closed: occupy descriptor 2, so that no file opened later gets it
            os.open(os.devnull, os.O_WRONLY)

    def write(self, text: str) -> int:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.write(text)
                self._stream.flush()
        return len(text)


def interrupt(number: int, _: object) -> None:
    """The signal handler: raise Interrupted, and ignore further signals, so that they do not interrupt the undoing."""
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise Interrupted(ENDING[number])


def _print_help(plugin: Plugin) -> int:
    known = sys.argv[1:] == ["--help"]
    commands = ", ".join((*plugin.commands, "VERSION"))
    text = HELP.format(name=plugin.name, what=plugin.what, commands=commands)
    print(text, end="", file=sys.stdout if known else sys.stderr, flush=True)
    return 0 if known else 2
