"""STATUS of both plugins: what keeps ADD from working, told without a change to the host."""

from collections.abc import Callable
from typing import Any

import pytest

from cni_kernel.expressions import INET
from cni_kernel.nftables import Nftables
from tests.kit.host import Host
from tests.kit.runtime import Runtime
from tests.system.networks import network, refused, sysctl

pytestmark = pytest.mark.kernel

NETWORK = network(1, ipMasq=True, macspoofchk=True)
SMALL = network(1, ipam={"type": "cni-ipam", "subnet": "10.1.0.0/30"})
NO_VARIABLES = {"netns": "", "ifname": ""}


def status(runtime: Runtime, config: Any, **options: Any) -> Any:
    """STATUS with all variables empty that belong to an attachment, as libcni sends it."""
    return runtime.host.cni(
        "STATUS",
        config,
        executable=runtime.executable,
        container_id="",
        **{"path": runtime.path, "netns": "", "ifname": "", **options},
    )


def fault(runtime: Runtime, config: Any, **options: Any) -> tuple[int, str]:
    """Code and message of a STATUS that fails."""
    outcome = status(runtime, config, **options)
    assert outcome.status == 1, outcome
    assert outcome.document["cniVersion"] == config["cniVersion"]
    return outcome.document["code"], outcome.document["msg"]


@pytest.mark.parametrize(
    "config",
    [
        NETWORK,
        network(1),
        {"cniVersion": "1.1.0", "name": "wire", "type": "cni-bridge"},
        network(1, capabilities={"portMappings": True}),
    ],
    ids=["everything", "plain", "layer-2", "port-mappings"],
)
def test_fresh_host_is_ready(bridge: Runtime, config: dict[str, Any]) -> None:
    assert status(bridge, config) == (0, None, "", "")


def test_host_with_containers_is_ready(bridge: Runtime) -> None:
    for name in ("c1", "c2"):
        bridge.add(name, NETWORK)
    assert status(bridge, NETWORK) == (0, None, "", "")


def test_layer_2_is_ready_without_a_path_for_plugins(bridge: Runtime) -> None:
    assert status(bridge, {"cniVersion": "1.1.0", "name": "wire", "type": "cni-bridge"}, path=()).status == 0


def exhaust(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.add("c1", SMALL)
    return SMALL, 50, "no IP addresses available in range set: 10.1.0.1-10.1.0.2"


def spoil_the_store(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.host.run("sh", "-c", "echo > /var/lib/cni/networks")
    return NETWORK, 50, "/var/lib/cni/networks"


def make_the_store_read_only(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.host.run("mount", "-o", "remount,ro", "/var/lib/cni")
    return NETWORK, 50, "/var/lib/cni"


def hide_the_ipam_plugin(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    return network(1, ipam={"type": "nowhere-to-be-found"}), 50, "nowhere-to-be-found"


def take_the_name_of_the_bridge(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.host.run("ip", "link", "add", "br1", "type", "veth", "peer", "name", "other")
    return NETWORK, 50, "br1"


def take_the_bridge_down(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.add("c1", NETWORK)
    runtime.host.run("ip", "link", "set", "br1", "down")
    return NETWORK, 51, "br1 is down"


def switch_forwarding_off(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.add("c1", NETWORK)
    sysctl(runtime.host, "ipv4/ip_forward", 0)
    return NETWORK, 51, "net.ipv4.ip_forward=1"


def switch_ipv6_forwarding_off(runtime: Runtime) -> tuple[dict[str, Any], int, str]:
    runtime.add("c1", NETWORK)
    sysctl(runtime.host, "ipv6/conf/all/forwarding", 0)
    return NETWORK, 51, "net.ipv6.conf.all.forwarding=1"


FAULTS = [
    exhaust,
    spoil_the_store,
    make_the_store_read_only,
    hide_the_ipam_plugin,
    take_the_name_of_the_bridge,
    take_the_bridge_down,
    switch_forwarding_off,
    switch_ipv6_forwarding_off,
]


@pytest.mark.parametrize("make_fault", FAULTS, ids=lambda make: make.__name__)
def test_fault_is_named(bridge: Runtime, make_fault: Callable[[Runtime], tuple[dict[str, Any], int, str]]) -> None:
    config, code, words = make_fault(bridge)
    found, message = fault(bridge, config)
    assert (found, words in message) == (code, True), message


@pytest.mark.parametrize("make_fault", [exhaust, spoil_the_store, make_the_store_read_only])
def test_fault_of_the_store_is_named_by_the_address_plugin_too(
    bridge: Runtime, ipam: Runtime, make_fault: Callable[[Runtime], tuple[dict[str, Any], int, str]]
) -> None:
    config, code, words = make_fault(bridge)
    found, message = fault(ipam, config)
    assert (found, words in message) == (code, True), message


def test_forwarding_is_no_matter_to_a_network_without_gateway(bridge: Runtime) -> None:
    config = network(1, isDefaultGateway=False)
    bridge.add("c1", config)
    sysctl(bridge.host, "ipv4/ip_forward", 0)
    assert status(bridge, config).status == 0


def test_fault_does_not_keep_containers_from_being_deleted(bridge: Runtime) -> None:
    config, _, _ = exhaust(bridge)
    bridge.check("c1", config)
    bridge.delete("c1", config)
    assert status(bridge, config) == (0, None, "", "")


def _settings(host: Host) -> str:
    """All sysctls of IP."""
    return host.run("grep", "-rs", ".", "/proc/sys/net/ipv4", "/proc/sys/net/ipv6", check=False).stdout


def _generation(host: Host) -> str:
    """The number of the rule set: each transaction that was committed makes it another one."""
    with host.entered():
        nft = Nftables(INET)
        try:
            return str(nft.generation())
        finally:
            nft.close()


@pytest.mark.parametrize("state", ["fresh", "in-use", "exhausted"])
def test_nothing_is_changed(bridge: Runtime, snapshot: Callable[[], Any], state: str) -> None:
    config = SMALL if state == "exhausted" else NETWORK
    if state != "fresh":
        bridge.add("c1", config)
    host = bridge.host
    before = snapshot(), _settings(host), _generation(host)
    assert status(bridge, config).status == (1 if state == "exhausted" else 0)
    assert (snapshot(), _settings(host), _generation(host)) == before


def test_generation_tells_of_a_change(bridge: Runtime) -> None:
    before = _generation(bridge.host)
    bridge.add("c1", NETWORK)
    assert _generation(bridge.host) != before


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
def test_versions_without_status_refuse_it(request: pytest.FixtureRequest, plugin: str, version: str) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    assert refused(runtime, "STATUS", "", network(1, cniVersion=version), **NO_VARIABLES)["code"] == 1


def test_wrong_configuration_is_told(bridge: Runtime) -> None:
    assert fault(bridge, network(1, mtu="large"))[0] == 7


def test_fault_of_a_foreign_address_plugin_is_passed_on(bridge: Runtime, tmp_path: Any) -> None:
    plugin = tmp_path / "sick"
    plugin.write_text('#!/bin/sh\necho \'{"cniVersion": "1.1.0", "code": 51, "msg": "the server is away"}\'\nexit 1\n')
    plugin.chmod(0o755)
    config = network(1, ipam={"type": "sick"})
    code, message = fault(bridge, config, path=(str(tmp_path),))
    assert (code, "the server is away" in message) == (51, True)
