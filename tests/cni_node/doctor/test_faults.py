"""pycni doctor: each fault is made on an emulated host, and found; before it nothing is found."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cni_node.doctor.patients import PEER, STORE, Fault, Patient, worsen
from tests.kit.host import Host, wait_until
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE

pytestmark = pytest.mark.kernel


@pytest.fixture
def patient(host: Host, tmp_path: Path, bin_dir: str) -> Patient:
    made = Patient(host, tmp_path, bin_dir)
    for number, name in enumerate(("c1", "c2", "c3")):
        made.add(name, 8080 + number)
    return made


def sh(script: str) -> Callable[[Patient], None]:
    """A fault that a script makes; {c1} is the host's end of a pod's link."""
    return lambda patient: patient.sh(script.format(**{name: patient.port(name) for name in ("c1", "c2", "c3")}))


def set_sysctl(name: str, value: int) -> Callable[[Patient], None]:
    return lambda patient: patient.sh(f"echo {value} >/proc/sys/net/{name}")


def manage_by_networkmanager(patient: Patient) -> None:
    patient.write(f"/run/NetworkManager/devices/{patient.index('cni0')}", "[device]\nmanaged=true\n")


PORTS: list[Fault] = [
    ("down", sh("ip link set {c1} down"), {"port-down"}),
    ("detached", sh("ip link set {c2} nomaster"), {"port-detached"}),
    ("hairpin", sh("ip link set {c3} type bridge_slave hairpin off"), {"hairpin-off"}),
    ("isolated", sh("ip link set {c3} type bridge_slave isolated on"), {"port-isolated"}),
    ("blocking", sh("ip link set {c3} type bridge_slave state 1"), {"port-not-forwarding"}),
    ("large", sh("ip link set {c3} mtu 1460"), {"mtu-port"}),
    ("foreign address", sh("ip address add 10.77.0.9/24 dev {c3}"), {"foreign-address"}),
    ("NetworkManager", manage_by_networkmanager, {"networkmanager"}),
    ("flannel", sh("ip link add flannel.1 type vxlan id 1 dstport 8472"), {"other-network"}),
    ("pod's end", sh("ip -n c2 link set eth0 name away; ip -n c2 link set away netns $$"), {"pod-end-gone"}),
]
BRIDGE: list[Fault] = [
    ("old address", sh("ip address add 10.99.0.1/16 dev cni0"), {"old-address"}),
    ("no gateway", sh("ip address delete 10.1.0.1/16 dev cni0"), {"gateway-missing"}),
    ("no IPv6", set_sysctl("ipv6/conf/cni0/disable_ipv6", 1), {"ipv6-disabled"}),
    ("down", sh("ip link set cni0 down"), {"bridge-down"}),
]
# last, since the kernel forgets who has not answered
SILENT = """ip route add 10.9.0.0/24 via 192.0.2.9 dev uplink proto 80
ip neighbour replace 192.0.2.9 dev uplink nud failed"""
ROUTES: list[Fault] = [
    ("overlapping address", sh("ip address add 10.1.200.1/24 dev uplink"), {"subnet-overlap"}),
    ("shared", sh(f"ip route add 10.1.64.0/24 via {PEER} proto 80"), {"range-shared"}),
    ("networkd", sh("mkdir -p /run/systemd/netif; touch /run/systemd/netif/state"), {"networkd-routes"}),
    ("blackhole", sh("ip route add blackhole 10.1.3.0/24"), {"route-refuses"}),
    ("own route", sh("ip route delete 10.1.0.0/16 dev cni0"), {"own-route-missing"}),
    ("router", sh("ip -6 route add default via fe80::1 dev uplink proto ra"), {"accept-ra"}),
    ("silent", sh(SILENT), {"peer-silent"}),
]
SYSCTLS: list[Fault] = [
    ("interface", set_sysctl("ipv4/conf/cni0/forwarding", 0), {"forwarding-off"}),
    ("bridged", set_sysctl("bridge/bridge-nf-call-iptables", 0), {"bridge-netfilter-off"}),
]


@pytest.mark.parametrize("faults", [PORTS, BRIDGE, ROUTES, SYSCTLS], ids=["ports", "bridge", "routes", "sysctls"])
def test_faults_of_the_network_are_found(patient: Patient, faults: list[Fault]) -> None:
    worsen(patient, faults)


def together(patient: Patient, faults: list[Fault], beside: frozenset[str] | set[str] = frozenset()) -> None:
    """Healthy first but for what stands beside; then all of them at once."""
    assert patient.kinds() == beside
    for _, make, _ in faults:
        make(patient)
    assert patient.kinds() == set(beside).union(*(kinds for _, _, kinds in faults))


def send_into_silence(patient: Patient) -> None:
    with patient.host.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(60):
            sock.sendto(b"word", ("10.2.0.5", 9))


def send_a_wrong_checksum(patient: Patient) -> None:
    header = (9).to_bytes(2, "big") * 2 + (8).to_bytes(2, "big") + b"\x12\x34"
    with patient.host.entered(OUTSIDE), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        sock.sendto(header, (HOST_ADDRESSES[4], 0))


OVERLAY: list[Fault] = [
    ("strict", set_sysctl("ipv4/conf/vxlan.42/rp_filter", 1), {"reverse-path"}),
    ("MTU of the underlay", sh("ip link set uplink mtu 1400"), {"mtu-overlay", "mtu-pods"}),
    ("silence", send_into_silence, {"overlay-silent"}),
    ("checksum", send_a_wrong_checksum, {"udp-checksums"}),
    ("neighbour", sh("ip neighbour delete 10.2.0.0 dev vxlan.42"), {"peer-entry-missing"}),
    ("MAC", sh("ip link set vxlan.42 address 02:00:00:00:00:99"), {"overlay-mac"}),
    ("down", sh("ip link set vxlan.42 down"), {"overlay-down"}),
]


def test_faults_of_the_overlay_are_found_together(patient: Patient) -> None:
    patient.make_overlay()
    # its route goes with the device, and with that whatever is said of its way
    together(patient, OVERLAY[:-1])
    OVERLAY[-1][1](patient)
    assert patient.kinds() >= {"overlay-down", "overlay-mac"}


def fill_the_table(patient: Patient) -> None:
    """More connections than there may be, as far as the doctor can see."""
    patient.host.ping(PEER)
    patient.write("/run/one", "1\n")
    patient.sh("mount --bind /run/one /proc/sys/net/netfilter/nf_conntrack_max")


def have_one_pod_twice(patient: Patient) -> None:
    mappings = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    patient.remember("c2", patient.result("c1"), mappings)


TWICE = {"host-port-twice", "duplicate-address", "duplicate-mac", "rules-missing"}
NODE: list[Fault] = [
    ("connections", fill_the_table, {"connections-full"}),
    ("pod", have_one_pod_twice, TWICE),
    ("noexec", lambda patient: patient.sh(NOEXEC.format(patient.bin_dir)), {"noexec"}),
]
NOEXEC = "mount --bind {0} {0}; mount -o remount,bind,noexec {0}"


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


# --- files

# the interface goes a moment later
LEAK = "ip netns delete c3; for i in $(seq 1000); do ip link show {c3} >/dev/null 2>&1 || break; sleep 0.02; done"
DAMAGED: list[Fault] = [
    ("empty", sh(f": >{STORE}/10.1.0.2"), {"store-damaged"}),
    ("unreserved", sh(f"rm {STORE}/10.1.0.3"), {"address-unreserved"}),
    ("leaked", sh(LEAK), {"reservation-leaked"}),
    ("read-only", sh("mount -o remount,ro /var/lib/cni"), {"read-only"}),
]


def test_faults_of_the_store_are_found(patient: Patient) -> None:
    worsen(patient, DAMAGED)


def shadow(patient: Patient) -> None:
    text = json.dumps({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "flannel"}]})
    (patient.conf_dir / "05-flannel.conflist").write_text(text)


def later(patient: Patient) -> None:
    (patient.root / "etc/sysctl.d/99-hardening.conf").write_text("net.ipv4.ip_forward = 0\n")


def resolve_by_a_stub(patient: Patient) -> None:
    (patient.root / "var/lib/kubelet").mkdir()
    (patient.root / "var/lib/kubelet/config.yaml").write_text("kind: KubeletConfiguration\n")
    (patient.root / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")


def break_a_configuration(patient: Patient) -> None:
    (patient.conf_dir / "99-x.conf").write_text("{")


FILES: list[Fault] = [
    ("broken", break_a_configuration, {"configuration-broken"}),
    ("shadowed", shadow, {"configuration-shadowed"}),
    ("later", later, {"forwarding-off-later"}),
    ("stub", resolve_by_a_stub, {"stub-resolver"}),
    ("no execute bit", lambda patient: (patient.bin_dir / "cni-ipam").chmod(0o644), {"plugin-unusable"}),
]


def test_faults_of_files_are_found(patient: Patient) -> None:
    worsen(patient, FILES)
