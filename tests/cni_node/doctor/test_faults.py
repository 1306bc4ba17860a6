"""pycni doctor: each fault is made on an emulated host, and found; before it nothing is found."""

import random
import socket
from pathlib import Path

import pytest

from tests.cni_node.doctor.faults import (
    ALL,
    APART,
    BRIDGE,
    DAMAGED,
    FILES,
    NODE,
    OVERLAY,
    PODS,
    PORTS,
    ROUTES,
    SYSCTLS,
    UNPLUGGED,
)
from tests.cni_node.doctor.patients import Fault, Patient, worsen
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def patient(host: Host, tmp_path: Path, bin_dir: str) -> Patient:
    made = Patient(host, tmp_path, bin_dir)
    for number, name in enumerate(PODS):
        made.add(name, 8080 + number)
    return made


@pytest.mark.parametrize("faults", [PORTS, BRIDGE, ROUTES, SYSCTLS], ids=["ports", "bridge", "routes", "sysctls"])
def test_faults_of_the_network_are_found(patient: Patient, faults: list[Fault]) -> None:
    worsen(patient, faults)


def test_a_wire_that_was_pulled_out_takes_the_peers_along(patient: Patient) -> None:
    worsen(patient, [UNPLUGGED])


def together(patient: Patient, faults: list[Fault], beside: frozenset[str] | set[str] = frozenset()) -> None:
    """Healthy first but for what stands beside; then all of them at once."""
    assert patient.kinds() == beside
    for _, make, _ in faults:
        make(patient)
    assert patient.kinds() == set(beside).union(*(kinds for _, _, kinds in faults))


def test_faults_of_the_overlay_are_found_together(patient: Patient) -> None:
    patient.make_overlay()
    # its route goes with the device, and with that whatever is said of its way
    together(patient, OVERLAY[:-1])
    OVERLAY[-1][1](patient)
    assert patient.kinds() >= {"overlay-down", "overlay-mac"}


def test_faults_of_a_whole_node_are_found_together(patient: Patient) -> None:
    with patient.host.entered():
        listener = socket.create_server(("0.0.0.0", 8082))
    with listener:
        together(patient, NODE, beside={"host-port-taken"})


def test_a_bridge_that_is_gone_and_one_that_is_none_are_found(patient: Patient) -> None:
    patient.sh(f"ip link set {patient.port('c1')} nomaster; ip link delete cni0")
    assert "bridge-missing" in patient.kinds()
    patient.sh("ip link add cni0 type veth peer name other")
    assert "bridge-name-taken" in patient.kinds()


def test_a_full_disk_a_small_range_and_a_namespace_without_a_name_are_found(
    host: Host, tmp_path: Path, bin_dir: str
) -> None:
    patient = Patient(host, tmp_path, bin_dir)
    patient.configure("10-mynet.conflist", ipam={"type": "cni-ipam", "subnet": "10.1.0.0/29", "rangeEnd": "10.1.0.3"})
    patient.add("c1")
    assert patient.kinds() == set()
    patient.add("c2")
    with host.start("sleep", "600", container="c1") as holder:
        assert wait_until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n")
        patient.sh("ip netns delete c1; mount -o remount,nr_inodes=60 /var/lib/cni")
        patient.host.run("sh", "-c", "for i in $(seq 99); do echo x >/var/lib/cni/x$i; done", check=False)
        assert patient.kinds() == {"pool-full", "namespace-gone", "disk-full"}
        holder.kill()


def test_faults_of_the_store_are_found(patient: Patient) -> None:
    worsen(patient, DAMAGED)


def test_faults_of_files_are_found(patient: Patient) -> None:
    worsen(patient, FILES)


def draw(chance: random.Random, count: int) -> list[Fault]:
    """Faults that can be found beside each other, in the order in which they are made."""
    drawn: set[str] = set()
    for name in chance.sample([name for name, _, _ in ALL], len(ALL)):
        if len(drawn) < count and not any(name in pair and pair & drawn for pair in APART):
            drawn.add(name)
    return [fault for fault in ALL if fault[0] in drawn]


def test_ten_faults_by_chance_are_found_at_once(patient: Patient) -> None:
    seed = random.randrange(1 << 32)
    faults = draw(random.Random(seed), 10)
    patient.make_overlay()
    assert patient.kinds() == set()
    for _, make, _ in faults:
        make(patient)
    found = patient.kinds()
    missed = {name: kinds - found for name, _, kinds in faults if not kinds <= found}
    assert missed == {}, f"seed {seed}: {[name for name, _, _ in faults]}"
