"""pycni doctor beside the rules of other programs, on a real packet filter."""

import subprocess
from pathlib import Path

import pytest

from tests.cni_node.doctor.patients import Patient
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel

DOCKER = """
table ip nat { chain POSTROUTING { type nat hook postrouting priority 100;
    ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
    }
}
table ip filter {
    chain DOCKER-USER { %s return; }
    chain DOCKER { }
    chain FORWARD { type filter hook forward priority 0; policy %s;
        jump DOCKER-USER
        oifname "docker0" ct state established,related accept
        oifname "docker0" jump DOCKER
        iifname "docker0" accept
    }
}
"""
FIREWALLD = """
table inet firewalld {
    chain FORWARD { type filter hook forward priority 10; policy accept;
        ct state established,related accept
        %s
        reject with icmpx admin-prohibited
    }
}
"""
KUBE_PROXY = """
table ip filter {
    chain KUBE-FORWARD { ct state invalid drop
        meta mark & 0x4000 == 0x4000 accept
        ct state established,related accept
    }
    chain FORWARD { type filter hook forward priority 0; policy accept; counter jump KUBE-FORWARD
    }
}
"""
# docker's files are the host's own: its state, what it writes below /etc, and its containerd below /opt
PLACES = """
mkdir /run/changed /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/changed,workdir=/run/work /etc
mount -t tmpfs opt /opt
"""
DOCKERD = (
    "dockerd",
    "--storage-driver",
    "vfs",
    "--exec-opt",
    "native.cgroupdriver=cgroupfs",
    "--data-root",
    "/run/data",
)
LET_THROUGH = "for way in -i -o; do iptables -w -I DOCKER-USER $way cni0 -j ACCEPT; done"
BOUND = 60.0  # seconds


@pytest.fixture
def patient(host: Host, tmp_path: Path, bin_dir: str) -> Patient:
    made = Patient(host, tmp_path, bin_dir)
    made.add("c1", 8080)
    assert made.kinds() == set()
    return made


def load(patient: Patient, rules: str) -> None:
    patient.host.run("nft", "-f", "-", input=rules)


@pytest.mark.parametrize(
    "rules",
    [
        DOCKER % ("", "accept"),
        DOCKER % ('iifname "cni0" accept;', "drop"),
        FIREWALLD % 'iifname "cni0" accept',
        KUBE_PROXY,
    ],
    ids=["docker that accepts", "docker with a way", "firewalld with a way", "kube-proxy"],
)
def test_rules_of_others_that_do_no_harm_are_no_fault(patient: Patient, rules: str) -> None:
    load(patient, rules)
    assert patient.kinds() == set()


@pytest.mark.parametrize("rules", [DOCKER % ("", "drop"), FIREWALLD % ""], ids=["docker", "firewalld"])
def test_a_chain_of_others_that_stops_pods_is_found(patient: Patient, rules: str) -> None:
    load(patient, rules)
    assert patient.kinds() == {"forward-drop"}


def test_rules_that_were_flushed_are_found(patient: Patient) -> None:
    patient.sh("nft flush ruleset")
    assert patient.kinds() == {"rules-missing"}


def test_docker_itself_stops_pods_where_it_was_first_until_it_is_told_not_to(
    host: Host, tmp_path: Path, bin_dir: str
) -> None:
    patient = Patient(host, tmp_path, bin_dir)
    patient.sh(PLACES)
    with open(tmp_path / "log", "w") as log:
        host.start(*DOCKERD, stdout=log, stderr=subprocess.STDOUT)
    ready = wait_until(lambda: host.run("docker", "version", check=False).returncode == 0, BOUND)
    assert ready, (tmp_path / "log").read_text()
    patient.add("c1")
    assert patient.kinds() == {"forward-drop"}
    patient.sh(LET_THROUGH)
    assert patient.kinds() == set()
