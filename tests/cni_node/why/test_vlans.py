"""pycni why on bridges that filter VLANs, held against real packets on a kernel that does so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cni_node.doctor.patients import CACHE, NETWORK, Patient
from tests.conftest import ROOT
from tests.kit.host import Host
from tests.kit.in_uml import BOUND

pytestmark = [pytest.mark.kernel, pytest.mark.uml, pytest.mark.timeout(BOUND + 40)]


def connect(patient: Patient, name: str, network: str, subnet: str, **keys: Any) -> str:
    """A pod of a network on the bridge. Returns its address."""
    ipam = {"type": "cni-ipam", "subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}]}
    patient.name, patient.network = network, {**NETWORK, "ipMasq": False, "ipam": ipam, **keys}
    result = patient.add(name)
    return str(result["ips"][0]["address"].partition("/")[0])


def why(patient: Patient, source: str, destination: str) -> dict[str, Any]:
    """What it says of a ping."""
    command = [sys.executable, "-m", "cni_node", "why", "--json", "--results", CACHE, source, destination]
    done: subprocess.CompletedProcess[str] = patient.host.run(
        *command, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return dict(json.loads(done.stdout))


def test_pods_of_two_vlans_are_apart_and_a_gateway_joins_them(host: Host, tmp_path: Path, bin_dir: str) -> None:
    patient = Patient(host, tmp_path, bin_dir)
    at = {
        "a": connect(patient, "a", "red", "10.1.0.0/16", vlan=100),
        "b": connect(patient, "b", "red", "10.1.0.0/16", vlan=100),
        "c": connect(patient, "c", "red", "10.1.0.0/16", vlan=200, isGateway=False),
        "d": connect(patient, "d", "blue", "10.3.0.0/16", vlan=300),
    }
    for source, target, kind in (("a", "b", None), ("a", "c", "vlan"), ("a", "d", None)):
        found = why(patient, at[source], at[target])
        assert found["kind"] == kind, found
        assert host.ping(at[target], container=source) == (kind is None)
    assert found["verdict"] == "passes"
    assert why(patient, "node", at["a"])["verdict"] == "passes"
    assert why(patient, "node", at["c"])["kind"] == "vlan"
    assert host.ping(at["a"])
    assert not host.ping(at["c"])
