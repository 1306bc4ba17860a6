"""pycni doctor --watch: counters that grow are findings, those that stand are none."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_node.doctor.moving import COUNTERS, compare
from tests.cni_node.doctor.patients import Patient
from tests.conftest import ROOT
from tests.kit.host import Host
from tests.kit.runtime import HOST_ADDRESSES, OUTSIDE

OF_THE_MACHINE = {"backlog-full", "backlog-late", "neighbours-overflow"}  # whatever namespace it happens in
BOUND = 60  # seconds for a command to end


@pytest.mark.parametrize("name", [counter.name for counter in COUNTERS])
def test_a_counter_says_something_only_when_it_grows(name: str) -> None:
    assert compare({name: 5}, {name: 5}, 60) == []
    assert compare({}, {name: 5}, 60) == []
    [found] = compare({name: 5}, {name: 12}, 60)
    assert (found.subject, found.problem.split()[0]) == (name, "7")
    assert found.problem.endswith("in 60 s")


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        ({"Tcp:RetransSegs": 19, "Tcp:OutSegs": 100}, []),
        ({"Tcp:RetransSegs": 20, "Tcp:OutSegs": 100}, ["retransmissions"]),
        ({"Tcp:RetransSegs": 20, "Tcp:OutSegs": 2000}, []),
        ({"interface:eth0:rx errors": 1}, ["interface-errors"]),
        ({"interface:eth0:rx dropped": 9, "interface:eth0:tx dropped": 9}, []),
        ({"interface:eth0:rx dropped": 10}, ["interface-drops"]),
        ({"policy:ingress": 3, "policy:egress": 1}, ["policy-denials"]),
    ],
)
def test_what_is_normal_is_no_finding(after: dict[str, int], kinds: list[str]) -> None:
    assert [found.kind for found in compare(dict.fromkeys(after, 0), after, 60)] == kinds


def overflow(patient: Patient) -> None:
    """More connections than a queue takes, and more UDP than a buffer holds."""
    with patient.host.entered(), socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        clients = [socket.socket() for _ in range(8)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        for client in clients:
            client.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as slow, socket.socket(type=socket.SOCK_DGRAM) as fast:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            slow.bind(("127.0.0.1", 0))
            for _ in range(200):
                fast.sendto(bytes(1000), slow.getsockname())


def forge(patient: Patient) -> None:
    """Packets from outside with a source that leads elsewhere, and with a wrong checksum."""
    patient.sh("echo 1 >/proc/sys/net/ipv4/conf/uplink/rp_filter")
    patient.host.run("ip", "address", "add", "10.1.0.99/32", "dev", "eth0", container=OUTSIDE)
    header = (9).to_bytes(2, "big") * 2 + (8).to_bytes(2, "big") + b"\x12\x34"
    with patient.host.entered(OUTSIDE), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        sock.sendto(header, (HOST_ADDRESSES[4], 0))
        sock.bind(("10.1.0.99", 0))
        sock.sendto(header, (HOST_ADDRESSES[4], 0))


CAUSES: list[tuple[Callable[[Patient], None], set[str]]] = [
    (overflow, {"listen-overflow", "udp-overflow"}),
    (forge, {"reverse-path-drops", "udp-checksums-moving"}),
]


@pytest.mark.kernel
def test_what_is_lost_while_it_watches_is_told(host: Host, tmp_path: Path, bin_dir: str) -> None:
    patient = Patient(host, tmp_path, bin_dir)
    patient.add("c1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for cause, kinds in CAUSES:
        command = (sys.executable, "-m", "cni_node", "doctor", "--watch", "600", "--json")
        watching = host.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert watching.stderr is not None
        assert "watched for 600 s" in watching.stderr.readline()
        cause(patient)
        watching.send_signal(signal.SIGINT)
        said, problems = watching.communicate(timeout=BOUND)
        assert problems == ""
        document: Any = json.loads(said)
        found = {each["kind"] for each in document["findings"]}
        assert found - OF_THE_MACHINE == kinds
        assert watching.returncode == 1


@pytest.mark.kernel
def test_a_quiet_node_has_no_finding(host: Host, tmp_path: Path, bin_dir: str) -> None:
    done = Patient(host, tmp_path, bin_dir).doctor("--watch", "0", "--json")
    assert {each["kind"] for each in json.loads(done.stdout)["findings"]} <= OF_THE_MACHINE
    assert "watched for 0 s" in done.stderr
