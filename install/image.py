"""Makes a container image out of a bundle: an archive in OCI layout, which docker reads too.

It has two layers: what a bundle needs of a node (glibc and a few files in /etc), and the bundle unchanged. The same
bundle and the same glibc give the same bytes. Source: the OCI image specification, image-layout.md and config.md.
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
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",  # without it glibc asks DNS first
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
    """Arguments BUNDLE VERSION TARGET: write the image of the archive BUNDLE, tagged VERSION, to TARGET."""
    bundle, version, target = sys.argv[1:]
    archive = Path(bundle).read_bytes()
    image = make_image([write_layer(base_files(archive)), archive], version)
    Path(target).write_bytes(image)


def base_files(bundle: bytes) -> dict[str, tuple[int, bytes]]:
    """The files that a bundle needs besides itself, by path: mode and content. This machine's glibc, files in /etc."""
    files = {name: (0o644, text.encode()) for name, text in FILES.items()}
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
            archive.extractall(unpacked)
        for path in needed_libraries(Path(unpacked, LIBRARY)):
            files[str(path).lstrip("/")] = (0o755, path.read_bytes())
    return files


def needed_libraries(library: Path) -> set[Path]:
    """The machine's shared libraries that binaries below a directory are linked with, and the dynamic loader."""
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
    """A layer with these files, their parent directories, and the directories that every image has; compressed tar."""
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
    """The image as a tar archive. Each layer is a compressed tar archive."""
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
    """The image's configuration (config.md)."""
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
    """The SHA-256 of a layer before compression."""
    return hashlib.sha256(gzip.decompress(layer)).hexdigest()


def path_of(descriptor: dict[str, Any]) -> str:
    """The path in the archive of the blob that a descriptor names."""
    digest: str = descriptor["digest"]
    return "blobs/" + digest.replace(":", "/")


def add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    """Add a file that root owns, with modification time 0."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def as_json(document: Any) -> bytes:
    """Encode a document as JSON without blanks: the same document gives the same bytes."""
    return json.dumps(document, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
