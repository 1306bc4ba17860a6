"""Makes an image for containers out of a bundle: an archive in the layout of OCI, which docker reads too.

Two layers: what the bundle takes from a node, which is glibc and a few files of /etc, and the bundle as it is. The
same bundle and the same glibc give the same bytes. Source: the OCI image specification, image-layout.md and config.md.
Must not: fetch anything.
"""

import gzip
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

LIBRARY = "opt/cni/lib/pycni"  # below the root, as in install/bundle.sh
REPOSITORY = "docker.io/library/pycni"  # as containerd completes the name `pycni`
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}  # the kernel's names, and those of images
NEVER = "1970-01-01T00:00:00Z"
DIRECTORIES = (
    *("dev", "etc", "host", "opt", "opt/cni", "opt/cni/bin", "opt/cni/lib", LIBRARY, "proc", "run", "sys", "tmp"),
)
FILES = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",  # without it glibc asks a server first
}
CONFIG = {
    "Entrypoint": ["pycni"],
    "Cmd": ["agent"],
    "Env": [f"PATH=/{LIBRARY}:/opt/cni/bin"],
    "WorkingDir": "/",
}
OCI = "application/vnd.oci.image"
INDEX, MANIFEST = f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json"
CONFIGURATION, LAYER = f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+gzip"
LDD_BOUND = 60  # seconds


def main() -> None:
    """Write the image VERSION of the archive BUNDLE to TARGET."""
    bundle, version, target = sys.argv[1:]
    archive = Path(bundle).read_bytes()
    image = make_image([write_layer(base_files(archive)), archive], version)
    Path(target).write_bytes(image)


def base_files(bundle: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content, by path, of what a bundle needs beside itself: this machine's glibc, and files of /etc."""
    files = {name: (0o644, text.encode()) for name, text in FILES.items()}
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
            archive.extractall(unpacked)
        for path in needed_libraries(Path(unpacked, LIBRARY)):
            files[str(path).lstrip("/")] = (0o755, path.read_bytes())
    return files


def needed_libraries(library: Path) -> set[Path]:
    """The shared libraries of the machine that binaries below a directory are linked with, and the loader."""
    binaries = [*library.glob("*/bin/python3"), *library.rglob("*.so*")]
    own = {path.name for path in binaries}
    command = ["ldd", *map(str, binaries)]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=LDD_BOUND).stdout
    found = set()
    for words in map(str.split, listed.splitlines()):
        name = Path(words[0]).name
        path = next((word for word in words if word.startswith("/") and not word.endswith(":")), "")
        if path and name not in own:
            found.add(Path(path))
    return found


def write_layer(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An archive of the directories that every image has, those on the way to the files, and the files."""
    parents = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as layer:
        for name in sorted({*DIRECTORIES, *parents}):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            layer.addfile(entry)
        for name, (mode, content) in sorted(files.items()):
            add_file(layer, name, content, mode)
    return gzip.compress(buffer.getvalue(), mtime=0)


def make_image(layers: list[bytes], version: str) -> bytes:
    """The archive of an image of these layers, each a compressed archive."""
    blobs: dict[str, bytes] = {}

    def keep(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    kept = [keep(layer, LAYER) for layer in layers]
    config = keep(as_json(configuration(layers)), CONFIGURATION)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": kept}
    names = {"io.containerd.image.name": f"{REPOSITORY}:{version}", "org.opencontainers.image.ref.name": version}
    named = keep(as_json(manifest), MANIFEST) | {"annotations": names}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
    of_docker = {"Config": path_of(config), "RepoTags": [f"pycni:{version}"], "Layers": list(map(path_of, kept))}
    files = {
        "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": as_json(index),
        "manifest.json": as_json([of_docker]),  # for docker load
        **blobs,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as image:
        for name, content in files.items():
            add_file(image, name, content, 0o644)
    return buffer.getvalue()


def configuration(layers: list[bytes]) -> dict[str, Any]:
    """What the image is for, and what it is made of."""
    machine = platform.machine()
    return {
        "created": NEVER,
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": CONFIG,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{uncompressed_digest(layer)}" for layer in layers]},
        "history": [{"created": NEVER, "created_by": "install.sh --image"} for _ in layers],
    }


def uncompressed_digest(layer: bytes) -> str:
    """The SHA-256 of what a layer holds."""
    return hashlib.sha256(gzip.decompress(layer)).hexdigest()


def path_of(descriptor: dict[str, Any]) -> str:
    """Where the blob of a descriptor stands in the archive."""
    digest: str = descriptor["digest"]
    return "blobs/" + digest.replace(":", "/")


def add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    """A file of root's, as old as time."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def as_json(document: Any) -> bytes:
    """The same document is always the same bytes."""
    return json.dumps(document, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
