"""Pods of containerd's CRI, in the order of calls that a kubelet makes."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kit.containerd import CRI, Containerd, Pod
from tests.kit.host import wait_until
from tests.kit.node import HOST_ADDRESS, Node, addresses, eth0, held, kill, netns_of, ping, reaches, serving
from tests.runtimes.networks import BRIDGE, GATEWAY, make_network

pytestmark = pytest.mark.kernel

StartCRI = Callable[..., CRI]
DUAL_STACK = [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/64"}]]
WEB = {"protocol": "TCP", "container_port": 80, "host_port": 8080}


def stop_and_remove(cri: CRI, pod: Pod) -> None:
    """As the kubelet does it: stop, stop again (now without a namespace), remove."""
    cri.stop_pod(pod)
    cri.stop_pod(pod)
    cri.remove_pod(pod)


def assert_nothing_left(node: Node, cri: CRI, network: dict[str, Any], *, links: tuple[str, ...] = (BRIDGE,)) -> None:
    assert cri.list_pods() == []
    assert node.find_leftovers(network, links=links) == {}
    assert wait_until(lambda: only_daemon(node), 10), node.processes()


def only_daemon(node: Node) -> bool:
    return all("containerd --config" in line for line in node.processes().values())


@pytest.mark.parametrize(
    ("ranges", "gateways"),
    [
        pytest.param([[{"subnet": "10.244.0.0/16"}]], [GATEWAY], id="IPv4"),
        pytest.param(DUAL_STACK, [GATEWAY, "fd00:244::1"], id="dual stack"),
    ],
)
def test_two_pods_that_start_at_once_reach_each_other_and_leave_nothing(
    node: Node, start_cri: StartCRI, ranges: list[Any], gateways: list[str]
) -> None:
    network = make_network(ranges=ranges)
    node.configure(network)
    cri = start_cri()
    with ThreadPoolExecutor(2) as pool:
        pods = list(pool.map(cri.run_pod, ("one", "two")))
    one, two = pods
    for pod in pods:
        assert sorted(pod.addresses) == sorted(addresses(pod.netns))
    assert len({*one.addresses, *two.addresses}) == 2 * len(ranges)
    assert all(ping(one.netns, address) for address in (*two.addresses, *gateways))
    assert all(ping(two.netns, address) for address in (*one.addresses, *gateways))
    with held(one.netns, two.netns):
        stop_and_remove(cri, one)
        assert node.host.reservations("mynet") == sorted(two.addresses)
        assert all(ping(two.netns, gateway) for gateway in gateways)
        stop_and_remove(cri, two)
        assert_nothing_left(node, cri, network)
    assert node.host.nft() == []


@pytest.mark.parametrize("chained", [pytest.param(False, id="our own"), pytest.param(True, id="portmap of Debian")])
def test_a_host_port_leads_to_its_pod_until_that_stops(node: Node, start_cri: StartCRI, chained: bool) -> None:
    network = make_network(chained=chained)
    node.configure(network)
    node.connect_outside()
    cri = start_cri()
    web = cri.run_pod("web", port_mappings=[WEB])
    other = cri.run_pod("other")
    host = netns_of(node.host.pid)
    asked = {
        "outside": (node.outside, HOST_ADDRESS),
        "host, 127.0.0.1": (host, "127.0.0.1"),
        "host, its address": (host, HOST_ADDRESS),
        "another pod": (other.netns, HOST_ADDRESS),
        "itself": (web.netns, HOST_ADDRESS),
    }
    with serving(web.netns, 80) as listener:
        reached = {who: reaches(listener, client, (address, 8080)) for who, (client, address) in asked.items()}
        assert reached == dict.fromkeys(asked, True)
        assert not reaches(listener, node.outside, (HOST_ADDRESS, 80))
        stop_and_remove(cri, web)
        assert not reaches(listener, node.outside, (HOST_ADDRESS, 8080))
    stop_and_remove(cri, other)
    assert web.addresses[0] not in json.dumps(node.host.nft())
    assert_nothing_left(node, cri, network, links=(BRIDGE, "uplink"))


def test_a_host_port_of_one_host_address_is_closed_on_the_others(node: Node, start_cri: StartCRI) -> None:
    network = make_network(ranges=DUAL_STACK)
    node.configure(network)
    node.connect_outside()
    cri = start_cri()
    web = cri.run_pod("web", port_mappings=[{**WEB, "host_ip": HOST_ADDRESS}])
    with serving(web.netns, 80) as listener:
        assert reaches(listener, node.outside, (HOST_ADDRESS, 8080))
        assert not reaches(listener, netns_of(node.host.pid), ("127.0.0.1", 8080))
        assert not reaches(listener, netns_of(node.host.pid), ("::1", 8080))
    stop_and_remove(cri, web)
    assert_nothing_left(node, cri, network, links=(BRIDGE, "uplink"))


def test_a_host_port_that_is_taken_fails_the_second_pod_alone(node: Node, start_cri: StartCRI) -> None:
    network = make_network()
    node.configure(network)
    cri = start_cri()
    first = cri.run_pod("first", port_mappings=[WEB])
    with pytest.raises(Exception, match="host port 8080/tcp") as refused:
        cri.run_pod("second", port_mappings=[WEB])
    assert first.identity in str(refused.value)
    assert node.host.reservations("mynet") == first.addresses
    with serving(first.netns, 80) as listener:
        assert reaches(listener, netns_of(node.host.pid), ("127.0.0.1", 8080))
    stop_and_remove(cri, first)
    assert_nothing_left(node, cri, network)


def test_a_pod_without_a_free_address_fails_and_one_after_a_removal_starts(node: Node, start_cri: StartCRI) -> None:
    network = make_network(ranges=[[{"subnet": "10.244.0.0/30"}]])
    node.configure(network)
    cri = start_cri()
    first = cri.run_pod("first")
    with pytest.raises(Exception, match="no IP addresses available"):
        cri.run_pod("second")
    assert node.host.reservations("mynet") == first.addresses
    stop_and_remove(cri, first)
    third = cri.run_pod("third")
    assert third.addresses == first.addresses
    assert ping(third.netns, GATEWAY)
    stop_and_remove(cri, third)
    assert_nothing_left(node, cri, network)


def test_a_pod_whose_namespace_has_gone_leaves_nothing_when_it_is_stopped(node: Node, start_cri: StartCRI) -> None:
    network = make_network()
    node.configure(network)
    cri = start_cri()
    pod = cri.run_pod("lost", port_mappings=[WEB])
    kill(pod.pid)
    # as a reboot has it: what names the namespace is there no more
    for name in node.host.run("ls", "/run/netns").stdout.split():
        node.host.remove_container(name)
    assert wait_until(lambda: node.host.link_names() == [BRIDGE])
    assert node.host.reservations("mynet") == pod.addresses
    stop_and_remove(cri, pod)
    assert_nothing_left(node, cri, network)


def test_a_pod_outlives_a_restart_of_containerd_and_is_removed_by_the_next(
    node: Node, start_containerd: Callable[[], Containerd], start_cri: StartCRI
) -> None:
    network = make_network()
    node.configure(network)
    daemon = start_containerd()
    before = start_cri(daemon)
    pod = before.run_pod("steady")
    before.close()
    daemon.close()
    assert eth0(pod.netns)["operstate"] == "UP"
    after = start_cri()
    assert after.list_pods() == [pod.identity]
    assert ping(pod.netns, GATEWAY)
    stop_and_remove(after, pod)
    assert_nothing_left(node, after, network)
