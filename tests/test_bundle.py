"""install.sh --bundle: what the archive holds, and that it runs where there is no Python."""

import ast
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.kit.bare import BareNode, make_tree, open_bare_node
from tests.kit.calls import bare_environment
from tests.kit.certificates import make_ca, sign
from tests.kit.host import Outcome
from tests.kit.https import ANSWER, CLIENT, serving

PACKAGES = tuple(sorted(path.name for path in ROOT.glob("cni_*")))
BUILD_BOUND = 120  # seconds; a few are usual
SIZE_BOUND = 15 << 20  # bytes
LIBRARY = "opt/cni/lib/pycni"
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "ipam": {
        "type": "cni-ipam",
        "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}

# What bundle.py does not follow, and what the standard library has for systems that are none of ours.
NOT_BROUGHT = {
    *("_hashlib", "doctest", "pydoc", "test", "tkinter", "unittest", "xmlrpc"),
}
OTHER_PYTHONS = {"_sha2"}  # of 3.12
OTHER_SYSTEMS = {
    *("_overlapped", "_winapi", "_winreg", "ctypes.macholib", "java", "msvcrt", "nt", "org", "vms_lib", "winreg"),
}


def import_names(source: str, package: str) -> set[str]:
    """The modules that any import statement of a module names, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names if is_ours(f"{base}.{alias.name}"))}
    return names


def is_ours(name: str) -> bool:
    return ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()


def all_modules() -> list[str]:
    """Every module of ours, and every module that one of them names."""
    names = set()
    for path in [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        names |= {package if path.stem == "__init__" else f"{package}.{path.stem}"}
        names |= import_names(path.read_text("utf-8"), package)
    return sorted(names - OTHER_PYTHONS)


def unpack(bundle: Path, target: Path) -> Path:
    """The archive as tar unpacks it. Returns the directory named after its content."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xzf", str(bundle), "-C", str(target)], check=True, timeout=60)
    (code,) = (target / LIBRARY).glob("*/bin/python3")
    return code.parent.parent


@pytest.fixture
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    return unpack(bundle, tmp_path / "unpacked")


@pytest.fixture
def bare_node(tmp_path: Path) -> Iterator[BareNode]:
    make_tree(tmp_path / "node")
    node = open_bare_node(tmp_path / "node")
    yield node
    node.close()


@pytest.fixture
def node(bare_node: BareNode, bundle: Path) -> BareNode:
    """A bare node with the bundle, unpacked from inside by the node's own tar."""
    done = bare_node.call("tar", "-xzf", "-", "-C", "/", stdin=bundle.read_bytes())
    assert (done.status, done.stderr) == (0, "")
    return bare_node


def test_bundle_is_small(bundle: Path) -> None:
    assert bundle.stat().st_size <= SIZE_BOUND


def test_the_same_sources_give_the_same_bytes_wherever_they_stand(
    bundle: Path, build_bundle: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    checkout = copy_sources(tmp_path / "another place")
    build_bundle(checkout, tmp_path / "again.tar.gz")
    assert hashlib.sha256((tmp_path / "again.tar.gz").read_bytes()).digest() == sha256_of(bundle)


def test_changed_sources_get_another_directory(
    bundle: Path, build_bundle: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    checkout = copy_sources(tmp_path / "checkout")
    with (checkout / "cni_protocol" / "errors.py").open("a") as file:
        file.write("\nADDED = 1\n")
    build_bundle(checkout, tmp_path / "other.tar.gz")
    assert unpack(tmp_path / "other.tar.gz", tmp_path / "a").name != unpack(bundle, tmp_path / "b").name


def test_archive_names_nothing_but_opt_cni_owned_by_root_and_the_executables_last(bundle: Path) -> None:
    with tarfile.open(bundle) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names[-2:] == ["opt/cni/bin/cni-bridge", "opt/cni/bin/cni-ipam"]
    assert all(name.startswith(f"{LIBRARY}/") for name in names[:-2])
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}
    assert all(member.isdir() or member.isreg() for member in members)
    assert {member.mode for member in members} == {0o755, 0o644}


def test_checksums_cover_every_file_of_the_directory(unpacked: Path) -> None:
    mark = unpacked / ".put-here-by-pycni"
    summed = {line.split("  ./", 1)[1]: line.split()[0] for line in mark.read_text().splitlines()}
    files = {str(path.relative_to(unpacked)): path for path in unpacked.rglob("*") if path.is_file() and path != mark}
    assert summed == {name: sha256_of(path).hex() for name, path in files.items()}
    assert unpacked.name == sha256_of(mark).hex()[:16]


def test_nothing_of_the_machine_is_needed_but_glibc(unpacked: Path) -> None:
    """Each binary finds its libraries in the bundle, or they are glibc's."""
    binaries = [unpacked / "bin" / "python3", *unpacked.rglob("*.so*")]
    for binary in binaries:
        text = subprocess.run(["readelf", "-dW", str(binary)], check=True, capture_output=True, text=True).stdout
        needed = [line.split("[")[1].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line]
        outside = [name for name in needed if not (unpacked / "lib" / name).exists()]
        assert set(outside) <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}, binary


