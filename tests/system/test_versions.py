"""The shape of a result in every version of the specification, from the executables."""

from typing import Any

import pytest

from tests.kit.runtime import Runtime

pytestmark = pytest.mark.kernel

BEFORE_INTERFACES = ("0.1.0", "0.2.0")
WITH_IP_VERSION = ("0.3.0", "0.3.1", "0.4.0")
WITHOUT_IP_VERSION = ("1.0.0", "1.1.0")
ALL = BEFORE_INTERFACES + WITH_IP_VERSION + WITHOUT_IP_VERSION
WITHOUT_CHECK = ALL[:4]

IP4, IP6 = "10.1.0.2/16", "fd00:1::2/64"
GATEWAY4, GATEWAY6 = "10.1.0.1", "fd00:1::1"


def network(version: str, **keys: Any) -> dict[str, Any]:
    """A dual-stack network; `cniVersion` stands in it even where the version is the oldest, which needs none."""
    return {
        "cniVersion": version,
        "name": "mynet",
        "type": "cni-bridge",
        "bridge": "cni0",
        "isGateway": True,
        "mtu": 1400,
        "dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
        "ipam": {
            "type": "cni-ipam",
            "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "fd00:2::/64", "gw": "fd00:1::9"}],
        },
        **keys,
    }


def expected_result(version: str, interfaces: list[dict[str, Any]]) -> dict[str, Any]:
    """What ADD prints, written out from the releases of SPEC.md."""
    dns = {"nameservers": ["192.0.2.53"], "search": ["example.org"]}
    routes4, routes6 = [{"dst": "0.0.0.0/0"}], [{"dst": "fd00:2::/64", "gw": "fd00:1::9"}]
    if version in BEFORE_INTERFACES:
        return {
            "cniVersion": version,
            "ip4": {"ip": IP4, "gateway": GATEWAY4, "routes": routes4},
            "ip6": {"ip": IP6, "gateway": GATEWAY6, "routes": routes6},
            "dns": dns,
        }
    ips: list[dict[str, Any]] = [
        {"interface": 2, "address": IP4, "gateway": GATEWAY4},
        {"interface": 2, "address": IP6, "gateway": GATEWAY6},
    ]
    if version in WITH_IP_VERSION:
        ips = [{"version": number, **entry} for number, entry in zip("46", ips, strict=True)]
    return {"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes4 + routes6, "dns": dns}


def interfaces_of(bridge: Runtime, name: str, version: str) -> list[dict[str, Any]]:
    """The interfaces as the kernel has them, in the words of a result."""
    host = bridge.host
    (port,) = host.ip("link", "show", "master", "cni0")
    found = [
        (host.ip("link", "show", "cni0")[0], {}),
        (port, {}),
        (host.ip("link", "show", "eth0", container=name)[0], {"sandbox": f"/run/netns/{name}"}),
    ]
    mtu = [{"mtu": link["mtu"]} if version == "1.1.0" else {} for link, _ in found]
    return [
        {"name": link["ifname"], "mac": link["address"], **size, **sandbox}
        for (link, sandbox), size in zip(found, mtu, strict=True)
    ]


@pytest.mark.parametrize("version", ALL)
def test_result_of_the_bridge_has_the_shape_of_its_version(bridge: Runtime, version: str) -> None:
    result = bridge.add("c1", network(version))
    assert result == expected_result(version, interfaces_of(bridge, "c1", version))
    assert bridge.host.addresses("eth0", "c1") == [IP4, IP6]
    assert bridge.host.ip("link", "show", "eth0", container="c1")[0]["mtu"] == 1400
    bridge.delete("c1", network(version))
    assert bridge.host.reservations("mynet") == []


@pytest.mark.parametrize("version", ALL)
def test_result_of_the_ipam_has_the_shape_of_its_version(ipam: Runtime, version: str) -> None:
    result = ipam.add("c1", network(version))
    expected = expected_result(version, [])
    expected.pop("interfaces", None)
    for entry in expected.get("ips", ()):
        del entry["interface"]
    assert result == {**expected, "dns": {}}
    ipam.delete("c1", network(version))


def test_configuration_without_version_is_of_the_oldest(bridge: Runtime) -> None:
    config = network("0.1.0")
    del config["cniVersion"]
    assert bridge.add("c1", config) == expected_result("0.1.0", [])


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
@pytest.mark.parametrize("version", WITHOUT_CHECK)
def test_check_is_refused_below_the_version_that_brought_it(
    request: pytest.FixtureRequest, plugin: str, version: str
) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    result = runtime.add("c1", network(version))
    refused = runtime.call("CHECK", "c1", {**network(version), "prevResult": result})
    assert refused.status != 0
    assert refused.document["code"] == 1
    assert refused.document["cniVersion"] == version
    assert "0.4.0" in refused.document["msg"]


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
@pytest.mark.parametrize("version", [version for version in ALL if version not in WITHOUT_CHECK])
def test_check_passes_right_after_add(request: pytest.FixtureRequest, plugin: str, version: str) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    runtime.add("c1", network(version))
    runtime.check("c1", network(version))


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
@pytest.mark.parametrize("version", ["", *ALL, "9.9.9"], ids=lambda version: version or "none")
def test_version_needs_its_command_alone(request: pytest.FixtureRequest, plugin: str, version: str) -> None:
    runtime: Runtime = request.getfixturevalue(plugin)
    config = {"cniVersion": version} if version else b""
    variables = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"), "")
    outcome = runtime.host.cni("VERSION", config, executable=runtime.executable, env=variables)
    assert outcome.status == 0
    assert outcome.document == {"cniVersion": version or "1.1.0", "supportedVersions": list(ALL)}


@pytest.mark.parametrize("plugin", ["bridge", "ipam"])
@pytest.mark.parametrize(("written", "read"), [("0.2.0", "1.0.0"), ("0.4.0", "1.0.0"), ("1.0.0", "0.4.0")])
def test_previous_result_of_another_version_is_understood(
    request: pytest.FixtureRequest, plugin: str, written: str, read: str
) -> None:
    # a runtime converts, but one that was updated while containers run may have results of old in its cache
    runtime: Runtime = request.getfixturevalue(plugin)
    runtime.add("c1", network(written))
    if written != "0.2.0":  # which has no interfaces to compare with
        runtime.check("c1", network(read))
    runtime.delete("c1", network(read))
    assert runtime.host.reservations("mynet") == []
