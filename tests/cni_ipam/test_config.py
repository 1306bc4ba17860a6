"""The ipam part of a configuration: defaults, every error, and the three channels of requested addresses."""

from typing import Any

import pytest

from cni_ipam.config import IpamConfig, parse_config
from cni_ipam.data_dir import DEFAULT_DATA_DIR, parse_data_dir
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, CNIError
from cni_protocol.result import Route
from tests.kit.calls import make_request

SUBNET = {"subnet": "10.1.0.0/16"}


def parse(ipam: object, *, cni_args: str = "", **keys: Any) -> IpamConfig:
    return parse_config(make_request({"ipam": ipam, **keys}, args=cni_args))


def refusal(ipam: object, *, cni_args: str = "", **keys: Any) -> CNIError:
    with pytest.raises(CNIError) as caught:
        parse(ipam, cni_args=cni_args, **keys)
    return caught.value


def pools_of(config: IpamConfig) -> list[list[tuple[str, str, str, str]]]:
    """Subnet, start, end, gateway of every range of every set."""
    return [
        [(str(entry.subnet), str(entry.start), str(entry.end), str(entry.gateway)) for entry in pool.ranges]
        for pool in config.pools
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (SUBNET, ("10.1.0.0/16", "10.1.0.1", "10.1.255.254", "10.1.0.1")),
        ({"subnet": "10.1.0.0/30"}, ("10.1.0.0/30", "10.1.0.1", "10.1.0.2", "10.1.0.1")),
        ({"subnet": "2001:db8::/64"}, ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8::1")),
        ({"subnet": "2001:DB8::4/126"}, ("2001:db8::4/126", "2001:db8::5", "2001:db8::7", "2001:db8::5")),
        (
            {**SUBNET, "rangeStart": "10.1.2.3", "rangeEnd": "10.1.2.9", "gateway": "10.1.0.254"},
            ("10.1.0.0/16", "10.1.2.3", "10.1.2.9", "10.1.0.254"),
        ),
        ({**SUBNET, "rangeStart": "10.1.2.3"}, ("10.1.0.0/16", "10.1.2.3", "10.1.255.254", "10.1.0.1")),
        ({**SUBNET, "rangeEnd": "10.1.2.3"}, ("10.1.0.0/16", "10.1.0.1", "10.1.2.3", "10.1.0.1")),
        (
            {**SUBNET, "rangeStart": "10.1.2.3", "rangeEnd": "10.1.2.3"},
            ("10.1.0.0/16", "10.1.2.3", "10.1.2.3", "10.1.0.1"),
        ),
        ({**SUBNET, "gateway": None, "rangeStart": ""}, ("10.1.0.0/16", "10.1.0.1", "10.1.255.254", "10.1.0.1")),
        ({"Subnet": "10.1.0.0/16", "RANGESTART": "10.1.2.3"}, ("10.1.0.0/16", "10.1.2.3", "10.1.255.254", "10.1.0.1")),
    ],
)
def test_a_range_has_the_defaults_of_the_reference(entry: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert pools_of(parse(entry)) == [[expected]]
    assert pools_of(parse({"ranges": [[entry]]})) == [[expected]]


def test_everything_else_has_its_default() -> None:
    config = parse(SUBNET)
    assert config == IpamConfig("mynet", DEFAULT_DATA_DIR, config.pools, config.table, (), "", (), ())
    assert DEFAULT_DATA_DIR == "/var/lib/cni/networks"


def test_all_keys_are_read() -> None:
    routes = [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.1.1/16", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 5},
    ]
    config = parse(
        {**SUBNET, "type": "cni-ipam", "dataDir": "/data", "resolvConf": "/etc/resolv.conf", "routes": routes}
    )
    assert (config.data_dir, config.resolv_conf) == ("/data", "/etc/resolv.conf")
    assert config.routes == (
        Route(parse_cidr("0.0.0.0/0")),
        Route(parse_cidr("10.9.0.0/16"), parse_ip("10.1.0.1"), mtu=1400, advmss=1360, priority=5),
    )


def test_range_sets_come_in_the_order_of_the_reference() -> None:
    config = parse(
        {**SUBNET, "ranges": [[{"subnet": "10.2.0.0/16"}, {"subnet": "10.3.0.0/16"}], [{"subnet": "2001:db8::/64"}]]},
        runtimeConfig={"ipRanges": [[{"subnet": "10.4.0.0/16"}], [{"subnet": "10.5.0.0/16"}]]},
    )
    subnets = [[str(entry.subnet) for entry in pool.ranges] for pool in config.pools]
    assert subnets == [
        ["10.4.0.0/16"],
        ["10.5.0.0/16"],
        ["10.1.0.0/16"],
        ["10.2.0.0/16", "10.3.0.0/16"],
        ["2001:db8::/64"],
    ]


def test_ranges_of_the_runtime_alone_will_do() -> None:
    config = parse({}, runtimeConfig={"ipRanges": [[SUBNET]]})
    assert [str(pool) for pool in config.pools] == ["10.1.0.1-10.1.255.254"]


def ranges(*entries: Any) -> dict[str, Any]:
    return {"ranges": [list(entries)]}


@pytest.mark.parametrize(
    ("ipam", "problem"),
    [
        # no range, empty sets, wrong shapes
        (None, "ipam: is missing; it names the ranges to give addresses from"),
        ([], "ipam: must be an object, not []"),
        ({}, "ipam.ranges: no address range; give a subnet, ranges, or the capability ipRanges"),
        ({"ranges": []}, "ipam.ranges: no address range"),
        ({"ranges": [[]]}, "ipam.ranges[0]: is an empty range set"),
        ({"ranges": SUBNET}, 'ipam.ranges: must be a list, not {"subnet": "10.1.0.0/16"}'),
        ({"ranges": [SUBNET]}, "ipam.ranges[0]: must be a list of ranges"),
        (ranges("10.1.0.0/16"), 'ipam.ranges[0][0]: must be an object, not "10.1.0.0/16"'),
        (ranges({}), "ipam.ranges[0][0].subnet: is missing"),
        ({"rangeStart": "10.1.0.5"}, "ipam.subnet: is missing"),
        ({"gateway": "10.1.0.5"}, "ipam.subnet: is missing"),
        # subnets
        ({"subnet": "10.1.0.0"}, "ipam.subnet: '10.1.0.0' is no address with a prefix length"),
        ({"subnet": 10}, "ipam.subnet: must be a string, not 10"),
        ({"subnet": "10.1.0.1/16"}, "ipam.subnet: 10.1.0.1/16 has host bits set; the network is 10.1.0.0/16"),
        ({"subnet": "2001:db8::1/64"}, "ipam.subnet: 2001:db8::1/64 has host bits set; the network is 2001:db8::/64"),
        # the other keys of a range
        ({**SUBNET, "rangeStart": "10.2.0.1"}, "ipam.rangeStart: 10.2.0.1 is not in subnet 10.1.0.0/16"),
        ({**SUBNET, "rangeEnd": "10.0.0.1"}, "ipam.rangeEnd: 10.0.0.1 is not in subnet 10.1.0.0/16"),
        ({**SUBNET, "gateway": "10.2.0.1"}, "ipam.gateway: 10.2.0.1 is not in subnet 10.1.0.0/16"),
        ({**SUBNET, "rangeEnd": "2001:db8::1"}, "ipam.rangeEnd: 2001:db8::1 is not in subnet 10.1.0.0/16"),
        ({**SUBNET, "gateway": "::1"}, "ipam.gateway: ::1 is not in subnet 10.1.0.0/16"),
        (
            {**SUBNET, "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"},
            "ipam.rangeEnd: 10.1.0.8 is before rangeStart 10.1.0.9",
        ),
        ({**SUBNET, "rangeStart": "10.1.0"}, "ipam.rangeStart: '10.1.0' is no IP address"),
        ({**SUBNET, "rangeEnd": 5}, "ipam.rangeEnd: must be a string, not 5"),
        ({**SUBNET, "gateway": "10.1.0.1/16"}, "ipam.gateway: '10.1.0.1/16' is no IP address"),
        # sets
        (ranges(SUBNET, {"subnet": "2001:db8::/64"}), "ipam.ranges[0]: mixes IPv4 and IPv6 in one range set"),
        (ranges(SUBNET, SUBNET), "ipam.ranges[0]: ranges 10.1.0.1-10.1.255.254 and 10.1.0.1-10.1.255.254 overlap"),
        (
            ranges({**SUBNET, "rangeEnd": "10.1.0.9"}, {**SUBNET, "rangeStart": "10.1.0.9"}),
            "ipam.ranges[0]: ranges 10.1.0.1-10.1.0.9 and 10.1.0.9-10.1.255.254 overlap",
        ),
        (
            {"ranges": [[SUBNET], [{"subnet": "10.1.128.0/24"}]]},
            "ipam.ranges[0] and ipam.ranges[1]: ranges 10.1.0.1-10.1.255.254 and 10.1.128.1-10.1.128.254 overlap",
        ),
        (
            {**SUBNET, "ranges": [[SUBNET]]},
            "ipam and ipam.ranges[0]: ranges 10.1.0.1-10.1.255.254 and 10.1.0.1-10.1.255.254 overlap",
        ),
        # the rest
        ({**SUBNET, "dataDir": "data"}, "ipam.dataDir: 'data' must be an absolute path"),
        ({**SUBNET, "dataDir": 5}, "ipam.dataDir: must be a string, not 5"),
        ({**SUBNET, "dataDir": "/a\0b"}, 'ipam.dataDir: "/a\\u0000b" has characters that cannot be printed'),
        ({**SUBNET, "resolvConf": []}, "ipam.resolvConf: must be a string, not []"),
        ({**SUBNET, "routes": {}}, "ipam.routes: must be a list, not {}"),
        ({**SUBNET, "routes": ["0.0.0.0/0"]}, 'ipam.routes[0]: must be an object, not "0.0.0.0/0"'),
        ({**SUBNET, "routes": [{}]}, "ipam.routes[0].dst: is missing"),
        ({**SUBNET, "routes": [{"dst": "default"}]}, "ipam.routes[0].dst: 'default' is no IP address"),
        ({**SUBNET, "routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}, "ipam.routes[0].gw: 'x' is no IP address"),
        ({**SUBNET, "routes": [{"dst": "::/0", "gw": "10.1.0.1"}]}, "ipam.routes[0].gw: 10.1.0.1 is not of the family"),
        (
            {**SUBNET, "routes": [{"dst": "::/0", "mtu": "1400"}]},
            'ipam.routes[0].mtu: must be a whole number, not "1400"',
        ),
    ],
)
def test_a_wrong_key_is_refused_with_its_name_and_value(ipam: object, problem: str) -> None:
    error = refusal(ipam)
    assert error.code == INVALID_CONFIG
    assert error.msg.startswith("invalid IPAM configuration: ")
    assert problem in error.msg


@pytest.mark.parametrize(
    "ipam",
    [
        ranges({**SUBNET, "rangeEnd": "10.1.0.9"}, {**SUBNET, "rangeStart": "10.1.0.10"}),
        {"ranges": [[SUBNET], [{"subnet": "2001:db8::/64"}]]},
        {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.1.0/24"}]]},
        {**SUBNET, "type": "cni-ipam", "unknown": [1]},
    ],
    ids=["side-by-side", "dual-stack", "two-of-a-family", "unknown-key"],
)
def test_what_looks_alike_is_fine(ipam: object) -> None:
    assert parse(ipam).pools


def test_one_mistake_is_one_problem() -> None:
    for ipam in (
        {"subnet": "10.1.0.1/16"},
        {**SUBNET, "gateway": "::1"},
        {"subnet": "x"},
        None,
        {"subnet": "10.1.0.0/32", "gateway": "10.1.0.0"},
    ):
        assert "; " not in refusal(ipam).msg.replace("; it names", "").replace("; the network is", "")


def test_all_mistakes_are_told_in_one_go() -> None:
    error = refusal(
        {
            "ranges": [
                [{"subnet": "10.1.0.1/16"}, {"subnet": "2001:db8::/64"}],
                [],
                [{"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.0"}, {"rangeStart": 5}],
                [{"subnet": "10.1.7.0/24", "gateway": "10.1.8.1"}],
            ],
            "dataDir": "relative",
            "resolvConf": 1,
            "routes": [{"dst": "10/8"}],
        },
        runtimeConfig={"ips": ["nonsense"]},
    )
    for part in (
        "ipam.ranges[0][0].subnet: 10.1.0.1/16 has host bits set",
        "ipam.ranges[0]: mixes IPv4 and IPv6",
        "ipam.ranges[1]: is an empty range set",
        "ipam.ranges[2][0].rangeStart: 10.2.0.0 is the network address of 10.2.0.0/24",
        "ipam.ranges[2][1].rangeStart: must be a string, not 5",
        "ipam.ranges[2][1].subnet: is missing",
        "ipam.ranges[3][0].gateway: 10.1.8.1 is not in subnet 10.1.7.0/24",
        "ipam.ranges[0] and ipam.ranges[3]: ranges",
        "ipam.dataDir: 'relative' must be an absolute path",
        "ipam.resolvConf: must be a string, not 1",
        "ipam.routes[0].dst: '10' is no IP address",
        "runtimeConfig.ips[0]: 'nonsense' is no IP address",
    ):
        assert part in error.msg


TWO_V4 = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}
TWO_V6 = {"ranges": [[{"subnet": "2001:db8::/64"}], [{"subnet": "2001:db8:1::/64"}]]}


@pytest.mark.parametrize(("ipam", "family"), [(TWO_V4, "IPv4"), (TWO_V6, "IPv6")], ids=["v4", "v6"])
def test_old_versions_have_room_for_one_address_of_a_family(ipam: object, family: str) -> None:
    for version in ("0.1.0", "0.2.0"):
        error = refusal(ipam, cniVersion=version)
        assert error.code == INVALID_CONFIG
        assert f"cniVersion {version} has room for one {family} address only" in error.msg
    assert len(parse(ipam, cniVersion="0.3.0").pools) == 2


def test_old_versions_have_room_for_one_address_of_each_family() -> None:
    assert len(parse({"ranges": [[SUBNET], [{"subnet": "2001:db8::/64"}]]}, cniVersion="0.2.0").pools) == 2


RUNTIME = {"runtimeConfig": {"ips": ["10.1.0.5/16", "2001:db8::5"]}}
ARGS = {"args": {"cni": {"ips": ["10.1.0.6"]}}}


@pytest.mark.parametrize(
    ("keys", "args", "requested"),
    [
        ({}, "", []),
        ({}, "IP=10.1.0.7", ["10.1.0.7"]),
        ({}, "IP=10.1.0.7/16", ["10.1.0.7"]),
        ({}, "IP=2001:db8::7", ["2001:db8::7"]),
        ({}, "IP=", []),
        (ARGS, "", ["10.1.0.6"]),
        (ARGS, "IP=10.1.0.7", ["10.1.0.6"]),
        (RUNTIME, "", ["10.1.0.5", "2001:db8::5"]),
        ({**RUNTIME, **ARGS}, "IP=10.1.0.7", ["10.1.0.5", "2001:db8::5"]),
        ({"runtimeConfig": {"ips": []}, **ARGS}, "IP=10.1.0.7", ["10.1.0.6"]),
        ({"runtimeConfig": {"ips": None}, "args": {"cni": {"ips": []}}}, "IP=10.1.0.7", ["10.1.0.7"]),
        ({"runtimeConfig": {"IPs": ["10.1.0.5"]}}, "", ["10.1.0.5"]),
    ],
)
def test_the_first_channel_that_asks_for_addresses_counts(
    keys: dict[str, Any], args: str, requested: list[str]
) -> None:
    assert [str(ip) for ip in parse(SUBNET, cni_args=args, **keys).requested] == requested


@pytest.mark.parametrize(
    ("keys", "args", "problem"),
    [
        ({}, "IP=10.1.0", "CNI_ARGS IP: '10.1.0' is no IP address"),
        ({}, "IP=10.1.0.7/99", "CNI_ARGS IP: '10.1.0.7/99' is no address with a prefix length"),
        ({"args": {"cni": {"ips": ["x"]}}}, "", "args.cni.ips[0]: 'x' is no IP address"),
        ({"args": {"cni": {"ips": "10.1.0.6"}}}, "", 'args.cni.ips: must be a list, not "10.1.0.6"'),
        ({"args": []}, "", "args: must be an object, not []"),
        ({"runtimeConfig": {"ips": ["10.1.0.5", 5]}}, "", "runtimeConfig.ips[1]: must be a string, not 5"),
        ({"runtimeConfig": {"ipRanges": [{}]}}, "", "runtimeConfig.ipRanges[0]: must be a list of ranges"),
        ({"runtimeConfig": {"ipRanges": [[{"subnet": "x"}]]}}, "", "runtimeConfig.ipRanges[0][0].subnet: 'x' is no IP"),
    ],
)
def test_a_wrong_request_is_named_with_its_channel(keys: dict[str, Any], args: str, problem: str) -> None:
    error = refusal(SUBNET, cni_args=args, **keys)
    assert error.code == INVALID_CONFIG
    assert problem in error.msg


def test_unknown_args_are_refused_unless_they_may_be_ignored() -> None:
    assert refusal(SUBNET, cni_args="IP=10.1.0.7;MAC=x;POD=y").code == INVALID_ENVIRONMENT
    assert parse(SUBNET, cni_args="IP=10.1.0.7;MAC=x;POD=y;IgnoreUnknown=1").requested == (parse_ip("10.1.0.7"),)


@pytest.mark.parametrize(
    ("ipam", "data_dir"),
    [
        ({"dataDir": "/data"}, "/data"),
        ({"DataDir": "/data"}, "/data"),
        ({}, DEFAULT_DATA_DIR),
        ({"dataDir": ""}, DEFAULT_DATA_DIR),
        (None, DEFAULT_DATA_DIR),
        ({"dataDir": "/data", "subnet": 5, "routes": 5, "ranges": "x"}, "/data"),
    ],
)
def test_del_needs_no_more_than_the_data_dir(ipam: object, data_dir: str) -> None:
    assert parse_data_dir(make_request({"ipam": ipam}, "DEL", args="nonsense")) == data_dir


@pytest.mark.parametrize("data_dir", ["data", 5, ["/data"]])
def test_del_refuses_a_data_dir_that_is_none(data_dir: object) -> None:
    with pytest.raises(CNIError, match=r"ipam\.dataDir: ") as caught:
        parse_data_dir(make_request({"ipam": {"dataDir": data_dir}}, "DEL"))
    assert caught.value.code == INVALID_CONFIG
