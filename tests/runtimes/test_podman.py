"""Containers of podman with its CNI backend: fixed addresses through CNI_ARGS, host ports through runtimeConfig."""

import json

import pytest

from tests.kit.host import wait_until
from tests.kit.node import HOST_ADDRESS, Node, addresses, eth0, held, netns_of, ping, reaches, serving
from tests.runtimes.networks import BRIDGE, GATEWAY, make_network
from tests.runtimes.podman import Podman

pytestmark = pytest.mark.kernel

FIXED_ADDRESS = "10.244.7.7"
FIXED_MAC = "0a:58:0a:f4:07:07"


@pytest.mark.parametrize("chained", [pytest.param(False, id="our own"), pytest.param(True, id="portmap of Debian")])
def test_a_container_has_the_address_the_mac_and_the_host_port_asked_for_and_leaves_nothing(
    node: Node, podman: Podman, chained: bool
) -> None:
    network = make_network(chained=chained)
    node.configure(network)
    node.connect_outside()
    asked = ("--ip", FIXED_ADDRESS, "--mac-address", FIXED_MAC, "--publish", "18083:80")
    web = netns_of(podman.run_container("web", "--network", "mynet", *asked))
    other = netns_of(podman.run_container("other", "--network", "mynet"))
    assert addresses(web) == [FIXED_ADDRESS]
    assert eth0(web)["address"] == FIXED_MAC
    told = podman.inspect("web")["NetworkSettings"]["Networks"]["mynet"]
    assert (told["IPAddress"], told["MacAddress"], told["Gateway"]) == (FIXED_ADDRESS, FIXED_MAC, GATEWAY)
    assert all(ping(other, address) for address in (FIXED_ADDRESS, GATEWAY))
    assert ping(web, addresses(other)[0])
    clients = {"outside": node.outside, "host": netns_of(node.host.pid), "another": other, "itself": web}
    with serving(web, 80) as listener:
        reached = {who: reaches(listener, client, (HOST_ADDRESS, 18083)) for who, client in clients.items()}
        assert reached == dict.fromkeys(clients, True)
        assert reaches(listener, netns_of(node.host.pid), ("127.0.0.1", 18083))
        podman.remove("web")
        assert not reaches(listener, node.outside, (HOST_ADDRESS, 18083))
    assert node.host.reservations("mynet") == addresses(other)
    podman.remove("other")
    assert node.find_leftovers(network, links=(BRIDGE, "uplink")) == {}
    assert FIXED_ADDRESS not in json.dumps(node.host.nft())
    assert wait_until(lambda: not node.processes(), 10), node.processes()


def test_a_container_has_the_addresses_of_both_families_asked_for_and_leaves_nothing(
    node: Node, podman: Podman
) -> None:
    network = make_network(ranges=[[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/64"}]])
    node.configure(network)
    both = ("--ip", FIXED_ADDRESS, "--ip6", "fd00:244::77")
    fixed = netns_of(podman.run_container("fixed", "--network", "mynet", *both))
    other = netns_of(podman.run_container("other", "--network", "mynet"))
    assert addresses(fixed) == [FIXED_ADDRESS, "fd00:244::77"]
    assert all(ping(other, address) for address in addresses(fixed))
    with held(fixed, other):
        podman.remove("fixed")
        podman.remove("other")
        assert node.find_leftovers(network, links=(BRIDGE,)) == {}
    assert node.host.nft() == []
    assert wait_until(lambda: not node.processes(), 10), node.processes()


def test_a_container_keeps_address_mac_and_host_port_when_podman_reloads_its_network(
    node: Node, podman: Podman
) -> None:
    network = make_network()
    node.configure(network)
    node.connect_outside()
    web = netns_of(podman.run_container("web", "--network", "mynet", "--publish", "18083:80"))
    before = (addresses(web), eth0(web)["address"])
    node.host.run("nft", "flush", "ruleset")
    with serving(web, 80) as listener:
        assert not reaches(listener, node.outside, (HOST_ADDRESS, 18083))
        podman.reload_network("web")
        assert (addresses(web), eth0(web)["address"]) == before
        assert reaches(listener, node.outside, (HOST_ADDRESS, 18083))
    podman.remove("web")
    assert node.find_leftovers(network, links=(BRIDGE, "uplink")) == {}
    assert node.host.nft() == []
    assert wait_until(lambda: not node.processes(), 10), node.processes()
