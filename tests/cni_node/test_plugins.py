"""Putting an image's plugins on a node: what is written, in which order, and what is left of before."""

import fcntl
import os
import shutil
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_node import plugins
from cni_node.__main__ import main
from cni_node.plugins import BIN, LIBRARY, MARK, NoBundleError, find_bundle, install_plugins

LAUNCHERS = ("node", "pycni")
EXECUTABLES = ("cni-bridge", "cni-ipam")
BOUND = 10.0  # seconds


def make_image(root: Path, name: str = "0123456789abcdef", content: str = "one") -> Path:
    """The files of a bundle below a root. Returns its directory of code."""
    code = root / LIBRARY / name
    for path, text in (("bin/python3", "python"), ("code/cni_node/plugins.pyc", content), ("lib/os.pyc", "os")):
        (code / path).parent.mkdir(parents=True)
        (code / path).write_text(text)
    (code / "bin/python3").chmod(0o755)
    files = [path for path in sorted(code.rglob("*")) if path.is_file()]
    sums = [f"{sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(code)}\n" for path in files]
    (code / MARK).write_text("".join(sums))
    (root / BIN).mkdir(parents=True, exist_ok=True)
    for script in (*(LIBRARY / launcher for launcher in LAUNCHERS), *(BIN / plugin for plugin in EXECUTABLES)):
        (root / script).write_text(f"#!/{LIBRARY}/{name}/bin/python3")
        (root / script).chmod(0o755)
    os.utime(code, (0, 0))  # as in an image
    return code


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below a root, but for the lock."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes()) for path in files}


def identities(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file below a root."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "host"


def test_all_of_the_bundle_is_put_there_and_nothing_else(code: Path, host: Path) -> None:
    changed = install_plugins(code, host)
    assert contents(host) == contents(code.parents[4])
    launchers = [host / LIBRARY / name for name in LAUNCHERS]
    assert changed == [host / LIBRARY / code.name, *launchers, *(host / BIN / name for name in EXECUTABLES)]
    assert sorted(os.listdir(host / LIBRARY)) == sorted([code.name, ".lock", *LAUNCHERS])


def test_done_again_it_touches_nothing(code: Path, host: Path) -> None:
    install_plugins(code, host)
    before = identities(host)
    assert install_plugins(code, host) == []
    assert identities(host) == before


@pytest.mark.parametrize("damage", ["", "another text", None], ids=["cut off", "changed", "missing"])
@pytest.mark.parametrize("file", ["code/cni_node/plugins.pyc", MARK])
def test_damaged_code_is_replaced(code: Path, host: Path, file: str, damage: str | None) -> None:
    install_plugins(code, host)
    path = host / LIBRARY / code.name / file
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    assert install_plugins(code, host) == [host / LIBRARY / code.name]
    assert contents(host) == contents(code.parents[4])


def test_a_plugin_that_is_not_ours_any_more_is_replaced_by_rename(code: Path, host: Path) -> None:
    install_plugins(code, host)
    path = host / BIN / "cni-ipam"
    with path.open() as running:
        path.chmod(0o700)
        assert install_plugins(code, host) == [path]
        assert os.fstat(running.fileno()).st_nlink == 0, "who has it open keeps what was there"
    assert path.stat().st_mode & 0o7777 == 0o755


def test_of_older_code_one_directory_stays_and_what_is_not_ours_stays(tmp_path: Path, host: Path) -> None:
    (host / LIBRARY / "of somebody else").mkdir(parents=True)
    (host / BIN).mkdir(parents=True)
    (host / BIN / "bridge").write_text("somebody else's")
    images = [make_image(tmp_path / name, name, name) for name in ("first", "second", "third")]
    for image in images:
        install_plugins(image, host)
    directories = {path.name for path in (host / LIBRARY).iterdir() if path.is_dir()}
    assert directories == {"of somebody else", "second", "third"}
    assert (host / BIN / "bridge").read_text() == "somebody else's"
    assert "third" in (host / BIN / "cni-bridge").read_text()


def test_code_of_before_that_is_brought_again_is_the_newest(tmp_path: Path, host: Path) -> None:
    first, second, third = (make_image(tmp_path / name, name, name) for name in ("first", "second", "third"))
    for image in (first, second, first, third):
        install_plugins(image, host)
    directories = {path.name for path in (host / LIBRARY).iterdir() if path.is_dir()}
    assert directories == {"first", "third"}


def test_what_a_broken_off_installation_left_goes(code: Path, host: Path) -> None:
    left = host / LIBRARY / ".image.left" / "new"
    left.mkdir(parents=True)
    (left / "file").write_text("half")
    install_plugins(code, host)
    assert not left.parent.exists()


def test_a_runtime_finds_code_before_it_finds_what_starts_it(code: Path, host: Path, mocker: MockerFixture) -> None:
    put_file = plugins.put_file

    def put(path: Path, content: bytes, mode: int) -> bool:
        assert plugins.is_whole(host / LIBRARY / code.name, (code / MARK).read_text())
        return put_file(path, content, mode)

    put_all = mocker.patch.object(plugins, "put_file", side_effect=put)
    install_plugins(code, host)
    assert put_all.call_count == 4


def test_a_full_disk_leaves_what_was_there(code: Path, host: Path, tmp_path: Path, mocker: MockerFixture) -> None:
    install_plugins(code, host)
    before = contents(host)
    mocker.patch.object(shutil, "copytree", side_effect=OSError(28, "No space left on device", "x"))
    other = make_image(tmp_path / "other", "other", "two")
    with pytest.raises(OSError, match="No space"):
        install_plugins(other, host)
    assert contents(host) == before


def test_two_at_once_wait_for_each_other(code: Path, host: Path) -> None:
    (host / LIBRARY).mkdir(parents=True)
    descriptor = os.open(host / LIBRARY / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    second = threading.Thread(target=install_plugins, args=(code, host), daemon=True)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    assert contents(host) == {}
    os.close(descriptor)
    second.join(BOUND)
    assert contents(host) == contents(code.parents[4])


def test_a_module_of_a_bundle_finds_it(code: Path) -> None:
    assert find_bundle(code / "code/cni_node/plugins.pyc") == code


def test_outside_of_a_bundle_there_is_nothing_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoBundleError, match="only the program of a bundle"):
        find_bundle(Path(plugins.__file__))
    assert main(["install-plugins", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("pycni: there is no ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_what_was_done_is_said(
    code: Path, host: Path, mocker: MockerFixture, capsys: pytest.CaptureFixture[str], again: bool
) -> None:
    mocker.patch.object(plugins, "find_bundle", return_value=code)
    if again:
        install_plugins(code, host)
    assert main(["install-plugins", "--root", str(host)]) == 0
    said: Any = capsys.readouterr().err
    assert (f"pycni: {host}/opt/cni/bin/cni-bridge is written" in said) is not again
    assert (f"pycni: the plugins in {host} are as they should be" in said) is again


def test_a_place_that_cannot_be_written_is_named(
    code: Path, tmp_path: Path, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    mocker.patch.object(plugins, "find_bundle", return_value=code)
    (tmp_path / "opt").write_text("in the way")
    assert main(["install-plugins", "--root", str(tmp_path)]) == 1
    assert f"pycni: {tmp_path}/opt/cni/lib" in capsys.readouterr().err
