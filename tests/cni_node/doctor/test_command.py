"""pycni doctor as a command: what it prints, half broken nodes, how long it takes, and its page."""

import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_node.doctor.command import render
from cni_node.doctor.facts import HINDERS, Finding
from cni_protocol.attachment import Attachment
from tests.cni_node.doctor.patients import CACHE, PEER, STORE, Patient
from tests.conftest import ROOT
from tests.kit.host import Host

SECONDS, KIB = 2.0, 64 << 10  # of a processor, and of memory
PODS, PEERS = 250, 1000
NO_KINDS = {"systemd-networkd", "kube-proxy", "kube-bridge", "kube-ipvs0", "vxlan-6784", "ovn-k8s"}  # names of others
BOUND = 60  # seconds
MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture
def patient(host: Host, tmp_path: Path, bin_dir: str) -> Patient:
    return Patient(host, tmp_path, bin_dir)


def test_many_findings_of_one_kind_are_cut_short() -> None:
    lines = list(render([Finding(HINDERS, "port-down", f"veth{i}", "it is down", "set it up") for i in range(25)]))
    assert lines[:2] == ["breaks some: veth0: it is down", "    port-down; set it up"]
    assert lines[-1] == "    and 15 more of port-down (--json has all)"


def test_the_page_names_exactly_the_kinds_that_there_are() -> None:
    files = [*(ROOT / "cni_node/doctor").glob("*_checks.py"), ROOT / "cni_node/doctor/moving.py"]
    text = "".join(path.read_text() for path in files)
    single = "networkmanager|noexec|martians|retransmissions"
    made = set(re.findall(rf'"((?:[a-z0-9]+-)+[a-z0-9]+|{single})"', text)) - NO_KINDS
    rows = [line.split("|")[1] for line in (ROOT / "docs/doctor.md").read_text().splitlines() if line.startswith("| `")]
    named = {kind for row in rows for kind in re.findall(r"`([a-z0-9][a-z0-9-]+)`", row)}
    assert named == made


@pytest.mark.kernel
def test_a_host_without_anything_has_no_fault(host: Host, tmp_path: Path, bin_dir: str) -> None:
    patient = Patient(host, tmp_path, bin_dir)
    done = patient.doctor()
    assert (done.returncode, done.stdout, done.stderr) == (0, "no fault was found\n", "")


