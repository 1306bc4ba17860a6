"""A reboot: another boot id, all namespaces gone, the disk as it was, and no DEL from anybody."""

import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REFERENCE_DIR
from tests.kit.calls import call_environment
from tests.kit.host import Host, Outcome, open_host

pytestmark = pytest.mark.kernel

Call = Callable[..., Outcome]


class Machine:
    """A machine whose disk outlives its boots."""

    def __init__(self, disk: Path, bin_dir: str) -> None:
        self._disk = disk
        self.bin_dir = bin_dir
        self.data_dir = disk / "networks"

    def config(self, ipam: str = "cni-ipam", subnet: str = "10.1.0.0/29") -> dict[str, Any]:
        return {
            "cniVersion": "1.0.0",
            "name": "mynet",
            "type": "cni-bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {"type": ipam, "subnet": subnet, "dataDir": str(self.data_dir)},
        }

    @contextmanager
    def booted(self) -> Iterator[Host]:
        host = open_host()
        try:
            boot_id = self._disk / "boot_id"
            boot_id.write_text(f"{uuid.uuid4()}\n")
            host.run("mount", "--bind", str(boot_id), "/proc/sys/kernel/random/boot_id")
            yield host
        finally:
            host.close()

    def call(self, host: Host, command: str, name: str, config: dict[str, Any], *, netns: bool = True) -> Outcome:
        if command == "ADD":
            host.add_container(name)
        place = f"/run/netns/{name}" if netns else ""
        path = (self.bin_dir, REFERENCE_DIR)
        executable = f"{self.bin_dir}/cni-bridge"
        return host.cni(command, config, executable=executable, container_id=name, netns=place, path=path)

    def add(self, host: Host, name: str, config: dict[str, Any] | None = None) -> str:
        outcome = self.call(host, "ADD", name, config or self.config())
        assert outcome.status == 0, outcome
        return str(outcome.document["ips"][0]["address"]).partition("/")[0]

    def reservations(self) -> list[str]:
        return sorted(path.name for path in (self.data_dir / "mynet").glob("10.*"))


@pytest.fixture
def machine(tmp_path: Path, bin_dir: str) -> Machine:
    return Machine(tmp_path, bin_dir)


def test_a_full_pool_is_free_again_after_a_reboot_without_any_del(machine: Machine) -> None:
    with machine.booted() as host:
        given = [machine.add(host, f"c{i}") for i in range(5)]
        refused = machine.call(host, "ADD", "c5", machine.config())
        assert (refused.status, refused.document["code"]) == (1, 101)
    assert machine.reservations() == sorted(given)
    with machine.booted() as host:
        again = [machine.add(host, f"d{i}") for i in range(5)]
        assert sorted(again) == sorted(given)
    assert machine.reservations() == sorted(given)


def test_a_container_that_comes_back_has_its_address_again(machine: Machine) -> None:
    with machine.booted() as host:
        given = {name: machine.add(host, name) for name in ("c1", "c2", "c3")}
    with machine.booted() as host:
        assert {name: machine.add(host, name) for name in ("c3", "c1", "c2")} == given


NODE = ("unshare", "--net", "--pid", "--fork", "--mount-proc")
SAME_PROCESSES = ("unshare", "--net")
SAME_NETWORK = ("unshare", "--pid", "--fork", "--mount-proc")


def call_all(command: str, place: tuple[str, ...], machine: Machine, names: list[str]) -> list[str]:
    """The addresses that calls of cni-ipam give in some place, with the boot id that the machine has."""
    config = {**machine.config(), "cniVersion": "1.1.0", "type": "cni-ipam", "cni.dev/valid-attachments": []}
    script = 'for name; do CNI_CONTAINERID=$name "$PLUGIN" <"$CONFIG" || exit 1; done'
    path = machine.data_dir.parent / "config"
    path.write_text(json.dumps(config))
    variables = call_environment(command, "", "/run/netns/x", path=[machine.bin_dir])
    variables |= {"PLUGIN": f"{machine.bin_dir}/cni-ipam", "CONFIG": str(path)}
    called = [*place, "sh", "-c", script, "sh", *names]
    text = subprocess.run(called, env=variables, check=True, capture_output=True, text=True, timeout=60).stdout
    return re.findall(r'"address": "([0-9.]+)/', text)


