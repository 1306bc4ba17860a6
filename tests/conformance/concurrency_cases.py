"""Many at once."""

import subprocess
from collections.abc import Iterable

from tests.conformance.registry import case, expect_equal
from tests.conformance.world import Config, World, addresses_of, outcome_of, succeed
from tests.kit.host import RUN_BOUND, Outcome

_CONTAINERS = 50


@case(53, "50 parallel ADDs and 50 parallel DELs: no duplicate address, one bridge, nothing left.")
def fifty(w: World) -> None:
    names = [f"cnt-{number}" for number in range(_CONTAINERS)]
    w.host.run("sh", "-c", f"for n in $(seq 0 {_CONTAINERS - 1}); do ip netns add cnt-$n; done")
    config = w.config(ipMasq=True, ipam=w.pool(_CONTAINERS))
    addresses = []
    for outcome in _at_once(w, "ADD", config, names):
        addresses += addresses_of(succeed(outcome, "a parallel ADD").document)
    expect_equal(len(set(addresses)), _CONTAINERS, "number of different addresses")
    bridges = [link["ifname"] for link in w.host.ip("link", "show", "type", "bridge")]
    expect_equal(bridges, ["br0"], "bridges")
    expect_equal(len(w.interfaces()), _CONTAINERS, "number of host ends")
    for outcome in _at_once(w, "DEL", config, names):
        succeed(outcome, "a parallel DEL", silent=True)
    expect_equal(w.interfaces(), [], "interfaces afterwards")
    plain = [address.partition("/")[0] for address in addresses]
    left = [rule for rule in w.rules() if any(address in rule for address in plain)]
    expect_equal(left, [], "rules for one of the containers afterwards")
    expect_equal([name for name in names if w.mentions(name)], [], "containers with a reservation afterwards")


def _at_once(w: World, command: str, config: Config, names: Iterable[str]) -> list[Outcome]:
    running = [w.start(command, config, name) for name in names]
    outcomes = []
    try:
        for process in running:
            stdout, stderr = process.communicate(timeout=RUN_BOUND)
            finished = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
            outcomes.append(outcome_of(finished, command))
    finally:
        for process in running:
            process.kill()
            process.wait(timeout=RUN_BOUND)
    return outcomes
