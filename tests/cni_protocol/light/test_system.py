"""The stand-in of light/system.py does what the real os does, in a process that has not loaded that."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
BOUND = 60  # seconds
# an interpreter that has not loaded os; the real one comes by -c's own import, where the program says so
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
{imports}
def look():
    {look}
print(repr(look()))
"""
STAND_IN = "assert 'os' not in sys.modules\nfrom cni_protocol.light.system import os\nassert type(os.path) is type"
PATHS = ("", "/", "//", "a", "/a", "a/", "/a/b", "a//b/", "//a//b", "/..", "ä/\\udcff")


def tell(imports: str, look: str, directory: Path, **variables: str) -> Any:
    """What a process says; both have the same directory and environment, and make what they make there."""
    program = PROGRAM.format(imports=imports, look=look)
    # -S: site would load os; surrogates are written as they are read
    command = [sys.executable, "-ISB", "-Xutf8", "-c", program, str(ROOT)]
    env = {b"PLAIN": b"x", b"BYTES": b"\xff\xc3\xa4", **{os.fsencode(k): os.fsencode(v) for k, v in variables.items()}}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=BOUND, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "look",
    [
        f"return [os.path.dirname(path) for path in {PATHS!r}]",
        f"return [os.path.basename(path) for path in {PATHS!r}]",
        f"return [os.path.join(one, two) for one in {PATHS!r} for two in {PATHS!r}]",
        f"return [os.path.join('x', one, 'y') for one in {PATHS!r}]",
        "return sorted(dict(os.environ).items())",
        "return os.devnull, os.SEEK_SET, os.O_TMPFILE, os.X_OK, os.strerror(2), os.open is __import__('posix').open",
        *(
            f"return [os.path.{name}(path) for path in ('/dev/null', '/proc', '/proc/self/cwd', '/nowhere', 'a' * 300, "
            "'/proc/self/fd/99', 'x\\0y', '/proc/version')]"
            for name in ("exists", "lexists", "isfile", "isdir")
        ),
        "return [os.path.samestat(os.stat('/proc'), os.stat(path)) for path in ('/proc', '/proc/.', '/', '/proc/1')]",
        "os.makedirs('a/b/c', mode=0o700); os.makedirs('a/b/c', exist_ok=True); os.makedirs('d/')\n"
        "    return [oct(os.stat(path).st_mode) for path in ('a', 'a/b', 'a/b/c', 'd')]",
    ],
)
def test_it_says_what_the_real_one_says(look: str, tmp_path: Path) -> None:
    told = []
    for place, imports in (("light", STAND_IN), ("real", "import os\nassert type(os.path) is type(os)")):
        directory = tmp_path / place
        directory.mkdir()
        told.append(tell(imports, look, directory))
    assert told[0] == told[1]


@pytest.mark.parametrize("arguments", ["'f/x', exist_ok=True", "'f', exist_ok=True", "'d'", "'d/../f'", "'', 0o700"])
def test_a_directory_that_cannot_be_made_is_the_same_error(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    look = f"try: os.makedirs({arguments})\n    except OSError as error: return error.errno, error.filename"
    told = [tell(imports, look, tmp_path) for imports in (STAND_IN, "import os")]
    assert told[0] == told[1] != "None\n"


def test_where_the_real_one_is_loaded_it_is_that_one(tmp_path: Path) -> None:
    import cni_protocol.light.system

    assert cni_protocol.light.system.os is os
    imports = "from cni_protocol.light.system import os"
    assert json.loads(tell(imports, "return int('os' in sys.modules)", tmp_path)) == 0
    assert json.loads(tell(imports, "return int('os' in sys.modules)", tmp_path, PYCNI_REAL_MODULES="1")) == 1
