"""Fifty containers at once on one host."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.host import wait_until
from tests.kit.locks import count_waiting, held_elsewhere
from tests.kit.runtime import Runtime, addresses_of

pytestmark = pytest.mark.kernel

NAMES = [f"c{i}" for i in range(50)]
WORKERS = 32
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "crowd",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"type": "cni-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]},
}


def test_fifty_containers_come_and_go_at_once(bridge: Runtime) -> None:
    host = bridge.host
    host.run("sh", "-c", f"for name in {' '.join(NAMES)}; do ip netns add $name; done")
    with ThreadPoolExecutor(WORKERS) as pool:
        added = list(pool.map(lambda name: bridge.call("ADD", name, NETWORK), NAMES))
    assert [outcome.status for outcome in added] == [0] * len(NAMES), next(one for one in added if one.status)
    given = [address for outcome in added for address in addresses_of(outcome.document)]
    assert len(given) == 2 * len(NAMES)
    assert max(Counter(given).values()) == 1
    assert host.reservations("crowd") == sorted(given)
    for name, outcome in zip(NAMES, added, strict=True):
        assert host.addresses("eth0", name) == [entry["address"] for entry in outcome.document["ips"]]
    bridges = host.ip("link", "show", "type", "bridge")
    assert [link["ifname"] for link in bridges] == ["cni0"]
    assert len(host.ip("link", "show", "master", "cni0")) == len(NAMES)
    assert sorted(host.addresses("cni0")) == ["10.1.0.1/24", "fd00:1::1/64"]
    assert host.ping(given[-2], NAMES[0])
    assert host.ping(given[-1], NAMES[0])
    bridge.results.update({name: outcome.document for name, outcome in zip(NAMES, added, strict=True)})
    bridge.check(NAMES[0], NETWORK)
    with ThreadPoolExecutor(WORKERS) as pool:
        deleted = list(pool.map(lambda name: bridge.call("DEL", name, NETWORK), NAMES))
    assert [tuple(outcome) for outcome in deleted] == [(0, None, "", "")] * len(NAMES)
    assert host.link_names() == ["cni0"]
    assert host.reservations("crowd") == []
    assert host.nft() == []


def test_additions_and_deletions_at_once_do_not_disturb_each_other(bridge: Runtime) -> None:
    host = bridge.host
    leaving, coming = NAMES[:8], NAMES[8:16]
    host.run("sh", "-c", f"for name in {' '.join(leaving + coming)}; do ip netns add $name; done")
    for name in leaving:
        bridge.add(name, NETWORK)
    calls = [call for pair in zip(leaving, coming, strict=True) for call in (("DEL", pair[0]), ("ADD", pair[1]))]
    with ThreadPoolExecutor(len(calls)) as pool:
        outcomes = list(pool.map(lambda call: bridge.call(call[0], call[1], NETWORK), calls))
    assert [outcome.status for outcome in outcomes] == [0] * len(calls), outcomes
    bridge.results.update({name: outcome.document for (_, name), outcome in zip(calls, outcomes, strict=True)})
    for name in coming:
        bridge.check(name, NETWORK)
        assert host.ping("10.1.0.1", name)
    assert len(host.reservations("crowd")) == 2 * len(coming)
    assert len(host.ip("link", "show", "master", "cni0")) == len(coming)


def test_one_container_added_four_times_at_once_is_there_once(bridge: Runtime) -> None:
    host = bridge.host
    host.add_container("c1")
    with ThreadPoolExecutor(4) as pool, held_elsewhere(host) as holder:
        calls = [pool.submit(bridge.call, "ADD", "c1", NETWORK) for _ in range(4)]
        together = wait_until(lambda: count_waiting(host) == len(calls), 10)
        holder.kill()
        outcomes = [call.result() for call in calls]
    assert together, "one of the four stood before the host's lock, and the others behind it"
    assert sorted(outcome.status for outcome in outcomes) == [0, 1, 1, 1], outcomes
    assert {outcome.document["code"] for outcome in outcomes if outcome.status} == {102}
    winner = next(outcome for outcome in outcomes if outcome.status == 0)
    bridge.results["c1"] = winner.document
    bridge.check("c1", NETWORK)
    assert host.reservations("crowd") == sorted(addresses_of(winner.document))
