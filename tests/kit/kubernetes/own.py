"""The image of this checkout, as install.sh makes it; kept, so that it is made once for the same sources."""

import hashlib
import os
import shutil
from pathlib import Path

from tests.conftest import ROOT
from tests.kit.kubernetes.command import run
from tests.kit.kubernetes.programs import Say, cache, ensure

_MADE_OF = ("cni_*/**/*.py", "install/**/*", "install.sh", "setup.cfg")
_BOUND = 300.0  # seconds
_KEPT = 4  # of several checkouts, whose runs may be at once


def ensure_own_image(say: Say) -> Path:
    """The archive. Raises SetupError with what install.sh said."""
    digest = hashlib.sha256(run(["python3", "-VV"], seconds=_BOUND).encode())
    for path in sorted(path for pattern in _MADE_OF for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode}\0".encode() + path.read_bytes())

    def make(target: Path, say: Say) -> None:
        say("making the image of this checkout")
        run([str(ROOT / "install.sh"), "--image", str(target / "pycni.tar")], seconds=_BOUND)

    made = ensure(f"own-{digest.hexdigest()[:16]}", "1", make, say)
    os.utime(made)  # the last to go is the one that was used last
    others = [path for path in cache().glob("own-*/") if path != made]
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[: 1 - _KEPT]:
        shutil.rmtree(old, ignore_errors=True)
        old.with_name(f"{old.name}.lock").unlink(missing_ok=True)
    return made / "pycni.tar"
