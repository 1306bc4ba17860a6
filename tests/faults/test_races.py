"""Many calls at once, some of them killed: nothing twice, nothing left, no deadlock."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Lock
from typing import Any, NamedTuple

import pytest

from tests.faults.state import look
from tests.kit.calls import call_environment
from tests.kit.host import Host, Outcome

pytestmark = pytest.mark.kernel

NETWORK: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "crowd",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"type": "cni-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}
SEED, ROUNDS = 4, 8
WORKERS, OPERATIONS, KILLED = 32, 300, 0.25  # the last: a share
TRY_AGAIN_LATER, ALREADY_EXISTS = 11, 102
CALL_BOUND = 60.0  # seconds for one call among WORKERS; the locks are waited for 15 s at most


class Plugin:
    """cni-bridge on a host."""

    def __init__(self, host: Host, bin_dir: str) -> None:
        self.host = host
        self._bin_dir = bin_dir

    def call(self, command: str, name: str, **keys: Any) -> Outcome:
        executable, netns = f"{self._bin_dir}/cni-bridge", f"/run/netns/{name}"
        config = {**NETWORK, **keys}
        return self.host.cni(
            command, config, executable=executable, container_id=name, netns=netns, path=(self._bin_dir,)
        )

    def call_and_kill(self, command: str, name: str, seconds: float) -> bool:
        """Begin a call, and kill the process after a time. Returns whether it had ended before."""
        variables = call_environment(command, name, path=[self._bin_dir])
        process = subprocess.Popen(
            self.host.argv(f"{self._bin_dir}/cni-bridge"),
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(NETWORK).encode())
        process.stdin.close()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait(CALL_BOUND) == 0


@pytest.fixture
def plugin(host: Host, bin_dir: str) -> Plugin:
    return Plugin(host, bin_dir)


def make_containers(host: Host, names: list[str]) -> None:
    host.run("sh", "-c", f"for name in {' '.join(names)}; do ip netns add $name; done")


def addresses_of(outcome: Outcome) -> list[str]:
    return [entry["address"] for entry in outcome.document["ips"]]


def addresses_in(host: Host, names: list[str]) -> dict[str, list[str]]:
    """The global addresses in each container."""
    text = host.run("sh", "-c", f"for name in {' '.join(names)}; do ip -n $name -j address; echo; done").stdout
    found = {}
    for name, line in zip(names, text.split("\n\n"), strict=False):
        links = json.loads(line or "[]")
        entries = [entry for link in links if link for entry in link["addr_info"] if entry["scope"] == "global"]
        found[name] = [f"{entry['local']}/{entry['prefixlen']}" for entry in entries]
    return found


def assert_nothing_is_left(host: Host) -> None:
    state = look(host)
    assert list(state.links) in (["cni0"], [])
    assert state.rules == ()
    assert state.files == ()


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(CALL_BOUND) for future in [pool.submit(call) for call in calls]]


def test_adds_that_make_the_same_bridge_gateway_and_table_at_once_all_succeed(plugin: Plugin) -> None:
    host, names = plugin.host, [f"c{i}" for i in range(8)]
    make_containers(host, names)
    for _ in range(2):
        outcomes = at_once([lambda name=name: plugin.call("ADD", name) for name in names])  # type: ignore[misc]
        assert [outcome.status for outcome in outcomes] == [0] * len(names), outcomes
        given = [address for outcome in outcomes for address in addresses_of(outcome)]
        assert max(Counter(given).values()) == 1
        assert len(host.ip("link", "show", "type", "bridge")) == 1
        assert sorted(host.addresses("cni0")) == ["10.1.0.1/24", "fd00:1::1/64"]
        outcomes = at_once([lambda name=name: plugin.call("DEL", name) for name in names])  # type: ignore[misc]
        assert [outcome.status for outcome in outcomes] == [0] * len(names), outcomes
        assert_nothing_is_left(host)
        host.run("ip", "link", "delete", "cni0")


def test_add_against_del_of_the_same_container_leaves_nothing_after_a_final_del(plugin: Plugin) -> None:
    host = plugin.host
    make_containers(host, ["c1", "c2"])
    random = Random(SEED)

    def delete_after(seconds: float) -> Outcome:
        time.sleep(seconds)  # the race is about when, so there is nothing to wait for
        return plugin.call("DEL", "c1")

    for _ in range(ROUNDS):
        pause = random.uniform(0, 0.15)
        added, deleted = at_once([lambda: plugin.call("ADD", "c1"), lambda pause=pause: delete_after(pause)])  # type: ignore[misc]
        assert deleted.status == 0, deleted
        assert added.status == 0 or added.document["code"], added
        other = plugin.call("ADD", "c2")
        assert other.status == 0, other
        there = addresses_in(host, ["c1", "c2"])
        assert not set(there["c1"]) & set(there["c2"]), "an address was given twice"
        for name in ("c1", "c2"):
            final = plugin.call("DEL", name)
            assert final.status == 0, final
        assert_nothing_is_left(host)


def test_gc_against_add_leaves_a_container_whole_or_not_at_all(plugin: Plugin) -> None:
    host = plugin.host
    make_containers(host, ["c1", "c2"])
    assert plugin.call("ADD", "c2").status == 0
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    random = Random(SEED)

    def collect_after(seconds: float) -> Outcome:
        time.sleep(seconds)  # as above
        return plugin.call("GC", "c1", **valid)

    for _ in range(ROUNDS):
        pause = random.uniform(0, 0.15)
        added, collected = at_once([lambda: plugin.call("ADD", "c1"), lambda pause=pause: collect_after(pause)])  # type: ignore[misc]
        assert collected.status == 0, collected
        assert added.status == 0, added
        there = addresses_in(host, ["c1"])["c1"]
        held = [address.partition("/")[0] for address in there]
        mine = [
            name for name in host.reservations("crowd") if name in {a.partition("/")[0] for a in addresses_of(added)}
        ]
        assert mine == sorted(held), "reserved and in use are the same"
        if there:
            checked = plugin.call("CHECK", "c1", prevResult=added.document)
            assert checked.status == 0, checked
        assert plugin.call("DEL", "c1").status == 0
    assert plugin.call("DEL", "c2").status == 0
    assert_nothing_is_left(host)


class Operation(NamedTuple):
    """A command for a container; `kill_after` seconds, negative when it may end by itself."""

    command: str
    kill_after: float


def draw_operations(random: Random, count: int) -> list[Operation]:
    """What a worker does with its container, one after another."""
    drawn = []
    for _ in range(count):
        command = random.choices(("ADD", "DEL", "GC"), (52, 44, 4))[0]
        kill = command != "GC" and random.random() < KILLED
        drawn.append(Operation(command, random.uniform(0.01, 0.5) if kill else -1.0))
    return drawn


class Ledger:
    """Who holds which address, as far as answers tell; an address that two hold is a fault."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[str, str] = {}
        self.faults: list[str] = []
        self.put_off: list[str] = []

    def take(self, name: str, addresses: list[str]) -> None:
        with self._lock:
            for address in addresses:
                if address in self._held:
                    self.faults.append(f"{address} went to {name} while {self._held[address]} had it")
                self._held[address] = name

    def note_failure(self, call: str, document: dict[str, Any]) -> None:
        """An answer that is an error: the runtime may be asked to try again later, when a lock is not had in time."""
        with self._lock:
            (self.put_off if document["code"] == TRY_AGAIN_LATER else self.faults).append(f"{call}: {document}")

    def give_back(self, name: str) -> None:
        """To be called before DEL: what may be free is not held."""
        with self._lock:
            self._held = {address: holder for address, holder in self._held.items() if holder != name}


