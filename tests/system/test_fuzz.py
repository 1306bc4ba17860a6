"""A thousand mutated configurations and environments: an error object or a success, no hang, no leftover."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.kit.host import Host
from tests.system.fuzzing import Case, judge, make_cases

pytestmark = pytest.mark.kernel

SEED, CASES = 20260101, 1000
EVERY = 17  # through the executables: every so many
HANG = 30  # seconds


def assert_clean(host: Host) -> None:
    """Nothing is left but the bridges that ADD makes and DEL keeps, and what the store keeps of itself."""
    assert host.nft() == []
    assert host.link_names("c1") == []
    assert [link for link in host.ip("link") if link.get("linkinfo", {}).get("info_kind") == "veth"] == []
    files = host.run("find", "/var/lib/cni", "-type", "f").stdout.split()
    kept = ("lock", "index", "origin", "last_reserved_ip.")
    assert [name for name in files if not name.rpartition("/")[2].startswith(kept)] == []


def test_mutated_calls_in_one_process(host: Host, bin_dir: str) -> None:
    netns = host.add_container("c1")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = (bin_dir, netns, str(SEED), str(CASES))
    done = host.run(sys.executable, "-m", "tests.system.fuzzing", *arguments, env=env, timeout=110)
    told = json.loads(done.stdout)
    assert told["problems"] == [], "\n".join(told["problems"][:5])
    outcomes = told["outcomes"]
    for outcome in ("success", "ADD", "code 4", "code 6", "code 7"):
        assert outcomes[outcome] > 20, f"the mutations are too mild or too hard: {outcomes}"
    assert_clean(host)


def run(host: Host, bin_dir: str, case: Case) -> tuple[int, bytes]:
    done = subprocess.run(
        host.argv(f"{bin_dir}/{case.plugin}"),
        input=case.stdin,
        env=case.env,
        capture_output=True,
        timeout=HANG,
        check=False,
    )
    return done.returncode, done.stdout


def test_mutated_calls_through_the_executables(host: Host, bin_dir: str) -> None:
    netns = host.add_container("c1")
    cases = list(make_cases(bin_dir, netns, SEED, CASES))[::EVERY]
    assert len(cases) >= 50
    for case in cases:
        status, stdout = run(host, bin_dir, case)
        assert judge(case, status, stdout) == "", (case, stdout)
        if status == 0 and case.env.get("CNI_COMMAND") == "ADD":
            assert run(host, bin_dir, case._replace(env={**case.env, "CNI_COMMAND": "DEL"})) == (0, b""), case
    assert_clean(host)
