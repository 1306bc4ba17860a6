"""Running the other plugin of our own installation (the sibling) in this process instead of a second interpreter.

Starting an interpreter takes longer than all that cni-ipam does. Environment, stdin and stdout are the same either way.
"""

import sys

from .light.system import os
from .plugin import Plugin, answer


def find_sibling(path: str) -> Plugin | None:
    """The plugin that an executable would run, None unless it can be imported here instead.

    It can when the executable's text differs from that of our own executable only in the plugin's name: then both load
    the same code with the same interpreter.
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
    """Run the plugin with this environment and stdin. Returns its exit status and its stdout.

    SIGTERM and SIGINT interrupt it at any time. It must not ignore them when its own work is done: our work is not.
    """
    return answer(plugin, env, lambda: stdin)


def _module(executable: str) -> str:
    return executable.replace("-", "_")
