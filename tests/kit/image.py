"""A root file system of busybox, as a directory and as an image in docker's archive form. Nothing is pulled."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

BUSYBOX = Path("/usr/bin/busybox")  # Debian's busybox-static
NAME = "localhost/pause:1"
COMMAND = ["/bin/busybox", "sleep", "600"]
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the kernel's names, and those of images
ARCHITECTURE = _ARCHITECTURES.get(platform.machine(), platform.machine())
_DIRECTORIES = ("bin", "dev", "etc", "proc", "run", "sys", "tmp")


def write_rootfs(target: Path) -> Path:
    """Make a root file system in a directory."""
    for name in _DIRECTORIES:
        (target / name).mkdir(parents=True)
    (target / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (target / "bin/busybox").chmod(0o755)
    return target


def write_archive(rootfs: Path, target: Path) -> Path:
    """Pack a root file system as an image of one layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as packed:
        packed.add(rootfs, arcname=".")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {"Cmd": COMMAND, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        for name, content in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target
