"""Kubernetes' own end-to-end tests, out of the same source: the programs, and the images that they ask for by name."""

import io
import shutil
import tarfile
from pathlib import Path

from tests.kit.kubernetes.command import run_gently
from tests.kit.kubernetes.images import add_entry, write_archive
from tests.kit.kubernetes.programs import GO_BOUND, Say, ensure, ensure_source, go_environment, source_of
from tests.kit.kubernetes.tree import make_tree

# What this version of the tests names, and has a registry for; here all of it is one image.
NAMES = (
    "k8s.gcr.io/e2e-test-images/agnhost:2.21",
    "gcr.io/kubernetes-e2e-test-images/jessie-dnsutils:1.0",
    "k8s.gcr.io/build-image/debian-iptables:buster-v1.3.0",
    "docker.io/library/busybox:1.29",
    "k8s.gcr.io/pause:3.2",
)
_TOOLS = ("bind9-dnsutils", "conntrack", "curl", "dnsmasq-base", "iperf", "iptables", "netcat-openbsd", "wget")
_CERTIFICATES = ("localhost.crt", "localhost.key")
# One test wants a server, by this name, of the few names that its Corefile has under "hosts".
_CORE_DNS = """#!/bin/sh
grep -E '^\\s+[0-9]' "$2" >/tmp/hosts
exec dnsmasq --keep-in-foreground --no-resolv --no-hosts --addn-hosts=/tmp/hosts --user=root --log-facility=-
"""
_EMBEDDED = (
    *("test/conformance/testdata/...", "test/e2e/testing-manifests/...", "test/e2e_node/testing-manifests/..."),
    *("test/images/...", "test/fixtures/..."),
)


def ensure_e2e(say: Say) -> Path:
    """The directory with e2e.test, ginkgo and agnhost. Raises SetupError."""
    return ensure("e2e", "1", _build, say)


def ensure_image(programs: Path, say: Say) -> Path:
    """The archive with the image for all NAMES. Raises SetupError."""

    def make(target: Path, say: Say) -> None:
        say("making the image of the tests by debootstrap")
        _write_image(target, programs)

    return ensure("e2e-image", " ".join([*NAMES, *_TOOLS, _CORE_DNS]), make, say) / "agnhost.tar"


def _build(target: Path, say: Say) -> None:
    gopath = ensure_source(say)
    source, env = source_of(gopath), go_environment(gopath, target)

    def build(name: str, package: str, *how: str) -> Path:
        say(f"building {name}")
        command = ["go", *(how or ("build",)), "-trimpath", "-ldflags", "-s -w", "-o", str(target / name), package]
        run_gently(command, source, env, GO_BOUND)
        return target / name

    generator = build("go-bindata", "./vendor/github.com/go-bindata/go-bindata/go-bindata")
    left_out = [
        option for pattern in (r"\.jpg", r"\.png", r"\.md", r"BUILD(\.bazel)?") for option in ("-ignore", pattern)
    ]
    embed = [str(generator), "-nometadata", "-o", "test/e2e/generated/bindata.go", "-pkg", "generated"]
    run_gently([*embed, *left_out, *_EMBEDDED], source, env, GO_BOUND)
    build("agnhost", "./test/images/agnhost")
    build("ginkgo", "./vendor/github.com/onsi/ginkgo/ginkgo")
    build("e2e.test", "./test/e2e", "test", "-c")
    for name in _CERTIFICATES:  # agnhost's own, for its tests by TLS
        shutil.copy(source / "test/images/agnhost/porter" / name, target)


def _write_image(target: Path, programs: Path) -> None:
    tree = target / "tree"
    tree.mkdir()
    make_tree(tree, _TOOLS)
    with tarfile.open(fileobj=(layer := io.BytesIO()), mode="w") as packed:
        packed.add(tree, ".", filter=lambda entry: None if entry.name.startswith("./dev/") else entry)
        add_entry(packed, "agnhost", (programs / "agnhost").read_bytes(), mode=0o755)
        add_entry(packed, "coredns", _CORE_DNS.encode(), mode=0o755)
        for link in ("agnhost-2", "pause"):
            add_entry(packed, link, link="agnhost")
        for name in _CERTIFICATES:
            add_entry(packed, name, (programs / name).read_bytes())
    write_archive(target / "agnhost.tar", layer.getvalue(), NAMES, ["pause"], Entrypoint=["/agnhost"])
    shutil.rmtree(tree)
