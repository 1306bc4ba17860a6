"""Routes with all their attributes, in the result and in the kernel of the container."""

from typing import Any

import pytest

from tests.kit.host import Host
from tests.kit.runtime import Runtime
from tests.system.networks import find_differences, network, refused

pytestmark = pytest.mark.kernel


def with_routes(*routes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    config = network(1, isDefaultGateway=False, isGateway=True, **keys)
    return {**config, "ipam": {**config["ipam"], "routes": list(routes)}}


def in_kernel(host: Host, dst: str, version: int = 4) -> dict[str, Any]:
    """The one route to a destination, of all tables, as ip(8) shows it."""
    family = "-6" if version == 6 else "-4"
    routes = host.ip(family, "route", "show", "table", "all", container="c1")
    found = [route for route in routes if route["dst"] == dst and route.get("dev") == "eth0"]
    assert len(found) == 1, routes
    return dict(found[0])


@pytest.mark.parametrize(
    ("route", "shown", "expected"),
    [
        ({"dst": "192.0.2.0/24"}, "192.0.2.0/24", {"gateway": "10.1.0.1"}),
        ({"dst": "192.0.2.0/24", "gw": "10.1.0.9"}, "192.0.2.0/24", {"gateway": "10.1.0.9"}),
        ({"dst": "0.0.0.0/0"}, "default", {"gateway": "10.1.0.1"}),
        ({"dst": "192.0.2.0/24", "mtu": 1300}, "192.0.2.0/24", {"metrics": [{"mtu": 1300}]}),
        ({"dst": "192.0.2.0/24", "advmss": 1200}, "192.0.2.0/24", {"metrics": [{"advmss": 1200}]}),
        (
            {"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200},
            "192.0.2.0/24",
            {"metrics": [{"mtu": 1300, "advmss": 1200}]},
        ),
        ({"dst": "192.0.2.0/24", "priority": 77}, "192.0.2.0/24", {"metric": 77}),
        ({"dst": "192.0.2.0/24", "table": 100}, "192.0.2.0/24", {"table": "100", "gateway": "10.1.0.1"}),
        ({"dst": "192.0.2.0/24", "table": 70000}, "192.0.2.0/24", {"table": "70000"}),
        ({"dst": "192.0.2.0/24", "scope": 253}, "192.0.2.0/24", {"scope": "link", "gateway": None}),
        ({"dst": "192.0.2.7/32", "scope": 0}, "192.0.2.7", {"gateway": "10.1.0.1"}),
        ({"dst": "2001:db8::/48"}, "2001:db8::/48", {"gateway": "fd00:1::1"}),
        ({"dst": "2001:db8::/48", "gw": "fd00:1::9"}, "2001:db8::/48", {"gateway": "fd00:1::9"}),
        ({"dst": "::/0"}, "default", {"gateway": "fd00:1::1"}),
        (
            {"dst": "2001:db8::/48", "mtu": 1300, "advmss": 1200, "priority": 77, "table": 100},
            "2001:db8::/48",
            {"gateway": "fd00:1::1", "metric": 77, "table": "100", "metrics": [{"mtu": 1300, "advmss": 1200}]},
        ),
        (
            {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1300, "advmss": 1200, "priority": 5, "table": 100},
            "192.0.2.0/24",
            {"gateway": "10.1.0.9", "metric": 5, "table": "100", "metrics": [{"mtu": 1300, "advmss": 1200}]},
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_route_stands_in_the_result_and_in_the_kernel(
    bridge: Runtime, route: dict[str, Any], shown: str, expected: dict[str, Any]
) -> None:
    config = with_routes(route)
    result = bridge.add("c1", config)
    assert result["routes"] == [route]
    found = in_kernel(bridge.host, shown, 6 if ":" in route["dst"] else 4)
    assert {key: found.get(key) for key in expected} == expected
    if "table" not in route:
        assert found.get("table", "main") == "main"
    bridge.check("c1", config)
    bridge.delete("c1", config)


def test_same_destination_with_different_priorities_and_tables(bridge: Runtime) -> None:
    dst = {"dst": "192.0.2.0/24"}
    routes = ({**dst, "priority": 10}, {**dst, "priority": 20, "gw": "10.1.0.9"}, {**dst, "table": 100})
    config = with_routes(*routes)
    assert bridge.add("c1", config)["routes"] == list(routes)
    listed = bridge.host.ip("route", "show", "table", "all", container="c1")
    found = [(r.get("metric"), r.get("table"), r["gateway"]) for r in listed if r["dst"] == dst["dst"]]
    assert sorted(found, key=str) == sorted(
        [(10, "main", "10.1.0.1"), (20, "main", "10.1.0.9"), (None, "100", "10.1.0.1")], key=str
    )
    bridge.check("c1", config)


@pytest.mark.parametrize(("family", "dst"), [("-4", "192.0.2.0/24"), ("-6", "2001:db8::/48")], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    "change", [("mtu", "1400"), ("advmss", "1000"), ("metric", "5"), ("table", "101")], ids=lambda change: change[0]
)
def test_check_sees_a_route_whose_attribute_differs(
    bridge: Runtime, family: str, dst: str, change: tuple[str, str]
) -> None:
    config = with_routes({"dst": dst, "mtu": 1300, "advmss": 1200, "priority": 77, "table": 100})
    bridge.add("c1", config)
    gateway = "10.1.0.1" if family == "-4" else "fd00:1::1"
    attributes = {"metric": "77", "table": "100", "mtu": "1300", "advmss": "1200"}
    route = ["dev", "eth0", "via", gateway]
    bridge.host.run("ip", family, "route", "delete", dst, "table", "100", container="c1")
    words = [word for pair in {**attributes, change[0]: change[1]}.items() for word in pair]
    bridge.host.run("ip", family, "route", "add", dst, *route, *words, container="c1")
    assert f"route {dst}" in find_differences(bridge, "c1", config)


def test_default_gateway_keeps_a_default_route_of_the_address_plugin(bridge: Runtime) -> None:
    config = network(1)
    config = {**config, "ipam": {**config["ipam"], "routes": [{"dst": "0.0.0.0/0", "priority": 9}]}}
    bridge.add("c1", config)
    assert in_kernel(bridge.host, "default")["metric"] == 9
    assert in_kernel(bridge.host, "default", 6)["gateway"] == "fd00:1::1"


def test_route_that_the_kernel_refuses_undoes_everything(bridge: Runtime) -> None:
    bridge.host.add_container("c1")
    error = refused(bridge, "ADD", "c1", with_routes({"dst": "192.0.2.0/24", "gw": "203.0.113.1"}))
    assert error["code"] == 100
    assert "192.0.2.0/24 via 203.0.113.1" in error["msg"]
    assert bridge.host.link_names() == bridge.host.link_names("c1") == []
    assert bridge.host.reservations("net1") == []


@pytest.mark.parametrize(
    "route",
    [
        {"dst": "192.0.2.0/24", "mtu": "1300"},
        {"dst": "192.0.2.0/24", "mtu": -1},
        {"dst": "192.0.2.0/24", "priority": 2**32},
        {"dst": "192.0.2.0/24", "scope": 256},
        {"dst": "192.0.2.0/24", "table": 1.5},
        {"dst": "192.0.2.0"},
        {"dst": "192.0.2.0/24", "gw": "fd00:1::1"},
        {"gw": "10.1.0.1"},
    ],
    ids=str,
)
def test_malformed_route_is_an_error_of_the_configuration(bridge: Runtime, route: dict[str, Any]) -> None:
    bridge.host.add_container("c1")
    error = refused(bridge, "ADD", "c1", with_routes(route))
    assert error["code"] == 7
    assert "routes[0]" in error["msg"]
