"""install.sh --image: what the image holds, and what containers of it do under containerd."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.kit.calls import bare_environment
from tests.kit.certificates import make_ca, sign
from tests.kit.containerd import Containerd
from tests.kit.https import ANSWER, CLIENT, serving
from tests.kit.node import PLUGIN_DIR, Node

BUILD_BOUND = 120  # seconds
SIZE_BOUND = 16 << 20  # bytes
NAME = "docker.io/library/pycni:0.1.0"
LIBRARY = "/opt/cni/lib/pycni"


def make_image(bundle: Path, target: Path) -> Path:
    command = [str(ROOT / "install.sh"), "--image", str(target), "--bundle", str(bundle)]
    subprocess.run(command, check=True, timeout=BUILD_BOUND, stdout=subprocess.DEVNULL)
    return target


@pytest.fixture(scope="session")
def image(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(bundle, tmp_path_factory.mktemp("image of pycni") / "pycni.tar")


def read(image: Path) -> dict[str, bytes]:
    """The files of the archive."""
    with tarfile.open(image) as archive:
        members = archive.getmembers()
        assert {(member.uid, member.gid, member.mtime, member.mode) for member in members} == {(0, 0, 0, 0o644)}
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def follow(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The blob that a descriptor names; it has to be the one that it describes."""
    blob = files["blobs/" + descriptor["digest"].replace(":", "/")]
    assert descriptor["digest"] == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert descriptor["size"] == len(blob)
    return blob


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, image: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copy(bundle, tmp_path / "another name.tar.gz"))
    assert make_image(copied, tmp_path / "a" / "b.tar").read_bytes() == image.read_bytes()


def test_image_is_small(image: Path) -> None:
    assert image.stat().st_size <= SIZE_BOUND


def test_every_descriptor_describes_what_it_names_and_docker_is_told_the_same(image: Path, bundle: Path) -> None:
    files = read(image)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (named,) = json.loads(files["index.json"])["manifests"]
    assert named["annotations"]["io.containerd.image.name"] == NAME
    manifest = json.loads(follow(files, named))
    config = json.loads(follow(files, manifest["config"]))
    layers = [follow(files, layer) for layer in manifest["layers"]]
    assert layers[1] == bundle.read_bytes()
    sums = [f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}" for layer in layers]
    assert config["rootfs"]["diff_ids"] == sums
    assert (config["config"]["Entrypoint"], config["config"]["Cmd"]) == (["pycni"], ["agent"])
    paths = ["blobs/" + entry["digest"].replace(":", "/") for entry in (manifest["config"], *manifest["layers"])]
    assert json.loads(files["manifest.json"]) == [
        {"Config": paths[0], "RepoTags": ["pycni:0.1.0"], "Layers": paths[1:]}
    ]
    assert len(files) == len(paths) + 4, "and nothing else is in it"


def test_base_layer_brings_every_directory_that_the_bundle_names_no_mode_for(image: Path) -> None:
    files = read(image)
    (named,) = json.loads(files["index.json"])["manifests"]
    base, bundle = (follow(files, layer) for layer in json.loads(follow(files, named))["layers"])
    with tarfile.open(fileobj=io.BytesIO(base)) as archive:
        modes = {member.name: member.mode for member in archive.getmembers() if member.isdir()}
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        members = archive.getmembers()
    own = {member.name for member in members if member.isdir()}
    needed = {str(parent) for member in members for parent in Path(member.name).parents} - {"."} - own
    assert needed == {"opt", "opt/cni", "opt/cni/bin", "opt/cni/lib", "opt/cni/lib/pycni"}
    assert {modes[name] for name in needed} == {0o755}


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    command = [str(ROOT / "install.sh"), "--image", str(tmp_path / "x.tar"), "--bundle", "/etc/hostname"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_BOUND, check=False)
    assert done.returncode == 1
    assert "install.sh: the image cannot be made of /etc/hostname" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Containers:
    """Containers of the image on a node, one after the other."""

    def __init__(self, node: Node, daemon: Containerd) -> None:
        self._node = node
        self._daemon = daemon

    def run(self, *command: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """Run a command in a new container, with options of `ctr run`."""
        whole = ("run", "--rm", "--cgroup", f"{self._node.cgroup}/pycni", *options, NAME, "pycni", *command)
        return self._node.host.run(*self._daemon.ctr(*whole), check=False)


@pytest.fixture
def containers(node: Node, image: Path, start_containerd: Callable[[], Containerd]) -> Containers:
    """Made after the import, which `ctr images import` does by itself with the name that the image has."""
    daemon = start_containerd()
    node.host.run(*daemon.ctr("images", "import", str(image)))
    assert NAME in node.host.run(*daemon.ctr("images", "list", "--quiet")).stdout.split()
    return Containers(node, daemon)


@pytest.mark.kernel
def test_a_container_has_all_that_the_program_needs(containers: Containers) -> None:
    done = containers.run("pycni", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: pycni ")


@pytest.mark.kernel
def test_a_container_speaks_tls_to_whom_the_ca_that_is_mounted_knows(
    containers: Containers, node: Node, image: Path, tmp_path: Path
) -> None:
    ca = make_ca(tmp_path)
    mount = ("--mount", f"type=bind,src={tmp_path},dst=/run/secrets,options=rbind:ro")
    python = f"/{interpreter(image)}"
    with serving(node.host, sign(ca, "server")) as port:
        asked = (python, "-ISB", "-c", CLIENT, str(port), "/run/secrets/ca.crt")
        done = containers.run(*asked, options=("--net-host", *mount))
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", ANSWER)


def interpreter(image: Path) -> str:
    """Where Python is in the image."""
    files = read(image)
    (named,) = json.loads(files["index.json"])["manifests"]
    layer = follow(files, json.loads(follow(files, named))["layers"][1])
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return next(name for name in archive.getnames() if name.endswith("/bin/python3"))


@pytest.mark.kernel
def test_a_container_installs_the_plugins_on_its_node(containers: Containers, node: Node) -> None:
    node.path(LIBRARY).mkdir(parents=True)
    mounts = [("--mount", f"type=bind,src={path},dst=/host{path},options=rbind:rw") for path in (PLUGIN_DIR, LIBRARY)]
    options = tuple(word for mount in mounts for word in mount)
    done = containers.run("pycni", "install-plugins", "--root", "/host", options=options)
    assert done.returncode == 0, done.stderr
    for name in ("cni-bridge", "cni-ipam"):
        text = node.path(f"{PLUGIN_DIR}/{name}").read_text()
        assert text.startswith(f"#!{LIBRARY}/")
        answer = node.host.run(f"{PLUGIN_DIR}/{name}", env=bare_environment("VERSION"), input="{}").stdout
        assert "supportedVersions" in json.loads(answer)
    before = {path: os.stat(path).st_ino for path in node.path("/opt/cni").rglob("*")}
    again = containers.run("pycni", "install-plugins", "--root", "/host", options=options)
    assert "pycni: the plugins in /host are as they should be" in again.stderr
    assert {path: os.stat(path).st_ino for path in node.path("/opt/cni").rglob("*")} == before
