"""The configuration: every key, every kind of mistake, the three channels of the MAC."""

from typing import Any

import pytest

from cni_bridge.config import BridgeConfig, parse_config, salvage_config
from cni_protocol.address import parse_cidr
from cni_protocol.errors import CNIError
from cni_protocol.result import DNS, Interface, IPConfig, Result
from tests.cni_bridge import make_request

DEFAULT = BridgeConfig(
    network="mynet",
    bridge="cni0",
    is_gateway=False,
    is_default_gateway=False,
    force_address=False,
    ip_masq=False,
    mtu=0,
    hairpin=False,
    promisc=False,
    mac="",
    dns=None,
    ipam_type="",
    previous=None,
)
MAC, OTHER_MAC, THIRD_MAC = "0a:58:0a:f4:00:02", "0a:58:0a:f4:00:03", "0a:58:0a:f4:00:04"


def mac_config(runtime: str | None = None, args: str | None = None) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    if runtime is not None:
        keys["runtimeConfig"] = {"mac": runtime}
    if args is not None:
        keys["args"] = {"cni": {"mac": args}}
    return keys


def test_an_empty_configuration_has_the_documented_defaults() -> None:
    assert parse_config(make_request()) == DEFAULT


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"bridge": "br-a.1"}, {"bridge": "br-a.1"}),
        ({"bridge": ""}, {"bridge": "cni0"}),
        ({"bridge": None}, {"bridge": "cni0"}),
        ({"isGateway": True}, {"is_gateway": True}),
        ({"isDefaultGateway": True}, {"is_gateway": True, "is_default_gateway": True}),
        ({"isGateway": False, "isDefaultGateway": True}, {"is_gateway": True, "is_default_gateway": True}),
        ({"forceAddress": True}, {"force_address": True}),
        ({"ipMasq": True}, {"ip_masq": True}),
        ({"mtu": 1400}, {"mtu": 1400}),
        ({"mtu": 0}, {"mtu": 0}),
        ({"mtu": 65535}, {"mtu": 65535}),
        ({"hairpinMode": True}, {"hairpin": True}),
        ({"promiscMode": True}, {"promisc": True}),
        ({"hairpinmode": True}, {"hairpin": True}),
        ({"dns": {"nameservers": ["10.0.0.53"]}}, {"dns": DNS(nameservers=("10.0.0.53",))}),
        ({"dns": {}}, {"dns": None}),
        ({"ipam": {"type": "host-local"}}, {"ipam_type": "host-local"}),
        ({"ipam": {}}, {"ipam_type": ""}),
        ({"ipam": None}, {"ipam_type": ""}),
        ({"unknownKey": {"a": 1}}, {}),
    ],
    ids=lambda value: str(value)[:60] if "ipam_type" not in value else "ipam",
)
def test_each_key_is_read(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse_config(make_request(**keys)) == DEFAULT._replace(**expected)


def test_prev_result_is_parsed() -> None:
    document = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.0.2/16"}]}
    config = parse_config(make_request("CHECK", prevResult=document))
    assert config.previous == Result((Interface("eth0"),), (IPConfig(parse_cidr("10.1.0.2/16")),))


def test_all_wrong_types_are_reported_at_once() -> None:
    wrong: dict[str, Any] = {
        "bridge": 7,
        "isGateway": "yes",
        "isDefaultGateway": 1,
        "forceAddress": [],
        "ipMasq": "true",
        "mtu": "1400",
        "hairpinMode": 0,
        "promiscMode": {},
        "dns": [],
        "ipam": "host-local",
        "runtimeConfig": 1,
        "args": 2,
        "prevResult": [],
    }
    with pytest.raises(CNIError) as caught:
        parse_config(make_request(**wrong))
    assert caught.value.code == 7
    assert [key for key in wrong if f"{key}: must be " not in caught.value.msg] == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"bridge": "a/b"}, ["bridge", "'a/b'", "15 bytes"]),
        ({"bridge": "sixteen-bytes-xx"}, ["bridge", "'sixteen-bytes-xx'"]),
        ({"bridge": "."}, ["bridge", "'.'"]),
        ({"bridge": "ä" * 8}, ["bridge"]),
        ({"bridge": "a b"}, ["bridge", "'a b'"]),
        ({"mtu": -1}, ["mtu", "-1", "65535"]),
        ({"mtu": 65536}, ["mtu", "65536"]),
        ({"mtu": True}, ["mtu", "true", "whole number"]),
        ({"mtu": 1400.5}, ["mtu", "1400.5"]),
        ({"hairpinMode": True, "promiscMode": True}, ["hairpinMode", "promiscMode"]),
        ({"ipam": {"subnet": "10.1.0.0/16"}}, ["ipam.type", "missing"]),
        ({"ipam": {"type": 5}}, ["ipam.type", "5"]),
        ({"dns": {"nameservers": "10.0.0.53"}}, ["dns.nameservers"]),
        ({"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2"}]}}, ["prevResult", "10.1.0.2"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_value_is_reported_with_its_key(keys: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CNIError) as caught:
        parse_config(make_request(**keys))
    assert caught.value.code == 7
    for word in words:
        assert word in caught.value.msg


@pytest.mark.parametrize(
    ("keys", "args", "expected"),
    [
        (mac_config(), "", ""),
        (mac_config(runtime=MAC), "", MAC),
        (mac_config(args=MAC), "", MAC),
        (mac_config(), f"MAC={MAC}", MAC),
        (mac_config(runtime=MAC, args=OTHER_MAC), f"MAC={THIRD_MAC}", MAC),
        (mac_config(args=OTHER_MAC), f"MAC={THIRD_MAC}", OTHER_MAC),
        (mac_config(runtime="", args=OTHER_MAC), "", OTHER_MAC),
        (mac_config(runtime="0A-58-0A-F4-00-02"), "", MAC),
        (mac_config(runtime=MAC.upper()), "", MAC),
    ],
    ids=[
        "none",
        "runtimeConfig",
        "args",
        "CNI_ARGS",
        "first wins",
        "args wins",
        "empty is unset",
        "dashes",
        "capitals",
    ],
)
def test_the_mac_comes_from_the_first_channel_that_is_set(keys: dict[str, Any], args: str, expected: str) -> None:
    assert parse_config(make_request(cni_args=args, **keys)).mac == expected


@pytest.mark.parametrize(
    "mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "0a:58", "zz" * 6, "\n"]
)
@pytest.mark.parametrize("where", ["runtimeConfig.mac", "args.cni.mac", "CNI_ARGS MAC"])
def test_an_invalid_mac_is_refused_wherever_it_comes_from(where: str, mac: str) -> None:
    keys = {"runtimeConfig.mac": mac_config(runtime=mac), "args.cni.mac": mac_config(args=mac)}.get(where, {})
    with pytest.raises(CNIError) as caught:
        parse_config(make_request(cni_args="" if keys else f"MAC={mac}", **keys))
    assert caught.value.code == 7
    assert where in caught.value.msg


@pytest.mark.parametrize(
    ("args", "ipam", "refused"),
    [
        ("IP=10.1.0.9", True, False),
        ("IP=10.1.0.9", False, True),
        ("IgnoreUnknown=1;IP=10.1.0.9;K8S_POD_NAME=a", False, False),
        ("K8S_POD_NAME=a", True, True),
        ("K8S_POD_NAME=a;IgnoreUnknown=true", True, False),
        ("MAC", True, True),
    ],
    ids=["IP for IPAM", "IP on layer 2", "ignored", "unknown", "unknown ignored", "no value"],
)
def test_unknown_cni_args_are_refused_unless_they_may_be_ignored(args: str, ipam: bool, refused: bool) -> None:
    request = make_request(cni_args=args, ipam={"type": "host-local"} if ipam else {})
    if not refused:
        parse_config(request)
        return
    with pytest.raises(CNIError) as caught:
        parse_config(request)
    assert caught.value.code == 4


def test_a_del_takes_what_is_right_of_a_wrong_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    request = make_request(
        "DEL", cni_args="what;ever=1", bridge="br9", mtu="big", ipMasq=True, ipam={"type": "host-local"}, prevResult=3
    )
    config = salvage_config(request)
    assert config == DEFAULT._replace(bridge="br9", ip_masq=True, ipam_type="host-local")
    stderr = capsys.readouterr().err
    assert "mtu" in stderr
    assert "prevResult" in stderr