def other_host(machine: Machine, name: str) -> tuple[str, ...]:
    """A place that has processes, a boot id and a machine id of its own."""
    directory = machine.data_dir.parent / name
    if not directory.exists():
        directory.mkdir()
        (directory / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (directory / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    mounts = f"mount --bind {directory}/boot_id /proc/sys/kernel/random/boot_id"
    mounts += f" && mount --bind {directory}/machine-id /etc/machine-id"
    return (*SAME_NETWORK, "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh")


@pytest.mark.parametrize(
    "place",
    [SAME_PROCESSES, SAME_NETWORK, NODE],
    ids=["other-network", "other-processes", "other-network-and-processes"],
)
def test_what_runs_on_this_host_beside_it_is_no_reboot(place: tuple[str, ...], machine: Machine) -> None:
    given = call_all("ADD", (), machine, ["c1", "c2"])
    given += call_all("ADD", place, machine, ["c3", "c4"])
    given += call_all("ADD", (), machine, ["c5"])
    assert sorted(given) == machine.reservations() == [f"10.1.0.{i}" for i in range(2, 7)]
    if place is not SAME_NETWORK:
        call_all("GC", place, machine, ["any"])
        assert len(machine.reservations()) >= 3


def test_a_node_that_is_a_container_comes_back_and_gives_back_what_its_past_had(machine: Machine) -> None:
    """Its processes and its network are gone, its disk and the kernel's boot id are not: DEL says what is over."""
    given = call_all("ADD", NODE, machine, ["a1", "a2", "a3"])
    assert call_all("ADD", NODE, machine, ["b1"])[0] not in given
    call_all("DEL", NODE, machine, ["a1", "a2", "a3"])
    assert machine.reservations() == ["10.1.0.5"]
    again = call_all("ADD", NODE, machine, ["b2", "b3", "b4", "b5"])
    assert sorted([*again, "10.1.0.5"]) == machine.reservations() == [f"10.1.0.{i}" for i in range(2, 7)]


def test_two_hosts_with_one_data_dir_lose_and_double_no_living_address(machine: Machine) -> None:
    given: dict[str, str] = {}
    for name in ("a1", "b1", "a2", "b2", "a3"):
        place = other_host(machine, name[0])
        (given[name],) = call_all("ADD", place, machine, [name])
        call_all("DEL", other_host(machine, "b" if name[0] == "a" else "a"), machine, [name])
        assert sorted(given.values()) == machine.reservations()
    call_all("GC", other_host(machine, "b"), machine, ["any"])
    assert machine.reservations() == sorted(address for name, address in given.items() if name[0] == "a")
    (machine.data_dir.parent / "b" / "boot_id").write_text(f"{uuid.uuid4()}\n")
    call_all("ADD", other_host(machine, "b"), machine, ["b9"])
    assert len(machine.reservations()) == 4


def test_reservations_of_this_boot_stay_also_those_of_the_reference(machine: Machine) -> None:
    theirs = machine.config("host-local")
    with machine.booted() as host:
        stale = [machine.add(host, "c1"), machine.add(host, "c2")]
    with machine.booted() as host:
        first = machine.add(host, "c3", theirs)
        mine = machine.add(host, "c4")
        second = machine.add(host, "c5", theirs)
        held = machine.reservations()
        assert machine.add(host, "c6") not in (first, mine, second)
        assert {first, mine, second} <= set(held)
        assert len({first, mine, second}) == 3
        assert not set(stale) & (set(held) - {first, mine, second})


def test_a_del_that_comes_after_the_reboot_is_fine_and_takes_nothing_of_others(machine: Machine) -> None:
    with machine.booted() as host:
        before = machine.add(host, "c1")
    with machine.booted() as host:
        other = machine.add(host, "c2")
        outcome = machine.call(host, "DEL", "c1", machine.config(), netns=False)
        assert outcome.status == 0, outcome
        assert machine.reservations() == [other]
        assert machine.call(host, "DEL", "c2", machine.config()).status == 0
        assert machine.reservations() == []
        assert before
