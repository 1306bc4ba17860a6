"""The other plugin of our own installation, run within this process instead of in a second interpreter.

Starting an interpreter takes longer than all that cni-ipam does. Same bytes in, same bytes out.
"""

import os
import sys

from .lean import signal
from .plugin import ENDING, Plugin, answer, interrupt


def find_sibling(path: str) -> Plugin | None:
    """The plugin behind an executable, None unless running it would run the same code as importing it here.

    That is so when its text is that of the executable that we were started from, but for the plugin's name.
    """
    own, other = os.path.basename(sys.argv[0]), os.path.basename(path)
    if own == other:
        return None
    try:
        with open(sys.argv[0], "rb") as ours, open(path, "rb") as theirs:
            text = ours.read()
            for name in (own, _module(own)):
                text = text.replace(name.encode(), (other if name == own else _module(other)).encode())
            if text != theirs.read() or _module(other).encode() not in text:
                return None
    except OSError:
        return None
    plugin = __import__(f"{_module(other)}.__main__", fromlist=["PLUGIN"]).PLUGIN
    return plugin if isinstance(plugin, Plugin) else None


def run_sibling(plugin: Plugin, env: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
    """What the executable would do with this environment and stdin: its exit status and its stdout.

    A signal that ends us interrupts it too; what it says is done is not kept for that (plugin.keep_result).
    """
    ours = [number for number in ENDING if signal.getsignal(number) is interrupt]
    for number in ours:
        signal.signal(number, _interrupt_within)
    try:
        return answer(plugin, env, lambda: stdin)
    finally:
        for number in ours:
            if signal.getsignal(number) is _interrupt_within:
                signal.signal(number, interrupt)


def _interrupt_within(number: int, frame: object) -> None:
    interrupt(number, frame)


def _module(executable: str) -> str:
    return executable.replace("-", "_")
