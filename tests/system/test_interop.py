"""Beside the reference plugins: either bridge with either IPAM, one directory for both, a change of types."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import REFERENCE_DIR
from tests.kit.host import Host, Outcome, wait_until
from tests.kit.runtime import OUTSIDE_ADDRESSES, Runtime, addresses_of, connect_outside, find_source

pytestmark = pytest.mark.kernel

RANGES = [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]


def network(kind: str, ipam: str, **keys: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "mynet",
        "type": kind,
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipam": {"type": ipam, "ranges": RANGES},
        **keys,
    }


def reaches(host: Host, name: str, address: str) -> bool:
    """Whether an address answers; the reference's gateway address is not usable while IPv6 looks for duplicates."""
    return wait_until(lambda: host.ping(address, name))


OURS = network("cni-bridge", "cni-ipam")
REFERENCE = network("bridge", "host-local")


@pytest.mark.parametrize("masquerade", [False, True], ids=["plain", "ipMasq"])
@pytest.mark.parametrize(("kind", "ipam"), [("cni-bridge", "host-local"), ("bridge", "cni-ipam")])
def test_bridge_and_ipam_of_different_houses_work_together(
    host: Host, bridge: Runtime, reference: Runtime, kind: str, ipam: str, masquerade: bool
) -> None:
    connect_outside(host)
    runtime = bridge if kind == "cni-bridge" else reference
    config = network(kind, ipam, ipMasq=masquerade)
    first, second = (addresses_of(runtime.add(name, config)) for name in ("c1", "c2"))
    assert (first, second) == (["10.1.0.2", "fd00:1::2"], ["10.1.0.3", "fd00:1::3"])
    assert host.reservations("mynet") == sorted(first + second)
    for source, target in zip(first, second, strict=True):
        assert host.ping(target, "c1")
        assert find_source(host, "c1", "c2", (target, 80)) == source
    for outside in OUTSIDE_ADDRESSES.values():
        assert reaches(host, "c1", outside) if masquerade else not host.ping(outside, "c1")
    for name in ("c1", "c2"):
        runtime.check(name, config)
        runtime.delete(name, config)
        runtime.delete(name, config)
        assert host.link_names(name) == []
    assert host.reservations("mynet") == []
    assert host.link_names() == ["uplink", "cni0"]


class Store:
    """Both IPAM plugins, called directly, on one directory."""

    def __init__(self, host: Host, bin_dir: str, config: Mapping[str, Any]) -> None:
        self.host = host
        self.config = config
        self.executables = {"ours": f"{bin_dir}/cni-ipam", "reference": f"{REFERENCE_DIR}/host-local"}

    def call(self, whose: str, command: str, name: str, **keys: Any) -> Outcome:
        config = {**self.config, **keys}
        executable = self.executables[whose]
        path = (REFERENCE_DIR,)  # host-local demands a CNI_PATH, though it starts nobody
        return self.host.cni(command, config, executable=executable, container_id=name, netns="/none", path=path)

    def add(self, whose: str, name: str) -> list[str]:
        outcome = self.call(whose, "ADD", name)
        assert outcome.status == 0, outcome
        return addresses_of(outcome.document)

    def files(self) -> dict[str, str]:
        """The directory's files with their content, byte for byte."""
        directory = f"/var/lib/cni/networks/{self.config['name']}"
        names = self.host.run("ls", directory).stdout.split()
        return {name: self.host.run("od", "-An", "-c", f"{directory}/{name}").stdout for name in names}


def store_config(*subnets: str) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "shared",
        "ipam": {"type": "cni-ipam", "ranges": [[{"subnet": subnet}] for subnet in subnets]},
    }


def test_both_ipams_in_turn_share_a_pool_to_its_last_address(host: Host, bin_dir: str) -> None:
    store = Store(host, bin_dir, store_config("10.9.0.0/28"))
    turns = [("ours", "reference")[i % 2] for i in range(13)]
    given = [store.add(whose, f"c{i}")[0] for i, whose in enumerate(turns)]
    assert given == [f"10.9.0.{i}" for i in range(2, 15)], "each goes on where the other one stopped"
    assert host.reservations("shared") == sorted(given)
    for whose in ("ours", "reference"):
        outcome = store.call(whose, "ADD", "late")
        assert outcome.status != 0
        assert "no IP addresses available in range set: 10.9.0.1-10.9.0.14" in outcome.document["msg"]
    for i, whose in enumerate(turns):
        other = "reference" if whose == "ours" else "ours"
        assert store.call(other, "DEL", f"c{i}").status == 0
    assert host.reservations("shared") == []


