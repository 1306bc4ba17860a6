"""Copies of the checkout that may be changed, with an installation made from them; and pytest in them.

Must not: change the checkout itself.
"""

import os
import py_compile
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam", "cni_node")
_LEFT_OUT = (".git", ".venv*", "__pycache__", ".*_cache", "build", "dist", "*.egg-info")
_INSTALL_BOUND = 300  # seconds
_NICENESS = 15
# A process namespace of its own: what a test has started ends with it, whatever the mutant has done.
_ALONE = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private")
_PLACE = re.compile(r'^sys\.path\.insert\(0, "(.*)"\)$', re.MULTILINE)


class Run(NamedTuple):
    """What pytest came to: its exit status (None: it was ended, since it took too long) and what it said."""

    status: int | None
    output: str


class Checkout:
    """A copy of a checkout in a directory of its own. Not for two threads at once."""

    def __init__(self, root: Path, place: Path, wheels: Path | None = None) -> None:
        self.root = place / "checkout"
        self._temporary = place / "tmp"
        self._place = place
        self._wheels = wheels
        self._code: Path | None = None
        self._changes = 0
        shutil.copytree(root, self.root, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)

    @property
    def bin_dir(self) -> Path:
        """Where the executables are, once install() has been called."""
        return self._place / "bin"

    def install(self) -> None:
        """Put the plugins of this copy beside it, so that the tests need not."""
        options = ["--bin-dir", str(self.bin_dir), "--lib-dir", str(self._place / "lib")]
        if self._wheels:
            options += ["--wheel-dir", str(self._wheels)]
        self._place.chmod(0o755)
        subprocess.run(
            [str(self.root / "install.sh"), *options], check=True, timeout=_INSTALL_BOUND, stdout=subprocess.DEVNULL
        )
        found = _PLACE.search((self.bin_dir / "cni-bridge").read_text("utf-8"))
        assert found, "the executable does not name its code"
        self._code = Path(found[1])

    def write(self, file: str, source: str) -> None:
        """Have this source in the copy, and in what was installed from it."""
        path = self.root / file
        path.write_text(source, "utf-8")
        self._changes += 1
        moment = 1_000_000_000 + self._changes  # in no .pyc: two changes within a second may have the same size
        os.utime(path, (moment, moment))
        if self._code:
            path = self._code / file
            path.write_text(source, "utf-8")
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # as install.sh has it
            py_compile.compile(str(path), dfile=file, doraise=True, invalidation_mode=mode)

    def pytest(self, arguments: Sequence[str], bound: float, variables: Mapping[str, str] | None = None) -> Run:
        """Run pytest in the copy, at a low priority."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        env = {**os.environ, "TMPDIR": str(self._temporary), **(variables or {})}
        env.pop("PYTHONPATH", None)
        env.pop("PYCNI_BIN", None)
        if self._code:
            env["PYCNI_BIN"] = str(self.bin_dir)
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line"]
        command = [*(_ALONE if os.geteuid() == 0 else ()), "nice", "-n", str(_NICENESS), sys.executable, "-m", "pytest"]
        quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
        command += [*options, *arguments]
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=env,
            stdin=quiet,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            try:
                output, _ = process.communicate(timeout=bound)
            except subprocess.TimeoutExpired:
                return Run(None, "")
            finally:
                process.kill()
        return Run(process.returncode, output)

    def remove(self) -> None:
        """Take the copy away."""
        shutil.rmtree(self._place, ignore_errors=True)


def read_sources(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The sources of these packages, by their path from the root."""
    paths = sorted(path for package in packages for path in (root / package).rglob("*.py"))
    return {str(path.relative_to(root)): path.read_text("utf-8") for path in paths}
