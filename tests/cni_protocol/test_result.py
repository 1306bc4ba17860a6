"""Results and their JSON, in the shape of every version of the specification."""

from typing import Any

import pytest

from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CNIError
from cni_protocol.fields import Fields
from cni_protocol.result import (
    DNS,
    Interface,
    IPConfig,
    Result,
    Route,
    parse_dns,
    parse_result,
    parse_routes,
    result_to_json,
)
from cni_protocol.version import SUPPORTED

RESULT = Result(
    interfaces=(
        Interface("cni0", "0a:00:00:00:00:01", 1500),
        Interface("eth0", "0a:00:00:00:00:02", 1400, "/run/netns/c1", "/run/vhost.sock", "0000:00:1f.6"),
    ),
    ips=(
        IPConfig(parse_cidr("10.1.0.5/16"), parse_ip("10.1.0.1"), 1),
        IPConfig(parse_cidr("2001:db8::5/64"), None, 1),
    ),
    routes=(
        Route(parse_cidr("0.0.0.0/0"), parse_ip("10.1.0.1")),
        Route(parse_cidr("10.2.0.0/16"), None, 1400, 1360, 0, 100, 253),
        Route(parse_cidr("::/0")),
    ),
    dns=DNS(("10.1.0.1", "2001:db8::1"), "example.org", ("a.example.org",), ("ndots:5",)),
)

