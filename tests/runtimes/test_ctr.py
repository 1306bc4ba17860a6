"""Containers of `ctr run --cni`, which reads /etc/cni/net.d and sends DEL at the end with an empty CNI_NETNS."""

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.kit import image
from tests.kit.containerd import Containerd
from tests.kit.host import wait_until
from tests.kit.node import Node, addresses, eth0, held, netns_of, ping
from tests.runtimes.networks import BRIDGE, GATEWAY, make_network

pytestmark = pytest.mark.kernel

_BOUND = 20.0  # seconds


def run_in_foreground(node: Node, daemon: Containerd, name: str) -> "subprocess.Popen[str]":
    options = ("run", "--rm", "--cni", "--cgroup", f"{node.cgroup}/{name}", image.NAME, name)
    with node.path(f"/run/{name}.log").open("w") as log:
        return node.host.start(*daemon.ctr(*options), stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def find_netns(node: Node, daemon: Containerd, name: str) -> str:
    """The namespace of a task that has its network."""
    found: list[str] = []

    def is_up() -> bool:
        for line in node.host.run(*daemon.ctr("tasks", "list")).stdout.splitlines()[1:]:
            task, pid, state = line.split()
            if task == name and state == "RUNNING":
                found.append(netns_of(int(pid)))
                return True
        return False

    assert wait_until(is_up, _BOUND), node.path(f"/run/{name}.log").read_text() + daemon.log()
    return found[0]


def test_two_containers_reach_each_other_and_leave_nothing(
    node: Node, start_containerd: Callable[[], Containerd]
) -> None:
    network = make_network()
    node.configure(network)
    daemon = start_containerd()
    daemon.load_image()
    clients = {name: run_in_foreground(node, daemon, name) for name in ("one", "two")}
    one, two = (find_netns(node, daemon, name) for name in clients)
    assert addresses(one) != addresses(two)
    assert node.host.reservations("mynet") == sorted(addresses(one) + addresses(two))
    assert all(ping(one, address) for address in (*addresses(two), GATEWAY))
    assert all(ping(two, address) for address in (*addresses(one), GATEWAY))
    assert eth0(one)["address"] != eth0(two)["address"]
    assert "masquerade4" in json.dumps(node.host.nft())
    with held(one, two):
        for name, client in clients.items():
            node.host.run(*daemon.ctr("tasks", "kill", "--signal", "SIGKILL", name))
            client.wait(timeout=_BOUND)
        assert node.find_leftovers(network, links=(BRIDGE,)) == {}
    assert node.host.nft() == []
    assert [node.path(f"/run/{name}.log").read_text() for name in clients] == ["", ""], "ctr had no complaint"
    assert wait_until(lambda: all("containerd --config" in line for line in node.processes().values()), 10)