@pytest.mark.kernel
def test_the_worst_stands_first(patient: Patient) -> None:
    patient.add("c1")
    patient.sh(f"ip link set {patient.port('c1')} nomaster; echo 0 >/proc/sys/net/ipv4/ip_forward")
    patient.sh("ip link add flannel.1 type vxlan id 1 dstport 8472")
    patient.sh("ip link add name other type veth peer name wire; ip link set other master cni0")
    done = patient.doctor()
    heads = [line.partition(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert (done.returncode, heads) == (1, ["breaks traffic", "breaks some", "risk"])
    assert "sysctl -w net.ipv4.ip_forward=1" in done.stdout


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("way", "room"), [("local 192.0.2.1", 1450), ("local 2001:db8::1", 1430)], ids=["IPv4", "IPv6"]
)
def test_the_room_in_an_overlay_is_that_of_its_underlay(patient: Patient, way: str, room: int) -> None:
    patient.sh(f"ip link add vxlan.1 mtu {room} type vxlan id 1 dstport 4789 dev uplink {way}")
    patient.sh("ip link set vxlan.1 alias pycni, up")
    assert "mtu-overlay" not in patient.doctor().stdout
    patient.sh("ip link set uplink mtu 1499")
    assert f"ip link set vxlan.1 mtu {room - 1}; give the agent" in patient.doctor().stdout


@pytest.mark.kernel
def test_what_cannot_be_read_is_said_and_the_rest_is_looked_at(patient: Patient) -> None:
    patient.add("c1")
    patient.sh(f"ip link set {patient.port('c1')} down; rm -r {STORE}; : >{STORE}; echo {{ >{CACHE}/broken")
    without_rights = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = patient.doctor("--json", prefix=without_rights)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert "port-down" in {finding["kind"] for finding in document["findings"]}
    said = "\n".join(document["unreadable"])
    for what in ("the packet filter cannot be read", "the store /var/lib/cni/networks/mynet", "broken is no result"):
        assert what in said


def wait_for(text: str, terminal: int) -> None:
    """Until a terminal shows a text."""
    shown = b""
    while text.encode() not in shown:
        assert select.select([terminal], [], [], BOUND)[0], shown
        shown += os.read(terminal, 4096)


@pytest.mark.kernel
def test_what_takes_long_is_said_on_a_terminal_alone(patient: Patient) -> None:
    command = [sys.executable, "-m", "cni_node", "doctor", "--root", str(patient.root)]
    command += ["--socket", str(patient.socket)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        silent = stack.enter_context(socket.socket(socket.AF_UNIX))  # an agent that hears and does not answer
        silent.bind(str(patient.socket))
        silent.listen()

        def start(stderr: int, *options: str) -> "subprocess.Popen[str]":
            pipe = subprocess.PIPE
            process = patient.host.start(*command, *options, stdout=pipe, stderr=stderr, env=environment, cwd=ROOT)
            stack.callback(process.kill)
            return stack.enter_context(process)

        (mine, terminal), (other, second) = pty.openpty(), pty.openpty()
        for descriptor in (mine, terminal, other, second):
            stack.callback(os.close, descriptor)
        quiet = start(subprocess.PIPE)
        for_a_program, for_a_person = start(second, "--json"), start(terminal)
        wait_for("pycni: still reading the agent's report", mine)
        silent.close()
        assert "still" not in quiet.communicate(timeout=BOUND)[1]
        for process in (for_a_program, for_a_person):
            process.communicate(timeout=BOUND)
        assert not select.select([other], [], [], 0)[0], os.read(other, 4096)


@pytest.mark.kernel
def test_a_large_node_takes_little(patient: Patient, tmp_path: Path) -> None:
    patient.configure("10-mynet.conflist", ipMasq=False)
    lines = ["link add cni0 mtu 1450 type bridge", "link set cni0 up", "address add 10.1.0.1/16 dev cni0"]
    lines += ["address add fd00:1::1/64 dev cni0 nodad"]
    patient.host.add_container("pods")
    for number in range(PODS):
        owner = Attachment("mynet", f"p{number}", "eth0")
        name, ip = owner.host_name, f"10.1.1.{number + 1}"
        lines.append(f"link add {name} mtu 1450 master cni0 type veth peer name p{number} mtu 1450 netns pods")
        lines += [f"link set {name} alias {owner.owner} up", f"link set {name} type bridge_slave hairpin on"]
        result = {"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": f"{ip}/16"}]}
        (tmp_path / f"mynet-p{number}-eth0").write_text(patient.document(f"p{number}", result))
        (tmp_path / ip).write_text(f"p{number}\r\neth0")
    lines += [f"route add 10.{2 + i // 250}.{i % 250}.0/24 via {PEER} proto 80" for i in range(PEERS)]
    patient.host.run("ip", "-batch", "-", input="\n".join(lines))
    patient.host.run("ip", "-n", "pods", "-batch", "-", input="\n".join(f"link set p{i} up" for i in range(PODS)))
    patient.sh(f"mkdir -p {STORE}; cp {tmp_path}/mynet-p* {CACHE}; cp {tmp_path}/10.1.1.* {STORE}")
    patient.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
    done = patient.doctor("--json", prefix=(sys.executable, "-c", MEASURE))
    assert json.loads(done.stdout) == {"findings": [], "unreadable": []}, done.stdout[:2000]
    seconds, memory = map(float, done.stderr.split())
    assert seconds < SECONDS
    assert memory < KIB, seconds


@pytest.mark.kernel
def test_the_example_of_the_page_is_what_is_printed(patient: Patient) -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    example = page[page.index("## An example") :].split("```text\n")[1].split("```")[0]
    patient.add("c1")
    patient.add("c2")
    patient.sh(f"iptables -w -P FORWARD DROP; ip link set {patient.port('c2')} nomaster")
    patient.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")
    done = patient.doctor()
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == example
