"""A reboot: another boot id, all namespaces gone, the disk as it was, and no DEL from anybody."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REFERENCE_DIR
from tests.host import Host, Outcome, open_host

pytestmark = pytest.mark.kernel

Call = Callable[..., Outcome]


class Machine:
    """A machine whose disk outlives its boots."""

    def __init__(self, disk: Path, bin_dir: str) -> None:
        self._disk = disk
        self._bin_dir = bin_dir
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
        path = (self._bin_dir, REFERENCE_DIR)
        executable = f"{self._bin_dir}/cni-bridge"
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
