"""The tree of a bundle: our code, the parts of pyroute2 and of the standard library in use, and this interpreter.

Called by install.sh --bundle with the interpreter that goes into the bundle. To find the modules in use, it imports all
of our modules in a fresh interpreter and takes what that loads. It also takes the modules that import statements inside
functions name, in our modules and in the standard library, so that none of these fails on a node.
"""

import modulefinder
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
EXTENSIONS = STDLIB / "lib-dynload"
DEPENDENCY = "pyroute2"
# Parts of the standard library that others import only for tools and servers of their own. Their imports are not
# followed; what is loaded of them is included.
NOT_FOLLOWED = {"doctest", "pydoc", "test", "tkinter", "unittest", "xmlrpc"}
BROUGHT = ("http.client", "ssl")  # for a cluster's API; http.client goes on silently when ssl is missing
LEFT_OUT = {"_hashlib"}  # without it hashlib uses the built-in digests, and loads no OpenSSL
CODECS = ("ascii.py", "idna.py", "latin_1.py", "utf_*.py")  # modules of encodings, which no import statement names
GLIBC = {
    *("libc", "libm", "libdl", "libpthread", "librt", "libutil", "libresolv", "linux-vdso"),
    *("ld-linux-x86-64", "ld-linux-aarch64", "ld-linux-armhf", "ld64"),
}
# The package's own __init__ would load some 370 modules: parts of it are imported by name, and the package stays empty.
PROBE = f"""
import sys
from importlib.util import find_spec
from types import ModuleType
sys.path.insert(0, sys.argv[1])
package = ModuleType({DEPENDENCY!r})
package.__path__ = list(find_spec({DEPENDENCY!r}).submodule_search_locations)
sys.modules[{DEPENDENCY!r}] = package
for name in sys.argv[2:]:
    __import__(name)
for name, module in sorted(sys.modules.items()):
    print(name, getattr(module, "__file__", None) or "-")
"""


def main() -> None:
    """Fill the directory TARGET from CODE, which holds our packages and pyroute2 as sources."""
    code, target = (Path(argument).resolve() for argument in sys.argv[1:])
    ours = {name: path for name, path in modules_in(code).items() if name.partition(".")[0] != DEPENDENCY}
    loaded = probe(code, [*ours, *BROUGHT])
    library = follow(code, ours, loaded)
    write_code(code, target / "code", ours, loaded)
    write_library(target / "lib" / STDLIB.name, library)
    write_interpreter(target)


def modules_in(code: Path) -> dict[str, Path]:
    """The full names of all modules below a directory."""
    found = {}
    for path in sorted(code.rglob("*.py")):
        parts = path.relative_to(code).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def probe(code: Path, names: Iterable[str]) -> dict[str, str]:
    """The modules that an interpreter has loaded after importing these: names, and files ("-" for none)."""
    command = [sys.executable, "-ISBXutf8", "-c", PROBE, str(code), *names]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def follow(code: Path, ours: dict[str, Path], loaded: dict[str, str]) -> dict[str, Path]:
    """The modules of the standard library that are loaded, or that any reachable import statement names."""
    excluded = NOT_FOLLOWED | LEFT_OUT
    finder = modulefinder.ModuleFinder([str(code), str(STDLIB), str(EXTENSIONS)], excludes=[*excluded, DEPENDENCY])
    standard = [name for name in loaded if name.partition(".")[0] in sys.stdlib_module_names - excluded]
    codecs = [f"encodings.{path.stem}" for pattern in CODECS for path in (STDLIB / "encodings").glob(pattern)]
    for name in (*ours, *standard, *codecs):
        try:
            finder.import_hook(name)
        except ImportError:  # names of sys.modules that are no modules of their own, such as os.path and typing.io
            if name in ours:
                raise
    files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()} | loaded
    paths = {name: Path(file) for name, file in files.items() if file}
    return {name: path for name, path in paths.items() if path.is_relative_to(STDLIB) and name not in LEFT_OUT}


def write_code(code: Path, target: Path, ours: dict[str, Path], loaded: dict[str, str]) -> None:
    """Write our modules, and those of the dependency that are loaded; a package that was not executed becomes empty."""
    for path in ours.values():
        compile_to(path, target / path.relative_to(code))
    for name, file in loaded.items():
        source = code.joinpath(*name.split("."))
        if name.partition(".")[0] != DEPENDENCY:
            continue
        if file != "-":
            compile_to(Path(file), target / Path(file).relative_to(code))
        elif source.is_dir():
            empty = target.parent / "empty.py"
            empty.touch()
            compile_to(empty, target / source.relative_to(code) / "__init__.py")
            empty.unlink()


def write_library(target: Path, library: dict[str, Path]) -> None:
    """Write the modules of the standard library, and the shared libraries that extension modules need."""
    for path in sorted(set(library.values())):
        if path.suffix == ".py":
            compile_to(path, target / path.relative_to(STDLIB))
        else:
            place(path, target / path.relative_to(STDLIB), 0o644)
            bring_libraries(path, target.parent)
    (target / EXTENSIONS.name).mkdir(parents=True, exist_ok=True)  # by it the interpreter knows its own directories


def write_interpreter(target: Path) -> None:
    """Write the interpreter. It finds its shared libraries and modules relative to itself, wherever the tree is."""
    original = Path(sys.executable).resolve()
    python = target / "bin" / "python3"
    place(original, python, 0o755)
    bring_libraries(original, target / "lib")
    # RPATH and not RUNPATH: only that holds for the libraries of extension modules too, see ld.so(8)
    subprocess.run(["patchelf", "--force-rpath", "--set-rpath", "$ORIGIN/../lib", str(python)], check=True, timeout=60)


def bring_libraries(binary: Path, target: Path) -> None:
    """Copy the shared libraries that a binary needs, except those of glibc. Ends the process if one is missing."""
    listed = subprocess.run(["ldd", str(binary)], check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
    for line in listed.splitlines():
        name = Path(line.split()[0]).name
        if name.partition(".")[0] in GLIBC or line.strip() == "statically linked":
            continue
        if "=> /" not in line:
            raise SystemExit(f"{binary} needs {name}, which is not on this machine")
        place(Path(line.split()[2]), target / name, 0o644)


def compile_to(source: Path, target: Path) -> None:
    """Byte-compile a module. `target` is the path that its source would have; the result goes beside that."""
    shown = str(target).partition(f"/{STDLIB.name}/")[2] or str(target).partition("/code/")[2]
    py_compile.compile(
        str(source),
        cfile=f"{target}c",
        dfile=shown,
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def place(source: Path, target: Path, mode: int) -> None:
    """Copy a file, following symbolic links, and set its mode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


if __name__ == "__main__":
    main()
