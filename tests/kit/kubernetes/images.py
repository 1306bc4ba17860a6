"""Images of what this machine has, in docker's archive form: nothing is pulled, and nothing of a registry is needed.

One image is for all pods of the tests: busybox with its applets, this machine's Python with the libraries that it
loads, and the programs in tests/kit/kubernetes/pods, which stand in /pods.
"""

import hashlib
import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.kit.image import ARCHITECTURE, BUSYBOX
from tests.kit.kubernetes.command import run

PODS, PAUSE = "localhost/pycni-pods:1", "localhost/pause:1"
_PROGRAMS = Path(__file__).parent / "pods"
_LIBRARY = Path(sysconfig.get_path("stdlib"))
# Of the standard library: what no program of a pod imports, and what takes most of the room.
_LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|test|tests|idlelib|lib2to3|ensurepip|config-.*|tkinter|turtledemo|pydoc_data)$"
)
_DIRECTORIES = ("bin", "dev", "etc", "home", "lib", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",  # glibc's own order asks other sources first
}
_LINK_BOUND = 60  # seconds


def write_pods_image(target: Path) -> Path:
    """The image for the pods of the tests, under the names PODS and PAUSE."""
    files = {f"pods/{path.name}": path for path in _PROGRAMS.glob("*.py")}
    python = Path(sys.executable).resolve()
    extensions = list((_LIBRARY / "lib-dynload").glob("*.so"))
    for path in libraries_of([python, *extensions]):
        files[str(path).lstrip("/")] = path
    files[f"usr/bin/{python.name}"] = python
    with tarfile.open(fileobj=(layer := io.BytesIO()), mode="w") as packed:
        add_base(packed)
        packed.add(_LIBRARY, f"usr/lib/{_LIBRARY.name}", filter=_is_wanted)
        for name, path in sorted(files.items()):
            add_entry(packed, name, path.resolve().read_bytes(), mode=0o755)
        add_entry(packed, "usr/bin/python3", link=python.name)
    return write_archive(target, layer.getvalue(), [PODS, PAUSE], ["/bin/busybox", "sleep", "1000000"])


def write_program_image(target: Path, name: str, program: Path) -> Path:
    """An image of busybox and one program that needs no library, which stands in the image's root directory."""
    with tarfile.open(fileobj=(layer := io.BytesIO()), mode="w") as packed:
        add_base(packed)
        add_entry(packed, program.name, program.read_bytes(), mode=0o755)
    return write_archive(target, layer.getvalue(), [name], [], Entrypoint=[f"/{program.name}"])


def add_base(packed: tarfile.TarFile) -> None:
    """The directories, the files and the busybox of every image."""
    for name in _DIRECTORIES:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        packed.addfile(entry)
    for name, text in _FILES.items():
        add_entry(packed, name, text.encode())
    add_entry(packed, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
    applets = run([str(BUSYBOX), "--list"], seconds=_LINK_BOUND).split()
    for applet in set(applets) - {"busybox"}:
        add_entry(packed, f"bin/{applet}", link="busybox")


def add_entry(packed: tarfile.TarFile, name: str, data: bytes = b"", *, mode: int = 0o644, link: str = "") -> None:
    """A file, or a symbolic link."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    packed.addfile(entry, io.BytesIO(data))


def write_archive(target: Path, layer: bytes, names: Sequence[str], command: Sequence[str], **further: object) -> Path:
    """An image of one layer, with the names that it goes by; `further` adds to its configuration."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {"Cmd": list(command), "Env": [path], **further},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "tests"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": ["layer.tar"]}]
    parts: Mapping[str, bytes] = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(target, "w") as archive:
        for name, data in parts.items():
            add_entry(archive, name, data)
    return target


def libraries_of(programs: Iterable[Path]) -> set[Path]:
    """The shared libraries that programs load when they start, the loader among them, as ldd(1) tells."""
    command = ["ldd", *map(str, programs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LINK_BOUND, check=False)  # 1: one is static
    return {Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)}


def _is_wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if _LEFT_OUT.search(entry.name) else entry
