"""Sets up one node of a cluster: the code of the bundle in its place, the configuration, forwarding.

It needs the standard library alone. On a node it comes with the bundle, as /opt/cni/lib/pycni/node; install.sh --node
calls the one of a bundle that it has just unpacked, which first moves itself to its place. What is right already stays
untouched, so it can be run again at any time, with other peers too.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
CODE = HERE if (HERE / "cni_protocol").is_dir() else HERE.parent.parent  # the latter in a checkout
sys.path[:0] = [str(HERE), str(CODE)]

from nodeconf import add_options, parse_node, render
from trial import TrialError, try_pod

LIBRARY = Path("opt/cni/lib/pycni")  # below the node's root, as in install/bundle.sh
BIN = Path("opt/cni/bin")
CONFIGURATION = "10-pycni.conflist"
MARK = ".put-here-by-pycni"  # as in install/code.sh: in a directory of code, with its checksums
KEPT = 2  # directories of code: a call that is running keeps the one that it began with
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
NETFILTER = (
    "so what pods of one node send each other through a service address may come back untranslated; "
    "load the module br_netfilter on the machine itself"
)


def main(arguments: Sequence[str]) -> int:
    """Set the node up. Returns the exit status."""
    options = parse_options(arguments)
    if options.status:
        ask_status(options.root, options.conf_dir)
    try:
        node = parse_node(options)
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"node: {line}", file=sys.stderr)
        return 2
    try:
        put_code(options.root)
        for problem in switch_on(options.root, {cidr.version for cidr in node.pods}):
            print(f"node: notice: {problem}", file=sys.stderr)
        text = render(node)
        if options.root == Path("/"):
            try_pod(json.loads(text), f"/{BIN}")
        path = below(options.root, options.conf_dir) / CONFIGURATION
        changed = put_file(path, text.encode(), 0o644)  # last: with it the runtime takes the node for ready
    except TrialError as error:
        print(f"node: {error}; {CONFIGURATION} stays as it was", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"node: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{path} {'is written' if changed else 'is as it should be'}: {', '.join(map(str, node.pods))}")
    return 0


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="node", description="Set up this node of a cluster for pycni.", allow_abbrev=False
    )
    add_options(parser)
    parser.add_argument("--conf-dir", metavar="DIR", default="/etc/cni/net.d", help="of the runtime [/etc/cni/net.d]")
    parser.add_argument("--root", metavar="DIR", type=Path, default=Path("/"), help="the node's root directory [/]")
    parser.add_argument("--status", action="store_true", help="only ask the plugin whether it could serve (CNI STATUS)")
    return parser.parse_args(arguments)


def below(root: Path, path: str | Path) -> Path:
    """Where a path of the node is from here."""
    return root / str(path).lstrip("/")


def put_code(root: Path) -> None:
    """Move an unpacked bundle that this program is part of to its place below the root, by renames."""
    code = HERE.parent  # .../opt/cni/lib/pycni/ID
    library = below(root, LIBRARY)
    if not (code / MARK).is_file() or code.parent == library.resolve():
        return
    unpacked = code.parents[len(LIBRARY.parts)]
    place = library / code.name
    if not is_whole(place):
        if place.exists():
            place.rename(code.with_name("damaged"))
        code.rename(place)
    os.utime(place)
    launchers = [(code.parent / name, library / name) for name in ("node", "pycni")]
    for source, target in (*launchers, *executables(unpacked, root)):
        put_file(target, source.read_bytes(), 0o755)
    marks = sorted(library.glob(f"*/{MARK}"), key=lambda mark: mark.parent.stat().st_mtime_ns, reverse=True)
    for mark in marks[KEPT:]:
        shutil.rmtree(mark.parent)


def executables(unpacked: Path, root: Path) -> list[tuple[Path, Path]]:
    """The plugins of an unpacked bundle, and where they go."""
    return [(path, below(root, BIN) / path.name) for path in sorted((unpacked / BIN).iterdir())]


def is_whole(code: Path) -> bool:
    """Whether a directory of code is there with every file as its checksums have it."""
    try:
        for line in (code / MARK).read_text().splitlines():
            digest, _, name = line.partition("  ")
            if sha256((code / name).read_bytes()).hexdigest() != digest:
                return False
    except OSError:
        return False
    return True


def put_file(path: Path, content: bytes, mode: int) -> bool:
    """Have a file with this content, by rename; one that has it is left alone. Returns whether it was written."""
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
            return False
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.rename(path)
    return True


def switch_on(root: Path, versions: set[int]) -> list[str]:
    """Forwarding and bridge netfilter, now (unless it is another root) and after a reboot. Returns what failed."""
    wanted = {key: value for key, value in SYSCTLS.items() if 6 in versions or "ipv6" not in key}
    lines = "".join(f"{key} = {value}\n" for key, value in wanted.items())
    problems = []
    for name, content in (("etc/modules-load.d/pycni.conf", "br_netfilter\n"), ("etc/sysctl.d/99-pycni.conf", lines)):
        try:
            put_file(root / name, content.encode(), 0o644)
        except OSError as error:
            problems.append(
                f"/{name} cannot be written ({error.strerror}): a reboot switches off what it would have set"
            )
    if root != Path("/"):
        return problems
    if not Path("/proc/sys/net/bridge").is_dir() and not load_module("br_netfilter"):
        wanted = {key: value for key, value in wanted.items() if "bridge" not in key}
        problems.append(f"there is no bridge netfilter, {NETFILTER}")
    for key, value in wanted.items():
        path = Path("/proc/sys", *key.split("."))
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            problems.append(f"{key} cannot be set to {value} ({error.strerror}); set it on the machine itself")
    return problems


def load_module(name: str) -> bool:
    """Whether a kernel module could be loaded."""
    try:
        pid = os.posix_spawnp("modprobe", ["modprobe", "-q", name], os.environ)
    except OSError:
        return False
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def ask_status(root: Path, conf_dir: str) -> None:
    """Become the first plugin of the configuration in place, called with STATUS; its answer is the process's."""
    path = below(root, conf_dir) / CONFIGURATION
    try:
        conflist = json.loads(path.read_bytes())
        config = {**conflist["plugins"][0], "cniVersion": "1.1.0", "name": conflist["name"]}
    except (OSError, ValueError, LookupError) as error:
        raise SystemExit(f"node: {path} cannot be read: {error}; run this without --status first") from None
    stdin = os.memfd_create("config")
    os.write(stdin, json.dumps(config).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    os.dup2(stdin, 0)
    directory = str(below(root, BIN))
    executable = f"{directory}/{config['type']}"
    os.execve(executable, [executable], {**os.environ, "CNI_COMMAND": "STATUS", "CNI_PATH": directory})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
