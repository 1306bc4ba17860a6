"""Calls in the spellings that runtimes use: Go's null for what is empty, CNI_ARGS as they come, versions left out."""

from typing import Any

import pytest

from tests.kit.runtime import Runtime, addresses_of
from tests.system.networks import layer_2, mac_of, network

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    "args",
    [
        *("", ";", "IgnoreUnknown=1;", ";;IgnoreUnknown=true;;", "IP=;MAC=", "MAC=;", "IgnoreUnknown=;"),
        "K8S_POD_NAME=;K8S_POD_UID=a=b;IgnoreUnknown=1;IP=;K8S_POD_NAMESPACE=x y",
    ],
)
def test_cni_args_with_nothing_to_say(bridge: Runtime, args: str) -> None:
    result = bridge.add("c1", network(1), args=args)
    assert addresses_of(result) == ["10.1.0.2", "fd00:1::2"]
    bridge.check("c1", network(1), args=args)
    bridge.delete("c1", network(1), args=args)


def test_cni_args_of_podman(bridge: Runtime) -> None:
    result = bridge.add("c1", network(1), args="IP=10.1.0.9;MAC=0A:58:0A:01:00:09;")
    assert addresses_of(result) == ["10.1.0.9", "fd00:1::2"]
    assert mac_of(result) == "0a:58:0a:01:00:09"


@pytest.mark.parametrize("keys", [{"ipam": {}}, {"ipam": None}, {}], ids=["empty", "null", "absent"])
def test_no_address_plugin_is_layer_2(bridge: Runtime, keys: dict[str, Any]) -> None:
    config = {**layer_2(), **keys}
    assert "ips" not in bridge.add("c1", config)
    bridge.check("c1", config)
    bridge.delete("c1", config)


NOTHING = dict.fromkeys(("dns", "args", "capabilities", "runtimeConfig", "prevResult", "vlanTrunk", "mtu", "vlan"))


@pytest.mark.parametrize(
    "keys",
    [
        NOTHING,
        {"runtimeConfig": {"portMappings": None, "ips": None, "ipRanges": None, "mac": ""}},
        {"args": {"cni": {}}},
    ],
    ids=["null", "null-capabilities", "empty-args"],
)
def test_null_is_nothing(bridge: Runtime, keys: dict[str, Any]) -> None:
    config = {**network(1), **keys}
    assert addresses_of(bridge.add("c1", config)) == ["10.1.0.2", "fd00:1::2"]
    bridge.check("c1", config)
    bridge.delete("c1", config)


@pytest.mark.parametrize("empty", [None, []], ids=["null", "empty"])
def test_null_in_a_previous_result_is_nothing(bridge: Runtime, empty: Any) -> None:
    config = {**layer_2(), "cniVersion": "1.0.0"}
    previous = {"cniVersion": "1.0.0", "interfaces": empty, "ips": empty, "routes": empty, "dns": {"search": empty}}
    result = bridge.add("c1", {**config, "prevResult": previous})
    assert [entry["name"] for entry in result["interfaces"]][::2] == ["br0", "eth0"]


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("of_result", ["0.3.1", "0.4.0", "1.0.0", "1.1.0", ""])
def test_result_of_another_version_is_taken(bridge: Runtime, version: str, of_result: str) -> None:
    config = {**network(1), "cniVersion": "1.1.0"}
    result = bridge.add("c1", config)
    previous = (
        {**result, "cniVersion": of_result} if of_result else {k: v for k, v in result.items() if k != "cniVersion"}
    )
    document = {**config, "cniVersion": version, "prevResult": previous}
    if version >= "0.4.0":
        assert bridge.call("CHECK", "c1", document)[:3] == (0, None, "")
    assert bridge.call("DEL", "c1", document)[:3] == (0, None, "")


@pytest.mark.parametrize("version", [{}, {"cniVersion": ""}, {"cniVersion": None}], ids=["absent", "empty", "null"])
def test_version_left_out_is_the_oldest(bridge: Runtime, version: dict[str, Any]) -> None:
    config = {key: value for key, value in network(1).items() if key != "cniVersion"} | version
    result = bridge.add("c1", config)
    assert (result["cniVersion"], result["ip4"]["ip"]) == ("0.1.0", "10.1.0.2/16")
    bridge.delete("c1", config)
    assert bridge.call("CHECK", "c1", config).document["code"] == 1
