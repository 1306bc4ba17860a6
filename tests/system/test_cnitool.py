"""Every configuration in conf/, as it stands, through cnitool: add, check and del by name and namespace."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REFERENCE_DIR, ROOT
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

CONFIGURATIONS = sorted((ROOT / "conf").glob("*.conflist"))


class Cnitool:
    """The client on a host, with a directory of configurations."""

    def __init__(self, host: Host, program: Path, path: str, networks: Path) -> None:
        self.host, self._program, self.networks = host, program, networks
        self._env = {**os.environ, "CNI_PATH": path, "NETCONFPATH": str(networks)}

    def __call__(self, command: str, network: str, container: str) -> "subprocess.CompletedProcess[str]":
        """One command, as it comes out."""
        arguments = (command, network, f"/run/netns/{container}")
        return self.host.run(str(self._program), *arguments, env=self._env, check=False)


@pytest.fixture
def client(host: Host, cnitool: Path, bin_dir: str, tmp_path: Path) -> Cnitool:
    return Cnitool(host, cnitool, f"{bin_dir}:{REFERENCE_DIR}", tmp_path)


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_a_container_is_connected_checked_and_disconnected(client: Cnitool, file: Path) -> None:
    host, name = client.host, json.loads(file.read_text())["name"]
    shutil.copy(file, client.networks)
    host.add_container("c1")
    added = client("add", name, "c1")
    assert added.returncode == 0, added.stdout + added.stderr
    assert host.addresses("eth0", "c1") == [entry["address"] for entry in json.loads(added.stdout).get("ips", ())]
    checked = client("check", name, "c1")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    host.run("ip", "-n", "c1", "link", "set", "eth0", "down")
    checked = client("check", name, "c1")
    assert checked.returncode == 1
    assert "eth0" in checked.stderr
    for _ in range(2):
        deleted = client("del", name, "c1")
        assert (deleted.returncode, deleted.stdout, deleted.stderr) == (0, "", "")
    assert host.link_names("c1") == []
    assert host.reservations(name) == []


def test_the_network_that_is_asked_for_is_taken_and_not_the_first(client: Cnitool) -> None:
    for file in CONFIGURATIONS:
        shutil.copy(file, client.networks)
    client.host.add_container("c1")
    last = json.loads(CONFIGURATIONS[-1].read_text())
    added = client("add", last["name"], "c1")
    assert added.returncode == 0, added.stdout + added.stderr
    assert client.host.reservations(last["name"]) == [
        entry["address"].partition("/")[0] for entry in json.loads(added.stdout)["ips"]
    ]
    assert client("add", "nobody", "c1").returncode == 1
