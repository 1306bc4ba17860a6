"""How many instructions a call costs, over those of an interpreter that does nothing: no busy machine changes them.

Where a command needs more than its budget, find out why (`callgrind_annotate`, `-X importtime`), or say in the commit
that raises the number what it is worth. Where it needs less, lower the number.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.kit.calls import call_environment
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

TOLERANCE = 1.05
CYCLES = 3  # at most: of a command that is above its budget the best counts, since waits differ in length
BARE = ("/usr/bin/python3", "-ISBXutf8", "-c", "import posix; posix._exit(0)")
# instructions of user space over those of the bare interpreter; a command's children are not counted
BUDGET = {
    "plain": {"VERSION": 1.68, "ADD": 2.92, "DEL": 2.40},
    "seed": {"ADD": 3.57, "CHECK": 3.57, "STATUS": 3.03, "DEL": 3.00},
}
NETWORKS: dict[str, dict[str, Any]] = {"plain": {}, "seed": {"isGateway": True, "ipMasq": True}}
_COMMAND = re.compile(r"^==(\d+)== Command:", re.MULTILINE)


def count(host: Host, *command: str, env: Mapping[str, str], stdin: str = "") -> tuple[int, Any]:
    """The instructions of a process, and the document that it prints."""
    counted = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command)
    done = host.run("env", "-i", *(f"{key}={value}" for key, value in env.items()), *counted, input=stdin)
    process = _COMMAND.search(done.stderr)
    assert process, done.stderr
    found = re.search(rf"^=={process[1]}== Collected : (\d+)$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    return int(found[1]), json.loads(done.stdout or "null")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("network", BUDGET)
def test_no_command_costs_more_than_its_budget(host: Host, bin_dir: str, network: str) -> None:
    executable, netns = f"{bin_dir}/cni-bridge", host.add_container("c1")
    ipam = {"type": "cni-ipam", "subnet": "10.1.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}
    base = {"cniVersion": "1.1.0", "name": "mynet", "type": "cni-bridge", "ipam": ipam, **NETWORKS[network]}
    for command in ("ADD", "DEL"):  # the first of a network makes its directories, its bridge, its rules
        assert host.cni(command, base, executable=executable, netns=netns, path=(bin_dir,)).status == 0
    bare, _ = count(host, *BARE, env={})
    limits = {command: ratio * TOLERANCE for command, ratio in BUDGET[network].items()}
    found: dict[str, float] = {}
    for _ in range(CYCLES):
        config = base
        for command in BUDGET[network]:
            env = call_environment(command, netns=netns, path=[bin_dir])
            number, answer = count(host, executable, env=env, stdin=json.dumps(config))
            found[command] = min(number / bare, found.get(command, math.inf))
            config = {**base, "prevResult": answer} if command == "ADD" else config
        if all(found[command] <= limit for command, limit in limits.items()):
            break
    assert {command: ratio for command, ratio in found.items() if ratio > limits[command]} == {}