@pytest.mark.parametrize("order", [("ours", "reference"), ("reference", "ours")], ids="-then-".join)
def test_each_ipam_sees_the_reservation_of_the_other(host: Host, bin_dir: str, order: tuple[str, str]) -> None:
    first, second = order
    store = Store(host, bin_dir, store_config("10.9.0.0/24", "fd00:9::/64"))
    held = store.add(first, "c1")
    requested = {"args": {"cni": {"ips": held}}}
    taken = store.call(second, "ADD", "c2", **requested)
    assert taken.status != 0
    assert held[0] in taken.document["msg"]
    assert store.call(second, "ADD", "c1").status != 0, "one address of a set for an attachment"
    result = {"ips": [{"address": f"{held[0]}/24"}, {"address": f"{held[1]}/64"}], "cniVersion": "1.0.0"}
    assert store.call(second, "CHECK", "c1", prevResult=result).status == 0
    assert store.call(second, "DEL", "c1").status == 0
    assert store.call(first, "CHECK", "c1", prevResult=result).status != 0
    assert host.reservations("shared") == []


def test_both_ipams_write_the_same_files(host: Host, bin_dir: str) -> None:
    config = store_config("10.9.0.0/24", "fd00:9::/64")
    found = []
    for whose in ("ours", "reference"):
        store = Store(host, bin_dir, {**config, "name": whose})
        store.add(whose, "c1")
        found.append(store.files())
    assert found[0] == found[1]
    assert sorted(found[0]) == ["10.9.0.2", "fd00:9::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]


def test_types_change_while_containers_of_the_reference_run(host: Host, bridge: Runtime, reference: Runtime) -> None:
    for name in ("old1", "old2", "old3"):
        reference.add(name, REFERENCE)
    bridge.results.update(reference.results)
    fresh = addresses_of(bridge.add("new", OURS))
    assert fresh == ["10.1.0.5", "fd00:1::5"]
    for name in ("old1", "old2", "old3"):
        bridge.check(name, OURS)
        for address in addresses_of(reference.results[name]):
            assert host.ping(address, "new")
            assert find_source(host, "new", name, (address, 80)) in fresh
    bridge.delete("old1", OURS)
    assert host.link_names("old1") == []
    del bridge.results["old2"]
    bridge.delete("old2", OURS)  # without prevResult
    assert host.link_names("old2") == []
    host.remove_container("old3")
    bridge.delete("old3", OURS, netns="")
    assert host.reservations("mynet") == sorted(fresh)
    # the reference's pair goes with its namespace, a little later: bridge and the port of the new container remain
    assert wait_until(lambda: len(host.link_names()) == 2), host.link_names()
    bridge.check("new", OURS)
    bridge.delete("new", OURS)
    assert host.link_names() == ["cni0"]
    assert host.reservations("mynet") == []


def test_types_change_back_while_containers_of_ours_run(host: Host, bridge: Runtime, reference: Runtime) -> None:
    bridge.add("old", OURS)
    reference.results.update(bridge.results)
    fresh = addresses_of(reference.add("new", REFERENCE))
    assert fresh == ["10.1.0.3", "fd00:1::3"]
    assert all(reaches(host, "new", address) for address in addresses_of(bridge.results["old"]))
    reference.delete("old", REFERENCE)
    reference.delete("new", REFERENCE)
    assert host.link_names() == ["cni0"]
    assert host.reservations("mynet") == []


def test_masqueraded_containers_of_the_reference_keep_their_traffic_beside_ours(
    host: Host, bridge: Runtime, reference: Runtime
) -> None:
    connect_outside(host)
    reference.add("old", {**REFERENCE, "ipMasq": True})
    bridge.results.update(reference.results)
    bridge.add("new", {**OURS, "ipMasq": True})
    for name in ("old", "new"):
        assert all(reaches(host, name, outside) for outside in OUTSIDE_ADDRESSES.values()), name
    bridge.delete("old", {**OURS, "ipMasq": True})
    assert host.link_names("old") == []
    assert all(host.ping(outside, "new") for outside in OUTSIDE_ADDRESSES.values())
    bridge.delete("new", {**OURS, "ipMasq": True})
    assert "pycni" not in [entry["table"]["name"] for entry in host.nft() if "table" in entry]
    assert host.reservations("mynet") == []
