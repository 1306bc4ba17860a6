"""What surrounds a call (directory, PYTHON* variables, locale, descriptors, PATH) has no influence on it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kit.calls import call_environment
from tests.kit.runtime import Runtime

pytestmark = pytest.mark.kernel

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "mynet",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "cni-ipam", "subnet": "10.1.0.0/16"},
}
# Modules that the plugins import early (sitecustomize: that Python itself does), and the packages' own names.
PLANTED = (
    "json",
    "os",
    "re",
    "socket",
    "select",
    "sitecustomize",
    "usercustomize",
    "pyroute2",
    "cni_protocol",
    "cni_bridge",
)
ODD_NAME = "réseau-網"


class Trap(NamedTuple):
    """A directory with modules that tell when they are imported."""

    directory: Path
    sprung: Path


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    made = Trap(tmp_path / "trap", tmp_path / "sprung")
    made.directory.mkdir()
    text = f"open({str(made.sprung)!r}, 'a').write(__name__ + '\\n')\nraise SystemExit('planted')\n"
    for name in PLANTED:
        (made.directory / f"{name}.py").write_text(text)
        (made.directory / name).mkdir()
        (made.directory / name / "__init__.py").write_text(text)
    (made.directory / "startup.py").write_text(text)
    return made


def latin_locale(directory: Path) -> dict[str, str]:
    """Variables for a locale whose character set is not UTF-8; made here, since Debian installs none."""
    ascii_line, latin_line = "<U0000>..<U007F> /x00 ASCII", "<U00A0>..<U00FF> /xa0 LATIN"
    head = "<code_set_name> ISO-8859-1\n<comment_char> %\n<escape_char> /\n"
    (directory / "charmap").write_text(f"{head}CHARMAP\n{ascii_line}\n{latin_line}\nEND CHARMAP\n")
    letters = "lower <U0061>..<U007A>\nupper <U0041>..<U005A>\n"
    (directory / "source").write_text(f"comment_char %\nescape_char /\nLC_CTYPE\n{letters}END LC_CTYPE\n")
    name = "xx_XX.ISO-8859-1"
    command = ["localedef", "--force", "-f", f"{directory}/charmap", "-i", f"{directory}/source", f"{directory}/{name}"]
    subprocess.run(command, check=False, capture_output=True, timeout=60)  # 1: categories are missing, as they may be
    variables = {"LOCPATH": str(directory), "LC_ALL": name}
    program = "import sys; print(sys.getfilesystemencoding())"
    seen = subprocess.run(
        ["/usr/bin/python3", "-c", program], env=variables, check=True, capture_output=True, text=True, timeout=60
    )
    assert seen.stdout == "iso8859-1\n", "the locale is in force where nobody takes care"
    return variables


def assert_life_cycle(bridge: Runtime, env: Mapping[str, str], config: Mapping[str, Any] = NETWORK) -> None:
    """ADD, CHECK and DEL work, and say nothing on stderr."""
    bridge.host.add_container("c1")
    added = bridge.call("ADD", "c1", config, env=env)
    assert (added.status, added.stderr) == (0, ""), added
    assert [entry["address"] for entry in added.document["ips"]] == ["10.1.0.2/16"]
    assert bridge.host.addresses("eth0", "c1") == ["10.1.0.2/16"]
    checked = bridge.call("CHECK", "c1", {**config, "prevResult": added.document}, env=env)
    assert checked == (0, None, "", "")
    assert bridge.call("DEL", "c1", config, env=env) == (0, None, "", "")
    assert bridge.host.link_names("c1") == []


def test_modules_in_the_directory_of_the_caller_are_not_imported(bridge: Runtime, trap: Trap, tmp_path: Path) -> None:
    caller = tmp_path / "caller"
    caller.write_text(f'#!/bin/sh\ncd {trap.directory} && exec "{bridge.executable}"\n')
    caller.chmod(0o755)
    bridge.executable = str(caller)
    assert_life_cycle(bridge, {})
    assert not trap.sprung.exists(), trap.sprung.read_text()


def test_modules_beside_the_executable_are_not_imported(bridge: Runtime, trap: Trap) -> None:
    for name in ("cni-bridge", "cni-ipam"):
        shutil.copy2(Path(bridge.executable).with_name(name), trap.directory)
    bridge.executable, bridge.path = f"{trap.directory}/cni-bridge", (str(trap.directory),)
    assert_life_cycle(bridge, {})
    assert not trap.sprung.exists(), trap.sprung.read_text()


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONPATH": "{trap}"},
        {"PYTHONHOME": "{trap}"},
        {"PYTHONSTARTUP": "{trap}/startup.py", "PYTHONINSPECT": "1"},
        {"PYTHONUSERBASE": "{trap}", "HOME": "{trap}"},
        {"PYTHONPLATLIBDIR": "nowhere", "PYTHONCASEOK": "1"},
        {"PYTHONVERBOSE": "1", "PYTHONDEBUG": "1", "PYTHONDUMPREFS": "1", "PYTHONPROFILEIMPORTTIME": "1"},
        {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONTRACEMALLOC": "5"},
        {"PYTHONBREAKPOINT": "startup.main", "PYTHONOPTIMIZE": "2"},
        {"PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda variables: "+".join(variables),
)
def test_variables_of_python_have_no_effect(bridge: Runtime, trap: Trap, variables: dict[str, str]) -> None:
    assert_life_cycle(bridge, {key: value.format(trap=trap.directory) for key, value in variables.items()})
    assert not trap.sprung.exists(), trap.sprung.read_text()


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}, {"LC_ALL": "xx_YY"}, {}, None],
)
def test_names_that_are_not_ascii_work_in_every_locale(
    bridge: Runtime, tmp_path: Path, locale: dict[str, str] | None
) -> None:
    variables = latin_locale(tmp_path) if locale is None else locale
    data_dir = tmp_path / ODD_NAME
    config = {**NETWORK, "ipam": {**NETWORK["ipam"], "dataDir": str(data_dir)}}
    bridge.host.add_container("c2")
    added = bridge.call("ADD", "c2", config, env=variables)
    assert added.status == 0, added
    assert sorted(os.listdir(data_dir / "mynet")) == ["10.1.0.2", "last_reserved_ip.0", "lock"]
    assert bridge.call("DEL", "c2", config, env=variables) == (0, None, "", "")
    assert sorted(os.listdir(data_dir / "mynet")) == ["last_reserved_ip.0", "lock"]
    refused = bridge.call("ADD", "c2", {**config, "name": ODD_NAME}, env=variables)
    assert refused.document["code"] == 7


def test_plugin_directory_that_is_not_ascii_is_found_in_a_locale_that_cannot_say_it(
    bridge: Runtime, tmp_path: Path
) -> None:
    directory = tmp_path / ODD_NAME
    directory.symlink_to(Path(bridge.executable).parent)
    bridge.path = (str(directory),)
    assert_life_cycle(bridge, latin_locale(tmp_path))


def test_bytes_that_are_no_text_in_the_environment_have_no_effect(bridge: Runtime) -> None:
    assert_life_cycle(bridge, {"CNI_ARGS": "IgnoreUnknown=1;X=\udcff\udcfe", "OTHER": "\udcff"})


@pytest.mark.parametrize("path", [{"PATH": ""}, {"PATH": "/nowhere"}], ids=["empty", "nowhere"])
def test_search_path_for_programs_has_no_effect(bridge: Runtime, path: dict[str, str]) -> None:
    config = {**NETWORK, "ipMasq": True}
    assert_life_cycle(bridge, path, config)


def test_no_environment_but_the_variables_of_cni(bridge: Runtime, tmp_path: Path) -> None:
    caller = tmp_path / "caller"
    caller.write_text(f"#!/bin/sh\nunset PATH HOME LC_ALL LANG PWD OLDPWD\nexec {bridge.executable}\n")
    caller.chmod(0o755)
    bridge.executable = str(caller)
    assert_life_cycle(bridge, {})


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
def test_closed_stdin_is_an_error_object(request: pytest.FixtureRequest, plugin: str) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    runtime.host.add_container("c1")
    script = f"exec {runtime.executable} <&-"
    done = runtime.host.run("sh", "-c", script, env=call_environment("ADD"), check=False)
    assert done.returncode == 1
    assert '"code": 5' in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
def test_closed_stderr_has_no_effect(request: pytest.FixtureRequest, plugin: str, tmp_path: Path) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    caller = tmp_path / "caller"
    caller.write_text(f"#!/bin/sh\nexec {runtime.executable} 2>&-\n")
    caller.chmod(0o755)
    runtime.executable = str(caller)
    result = runtime.add("c1", NETWORK)
    assert result["ips"][0]["address"] == "10.1.0.2/16"
    runtime.check("c1", NETWORK)
    runtime.delete("c1", NETWORK)


def test_file_mode_mask_of_the_caller_has_no_effect_on_reading_back(bridge: Runtime, tmp_path: Path) -> None:
    caller = tmp_path / "caller"
    caller.write_text(f"#!/bin/sh\numask 777\nexec {bridge.executable}\n")
    caller.chmod(0o755)
    bridge.executable = str(caller)
    assert_life_cycle(bridge, {})
