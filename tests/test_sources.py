"""The rules that our own sources keep: what may import what, and how large things may grow. Read with `ast`."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.kit.calls import call_environment

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam", "cni_node")
FILES = sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OF_THE_NODE = [file for file in FILES if file.startswith("cni_node/")]

FILE_LINES = 300
ROOM_SHARE = 0.3  # of all lines, in one directory
FUNCTION_LINES = 40
ARGUMENTS = 4  # by position

# What of ours a package may import, beside itself: packages, or single modules of them.
ALLOWED = {
    "cni_protocol": set[str](),
    "cni_kernel": {"cni_protocol.address", "cni_protocol.light"},
    "cni_bridge": {"cni_protocol", "cni_kernel"},
    "cni_ipam": {"cni_protocol"},
    # what of the plugin says and makes the rules of an attachment: repair puts them back
    "cni_node": {
        *("cni_protocol", "cni_kernel"),
        *(
            f"cni_bridge.{name}"
            for name in ("attachment_rules", "config", "locks", "plan", "refusals", "sync", "verify")
        ),
    },
}

# The rooms of the node's program; each may import those that stand before it.
ROOMS = ("api", "host", "sources", "policy", "readiness", "repair", "agent", "inspect", "doctor", "why")

POLICY = ("compiler", "desired", "evaluator", "intervals", "model", "names", "parsing", "parts", "pods", "rules")
DOCTOR = ("checks", "facts", "filter_checks", "link_checks", "moving", "node_checks", "route_checks")
WHY = (
    *(
        "ask",
        "decode",
        "discovery",
        "extensions",
        "hooks",
        "machine",
        "names",
        "packets",
        "routing",
        "rules",
        "segment",
        "sets",
    ),
    *("tracking", "values", "walk"),
)
INSPECT = ("document", "html", "join", "svg", "text", "values")

# Modules that compute and touch nothing, and what they must not import: the host and the rooms that reach for it.
PURE = (
    "cni_ipam/ranges.py",
    "cni_ipam/resolvconf.py",
    "cni_bridge/plan.py",
    "cni_bridge/verify.py",
    "cni_kernel/values.py",
    "cni_protocol/attachment.py",
    "cni_kernel/expressions.py",
    "cni_kernel/connections.py",
    "cni_bridge/masquerade.py",
    "cni_bridge/mappings.py",
    "cni_bridge/portmap.py",
    "cni_bridge/waiting_ports.py",
    "cni_bridge/spoofcheck.py",
    "cni_bridge/attachment_rules.py",
    "cni_kernel/attributes.py",
    "cni_kernel/nft_attributes.py",
    "cni_kernel/filter_expressions.py",
    "cni_kernel/packed_rules.py",
    "cni_kernel/policy_frame.py",
    *(f"cni_node/policy/{name}.py" for name in POLICY),
    *(f"cni_node/doctor/{name}.py" for name in DOCTOR),
    *(f"cni_node/inspect/{name}.py" for name in INSPECT),
    *(f"cni_node/why/{name}.py" for name in WHY),
    *("cni_node/host/exempt.py", "cni_node/host/peer_routes.py", "cni_node/host/same.py", "cni_node/snapshot.py"),
    "cni_node/api/yaml_subset.py",
    "cni_node/sources/members.py",
    "cni_node/sources/etcd_keys.py",
)
IMPURE_STDLIB = {
    *("asyncio", "ctypes", "fcntl", "glob", "io", "multiprocessing", "os", "pathlib", "select", "shutil"),
    *("signal", "socket", "subprocess", "tempfile", "threading", "time"),
}
PURE_OF_OURS = {
    *(f"cni_protocol.{name}" for name in ("address", "attachment", "errors", "light.standard", "result", "version")),
    *(f"cni_kernel.{name}" for name in ("attributes", "connections", "expressions", "filter_expressions", "values")),
    *("cni_kernel.nft_attributes", "cni_kernel.packed_rules", "cni_kernel.policy_frame"),
    *(f"cni_bridge.{name}" for name in ("config", "mappings", "masquerade", "plan", "portmap", "spoofcheck")),
    *(f"cni_node.policy.{name}" for name in POLICY),
    *(f"cni_node.doctor.{name}" for name in DOCTOR),
    *(f"cni_node.inspect.{name}" for name in INSPECT),
    *(f"cni_node.why.{name}" for name in WHY),
    "cni_kernel.nft_attributes",
    *(
        "cni_ipam.ranges",
        "cni_node.host.peer_routes",
        "cni_node.host.same",
        "cni_node.snapshot",
        "cni_node.sources.members",
    ),
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def tree_of(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), file)


@cache
def nodes_of(tree: ast.AST) -> list[ast.AST]:
    return list(ast.walk(tree))


@cache
def imported_by(tree: ast.Module, file: str) -> set[str]:
    """The full names of all modules that a file imports, wherever it does; `from x import y` may name x.y too."""
    package = Path(file).parent.parts
    found = set()
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            names = {".".join(filter(None, [base, alias.name])) for alias in node.names}
            submodules = {name for name in names if is_module(name)}
            found |= submodules or {base}
    return found


def taken_from(tree: ast.Module, module: str) -> set[str]:
    """What a file takes from a module of that last name."""
    nodes = [node for node in nodes_of(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if (node.module or "").endswith(module) for alias in node.names}


@cache
def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def definitions_in(tree: ast.Module) -> Iterator[Definition]:
    for node in nodes_of(tree):
        if isinstance(node, Definition):
            yield node


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """What a module or a class offers to others: no names with an underscore in front, nothing inside functions."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{node.name}.")