ROUTES_4 = [
    {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
    {"dst": "10.2.0.0/16", "mtu": 1400, "advmss": 1360, "priority": 0, "table": 100, "scope": 253},
]
DNS_JSON = {
    "nameservers": ["10.1.0.1", "2001:db8::1"],
    "domain": "example.org",
    "search": ["a.example.org"],
    "options": ["ndots:5"],
}
JSON_020 = {
    "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": ROUTES_4},
    "ip6": {"ip": "2001:db8::5/64", "routes": [{"dst": "::/0"}]},
    "dns": DNS_JSON,
}
JSON_100 = {
    "interfaces": [
        {"name": "cni0", "mac": "0a:00:00:00:00:01"},
        {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/run/netns/c1"},
    ],
    "ips": [
        {"interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "2001:db8::5/64"},
    ],
    "routes": [*ROUTES_4, {"dst": "::/0"}],
    "dns": DNS_JSON,
}
JSON_030 = {
    **JSON_100,
    "ips": [
        {"version": "4", "interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"version": "6", "interface": 1, "address": "2001:db8::5/64"},
    ],
}
JSON_110 = {
    **JSON_100,
    "interfaces": [
        {"name": "cni0", "mac": "0a:00:00:00:00:01", "mtu": 1500},
        {
            "name": "eth0",
            "mac": "0a:00:00:00:00:02",
            "mtu": 1400,
            "sandbox": "/run/netns/c1",
            "socketPath": "/run/vhost.sock",
            "pciID": "0000:00:1f.6",
        },
    ],
}
SHAPES: dict[str, dict[str, Any]] = {
    "0.1.0": JSON_020,
    "0.2.0": JSON_020,
    "0.3.0": JSON_030,
    "0.3.1": JSON_030,
    "0.4.0": JSON_030,
    "1.0.0": JSON_100,
    "1.1.0": JSON_110,
}


def test_every_version_has_its_shape_here() -> None:
    assert tuple(SHAPES) == SUPPORTED


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_is_written_in_the_shape_of_its_version(version: str) -> None:
    assert result_to_json(RESULT, version) == {"cniVersion": version, **SHAPES[version]}


@pytest.mark.parametrize("version", SUPPORTED)
def test_an_empty_result_has_its_version_and_dns_and_no_empty_lists(version: str) -> None:
    assert result_to_json(Result(), version) == {"cniVersion": version, "dns": {}}


def kept_by(version: str) -> Result:
    """RESULT less what the shape of a version has no place for."""
    if version == "1.1.0":
        return RESULT
    if version in ("0.1.0", "0.2.0"):
        return RESULT._replace(interfaces=(), ips=tuple(ip._replace(interface=None) for ip in RESULT.ips))
    without = (entry._replace(mtu=0, socket_path="", pci_id="") for entry in RESULT.interfaces)
    return RESULT._replace(interfaces=tuple(without))


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_of_every_version_is_read(version: str) -> None:
    document = {"cniVersion": version, **SHAPES[version]}
    assert parse_result(document, "1.1.0", "prevResult") == kept_by(version)


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_without_version_is_read_as_that_of_the_configuration(version: str) -> None:
    assert parse_result(SHAPES[version], version, "prevResult") == kept_by(version)


def test_a_result_of_one_family_has_only_its_part() -> None:
    v6 = Result(ips=(IPConfig(parse_cidr("2001:db8::5/64"), parse_ip("2001:db8::1")),))
    assert result_to_json(v6, "0.2.0") == {
        "cniVersion": "0.2.0",
        "ip6": {"ip": "2001:db8::5/64", "gateway": "2001:db8::1"},
        "dns": {},
    }


def test_the_old_shape_has_room_for_the_first_address_of_a_family() -> None:
    two = Result(ips=(IPConfig(parse_cidr("10.1.0.5/16")), IPConfig(parse_cidr("10.2.0.5/16"))))
    assert result_to_json(two, "0.2.0")["ip4"] == {"ip": "10.1.0.5/16"}


def test_keys_in_another_case_and_null_are_read_as_the_reference_does() -> None:
    document = {"IPs": [{"Address": "10.1.0.5/16", "Gateway": None}], "Interfaces": None, "Routes": None, "DNS": None}
    assert parse_result(document, "1.0.0", "result") == Result(ips=(IPConfig(parse_cidr("10.1.0.5/16")),))


def test_an_interface_index_without_interfaces_means_nothing() -> None:
    document = {"ips": [{"address": "10.1.0.5/16", "interface": 0}]}
    assert parse_result(document, "1.0.0", "result").ips[0].interface is None


def test_a_route_keeps_no_host_bits() -> None:
    document = {"routes": [{"dst": "10.1.2.3/16"}]}
    assert parse_result(document, "1.0.0", "result").routes == (Route(parse_cidr("10.1.0.0/16")),)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (None, "x: must be an object, not null"),
        ([], "x: must be an object, not []"),
        ("ok", 'x: must be an object, not "ok"'),
        ({"cniVersion": 1}, "x.cniVersion: must be a string, not 1"),
        ({"ips": {}}, "x.ips: must be a list, not {}"),
        ({"ips": [1]}, "x.ips[0]: must be an object, not 1"),
        ({"ips": [{}]}, "x.ips[0].address: is missing"),
        ({"ips": [{"address": "10.1.0.5"}]}, "x.ips[0].address: '10.1.0.5' is no address with a prefix length"),
        (
            {"ips": [{"address": "10.1.0.5/16", "gateway": "::1"}]},
            "x.ips[0].gateway: ::1 is not of the family of 10.1.0.5/16",
        ),
        ({"ips": [{"address": "10.1.0.5/16", "interface": 1}]}, "x.ips[0].interface: 1 is not between 0 and 0"),
        ({"ips": [{"address": "10.1.0.5/16", "interface": -1}]}, "x.ips[0].interface: -1 is not between 0 and 0"),
        ({"interfaces": [{"mac": "a"}]}, "x.interfaces[0].name: is missing"),
        ({"interfaces": [{"name": "a", "mtu": 1 << 32}]}, "x.interfaces[0].mtu: 4294967296 is not between"),
        ({"routes": [{"gw": "10.1.0.1"}]}, "x.routes[0].dst: is missing"),
        ({"routes": [{"dst": "10/8"}]}, "x.routes[0].dst: '10' is no IP address"),
        (
            {"routes": [{"dst": "10.0.0.0/8", "gw": "::1"}]},
            "x.routes[0].gw: ::1 is not of the family of dst 10.0.0.0/8",
        ),
        ({"routes": [{"dst": "10.0.0.0/8", "mtu": -1}]}, "x.routes[0].mtu: -1 is not between 0 and 4294967295"),
        ({"dns": {"nameservers": [1]}}, "x.dns.nameservers[0]: must be a string, not 1"),
        ({"cniVersion": "0.2.0", "ip4": {}}, "x.ip4.ip: is missing or invalid"),
        ({"cniVersion": "0.2.0", "ip6": {"ip": "x"}}, "x.ip6.ip: 'x' is no IP address"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.5/16", "gateway": "::1"}}, "x.ip4.gateway: ::1 is not of"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.5/16", "routes": [{}]}}, "x.ip4.routes[0].dst: is missing"),
    ],
)
def test_a_wrong_result_is_refused_naming_the_key(document: object, problem: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_result(document, "1.0.0", "x")
    assert caught.value.code == DECODING_FAILURE
    assert caught.value.msg.startswith("invalid x: ")
    assert problem in caught.value.msg


def test_all_that_is_wrong_with_a_result_is_said_at_once() -> None:
    with pytest.raises(CNIError) as caught:
        parse_result({"ips": [{"address": 1}, {}], "routes": [{}], "dns": 1}, "1.0.0", "prevResult")
    problems = caught.value.msg.removeprefix("invalid prevResult: ").split("; prevResult.")
    keys = ["prevResult.ips[0].address", "ips[1].address", "routes[0].dst", "dns"]
    assert [problem.partition(": ")[0] for problem in problems] == keys


def test_a_result_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(CNIError, match=r"2\.0\.0") as caught:
        parse_result({"cniVersion": "2.0.0"}, "1.0.0", "prevResult")
    assert caught.value.code == INCOMPATIBLE_VERSION


def test_behind_no_earlier_plugin_a_result_stays_as_it_is() -> None:
    assert RESULT.after(None) == RESULT
    assert RESULT.after(Result()) == RESULT


def test_behind_an_earlier_plugin_indexes_are_shifted_and_routes_stand_once() -> None:
    before = Result(
        interfaces=(Interface("net1"),),
        ips=(IPConfig(parse_cidr("192.0.2.5/24"), None, 0),),
        routes=(Route(parse_cidr("::/0")), Route(parse_cidr("192.0.2.0/24"))),
        dns=DNS(("192.0.2.1",)),
    )
    own = RESULT._replace(ips=(*RESULT.ips, IPConfig(parse_cidr("10.3.0.5/16"))))
    merged = own.after(before)
    assert [entry.name for entry in merged.interfaces] == ["net1", "cni0", "eth0"]
    assert [(str(entry.address), entry.interface) for entry in merged.ips] == [
        ("192.0.2.5/24", 0),
        ("10.1.0.5/16", 2),
        ("2001:db8::5/64", 2),
        ("10.3.0.5/16", None),
    ]
    assert merged.routes == (*before.routes, RESULT.routes[0], RESULT.routes[1])
    assert merged.dns == RESULT.dns
    assert own._replace(dns=DNS()).after(before).dns == before.dns


def test_a_route_with_other_attributes_is_another_route() -> None:
    plain, other = Route(parse_cidr("10.0.0.0/8")), Route(parse_cidr("10.0.0.0/8"), priority=5)
    assert Result(routes=(other,)).after(Result(routes=(plain,))).routes == (plain, other)


def test_dns_and_routes_of_a_configuration_are_read() -> None:
    problems: list[str] = []
    network = Fields({"dns": DNS_JSON, "routes": [*ROUTES_4, {"dst": "::/0", "mtu": 0}]}, "", problems)
    assert parse_dns(network.object("dns")) == RESULT.dns
    assert parse_routes(network.objects("routes")) == (*RESULT.routes[:2], Route(parse_cidr("::/0"), mtu=0))
    assert problems == []
