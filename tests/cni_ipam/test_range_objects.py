"""Range objects: what can never work, what is doubtful, small subnets, exclusions, and thousands of each."""

import time

import pytest

from cni_protocol.address import IP, parse_ip
from cni_protocol.errors import INVALID_CONFIG
from tests.cni_ipam.test_config import SUBNET, parse, ranges, refusal

# Addresses that cannot work, or hardly


@pytest.mark.parametrize(
    ("ipam", "problem"),
    [
        (
            {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.0"},
            "ipam.rangeStart: 10.1.0.0 is the network address of 10.1.0.0/24, which no interface can have",
        ),
        (
            {"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.255"},
            "ipam.rangeEnd: 10.1.0.255 is the broadcast address of 10.1.0.0/24, which no interface can have",
        ),
        ({"subnet": "10.1.0.0/30", "rangeEnd": "10.1.0.3"}, "ipam.rangeEnd: 10.1.0.3 is the broadcast address"),
        ({"subnet": "10.1.0.0/24", "gateway": "10.1.0.0"}, "ipam.gateway: 10.1.0.0 is the network address"),
        ({"subnet": "10.1.0.0/24", "gateway": "10.1.0.255"}, "ipam.gateway: 10.1.0.255 is the broadcast address"),
        (
            ranges(SUBNET, {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.0"}),
            "ipam.ranges[0][1].rangeStart: 10.2.0.0 is the network address",
        ),
        ({"subnet": "127.0.0.0/8"}, "127.0.0.1-127.255.255.254 has addresses of 127.0.0.0/8, which is for loopback"),
        ({"subnet": "126.0.0.0/7"}, "has addresses of 127.0.0.0/8, which is for loopback"),
        ({"subnet": "224.1.0.0/16"}, "has addresses of 224.0.0.0/4, which is for multicast"),
        ({"subnet": "255.255.255.255/32"}, "has addresses of 255.255.255.255/32, which is for the limited broadcast"),
        ({"subnet": "0.0.0.0/32"}, "has addresses of 0.0.0.0/32, which is for no address"),
        ({"subnet": "ff02::/64"}, "has addresses of ff00::/8, which is for multicast"),
        ({"subnet": "::/112"}, "has addresses of ::1/128, which is for loopback"),
        # what is left of a range
        ({"subnet": "10.1.0.0/32", "gateway": "10.1.0.0"}, "10.1.0.0-10.1.0.0 has no address to give out"),
        ({**SUBNET, "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}, "10.1.0.1-10.1.0.1 has no address to give out"),
        ({**SUBNET, "exclude": ["10.0.0.0/8"]}, "10.1.0.1-10.1.255.254 has no address to give out"),
        ({"subnet": "10.1.0.0/31", "exclude": ["10.1.0.1"]}, "10.1.0.0-10.1.0.1 has no address to give out"),
        # exclude
        ({**SUBNET, "exclude": "10.1.0.5"}, 'ipam.exclude: must be a list, not "10.1.0.5"'),
        ({**SUBNET, "exclude": [5]}, "ipam.exclude[0]: must be a string, not 5"),
        ({**SUBNET, "exclude": ["10.1.0.5", "x"]}, "ipam.exclude[1]: 'x' is no IP address"),
        ({**SUBNET, "exclude": ["10.1.0.5/24"]}, "ipam.exclude[0]: 10.1.0.5/24 has host bits set; the network is"),
        ({**SUBNET, "exclude": ["10.2.0.5"]}, "ipam.exclude[0]: 10.2.0.5/32 is not in subnet 10.1.0.0/16"),
        ({**SUBNET, "exclude": ["fd00::5"]}, "ipam.exclude[0]: fd00::5/128 is not in subnet 10.1.0.0/16"),
        ({"exclude": ["10.1.0.5"]}, "ipam.subnet: is missing"),
        (ranges({**SUBNET, "exclude": {}}), "ipam.ranges[0][0].exclude: must be a list, not {}"),
    ],
)
def test_what_can_never_work_is_refused(ipam: object, problem: str) -> None:
    error = refusal(ipam)
    assert error.code == INVALID_CONFIG
    assert problem in error.msg


@pytest.mark.parametrize(
    ("ipam", "warning"),
    [
        (
            {"subnet": "fd00::/64", "rangeStart": "fd00::"},
            "ipam.rangeStart: fd00:: is the address of all routers in fd00::/64",
        ),
        ({"subnet": "fd00::/64", "gateway": "fd00::"}, "ipam.gateway: fd00:: is the address of all routers"),
        ({"subnet": "169.254.1.0/24"}, "ipam.subnet: 169.254.1.1-169.254.1.254 has addresses of 169.254.0.0/16"),
        ({"subnet": "240.1.0.0/16"}, "240.0.0.0/4, which is for future use"),
        ({"subnet": "0.1.0.0/16"}, "0.0.0.0/8, which is for this network"),
        ({"subnet": "fe80::/64"}, "fe80::/10, which is for link-local addresses"),
    ],
)
def test_what_is_doubtful_is_said(ipam: object, warning: str) -> None:
    (said,) = parse(ipam).warnings
    assert warning in said


@pytest.mark.parametrize("ipam", [SUBNET, {"subnet": "fd00::/64"}, {"subnet": "fd00::/127"}, {"subnet": "10.1.0.0/31"}])
def test_what_is_usual_is_not_warned_of(ipam: object) -> None:
    assert parse(ipam).warnings == ()


@pytest.mark.parametrize(
    ("ipam", "given", "gateway"),
    [
        ({"subnet": "10.1.0.0/31"}, ["10.1.0.1"], "10.1.0.0"),
        ({"subnet": "10.1.0.0/31", "gateway": "10.1.0.1"}, ["10.1.0.0"], "10.1.0.1"),
        ({"subnet": "10.1.0.4/32"}, ["10.1.0.4"], None),
        ({"subnet": "2001:db8::/127"}, ["2001:db8::1"], "2001:db8::"),
        ({"subnet": "2001:db8::/127", "gateway": "2001:db8::1"}, ["2001:db8::"], "2001:db8::1"),
        ({"subnet": "2001:db8::4/128"}, ["2001:db8::4"], None),
        ({"subnet": "10.1.0.0/30"}, ["10.1.0.2"], "10.1.0.1"),
        ({"subnet": "2001:db8::/126"}, ["2001:db8::2", "2001:db8::3"], "2001:db8::1"),
        ({"subnet": "10.1.0.0/29", "exclude": ["10.1.0.3", "10.1.0.4/31"]}, ["10.1.0.2", "10.1.0.6"], "10.1.0.1"),
        ({"subnet": "10.1.0.0/29", "exclude": ["10.1.0.0/30"]}, ["10.1.0.4", "10.1.0.5", "10.1.0.6"], "10.1.0.1"),
        ({"subnet": "10.1.0.0/29", "exclude": ["::ffff:10.1.0.2"], "rangeEnd": "10.1.0.3"}, ["10.1.0.3"], "10.1.0.1"),
        ({"subnet": "fd00::/125", "exclude": ["fd00::2/127", "fd00::5"]}, ["fd00::4", "fd00::6", "fd00::7"], "fd00::1"),
    ],
    ids=lambda value: value["subnet"] if isinstance(value, dict) else None,
)
def test_the_addresses_of_a_range(ipam: object, given: list[str], gateway: str | None) -> None:
    (entry,) = parse(ipam).pools[0].ranges
    runs = entry.runs(entry.start.value, entry.end.value)
    assert [
        str(IP(first.version, value)) for first, last in runs for value in range(first.value, last.value + 1)
    ] == given
    assert (str(entry.gateway) if entry.gateway else None) == gateway


def test_no_range_gives_the_gateway_of_another() -> None:
    config = parse(
        {
            "ranges": [
                [
                    {"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.9", "gateway": "10.1.0.12"},
                    {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.14"},
                ],
                [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.20", "gateway": "10.1.0.13"}],
            ]
        }
    )
    first, second = config.pools[0].ranges
    assert not first.gives(parse_ip("10.1.0.1"))
    assert [i for i in range(10, 15) if second.gives(parse_ip(f"10.1.0.{i}"))] == [10, 11, 14]


# Thousands of entries


def many(count: int) -> list[dict[str, str]]:
    """Ranges next to each other, in no order."""
    order = sorted(range(count), key=lambda i: i * 7919 % count)
    return [{"subnet": f"10.{i >> 6 & 255}.{i >> 14}.{(i & 63) * 4}/30"} for i in order]


@pytest.mark.slow
def test_ten_thousand_ranges_in_a_set_are_read_in_time() -> None:
    begin = time.process_time()
    config = parse({"ranges": [many(10_000)]})
    assert time.process_time() - begin < 5
    assert len(config.pools[0].ranges) == 10_000
    assert len(str(config.pools[0])) < 500


@pytest.mark.slow
def test_one_overlap_among_ten_thousand_ranges_is_found() -> None:
    entries = many(10_000)
    entries[5000] = {"subnet": "10.20.0.64/28"}
    error = refusal({"ranges": [entries]})
    assert "ranges 10.20.0.65-10.20.0.78 and 10.20.0.69-10.20.0.70 overlap" in error.msg
    assert "ranges 10.20.0.65-10.20.0.78 and 10.20.0.77-10.20.0.78 overlap" in error.msg
    assert error.msg.count("overlap") == 4


@pytest.mark.slow
def test_more_range_sets_than_an_attachment_can_have_addresses_are_refused() -> None:
    assert len(parse({"ranges": [[entry] for entry in many(1000)]}).pools) == 1000
    begin = time.process_time()
    error = refusal({"ranges": [[entry] for entry in many(10_000)]})
    assert time.process_time() - begin < 5
    assert error.code == INVALID_CONFIG
    assert "ipam.ranges: 10000 range sets; an attachment gets an address of each, of 1000 at most" in error.msg


@pytest.mark.slow
def test_ten_thousand_routes_exclusions_and_requests_are_read_in_time() -> None:
    begin = time.process_time()
    config = parse(
        {
            **SUBNET,
            "routes": [{"dst": f"10.{i >> 8}.{i & 255}.0/24"} for i in range(10_000)],
            "exclude": [f"10.1.{i >> 8}.{i & 255}" for i in range(10_000)],
        },
        runtimeConfig={"ips": [f"10.1.{i >> 8}.{i & 255}" for i in range(10_000)]},
    )
    assert time.process_time() - begin < 5
    assert (len(config.routes), len(config.requested)) == (10_000, 10_000)