def test_the_rules_have_files_to_look_at() -> None:
    assert {file.partition("/")[0] for file in FILES} == set(PACKAGES)
    assert set(PURE) <= set(FILES)


@pytest.mark.parametrize(
    ("source", "imports"),
    [
        ("import os.path, json", {"os.path", "json"}),
        ("from os import path", {"os"}),
        ("from . import store, nonsense", {"cni_ipam.store"}),
        ("from .store import Store", {"cni_ipam.store"}),
        ("from .. import cni_bridge", {"cni_bridge"}),
        ("def f():\n    from cni_kernel import kernel", {"cni_kernel.kernel"}),
        ("try:\n    import ipaddress as x\nexcept ImportError:\n    pass", {"ipaddress"}),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, imports: set[str]) -> None:
    assert imported_by(ast.parse(source), "cni_ipam/commands.py") == imports


def test_imports_are_the_standard_library_pyroute2_and_our_own() -> None:
    for file in FILES:
        of_one_python_or_another = {"_sha256", "_sha2"}
        allowed = (sys.stdlib_module_names - {"ipaddress"}) | set(PACKAGES) | of_one_python_or_another
        if file.startswith("cni_node/"):  # the plugins do without
            allowed |= {"pyroute2"}
        assert top_level(imported_by(tree_of(file), file)) <= allowed, file


def test_no_module_is_imported_by_a_computed_name() -> None:
    """So that the other tests here see every import; but for the plugin beside ours, and modules that are linked."""
    for file in FILES:
        if file in ("cni_protocol/sibling.py", "cni_protocol/linked.py"):
            continue
        names = {node.id for node in nodes_of(tree_of(file)) if isinstance(node, ast.Name)}
        names |= {node.attr for node in nodes_of(tree_of(file)) if isinstance(node, ast.Attribute)}
        assert not names & {"__import__", "import_module", "exec_module", "exec", "eval"}, file


def test_imports_point_one_way() -> None:
    for file in FILES:
        package = file.partition("/")[0]
        ours = {name for name in imported_by(tree_of(file), file) if top_level({name}) <= set(PACKAGES)}
        allowed = ALLOWED[package] | {package}
        assert [name for name in ours if not any(f"{name}.".startswith(f"{entry}.") for entry in allowed)] == [], file


def room_of(module: str) -> str:
    """The room of a module of the node's program; empty where it is in none."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if package == "cni_node" and (ROOT / package / room).is_dir() else ""


def test_the_rooms_of_the_node_import_one_way() -> None:
    assert set(ROOMS) == {Path(file).parent.name for file in OF_THE_NODE} - {"cni_node"}
    for file in OF_THE_NODE:
        room = Path(file).parent.name
        if room in ROOMS:
            above = {
                name for name in imported_by(tree_of(file), file) if room_of(name) in ROOMS[ROOMS.index(room) + 1 :]
            }
            assert above == set(), file


def test_no_room_has_more_than_its_share() -> None:
    lines = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in FILES}
    for room in {Path(file).parent for file in FILES}:
        of_it = sum(count for file, count in lines.items() if Path(file).parent == room)
        assert of_it <= ROOM_SHARE * sum(lines.values()), room


def test_foreign_functions_are_called_where_the_standard_library_has_none() -> None:
    """setns(2) and unshare(2) are there from Python 3.12 on; prctl(2) and inotify(7) never."""
    users = {file for file in FILES if {"ctypes", "_ctypes"} & imported_by(tree_of(file), file)}
    assert users == {"cni_protocol/light/libc.py", "cni_node/inotify.py", "cni_node/readiness/trial.py"}


def test_what_runs_for_days_uses_the_real_standard_library() -> None:
    for file in OF_THE_NODE:
        ours = imported_by(tree_of(file), file)
        assert not {name for name in ours if name.startswith("cni_protocol.light")}, file


def test_no_decision_depends_on_the_time_of_day() -> None:
    """Which jumps; time.monotonic() does not."""
    for file in OF_THE_NODE:
        used = {ast.unparse(node) for node in nodes_of(tree_of(file)) if isinstance(node, ast.Attribute)}
        assert not used & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}, file


def test_pure_modules_import_nothing_that_touches_the_host() -> None:
    for file in PURE:
        imported = imported_by(tree_of(file), file)
        assert not top_level(imported) & IMPURE_STDLIB, file
        assert {name for name in imported if top_level({name}) <= set(PACKAGES)} <= PURE_OF_OURS, file
        assert not taken_from(tree_of(file), "standard") & IMPURE_STDLIB, file


def test_pure_modules_call_nothing_that_touches_the_host() -> None:
    for file in PURE:
        called = {
            node.func.id
            for node in nodes_of(tree_of(file))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"open", "print", "input"}, file


def test_stdout_belongs_to_the_protocol() -> None:
    """Whatever is printed goes to stderr; stdout is the protocol's."""
    for file in FILES:
        if file == "cni_protocol/plugin.py":
            continue
        if file.startswith("cni_node/"):  # a program for people
            continue
        for node in nodes_of(tree_of(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert [ast.unparse(word.value) for word in node.keywords if word.arg == "file"] == ["sys.stderr"], file
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.__stdout__")), file


def test_everything_public_has_a_docstring() -> None:
    for file in FILES:
        tree = tree_of(file)
        assert ast.get_docstring(tree), f"{file}: the module"
        assert not [name for name, node in public_definitions(tree.body) if not ast.get_docstring(node)], file


def test_files_and_functions_stay_readable() -> None:
    for file in FILES:
        assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) <= FILE_LINES, file
        functions = [node for node in definitions_in(tree_of(file)) if not isinstance(node, ast.ClassDef)]
        long = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
        assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES} == {}, file
        wide = {node.name: len(positional(node)) for node in functions}
        assert {name: count for name, count in wide.items() if count > ARGUMENTS} == {}, file


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The arguments that a caller may give by position, but for the object or class itself."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


# What a call really loads, in an interpreter of its own.

PROBE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from importlib import import_module
package, env, stdin = json.loads(sys.argv[2])
from cni_protocol.plugin import answer
status, output = answer(import_module(package + ".__main__").PLUGIN, env, stdin.encode)
print(json.dumps([status, json.loads(output or "null"), sorted(sys.modules)]))
"""
HEAVY = (
    "pyroute2",
    "asyncio",
    "difflib",
    "ssl",
    "ipaddress",
    "multiprocessing",
    "logging",
    "subprocess",
    "dataclasses",
)


def probe(package: str, command: str, config: dict[str, Any] | None) -> tuple[int, Any, list[str]]:
    """Serve one call. Returns its exit status, its answer, and which of HEAVY it loaded."""
    call = json.dumps([package, call_environment(command), json.dumps(config) if config is not None else ""])
    output = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(ROOT), call], check=True, stdout=subprocess.PIPE, timeout=60
    ).stdout
    status, answered, modules = json.loads(output)
    return status, answered, [name for name in HEAVY if any(each.startswith(name) for each in modules)]


def test_the_probe_sees_what_is_loaded() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cni_node.host.links; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    ).stdout.split()
    assert {"pyroute2", "asyncio", "logging"} <= set(loaded)


@pytest.mark.parametrize("package", ["cni_ipam", "cni_bridge"])
def test_version_loads_nothing_heavy(package: str) -> None:
    status, answered, heavy = probe(package, "VERSION", None)
    assert (status, heavy) == (0, [])
    assert "supportedVersions" in answered


@pytest.mark.parametrize("package", ["cni_ipam", "cni_bridge"])
@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_a_configuration_error_loads_nothing_heavy(package: str, command: str) -> None:
    config = {"cniVersion": "1.0.0", "name": "mynet", "bridge": "a/b", "mtu": -1, "ipam": {"type": 5}}
    status, answered, heavy = probe(package, command, config)
    assert (status, answered["code"], heavy) == (1, 7, [])


def test_the_address_plugin_never_loads_anything_heavy(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "mynet",
        "ipam": {"dataDir": str(tmp_path), "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
    }
    status, result, heavy = probe("cni_ipam", "ADD", config)
    assert (status, heavy) == (0, [])
    assert result["ips"][0]["address"] == "10.1.0.2/16"
    assert probe("cni_ipam", "CHECK", {**config, "prevResult": result}) == (0, None, [])
    assert probe("cni_ipam", "DEL", {**config, "prevResult": result}) == (0, None, [])
    newest = {**config, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    assert probe("cni_ipam", "STATUS", newest) == (0, None, [])
    assert probe("cni_ipam", "GC", newest) == (0, None, [])
    assert not (tmp_path / "mynet" / "10.1.0.2").exists()
