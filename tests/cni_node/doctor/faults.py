"""The faults of a node as data: how each is made on an emulated host, and the kinds of findings that show it.

The host has four pods, c1 to c4, with the host ports 8080 to 8083.
"""

import json
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from tests.cni_node.doctor.patients import PEER, STORE, Fault, Patient
from tests.kit.host import wait_until
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE, OUTSIDE_ADDRESSES

PODS = ("c1", "c2", "c3", "c4")
NETWORKD = "/lib/systemd/systemd-networkd"
BOUND = 60.0  # seconds


def sh(script: str) -> Callable[[Patient], None]:
    """A fault that a script makes; {c1} is the host's end of a pod's link."""
    return lambda patient: patient.sh(script.format(**{name: patient.port(name) for name in PODS}))


def set_sysctl(name: str, value: int) -> Callable[[Patient], None]:
    """A fault that is a sysctl below net."""
    return lambda patient: patient.sh(f"echo {value} >/proc/sys/net/{name}")


def manage_by_networkmanager(patient: Patient) -> None:
    """What NetworkManager 1.42 writes of a veth that it manages."""
    text = "[device]\nmanaged=true\nperm-hw-addr-fake=76:D1:33:68:14:62\nnm-owned=false\n"
    patient.write(f"/run/NetworkManager/devices/{patient.index(patient.port('c1'))}", text)


def start_networkd(patient: Patient) -> None:
    """A systemd-networkd that runs, without a configuration."""
    patient.sh("install -d -o systemd-network -g systemd-network /run/systemd/netif")
    patient.host.start(NETWORKD, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = "/run/systemd/netif/state"
    assert wait_until(lambda: patient.host.run("test", "-e", state, check=False).returncode == 0, BOUND)


def take_the_address_of_another(patient: Patient) -> None:
    """An address that the machine at the other end of the wire has; the kernel asks there before it uses one."""
    address = OUTSIDE_ADDRESSES[6]
    anew = f"ip address delete {address}/64 dev uplink 2>/dev/null || :; ip address add {address}/64 dev uplink"

    def is_refused() -> bool:
        shown = patient.host.ip("-6", "address", "show", "dev", "uplink")[0]["addr_info"]
        state: dict[str, Any] = next((entry for entry in shown if entry["local"] == address), {})
        if "tentative" not in state:  # nobody answered: the other end was not ready yet
            patient.sh(anew)
        return "dadfailed" in state

    assert wait_until(is_refused, BOUND)


def pull_the_wire_out(patient: Patient) -> None:
    """A peer beyond an interface without carrier, which the kernel notices a moment later."""
    patient.sh(f"ip route add 10.8.0.0/24 via {PEER} proto 80; ip -n {OUTSIDE} link set eth0 down")
    assert wait_until(lambda: "NO-CARRIER" in patient.host.ip("link", "show", "dev", "uplink")[0]["flags"], BOUND)


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
    ("bridge down", sh("ip link set cni0 down"), {"bridge-down"}),
]
# last, since the kernel forgets who has not answered
SILENT = """ip route add 10.9.0.0/24 via 192.0.2.9 dev uplink proto 80
ip neighbour replace 192.0.2.9 dev uplink nud failed"""
# ADD and the agent see to it that uplinks listen, so somebody else has to have undone it
DEAF = """sysctl -qw net.ipv6.conf.uplink.accept_ra=1
ip -6 route add default via fe80::1 dev uplink proto ra"""
ROUTES: list[Fault] = [
    ("address of another", take_the_address_of_another, {"address-conflict"}),
    ("overlapping address", sh("ip address add 10.1.200.1/24 dev uplink"), {"subnet-overlap"}),
    ("shared", sh(f"ip route add 10.1.64.0/24 via {PEER} proto 80"), {"range-shared"}),
    ("networkd", start_networkd, {"networkd-routes"}),
    ("blackhole", sh("ip route add blackhole 10.1.3.0/24"), {"route-refuses"}),
    ("own route", sh("ip route delete 10.1.0.0/16 dev cni0"), {"own-route-missing"}),
    ("router", sh(DEAF), {"accept-ra"}),
    ("silent", sh(SILENT), {"peer-silent"}),
]
UNPLUGGED: Fault = ("unplugged", pull_the_wire_out, {"peer-unreachable"})
SYSCTLS: list[Fault] = [
    ("interface", set_sysctl("ipv4/conf/cni0/forwarding", 0), {"forwarding-off"}),
    ("bridged", set_sysctl("bridge/bridge-nf-call-iptables", 0), {"bridge-netfilter-off"}),
]


