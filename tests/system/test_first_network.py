"""Two containers on one bridge, as the README's first network has them."""

from typing import Any

import pytest

from tests.kit.host import Host

pytestmark = pytest.mark.kernel

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "mynet",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "cni-ipam", "subnet": "10.244.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}


def test_two_containers_reach_each_other_and_leave_nothing(host: Host, bin_dir: str) -> None:
    executable = f"{bin_dir}/cni-bridge"
    results = {}
    for name in ("c1", "c2"):
        netns = host.add_container(name)
        outcome = host.cni("ADD", NETWORK, executable=executable, container_id=name, netns=netns, path=[bin_dir])
        assert outcome.status == 0, outcome
        results[name] = outcome.document
    assert host.addresses("eth0", "c1") == ["10.244.0.2/16"]
    assert host.addresses("cni0") == ["10.244.0.1/16"]
    assert host.ping("10.244.0.3", "c1")
    assert host.ping("10.244.0.2", "c2")
    assert host.ping("10.244.0.1", "c2")
    for name, result in results.items():
        netns = f"/run/netns/{name}"
        config = {**NETWORK, "prevResult": result}
        check = host.cni("CHECK", config, executable=executable, container_id=name, netns=netns, path=[bin_dir])
        assert check.status == 0, check
        gone = host.cni("DEL", config, executable=executable, container_id=name, netns=netns, path=[bin_dir])
        assert gone == (0, None, "", "")
    assert host.link_names() == ["cni0"]
    assert host.nft() == []
    assert host.reservations("mynet") == []
