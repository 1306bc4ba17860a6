"""Runs the modules of a command out of the one file that install/link.py wrote beside the code.

The file brings this module along, and the executable begins with that: finding, opening and reading each module by
itself takes longer than all that a command does. What the file lacks is imported as ever, and where the file cannot be
used everything is.
Must not: import what is not built into the interpreter, or leave a part of a damaged file behind.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader
from _imp import extension_suffixes, source_hash
from marshal import loads

TYPE_CHECKING = False  # type checkers take this name for true
if TYPE_CHECKING:
    from types import CodeType, ModuleType

SHARED_OBJECTS = ("_json", "_ctypes")  # modules in C that many interpreters have as files
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")


def load(file: int, index: list[tuple[bytes, int]], code: str) -> None:
    """Have the modules of an open file in sys.modules; `index` has digest and length of each piece that follows.

    `code` is the directory of the sources. Raises ImportError for a piece that is damaged; then none is there.
    """
    made: list[str] = []
    sys.meta_path.insert(0, _Direct)
    try:
        for digest, size in index[:-1]:
            for name, is_package, body in loads(_read(file, digest, size)):
                if name not in sys.modules:
                    made.append(name)
                    _run(name, is_package, body, code)
        sys.meta_path.insert(0, _Late(loads(_read(file, *index[-1])), code))
    except BaseException:
        sys.meta_path.remove(_Direct)
        for name in made:
            parent, _, child = name.rpartition(".")
            sys.modules[parent or name].__dict__.pop(child, None)
        for name in made:
            del sys.modules[name]
        raise
    posix.close(file)


def explain(executable: str, error: Exception) -> None:
    """Say on stderr why the modules are imported one by one, unless no command was asked for that has a file."""
    if posix.environ.get(b"CNI_COMMAND", b"").decode("ascii", "replace") in COMMANDS:
        print(f"{executable}: it starts more slowly than it could ({error}); run install.sh again", file=sys.stderr)


def _read(file: int, digest: bytes, size: int) -> bytes:
    """The next piece. Its digest is keyed with the interpreter's magic number, as install/link.py does."""
    piece = posix.read(file, size)
    if source_hash(int.from_bytes(MAGIC_NUMBER, "little"), piece) != digest:
        raise ImportError("the file of its linked modules is damaged")
    return piece


def _run(name: str, is_package: bool, body: CodeType, code: str) -> None:
    """What an import statement does with a module that was found."""
    parent, _, child = name.rpartition(".")
    module = sys.modules[name] = type(sys)(name)
    module.__file__ = body.co_filename
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = [f"{code}/{name.replace('.', '/')}"]
    exec(body, module.__dict__)
    if parent:
        setattr(sys.modules[parent], child, module)


class _Direct:
    """Finds modules in C in the last directory of the path, where they are: a search would list all of them."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        if name not in SHARED_OBJECTS:
            return None
        place = f"{sys.path[-1]}/{name}{extension_suffixes()[0]}"
        try:
            posix.stat(place)
        except OSError:
            return None  # it is built in, or elsewhere
        return ModuleSpec(name, ExtensionFileLoader(name, place), origin=place)


class _Late:
    """Finds the modules that not every call of a command needs: they are still bytes."""

    def __init__(self, modules: dict[str, tuple[bool, bytes]], code: str) -> None:
        self._modules = modules
        self._code = code

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        if name not in self._modules:
            return None
        spec = ModuleSpec(name, self, is_package=self._modules[name][0])  # type: ignore[arg-type]  # it is a loader
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(f"{self._code}/{name.replace('.', '/')}")
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """As importlib.abc.Loader has it: an ordinary one."""

    def exec_module(self, module: ModuleType) -> None:
        """As importlib.abc.Loader has it."""
        body = loads(self._modules[module.__name__][1])
        module.__file__ = body.co_filename
        exec(body, module.__dict__)
