"""install.sh into directories of the test's own, and the installation with pip.

The script removes directories, and a test may find a fault in that: so it runs from a copy of the checkout, in an empty
working directory, and never from the repository or inside it.
"""

import configparser
import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.kit.calls import bare_environment

EXECUTABLES = ("cni-bridge", "cni-ipam")
CONFIGURATION = ROOT / "conf" / "10-mynet.conflist"
PYTHON = "/usr/bin/python3"
INSTALL_BOUND = 120  # seconds; a few are usual
CALL_BOUND = 30

Answer = subprocess.CompletedProcess[str]


class Place:
    """Directories to install into, below one that holds nothing else, and the script that does it."""

    def __init__(self, root: Path, wheel_dir: Path, checkout: Path) -> None:
        self.root = root
        self.checkout = checkout
        self.wheel_dir = wheel_dir
        self.bin_dir = root / "opt" / "bin"
        self.lib_dir = root / "opt" / "lib" / "pycni"
        self.conf_dir = root / "etc" / "net.d"
        self.unit_dir = root / "etc" / "units"

    def run(self, *options: str, env: Mapping[str, str] | None = None) -> Answer:
        """install.sh with these directories and further options, as it comes out."""
        directories = ["--bin-dir", str(self.bin_dir), "--lib-dir", str(self.lib_dir), "--conf-dir", str(self.conf_dir)]
        directories += ["--unit-dir", str(self.unit_dir)]
        return self.run_bare(*directories, "--wheel-dir", str(self.wheel_dir), *options, env=env)

    def run_bare(self, *options: str, env: Mapping[str, str] | None = None) -> Answer:
        """install.sh with nothing but these options, with the root as the working directory."""
        assert not self.checkout.is_relative_to(ROOT)
        assert not self.root.is_relative_to(ROOT)
        variables = {"PATH": os.environ["PATH"], **(env or {})}
        return subprocess.run(
            [str(self.checkout / "install.sh"), *options],
            cwd=self.root,
            env=variables,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_BOUND,
        )

    def install(self, *options: str, env: Mapping[str, str] | None = None) -> str:
        """An installation that has to work. Returns what it says."""
        done = self.run(*options, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def codes(self) -> list[Path]:
        """The directories with code, the oldest first."""
        found = [entry for entry in self.lib_dir.iterdir() if entry.is_dir()]
        return sorted(found, key=lambda entry: entry.stat().st_mtime_ns)

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything below the root: mode, and content of what is a file."""
        return {
            str(path.relative_to(self.root)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in self.root.rglob("*")
        }


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what install.sh takes, for tests that leave it as it is."""
    return copy_checkout(tmp_path_factory.mktemp("sources") / "checkout")


@pytest.fixture
def place(tmp_path: Path, wheel_dir: Path, sources: Path) -> Place:
    root = tmp_path / "root"
    root.mkdir()
    return Place(root, wheel_dir, sources)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what install.sh takes, for a test that changes it."""
    return copy_checkout(tmp_path / "checkout")


def copy_checkout(target: Path) -> Path:
    target.mkdir()
    for name in ("install.sh", "setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy2(ROOT / name, target / name)
    if (ROOT / "README.md").exists():
        shutil.copy2(ROOT / "README.md", target)
    for name in ("install", "cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam", "cni_node"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def change_code(checkout: Path, mark: str) -> None:
    """Another version of the plugins, as far as their code goes."""
    with open(checkout / "cni_protocol" / "version.py", "a") as file:
        file.write(f"# {mark}\n")


def call_version(executable: Path | str, *before: str) -> Answer:
    return subprocess.run(
        [*before, str(executable)],
        env=bare_environment("VERSION"),
        input="{}",
        capture_output=True,
        text=True,
        timeout=CALL_BOUND,
        check=False,
    )


def assert_works(executable: Path | str, *before: str) -> None:
    answer = call_version(executable, *before)
    assert (answer.returncode, answer.stderr) == (0, ""), answer
    assert '"supportedVersions"' in answer.stdout


def test_puts_two_executables_and_their_code(place: Place) -> None:
    said = place.install()
    assert str(place.bin_dir) in said
    assert sorted(os.listdir(place.bin_dir)) == sorted(EXECUTABLES)
    for name in EXECUTABLES:
        assert (place.bin_dir / name).stat().st_mode & 0o7777 == 0o755
        assert not (place.bin_dir / name).is_symlink()
        assert_works(place.bin_dir / name)
    assert not place.conf_dir.exists()
    (code,) = place.codes()
    assert {"cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam", "pyroute2"} <= set(os.listdir(code))
    assert sorted(os.listdir(place.lib_dir)) == sorted([code.name, "manifest", "pycni", "pycni.1", "pycni.bash"]), (
        "nothing of the work is left"
    )


def test_executables_run_isolated_with_the_python_they_were_made_for(place: Place) -> None:
    place.install()
    for name in EXECUTABLES:
        first = (place.bin_dir / name).read_text().splitlines()[0]
        interpreter, _, flags = first.removeprefix("#!").partition(" ")
        assert os.path.samefile(interpreter, PYTHON)
        assert "I" in flags


def test_executables_differ_in_nothing_but_their_names(place: Place) -> None:
    """By that each knows the other for one that it may run within its own process (cni_protocol/sibling.py)."""
    place.install()
    bridge, ipam = ((place.bin_dir / name).read_text() for name in EXECUTABLES)
    assert bridge.replace("cni-bridge", "cni-ipam").replace("cni_bridge", "cni_ipam") == ipam


def test_an_executable_without_its_code_answers_with_an_error_object(tmp_path: Path) -> None:
    """On stdout, where the runtime reads it."""
    template = (ROOT / "install" / "templates" / "executable").read_text()
    executable = tmp_path / "cni-bridge"
    executable.write_text(template.replace("@PYTHON@", PYTHON).replace("@CODE@", str(tmp_path / "gone")))
    executable.chmod(0o755)
    answer = call_version(executable)
    document = json.loads(answer.stdout)
    assert (answer.returncode, answer.stderr, document["code"]) == (1, "", 199)
    assert "cni-bridge is not installed whole" in document["msg"]
    assert "run install.sh again" in document["msg"]


def test_every_executable_template_is_seen_by_the_linters() -> None:
    scripts = [path for path in (ROOT / "install/templates").iterdir() if path.read_text().startswith("#!@PYTHON@ ")]
    names = {str(path.relative_to(ROOT)) for path in scripts}
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["extend-include"]) == names
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    checked = {name.strip() for name in config["mypy"]["files"].split(",")}
    assert names <= checked


def test_every_module_is_compiled(place: Place) -> None:
    place.install()
    (code,) = place.codes()
    modules = list(code.rglob("*.py"))
    tag = sys.implementation.cache_tag if os.path.samefile(sys.executable, PYTHON) else _cache_tag()
    missing = [path for path in modules if not (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").is_file()]
    assert len(modules) > 100
    assert missing == []


def _cache_tag() -> str:
    program = "import sys; print(sys.implementation.cache_tag)"
    return subprocess.run([PYTHON, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("mask", ["077", "777"])
def test_what_is_put_is_readable_for_everybody_whatever_the_mask(place: Place, mask: str) -> None:
    directories = f"--bin-dir {place.bin_dir} --lib-dir {place.lib_dir} --conf-dir {place.conf_dir}"
    options = f"{directories} --wheel-dir {place.wheel_dir} --conf {CONFIGURATION}"
    script = f"umask {mask}; exec {place.checkout}/install.sh {options}"
    subprocess.run(["sh", "-c", script], cwd=place.root, check=True, capture_output=True, timeout=INSTALL_BOUND)
    for path, (mode, _) in place.files().items():
        if not path.endswith("manifest"):
            assert mode & 0o444 == 0o444, path
            assert mode & 0o022 == 0, path


def test_second_installation_changes_nothing_that_a_runtime_sees(place: Place) -> None:
    place.install("--conf", str(CONFIGURATION))
    before = place.files()
    place.install("--conf", str(CONFIGURATION))
    assert place.files() == before


def test_new_code_stands_beside_the_old_until_the_next_but_one(place: Place, checkout: Path) -> None:
    place.checkout = checkout
    seen = []
    for mark in ("one", "two", "three"):
        change_code(checkout, mark)
        place.install()
        seen.append(place.codes()[-1])
        assert f"# {mark}" in (seen[-1] / "cni_protocol" / "version.py").read_text()
        assert all(str(seen[-1]) in (place.bin_dir / name).read_text() for name in EXECUTABLES)
    assert place.codes() == seen[1:], "a call may still run with the code of the installation before"


def test_damaged_installation_is_repaired(place: Place) -> None:
    place.install()
    whole = _without_compiled(place)
    (code,) = place.codes()
    (code / "pyroute2" / "netlink" / "__init__.py").unlink()
    for compiled in (code / "cni_protocol" / "__pycache__").iterdir():
        compiled.write_bytes(compiled.read_bytes()[:40])
    for linked in (code / "linked").iterdir():
        linked.write_bytes(linked.read_bytes()[:40])
    broken = call_version(place.bin_dir / "cni-bridge")
    assert broken.returncode != 0
    assert "run install.sh again" in broken.stdout
    place.install()
    for name in EXECUTABLES:
        assert_works(place.bin_dir / name)
    assert _without_compiled(place) == whole


def _without_compiled(place: Place) -> dict[str, tuple[int, bytes]]:
    """The files without what one compilation may write in another way than the next, and its checksums."""
    files = place.files().items()
    made = (".pyc", ".put-here-by-pycni")
    return {path: content for path, content in files if not path.endswith(made) and "/linked/" not in path}


def test_runtime_never_meets_a_moment_without_working_executables(place: Place, checkout: Path) -> None:
    place.checkout = checkout
    place.install()
    over = threading.Event()

    def call_on_and_on() -> list[Answer]:
        answers = []
        while not over.is_set():
            answers += [call_version(place.bin_dir / name) for name in EXECUTABLES]
        return answers

    with ThreadPoolExecutor(1) as pool:
        caller = pool.submit(call_on_and_on)
        try:
            for mark in ("one", "two", "three"):
                change_code(checkout, mark)
                place.install()
        finally:
            over.set()
        answers = caller.result(CALL_BOUND)  # raises what starting an executable that is not there raises
    assert [answer for answer in answers if answer.returncode != 0 or answer.stderr] == []
    assert len(answers) > 20


def test_conf_puts_a_configuration_as_it_stands(place: Place) -> None:
    place.install("--conf", str(CONFIGURATION))
    assert os.listdir(place.conf_dir) == [CONFIGURATION.name]
    put = place.conf_dir / CONFIGURATION.name
    assert put.read_bytes() == CONFIGURATION.read_bytes()
    assert put.stat().st_mode & 0o7777 == 0o644


def test_uninstall_leaves_the_place_as_it_was(place: Place) -> None:
    before = place.files()
    place.install("--conf", str(CONFIGURATION))
    assert place.files() != before
    said = place.run("--uninstall")
    assert (said.returncode, said.stderr) == (0, "")
    assert place.files() == before


def test_uninstall_after_several_installations_leaves_the_place_as_it_was(place: Place, checkout: Path) -> None:
    place.checkout = checkout
    before = place.files()
    place.install("--conf", str(CONFIGURATION))
    change_code(checkout, "one")
    place.install("--conf", str(ROOT / "conf" / "40-layer-2.conflist"))
    place.install()
    assert len(os.listdir(place.conf_dir)) == 2
    assert place.run("--uninstall").returncode == 0
    assert place.files() == before


def test_uninstall_leaves_what_others_put_there(place: Place) -> None:
    for directory in (place.bin_dir, place.conf_dir, place.lib_dir / "cafe", place.lib_dir / "data"):
        directory.mkdir(parents=True)
    foreign = [place.bin_dir / "bridge", place.conf_dir / "05-own.conflist", place.lib_dir / "cafe" / "file"]
    for path in foreign:
        path.write_text("somebody else's")
    before = place.files()
    place.install("--conf", str(CONFIGURATION))
    place.install("--conf", str(CONFIGURATION))
    assert before.items() <= place.files().items()
    assert place.run("--uninstall").returncode == 0
    assert place.files() == before


def test_uninstall_leaves_directories_that_others_use_by_now(place: Place) -> None:
    place.install()
    (place.bin_dir / "bridge").write_text("somebody else's")
    assert place.run("--uninstall").returncode == 0
    assert sorted(place.files()) == ["opt", "opt/bin", "opt/bin/bridge"]


def test_changed_configuration_stays_with_a_notice(place: Place) -> None:
    place.install("--conf", str(CONFIGURATION))
    put = place.conf_dir / CONFIGURATION.name
    put.write_text(put.read_text().replace("10.244", "10.99"))
    done = place.run("--uninstall")
    assert done.returncode == 0
    assert f"{put} was changed since and stays" in done.stderr
    assert "10.99" in put.read_text()
    assert not place.lib_dir.exists()
    assert not place.bin_dir.exists()


def test_uninstall_of_nothing_says_so(place: Place) -> None:
    done = place.run("--uninstall")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"nothing of pycni is installed in {place.lib_dir}" in done.stdout
    assert place.files() == {}


def test_uninstall_twice(place: Place) -> None:
    place.install()
    assert place.run("--uninstall").returncode == 0
    assert place.run("--uninstall").returncode == 0
    assert place.files() == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--frobnicate"], ["unknown option --frobnicate", "usage:"], id="unknown option"),
        pytest.param(["install"], ["unknown option install", "usage:"], id="word"),
        pytest.param(["--bin-dir=/tmp"], ["unknown option --bin-dir=/tmp"], id="value behind an equals sign"),
        pytest.param(["--bin-dir"], ["--bin-dir needs a value"], id="bin-dir without value"),
        pytest.param(["--conf"], ["--conf needs a value"], id="conf without value"),
        pytest.param(["--bin-dir", ""], ["--bin-dir needs a value"], id="bin-dir of nothing"),
        pytest.param(["--lib-dir", ""], ["--lib-dir needs a value"], id="lib-dir of nothing"),
        pytest.param(["--conf", ""], ["--conf needs a value"], id="conf of nothing"),
        pytest.param(["--conf", "/nowhere/x.conflist"], ["/nowhere/x.conflist"], id="conf that is not there"),
        pytest.param(["--conf", "/etc/hostname"], ["/etc/hostname is no JSON"], id="conf that is no JSON"),
        pytest.param(["--wheel-dir", "/nowhere"], ["/nowhere"], id="wheel-dir that is not there"),
        pytest.param(
            ["--wheel-dir", "/etc/init.d"], ["no pyroute2-*.whl in /etc/init.d", "pip download"], id="no wheel"
        ),
    ],
)
def test_bad_options_are_refused_with_a_message_and_change_nothing(
    place: Place, options: list[str], words: list[str]
) -> None:
    done = place.run(*options)
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
    assert done.stdout == ""
    assert place.files() == {}


def test_bad_configuration_leaves_an_installation_as_it_was(place: Place, checkout: Path, tmp_path: Path) -> None:
    place.checkout = checkout
    place.install("--conf", str(CONFIGURATION))
    before = place.files()
    change_code(checkout, "one")
    bad = tmp_path / CONFIGURATION.name
    bad.write_text('{"name": ')
    done = place.run("--conf", str(bad))
    assert done.returncode != 0
    assert f"{bad} is no JSON" in done.stderr
    assert place.files() == before


@pytest.mark.parametrize("break_it", ["raise RuntimeError('no')\n", "def broken(:\n"], ids=["run time", "syntax"])
def test_code_that_does_not_run_leaves_an_installation_as_it_was(place: Place, checkout: Path, break_it: str) -> None:
    place.checkout = checkout
    place.install()
    before = place.files()
    with open(checkout / "cni_protocol" / "plugin.py", "a") as file:
        file.write(break_it)
    done = place.run()
    assert done.returncode != 0
    assert "install.sh:" in done.stderr
    for name in EXECUTABLES:
        assert_works(place.bin_dir / name)
    assert place.files() == before


@pytest.mark.parametrize(
    ("program", "words"),
    [("exit 1", "older than 3.11"), (None, "no ")],
    ids=["older", "missing"],
)
def test_python_that_does_not_serve_is_named(place: Place, tmp_path: Path, program: str | None, words: str) -> None:
    python = tmp_path / "python"
    if program:
        python.write_text(f'#!/bin/sh\ncase $2 in *executable*) echo "$0" ;; *) {program} ;; esac\n')
        python.chmod(0o755)
    done = place.run(env={"PYTHON": str(python)})
    assert done.returncode != 0
    assert words in done.stderr
    assert str(python) in done.stderr
    assert place.files() == {}


def test_another_python_is_taken_where_it_is_named(place: Place) -> None:
    place.install(env={"PYTHON": sys.executable})
    first = (place.bin_dir / "cni-bridge").read_text().splitlines()[0]
    assert first.startswith(f"#!{sys.executable} ")
    assert_works(place.bin_dir / "cni-bridge")


def test_directories_may_be_relative_and_have_spaces(place: Place) -> None:
    options = ["--bin-dir", "my bin", "--lib-dir", "my lib", "--conf-dir", "my conf", "--conf", str(CONFIGURATION)]
    done = place.run_bare(*options, "--wheel-dir", str(place.wheel_dir))
    assert done.returncode == 0, done.stderr
    assert_works(place.root / "my bin" / "cni-ipam")
    assert os.listdir(place.root / "my conf") == [CONFIGURATION.name]
    done = place.run_bare("--uninstall", "--bin-dir", "my bin", "--lib-dir", "my lib")
    assert done.returncode == 0, done.stderr
    assert place.files() == {}


def test_works_through_a_relative_path_and_when_the_checkout_is_gone(place: Place, checkout: Path) -> None:
    command = ["./install.sh", "--bin-dir", str(place.bin_dir), "--lib-dir", str(place.lib_dir)]
    command += ["--wheel-dir", str(place.wheel_dir)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True, timeout=INSTALL_BOUND)
    shutil.rmtree(checkout)
    for name in EXECUTABLES:
        assert_works(place.bin_dir / name)


def test_checkout_stays_as_it_is(place: Place, checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    place.checkout = checkout
    place.install()
    assert sorted(checkout.rglob("*")) == before


def test_help_says_every_option_and_does_nothing(place: Place) -> None:
    done = place.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in (
        "--bin-dir",
        "--lib-dir",
        "--conf ",
        "--conf-dir",
        "--wheel-dir",
        "--unit-dir",
        "--bundle",
        "--image",
        "--uninstall",
        "--help",
    ):
        assert option in done.stdout
    assert place.files() == {}


@pytest.mark.kernel
def test_works_with_a_code_directory_that_nobody_can_write(place: Place) -> None:
    place.install()
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && ! touch "$1/file" 2>/dev/null && exec "$2"'
    for name in EXECUTABLES:
        assert_works(
            place.bin_dir / name,
            *("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(place.lib_dir)),
        )


@pytest.mark.kernel
def test_nothing_is_written_by_the_calls(place: Place, new_host: Callable[[], Any]) -> None:
    place.install()
    before = place.files()
    host = new_host()
    netns = host.add_container("c1")
    ipam = {"type": "cni-ipam", "subnet": "10.1.0.0/16"}
    network = {"cniVersion": "1.0.0", "name": "n", "type": "cni-bridge", "ipMasq": True, "ipam": ipam}
    for command in ("ADD", "DEL"):
        executable, path = str(place.bin_dir / "cni-bridge"), (str(place.bin_dir),)
        assert host.cni(command, network, executable=executable, netns=netns, path=path).status == 0
    assert place.files() == before


def test_pip_installs_both_commands(tmp_path: Path, checkout: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=INSTALL_BOUND)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(checkout)], check=True, timeout=INSTALL_BOUND)
    for name in EXECUTABLES:
        assert_works(venv / "bin" / name)
    shown = subprocess.run([*pip, "show", "pycni"], check=True, capture_output=True, text=True, timeout=INSTALL_BOUND)
    assert "Requires: pyroute2\n" in shown.stdout