def work(plugin: Plugin, ledger: Ledger, name: str, operations: list[Operation]) -> int:
    """Do a container's operations. Returns how many were killed."""
    everybody = [{"containerID": f"w{i}", "ifname": "eth0"} for i in range(WORKERS)]
    killed = 0
    for operation in operations:
        if operation.command == "DEL":
            ledger.give_back(name)
        if operation.kill_after >= 0:
            killed += not plugin.call_and_kill(operation.command, name, operation.kill_after)
            continue
        keys = {"cni.dev/valid-attachments": everybody} if operation.command == "GC" else {}
        outcome = plugin.call(operation.command, name, **keys)
        attached = operation.command == "ADD" and outcome.status != 0 and outcome.document["code"] == ALREADY_EXISTS
        if outcome.status != 0 and not attached:  # attached already, in whole or in part
            ledger.note_failure(f"{operation.command} {name}", outcome.document)
        elif operation.command == "ADD" and not attached:
            ledger.take(name, addresses_of(outcome))
    return killed


def test_hundreds_of_operations_by_many_workers_some_of_them_killed(plugin: Plugin) -> None:
    host, random, ledger = plugin.host, Random(SEED), Ledger()
    names = [f"w{i}" for i in range(WORKERS)]
    make_containers(host, names)
    shares = [OPERATIONS // WORKERS + (i < OPERATIONS % WORKERS) for i in range(WORKERS)]
    plans = [draw_operations(random, share) for share in shares]
    killed = sum(
        at_once([lambda n=name, p=plan: work(plugin, ledger, n, p) for name, plan in zip(names, plans, strict=True)])  # type: ignore[misc]
    )
    assert ledger.faults == []
    assert len(ledger.put_off) < OPERATIONS / 20, ledger.put_off
    assert killed > OPERATIONS * KILLED / 4
    in_use = Counter(address for addresses in addresses_in(host, names).values() for address in addresses)
    assert not in_use or max(in_use.values()) == 1, "an address is on two interfaces"
    outcomes = at_once([lambda n=name: plugin.call("DEL", n) for name in names[: WORKERS // 2]])  # type: ignore[misc]
    assert [outcome.status for outcome in outcomes] == [0] * len(outcomes), outcomes
    collected = plugin.call("GC", "w0", **{"cni.dev/valid-attachments": []})
    assert collected.status == 0, collected
    assert not any(addresses_in(host, names).values())
    assert_nothing_is_left(host)
