"""Running programs for the kit: with a bound, in words when one fails, and never longer than this process lives."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")

_PAUSE = 0.2  # seconds between two looks at what is waited for
_SAID = 2000  # characters of a failure's output that are shown
# With this process the namespace's first process ends, and with that all of them: no build goes on alone.
MORTAL = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class SetupError(Exception):
    """The machine lacks something, or a program failed; says which, and what to do."""


def run(command: Sequence[str], *, seconds: float, **options: Any) -> str:
    """Run a program to its end and return its stdout. Raises SetupError when it fails or takes longer than `seconds`.

    `options` are those of subprocess.run.
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*MORTAL, *command], capture_output=True, text=True, timeout=seconds, check=False, **options
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{_shown(command)} did not end within {seconds:.0f} s") from error
    if done.returncode != 0:
        said = f"{done.stdout}{done.stderr}".strip()[-_SAID:]
        raise SetupError(f"{_shown(command)} failed ({done.returncode}): {said}")
    return done.stdout


def run_gently(command: Sequence[str], here: Path, env: Mapping[str, str], seconds: float) -> str:
    """The same for what computes for minutes: it leaves the CPUs to others."""
    return run(["nice", "-n", "10", *command], seconds=seconds, cwd=here, env=env)


def await_value(what: str, get: Callable[[], Value], seconds: float) -> Value:
    """Wait until a function returns something true, and return that.

    Raises SetupError with `what` and the last value when that does not come within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := get()):
        if time.monotonic() > deadline:
            raise SetupError(f"{what}: not so after {seconds:.0f} s; at last it was {found!r}")
        time.sleep(_PAUSE)
    return found


def _shown(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= 200 else f"{text[:200]}..."
