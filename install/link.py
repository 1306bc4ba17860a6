"""Links the modules of each command of a plugin into one file, which cni_protocol/linked.py runs.

Called by install.sh and install/bundle.py with the interpreter that is to run them: it would find, open and read some
sixty files for a call otherwise, which takes as long as all the rest of it. The sources are left as they are. What no
call looks at is left out of the files: docstrings, annotations of functions, what only type checkers see, the columns
of a traceback (-X no_debug_ranges).
Must not: run a command, or make a file that another interpreter could take for its own.
"""

import __future__

import ast
import marshal
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import source_hash
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam")
LOADER = "cni_protocol.linked"
PIECE_BYTES = 60_000  # what is smaller than 128 KiB takes the same memory again and again (malloc(3), M_MMAP_THRESHOLD)
PROBE_SECONDS = 60
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
"""
_IMPORTED = re.compile(r"^import time:.*\| +([\w.]+)$", re.MULTILINE)


class Parts(NamedTuple):
    """What a command imports beyond the plugin's __main__: each time, and with some configurations only."""

    always: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


_RANGES = ("cni_ipam.config", "cni_ipam.ranges")
_ADDRESSES = (*_RANGES, "cni_ipam.host_addresses")
_AT_EVERYTHING = ("cni_ipam.recovery", "cni_protocol.valid_attachments")
_INSIDE = ("cni_bridge.sandbox", "cni_protocol.light.libc")
_RULES = ("cni_bridge.sync",)
_COMPARED = ("cni_bridge.observation", "cni_bridge.attachment_rules", *_RULES)
_IPAM = ("cni_ipam.__main__",)
_WIRING = ("cni_bridge.locks", "cni_bridge.wiring", *_INSIDE)
COMMANDS: Mapping[str, Mapping[str, Parts]] = {
    "cni-bridge": {
        "VERSION": Parts(),
        "ADD": Parts((*_WIRING, *_IPAM, *_ADDRESSES), _RULES),
        "DEL": Parts(("cni_bridge.locks", "cni_bridge.removal", *_IPAM), ("cni_protocol.light.libc", *_RULES)),
        "CHECK": Parts((*_WIRING, *_IPAM, *_RANGES, *_COMPARED), ("cni_bridge.claims",)),
        "STATUS": Parts(("cni_bridge.status", *_IPAM, "cni_ipam.peek", *_ADDRESSES), _RULES),
        "GC": Parts(("cni_bridge.locks", "cni_bridge.removal", *_IPAM, *_AT_EVERYTHING), _RULES),
    },
    "cni-ipam": {
        "VERSION": Parts(),
        "ADD": Parts(_ADDRESSES),
        "DEL": Parts(),
        "CHECK": Parts(_RANGES),
        "STATUS": Parts((*_ADDRESSES, "cni_ipam.peek")),
        "GC": Parts(_AT_EVERYTHING),
    },
}


def main() -> None:
    """Link the code in CODE, which will be known as SHOWN, into the directory TARGET."""
    code, shown, target = sys.argv[1:]
    link(Path(code), shown, Path(target))


def link(code: Path, shown: str, target: Path) -> None:
    """Write a file for each command of both plugins: TARGET/EXECUTABLE.COMMAND.

    `shown` stands in tracebacks for the directory of the sources, "" for names that begin below it.
    """
    target.mkdir()
    compiled: dict[str, bytes] = {}
    for executable, commands in COMMANDS.items():
        for command, parts in commands.items():
            main_module = f"{executable.replace('-', '_')}.__main__"
            always = list_modules(code, (main_module, *parts.always))
            late = [name for name in list_modules(code, (*always, *parts.late)) if name not in always]
            for name in (LOADER, *always, *late):
                compiled[name] = compiled.get(name) or marshal.dumps(compile_stripped(code, shown, name))
            (target / f"{executable}.{command}").write_bytes(pack(code, compiled, always, late))


def list_modules(code: Path, roots: Iterable[str]) -> list[str]:
    """Our modules that these import, in the order in which they are complete."""
    command = [sys.executable, "-ISBXutf8", "-Ximporttime", "-c", PROBE, str(code), *roots]
    done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, timeout=PROBE_SECONDS)
    return [name for name in _IMPORTED.findall(done.stderr) if name.partition(".")[0] in PACKAGES]


def pack(code: Path, compiled: Mapping[str, bytes], always: Sequence[str], late: Sequence[str]) -> bytes:
    """The bytes of a file: the first piece's digest and length, the first piece, the others.

    A piece is a list of modules: name, whether it is a package, its code; late ones come as bytes, in the last piece.
    The first one has the loader, and digest and length of each other piece. The digests are the interpreter's own, and
    keyed with its magic number: what another one wrote is as wrong as what is damaged.
    """
    groups: list[list[str]] = []
    room = 0
    for name in always:
        room -= len(compiled[name])
        if room < 0:
            groups.append([])
            room = PIECE_BYTES - len(compiled[name])
        groups[-1].append(name)
    entries = [[(name, is_package(code, name), marshal.loads(compiled[name])) for name in group] for group in groups]
    pieces = [marshal.dumps(group) for group in entries]
    pieces.append(marshal.dumps({name: (is_package(code, name), compiled[name]) for name in late}))
    index = [(source_hash(piece), len(piece)) for piece in pieces]
    first = marshal.dumps((marshal.loads(compiled[LOADER]), index))
    return source_hash(first) + len(first).to_bytes(4, "little") + first + b"".join(pieces)


def is_package(code: Path, name: str) -> bool:
    """Whether a module of ours is one that has others."""
    return code.joinpath(*name.split(".")).is_dir()


def compile_stripped(code: Path, shown: str, name: str) -> Any:
    """The code of a module, without what no call looks at; its lines are the source's."""
    base = code.joinpath(*name.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    tree = _Stripper().visit(ast.parse(path.read_bytes()))
    shown = str(Path(shown, path.relative_to(code)))
    return compile(tree, shown, "exec", __future__.annotations.compiler_flag, dont_inherit=True, optimize=0)


class _Stripper(ast.NodeTransformer):
    """Takes away what costs time to load and is never looked at. Annotations in classes stay: fields of tuples."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Docstrings of whatever has one, and the bodies that are empty without."""
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.body:
            node.body.append(ast.copy_location(ast.Pass(), node))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # its name is ast's
        """Annotations of a function."""
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """And of its arguments."""
        node.annotation = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """The one of __future__, a module too: all are compiled as if it were there."""
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> Any:
        """What only type checkers see."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)


if __name__ == "__main__":
    main()