def test_no_archive_is_left_when_it_cannot_be_made(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [str(ROOT / "install.sh"), "--bundle", str(tmp_path / "x.tar.gz"), "--wheel-dir", str(empty)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_BOUND, check=False)
    assert done.returncode == 1
    assert "no pyroute2-*.whl in" in done.stderr
    assert not (tmp_path / "x.tar.gz").exists()


@pytest.mark.kernel
def test_the_bare_node_has_no_python_and_a_read_only_root(bare_node: BareNode) -> None:
    found = bare_node.call("find", "/bin", "/sbin", "/usr", "/lib", "/lib64", "/opt", "/etc", "-name", "*python*")
    assert (found.status, found.stdout) == (0, "")
    assert "Read-only file system" in bare_node.call("mkdir", "/etc/x").stderr


@pytest.mark.kernel
def test_every_import_statement_of_ours_works_on_a_node_without_python(node: BareNode) -> None:
    names = all_modules()
    assert {"cni_kernel.vlans", "cni_node.agent.loop", "difflib", "json"} <= set(names)
    code = python_of(node)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); [__import__(name) for name in sys.argv[2:]]; print(sys.path)"
    )
    done = node.call(f"{code}/bin/python3", "-ISBXutf8", "-c", program, f"{code}/code", *names)
    assert (done.status, done.stderr) == (0, "")
    assert all(path.startswith(f"{code}/") for path in ast.literal_eval(done.stdout))


@pytest.mark.kernel
def test_every_import_statement_of_the_bundled_library_works_there_too(node: BareNode, bundle: Path) -> None:
    """Also those inside functions, but for what is left out on purpose, and what is for other systems than this."""
    code = python_of(node)
    library = sorted((node.disk / "opt" / "cni").glob("lib/pycni/*/lib/python3*"))[0]
    brought = {".".join(path.relative_to(library).with_suffix("").parts) for path in library.rglob("*.pyc")}
    names = {name.removesuffix(".__init__") for name in brought}
    program = "import os; print(os.path.dirname(os.__file__))"
    stdlib = Path(subprocess.check_output(["/usr/bin/python3", "-c", program], text=True).strip())
    wanted = set(names)
    for name in names:
        base = stdlib.joinpath(*name.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        package = name if base.is_dir() else name.rpartition(".")[0]
        wanted |= import_names(path.read_text("utf-8"), package)
    wanted.remove("encodings.mbcs")  # of Windows
    program = (
        "import sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: __import__(name)\n"
        "    except ImportError as error: print(error.name or '')\n"
    )
    done = node.call(f"{code}/bin/python3", "-ISBXutf8", "-c", program, *sorted(wanted))
    assert (done.status, done.stderr) == (0, "")
    known = NOT_BROUGHT | OTHER_SYSTEMS
    assert [name for name in done.stdout.split() if not {name, name.partition(".")[0]} & known] == []


@pytest.mark.kernel
def test_the_plugins_serve_a_pod_on_a_node_without_python(node: BareNode) -> None:
    first, second = node.start_container(), node.start_container()
    assert serve(node, "VERSION").document["supportedVersions"]
    assert serve(node, "STATUS").stdout == ""
    result = serve(node, "ADD", container=first, name="c1").document
    assert [entry["address"] for entry in result["ips"]] == ["10.244.1.2/24", "fd00:244:1::2/64"]
    serve(node, "ADD", container=second, name="c2")
    assert node.ping("10.244.1.3", container=first)
    assert node.ping("fd00:244:1::3", container=first)
    assert node.ping("10.244.1.1", container=second)
    assert node.nft() != []
    assert node.call("ls", "/var/lib/cni/networks/mynet").stdout.split()[:1] == ["10.244.1.2"]
    assert serve(node, "CHECK", container=first, name="c1", config={**NETWORK, "prevResult": result}).stdout == ""
    for name, container in (("c1", first), ("c2", second)):
        assert serve(node, "DEL", container=container, name=name).stdout == ""
    serve(node, "GC", config={**NETWORK, "cni.dev/valid-attachments": []})
    assert node.link_names(container=first) == []
    assert "10.244.1." not in node.call("ls", "/var/lib/cni/networks/mynet").stdout
    assert node.nft() == []


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"bridge": "a/b", "mtu": -1}, 7, id="invalid"),
        pytest.param({"ipMasqBackend": "iptables"}, 2, id="unsupported"),
        pytest.param({"isGatway": True, "strict": True}, 2, id="a typo, for which difflib is loaded"),
        pytest.param({"ipam": {"type": "nonsense"}}, 7, id="no such IPAM plugin"),
    ],
)
def test_errors_are_put_into_words_on_a_node_without_python(
    node: BareNode, change: dict[str, object], code: int
) -> None:
    container = node.start_container()
    done = node.plugin("ADD", {**NETWORK, **change}, container=container)
    assert (done.status, done.document["code"]) == (1, code)
    assert "ImportError" not in done.stdout + done.stderr
    assert "No module" not in done.stdout + done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_configuration_in_another_encoding_is_refused_in_words(node: BareNode, encoding: str) -> None:
    """Codecs are modules found by name, and error handling is what nobody tries by hand."""
    stdin = '{"cniVersion": "1.0.0", "name": "n\xe4"}'.encode(encoding)
    done = node.call("/opt/cni/bin/cni-bridge", env=bare_environment("VERSION"), stdin=stdin)
    assert (done.status, done.stderr, done.document["code"]) == (1, "", 6)
    assert "no JSON document" in done.document["msg"]


