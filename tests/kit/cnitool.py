"""cnitool, the client that the authors of the specification have, built once from Debian's source package.

Nothing of the source is changed; what is built is kept where Kubernetes' programs are.
"""

from pathlib import Path

from tests.kit.kubernetes.command import run_gently
from tests.kit.kubernetes.programs import GO_BOUND, Say, ensure, go_environment, unpack_source

_PACKAGE = "golang-github-appc-cni"  # the binary packages have the library alone
_IMPORT_PATH = "github.com/containernetworking/cni"


def ensure_cnitool(say: Say) -> Path:
    """The program. Raises SetupError with the step that failed."""
    return ensure("cnitool", "1", _build, say) / "cnitool"


def _build(target: Path, say: Say) -> None:
    say("fetching and building cnitool")
    source = target / "src" / _IMPORT_PATH
    unpack_source(_PACKAGE, target, source)
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{target}/cnitool", "./cnitool"]
    run_gently(command, source, go_environment(target, target), GO_BOUND)