def send_into_silence(patient: Patient) -> None:
    """Packets to a peer that never answers."""
    with patient.host.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(60):
            sock.sendto(b"word", ("10.2.0.5", 9))


def send_a_wrong_checksum(patient: Patient) -> None:
    """A UDP packet from outside."""
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
    ("overlay down", sh("ip link set vxlan.42 down"), {"overlay-down"}),
]


def fill_the_table(patient: Patient) -> None:
    """More connections than there may be, as far as the doctor can see."""
    patient.host.ping(PEER)
    patient.write("/run/one", "1\n")
    patient.sh("mount --bind /run/one /proc/sys/net/netfilter/nf_conntrack_max")


def have_one_pod_twice(patient: Patient) -> None:
    """A runtime that remembers the result of another pod."""
    mappings = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    patient.remember("c2", patient.result("c1"), mappings)


TWICE = {"host-port-twice", "duplicate-address", "duplicate-mac", "rules-missing"}
NOEXEC = "mount --bind {0} {0}; mount -o remount,bind,noexec {0}"
# the rules of each are out of the other's sight
MIXED = "for each in legacy nft; do iptables-$each -w -A INPUT -s 192.0.2.99 -j DROP; done"
NODE: list[Fault] = [
    ("connections", fill_the_table, {"connections-full"}),
    ("pod", have_one_pod_twice, TWICE),
    ("noexec", lambda patient: patient.sh(NOEXEC.format(patient.bin_dir)), {"noexec"}),
    ("two kinds of iptables", sh(MIXED), {"iptables-mixed"}),
]

# the interface goes a moment later
LEAK = "ip netns delete c4; for i in $(seq 1000); do ip link show {c4} >/dev/null 2>&1 || break; sleep 0.02; done"
DAMAGED: list[Fault] = [
    ("empty", sh(f": >{STORE}/10.1.0.2"), {"store-damaged"}),
    ("unreserved", sh(f"rm {STORE}/10.1.0.3"), {"address-unreserved"}),
    ("leaked", sh(LEAK), {"reservation-leaked"}),
    ("read-only", sh("mount -o remount,ro /var/lib/cni"), {"read-only"}),
]


def shadow(patient: Patient) -> None:
    """Another configuration that sorts first."""
    text = json.dumps({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "flannel"}]})
    (patient.conf_dir / "05-flannel.conflist").write_text(text)


def later(patient: Patient) -> None:
    """What a hardening guide has people write."""
    (patient.root / "etc/sysctl.d/99-hardening.conf").write_text("net.ipv4.ip_forward = 0\n")


def resolve_by_a_stub(patient: Patient) -> None:
    """A kubelet without resolvConf, on a host with systemd-resolved."""
    (patient.root / "var/lib/kubelet").mkdir()
    (patient.root / "var/lib/kubelet/config.yaml").write_text("kind: KubeletConfiguration\n")
    (patient.root / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")


def break_a_configuration(patient: Patient) -> None:
    """A file that is no JSON."""
    (patient.conf_dir / "99-x.conf").write_text("{")


FILES: list[Fault] = [
    ("broken", break_a_configuration, {"configuration-broken"}),
    ("shadowed", shadow, {"configuration-shadowed"}),
    ("later", later, {"forwarding-off-later"}),
    ("stub", resolve_by_a_stub, {"stub-resolver"}),
    ("no execute bit", lambda patient: (patient.bin_dir / "cni-ipam").chmod(0o644), {"plugin-unusable"}),
]

# All that can be on one host, made in this order. It has an overlay.
ALL = [*NODE, *PORTS, *OVERLAY, *BRIDGE, *ROUTES[:-1], UNPLUGGED, *SYSCTLS, *FILES, *DAMAGED, ROUTES[-1]]
# One of these hides another, or takes away what it is about.
APART = (
    {"overlay down", "neighbour"},
    {"overlay down", "networkd"},
    {"no gateway", "own route"},
    {"bridge down", "own route"},
    {"bridge down", "blocking"},
    {"bridge down", "blackhole"},
    {"pod", "unreserved"},
)