@pytest.mark.kernel
def test_the_unforeseen_has_its_traceback_on_a_node_without_python(node: BareNode) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cni_protocol.plugin import Plugin, answer\n"
        "def fail(request): raise RuntimeError('made to')\n"
        "env = {'CNI_COMMAND': 'STATUS'}\n"
        'stdin = b\'{"cniVersion": "1.1.0", "name": "n"}\'\n'
        "print(answer(Plugin('p', 'w', {'STATUS': fail}), env, lambda: stdin)[1].decode())\n"
    )
    code = python_of(node)
    done = node.call(f"{code}/bin/python3", "-ISBXutf8", "-c", program, f"{code}/code")
    assert done.document["code"] == 199
    assert "RuntimeError: made to" in done.document["details"]
    assert "cni_protocol/plugin.py" in done.document["details"]


@pytest.mark.kernel
def test_tls_is_spoken_on_a_node_without_python_and_only_to_whom_the_ca_knows(node: BareNode, tmp_path: Path) -> None:
    ca, stranger = make_ca(tmp_path, "ca"), make_ca(tmp_path, "stranger")
    for pair in (ca, stranger):
        shutil.copy(pair.certificate, node.disk / "opt" / "cni" / pair.certificate.name)
    python = f"{python_of(node)}/bin/python3"
    with serving(node, sign(ca, "server")) as port:
        done = node.call(python, "-ISB", "-c", CLIENT, str(port), "/opt/cni/ca.crt")
        assert (done.status, done.stderr, done.stdout.strip()) == (0, "", ANSWER)
        refused = node.call(python, "-ISB", "-c", CLIENT, str(port), "/opt/cni/stranger.crt")
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr


def test_every_part_of_pyroute2_is_imported_by_its_own_name() -> None:
    """In the bundle the package itself is empty: its __init__ would load the whole library."""
    sources = [path.read_text("utf-8") for path in (ROOT / "cni_node").rglob("*.py")]
    names = set().union(*(import_names(text, "cni_node") for text in sources))
    assert "pyroute2" not in names


@pytest.mark.kernel
def test_the_nodes_program_runs_on_a_node_without_python(node: BareNode) -> None:
    done = node.call(f"/{LIBRARY}/pycni", "--help")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: pycni ")


def serve(node: BareNode, command: str, *, config: dict[str, object] | None = None, **options: str) -> Outcome:
    """A call that has to succeed, without a word on stderr."""
    done = node.plugin(command, config or NETWORK, **options)
    assert (done.status, done.stderr) == (0, ""), done.stdout
    return done


def python_of(node: BareNode) -> str:
    """Where the bundle is, as the node sees it."""
    (code,) = (node.disk / "opt" / "cni").glob("lib/pycni/*/bin/python3")
    return f"/{LIBRARY}/{code.parent.parent.name}"


def sha256_of(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def copy_sources(target: Path) -> Path:
    """What install.sh --bundle takes of a checkout."""
    target.mkdir()
    for name in ("install.sh", "setup.cfg"):
        shutil.copy2(ROOT / name, target / name)
    for name in (*PACKAGES, "install", "scripts/lib"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target
