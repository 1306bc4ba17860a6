"""CHECK with results and containers as others make them."""

import pytest

from tests.conftest import REFERENCE_DIR
from tests.kit.host import wait_until
from tests.kit.runtime import Runtime
from tests.system.networks import network, port_of

pytestmark = pytest.mark.kernel


def test_two_dual_stack_networks_with_default_routes_in_one_container(bridge: Runtime) -> None:
    # the kernel makes one route of the two IPv6 defaults, with a next hop for each
    for number in (1, 2):
        bridge.add("c1", network(number), ifname=f"eth{number - 1}")
        bridge.results[f"eth{number - 1}"] = bridge.results["c1"]
    [route] = bridge.host.ip("-6", "route", "show", "default", container="c1")
    assert len(route["nexthops"]) == 2
    for number in (1, 2):
        config = {**network(number), "prevResult": bridge.results[f"eth{number - 1}"]}
        assert bridge.call("CHECK", "c1", config, ifname=f"eth{number - 1}")[:3] == (0, None, "")
    bridge.host.run("ip", "-n", "c1", "-6", "route", "delete", "default", "via", "fd00:2::1", "dev", "eth1")
    first = {**network(1), "prevResult": bridge.results["eth0"]}
    second = {**network(2), "prevResult": bridge.results["eth1"]}
    assert bridge.call("CHECK", "c1", first, ifname="eth0").status == 0
    outcome = bridge.call("CHECK", "c1", second, ifname="eth1")
    assert outcome.document["msg"] == "route ::/0 via fd00:2::1 of prevResult is missing in the container"


def test_namespace_is_the_same_under_another_name(bridge: Runtime) -> None:
    host, config = bridge.host, network(1)
    host.run("mkdir", "-p", "/run/other")
    host.run("ln", "-s", "/run/netns/c1", "/run/other/link")
    holder = host.add_container("c1")
    with host.start("sleep", "60", container="c1") as process:
        try:
            # nsenter(1) is in the namespace once it has become sleep(1)
            assert wait_until(lambda: host.run("cat", f"/proc/{process.pid}/comm").stdout == "sleep\n")
            names = [holder, "/run/other/link", f"/proc/{process.pid}/ns/net", "/run/netns/../netns/c1"]
            for added in names:
                result = bridge.add("c1", config, netns=added)
                for checked in names:
                    previous = {**config, "prevResult": result}
                    assert bridge.call("CHECK", "c1", previous, netns=checked)[:3] == (0, None, ""), (added, checked)
                bridge.delete("c1", config, netns=added)
        finally:
            process.kill()


def test_result_of_another_namespace_does_not_pass(bridge: Runtime) -> None:
    config = network(1)
    bridge.add("c1", config)
    result = bridge.add("c2", config)
    outcome = bridge.call("CHECK", "c1", {**config, "prevResult": result})
    assert outcome.status == 1


def test_result_without_a_sound_mac_does_not_pass(bridge: Runtime) -> None:
    config = network(1, macspoofchk=True)
    result = bridge.add("c1", config)
    mac = result["interfaces"][2]["mac"]
    for spelling in (mac.upper(), mac.replace(":", "-")):
        result["interfaces"][2]["mac"] = spelling
        assert bridge.call("CHECK", "c1", {**config, "prevResult": result}).status == 0
    result["interfaces"][2]["mac"] = "zz"
    outcome = bridge.call("CHECK", "c1", {**config, "prevResult": result})
    assert (outcome.document["code"], "no MAC address: 'zz'" in outcome.document["msg"]) == (103, True)


@pytest.mark.parametrize("index", [0, 1], ids=["bridge", "host's end"])
def test_result_that_names_another_interface_of_the_host_does_not_pass(bridge: Runtime, index: int) -> None:
    host, config = bridge.host, network(1)
    result = bridge.add("c1", config)
    host.run("ip", "link", "add", "other", "type", "bridge")
    listed = [dict(entry) for entry in result["interfaces"]]
    name, listed[index]["name"] = listed[index]["name"], "other"
    outcome = bridge.call("CHECK", "c1", {**config, "prevResult": {**result, "interfaces": listed}})
    assert outcome.document["code"] == 103, outcome
    assert f"prevResult does not list {name}" in outcome.document["msg"]


def test_attachment_of_the_reference_passes(bridge: Runtime, reference: Runtime) -> None:
    config = {**network(1), "cniVersion": "1.0.0"}
    result = reference.add("c1", config)
    assert port_of(result).startswith("veth")
    bridge.results["c1"] = result
    bridge.check("c1", config, path=(*bridge.path, REFERENCE_DIR))
