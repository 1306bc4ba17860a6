"""The configuration: every key, every kind of mistake, the three channels of the MAC."""

from typing import Any

import pytest

from cni_bridge.config import BridgeConfig, parse_config, salvage_config
from cni_bridge.mappings import PortMapping
from cni_protocol.address import parse_cidr, parse_ip
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
    isolated=False,
    vlan=0,
    trunk=(),
    keep_default_vlan=False,
    spoof_check=False,
    detect_duplicates=False,
    leave_down=False,
    port_mappings=(),
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
        ({"mtu": 68}, {"mtu": 68}),
        ({"hairpinmode": True}, {"hairpin": True}),
        ({"portIsolation": True}, {"isolated": True}),
        ({"vlan": 0}, {"vlan": 0}),
        ({"vlan": 1}, {"vlan": 1}),
        ({"vlan": 4094}, {"vlan": 4094}),
        ({"vlanTrunk": []}, {"trunk": ()}),
        ({"vlanTrunk": [{"id": 7}]}, {"trunk": (7,)}),
        ({"vlanTrunk": [{"minID": 4093, "maxID": 4094}]}, {"trunk": (4093, 4094)}),
        ({"vlanTrunk": [{"minID": 5, "maxID": 5}]}, {"trunk": (5,)}),
        ({"vlanTrunk": [{"id": 9}, {"minID": 2, "maxID": 4}, {"id": 3}]}, {"trunk": (2, 3, 4, 9)}),
        ({"vlanTrunk": [{"id": 9, "minID": 2, "maxID": 3}]}, {"trunk": (2, 3, 9)}),
        ({"preserveDefaultVlan": True}, {"keep_default_vlan": True}),
        ({"macspoofchk": True}, {"spoof_check": True}),
        ({"enabledad": True}, {"detect_duplicates": True}),
        ({"disableContainerInterface": True}, {"leave_down": True}),
        ({"requireBridgeNetfilter": True}, {"require_filter": True}),
        ({"agent": "/run/pycni/agent.sock"}, {"agent": "/run/pycni/agent.sock"}),
        ({"agent": "/a.sock", "requirePolicies": True}, {"agent": "/a.sock", "require_policies": True}),
        ({"ipMasqBackend": "nftables"}, {}),
        ({"ipMasqBackend": ""}, {}),
        ({"strict": True}, {}),
        ({"strict": False}, {}),
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


TCP = PortMapping(8080, 80, "tcp", None)
EVERY4, EVERY6 = TCP._replace(host_ip=parse_ip("0.0.0.0")), TCP._replace(host_ip=parse_ip("::"))
OTHER6 = EVERY6._replace(container_port=81)
BASE = {"hostPort": 8080, "containerPort": 80}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], ()),
        (None, ()),
        ([BASE], (TCP,)),
        ([{**BASE, "protocol": "tcp"}], (TCP,)),
        ([{**BASE, "protocol": ""}], (TCP,)),
        ([{**BASE, "protocol": "TCP"}], (TCP,)),
        ([{**BASE, "protocol": "udp"}], (TCP._replace(protocol="udp"),)),
        ([{**BASE, "protocol": "SCTP"}], (TCP._replace(protocol="sctp"),)),
        ([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "udp"}], (TCP._replace(protocol="udp"),)),
        ([{**BASE, "hostIP": ""}], (TCP,)),
        ([{**BASE, "hostIP": None}], (TCP,)),
        ([{**BASE, "hostIP": "0.0.0.0"}], (EVERY4,)),
        ([{**BASE, "hostIP": "::"}], (EVERY6,)),
        ([{**BASE, "hostIP": "0:0::0"}], (EVERY6,)),
        ([{**BASE, "hostIP": "::ffff:0.0.0.0"}], (EVERY4,)),
        ([{**BASE, "hostIP": "0.0.0.0"}, {**BASE, "hostIP": "::", "containerPort": 81}], (EVERY4, OTHER6)),
        ([{**BASE, "hostPort": 0}], ()),
        ([{**BASE, "hostPort": 0}, BASE, {"HostPort": 0, "ContainerPort": 81}], (TCP,)),
        ([{**BASE, "hostIP": "192.168.1.11"}], (TCP._replace(host_ip=parse_ip("192.168.1.11")),)),
        ([{**BASE, "HostIP": "fd00::7"}], (TCP._replace(host_ip=parse_ip("fd00::7")),)),
        ([{"hostPort": 1, "containerPort": 65535}], (PortMapping(1, 65535, "tcp", None),)),
        ([{"hostPort": 65535, "containerPort": 1}], (PortMapping(65535, 1, "tcp", None),)),
        ([BASE, BASE, {**BASE, "hostIP": "0.0.0.0"}], (TCP, EVERY4)),
        ([BASE, {**BASE, "protocol": "udp"}], (TCP, TCP._replace(protocol="udp"))),
        (
            [BASE, {**BASE, "containerPort": 81, "hostIP": "127.0.0.1"}],
            (TCP, PortMapping(8080, 81, "tcp", parse_ip("127.0.0.1"))),
        ),
        (
            [{**BASE, "protocol": "udp", "containerPort": 53}, BASE],
            (PortMapping(8080, 53, "udp", None), TCP),
        ),
    ],
    ids=[
        "none",
        "null",
        "default protocol",
        "tcp",
        "empty protocol",
        "capitals",
        "udp",
        "sctp",
        "keys in capitals",
        "empty hostIP",
        "null hostIP",
        "0.0.0.0",
        "::",
        "another ::",
        "IPv4 in IPv6",
        "one port for each family",
        "host port 0",
        "host port 0 among others",
        "hostIP",
        "IPv6 hostIP",
        "least and largest port",
        "largest and least port",
        "the same several times",
        "two protocols",
        "one of them for an address",
        "one port of two protocols leads to two ports",
    ],
)
def test_port_mappings_are_read(entries: Any, expected: tuple[PortMapping, ...]) -> None:
    config = parse_config(make_request(ipam={"type": "host-local"}, runtimeConfig={"portMappings": entries}))
    assert config.port_mappings == expected


@pytest.mark.parametrize(
    ("keys", "hairpin", "vlans"),
    [
        ({}, False, False),
        ({"hairpinMode": True}, True, False),
        ({"runtimeConfig": {"portMappings": [BASE]}}, True, False),
        ({"runtimeConfig": {"portMappings": []}}, False, False),
        ({"vlan": 5}, False, True),
        ({"vlanTrunk": [{"id": 5}]}, False, True),
        ({"preserveDefaultVlan": True}, False, False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_configuration_wants_of_its_port(keys: dict[str, Any], hairpin: bool, vlans: bool) -> None:
    config = parse_config(make_request(ipam={"type": "host-local"}, **keys))
    assert (config.wants_hairpin, config.wants_vlans) == (hairpin, vlans)


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
        "portIsolation": "on",
        "vlan": "5",
        "vlanTrunk": {},
        "preserveDefaultVlan": 1,
        "macspoofchk": "true",
        "enabledad": 1,
        "disableContainerInterface": [],
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
        ({"bridge": "eleven-long", "vlan": 4094, "isGateway": True}, ["bridge: 'eleven-long' is too long"]),
        ({"vlan": -1}, ["vlan: -1 is not between 0 and 4094"]),
        ({"vlan": 4095}, ["vlan: 4095 is not between 0 and 4094"]),
        ({"vlan": True}, ["vlan: must be a whole number, not true"]),
        ({"vlan": 5.5}, ["vlan: must be a whole number, not 5.5"]),
        ({"vlanTrunk": [7]}, ["vlanTrunk[0]: must be an object, not 7"]),
        ({"vlanTrunk": [{}]}, ["vlanTrunk[0].id: is missing"]),
        ({"vlanTrunk": [{"id": 0}]}, ["vlanTrunk[0].id: 0 is not between 1 and 4094"]),
        ({"vlanTrunk": [{"id": 3}, {"id": 4095}]}, ["vlanTrunk[1].id: 4095 is not between 1 and 4094"]),
        ({"vlanTrunk": [{"id": "3"}]}, ["vlanTrunk[0].id: must be a whole number"]),
        ({"vlanTrunk": [{"minID": 3}]}, ["vlanTrunk[0].minID: must come with its other end"]),
        ({"vlanTrunk": [{"maxID": 3}]}, ["vlanTrunk[0].maxID: must come with its other end"]),
        ({"vlanTrunk": [{"minID": 4, "maxID": 3}]}, ["vlanTrunk[0].minID: 4 is greater than maxID 3"]),
        ({"vlanTrunk": [{"minID": 0, "maxID": 4095}]}, ["vlanTrunk[0].minID: 0", "vlanTrunk[0].maxID: 4095"]),
        (
            {"disableContainerInterface": True, "ipam": {"type": "host-local"}},
            ["disableContainerInterface", "ipam wants addresses"],
        ),
        ({"runtimeConfig": {"portMappings": [BASE]}}, ["runtimeConfig.portMappings", "no ipam"]),
        ({"agent": "agent.sock"}, ["agent: 'agent.sock' must be an absolute path"]),
        ({"agent": True}, ["agent: must be a string"]),
        ({"mtu": 1}, ["mtu: 1 is less than 68"]),
        ({"mtu": 67}, ["mtu: 67 is less than 68"]),
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
    ("entries", "words"),
    [
        ({}, ["portMappings: must be a list"]),
        ([8080], ["portMappings[0]: must be an object"]),
        ([{}], ["portMappings[0].hostPort: is missing", "portMappings[0].containerPort: is missing"]),
        ([BASE, {"hostPort": 81}], ["portMappings[1].containerPort: is missing"]),
        ([{**BASE, "hostPort": -1}], ["portMappings[0].hostPort: -1 is not between 0 and 65535"]),
        ([{"hostPort": 0}], ["portMappings[0].containerPort: is missing"]),
        ([{**BASE, "hostPort": 65536}], ["portMappings[0].hostPort: 65536"]),
        ([{**BASE, "containerPort": -1}], ["portMappings[0].containerPort: -1"]),
        ([{**BASE, "hostPort": "8080"}], ["portMappings[0].hostPort: must be a whole number"]),
        ([{**BASE, "hostPort": True}], ["portMappings[0].hostPort: must be a whole number"]),
        ([{**BASE, "protocol": "icmp"}], ["portMappings[0].protocol: 'icmp' is none of tcp, udp, sctp"]),
        ([{**BASE, "protocol": 6}], ["portMappings[0].protocol: must be a string"]),
        ([{**BASE, "hostIP": "localhost"}], ["portMappings[0].hostIP"]),
        ([{**BASE, "hostIP": "10.1.0.1/16"}], ["portMappings[0].hostIP"]),
        ([BASE, {**BASE, "containerPort": 81}], ["host port 8080/tcp leads to two ports"]),
        (
            [{**BASE, "hostIP": "0.0.0.0"}, {**BASE, "containerPort": 81, "hostIP": ""}],
            ["host port 8080/tcp leads to two ports"],
        ),
        ([BASE, {**BASE, "containerPort": 81, "hostIP": "::"}], ["host port 8080/tcp leads to two ports"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_port_mapping_is_reported_with_its_place(entries: Any, words: list[str]) -> None:
    with pytest.raises(CNIError) as caught:
        parse_config(make_request(ipam={"type": "host-local"}, runtimeConfig={"portMappings": entries}))
    assert caught.value.code == 7
    for word in words:
        assert word in caught.value.msg


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(CNIError) as caught:
        parse_config(
            make_request(
                bridge="a/b",
                mtu=67,
                vlan=4095,
                vlanTrunk=[{"id": 0}, {"minID": 3}],
                hairpinMode=True,
                promiscMode=True,
                disableContainerInterface=True,
                ipam={"type": "host-local"},
                runtimeConfig={"mac": "zz", "portMappings": [{"hostPort": -1, "protocol": "icmp"}]},
            )
        )
    assert caught.value.msg.startswith("invalid bridge configuration: ")
    places = [problem.split(":")[0] for problem in caught.value.msg.split(": ", 1)[1].split("; ")]
    assert sorted(places) == sorted(
        [
            "bridge",
            "mtu",
            "vlan",
            "vlanTrunk[0].id",
            "vlanTrunk[1].minID",
            "hairpinMode",
            "disableContainerInterface",
            "runtimeConfig.mac",
            "runtimeConfig.portMappings[0].hostPort",
            "runtimeConfig.portMappings[0].containerPort",
            "runtimeConfig.portMappings[0].protocol",
        ]
    )


@pytest.mark.parametrize(
    ("bridge", "keys"),
    [
        ("eleven-long", {"vlan": 999, "isGateway": True}),
        ("ten-bytes-", {"vlan": 4094, "isGateway": True}),
        ("fifteen-bytes-x", {"vlan": 4094}),
        ("fifteen-bytes-x", {"isGateway": True}),
    ],
    ids=["shorter VLAN", "shorter bridge", "no gateway", "no VLAN"],
)
def test_a_bridge_name_may_be_as_long_as_its_gateway_s_interface_allows(bridge: str, keys: dict[str, Any]) -> None:
    assert parse_config(make_request(bridge=bridge, **keys)).bridge == bridge


@pytest.mark.parametrize("backend", ["iptables", "firewalld", "NFTABLES"])
def test_a_backend_that_is_not_ours_is_an_unsupported_field(backend: str) -> None:
    with pytest.raises(CNIError, match=f"ipMasqBackend='{backend}' is not supported") as caught:
        parse_config(make_request(ipMasq=True, ipMasqBackend=backend))
    assert caught.value.code == 2


KNOWN: dict[str, Any] = {
    "bridge": "cni0",
    "isGateway": True,
    "isDefaultGateway": True,
    "forceAddress": True,
    "ipMasq": True,
    "ipMasqBackend": "nftables",
    "mtu": 1400,
    "hairpinMode": True,
    "promiscMode": False,
    "portIsolation": True,
    "vlan": 5,
    "vlanTrunk": [{"id": 7}, {"minID": 8, "maxID": 9}],
    "preserveDefaultVlan": False,
    "macspoofchk": True,
    "enabledad": True,
    "disableContainerInterface": False,
    "capabilities": {"mac": True, "portMappings": True},
    "runtimeConfig": {"mac": MAC, "portMappings": [BASE], "ips": ["10.1.0.9"]},
    "args": {"cni": {"mac": MAC}, "somebody": 1},
    "dns": {"nameservers": ["10.0.0.53"], "domain": "d", "search": ["s"], "options": ["o"]},
    "ipam": {"type": "host-local", "anything": 1},
    "example.org/key": 1,
    "cniVersions": ["1.0.0"],
    "disableCheck": True,
    "disableGC": True,
    "strict": True,
}


def test_strict_takes_every_known_key_and_those_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    parse_config(make_request(**KNOWN))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"isGatway": True}, ["isGatway=true is not known; did you mean 'isGateway'?"]),
        ({"hairPin": 1, "colour": "red"}, ["hairPin=1 is not known", 'colour="red" is not known']),
        ({"vlanTrunk": [{"id": 7, "maxIDs": 9}]}, ["vlanTrunk[0].maxIDs=9 is not known; did you mean 'maxID'?"]),
        ({"dns": {"nameserver": []}}, ["dns.nameserver=[] is not known; did you mean 'nameservers'?"]),
    ],
    ids=["typo", "two", "in a trunk", "in dns"],
)
def test_strict_refuses_unknown_keys_with_their_values(
    keys: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CNIError) as caught:
        parse_config(make_request(**{**KNOWN, **keys}))
    assert caught.value.code == 2
    for word in words:
        assert word in caught.value.msg
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"isGatway": True}, "cni-bridge: isGatway is not known; did you mean 'isGateway'?\n"),
        ({"portIsolated": True}, "cni-bridge: portIsolated is not known; did you mean 'portIsolation'?\n"),
        ({"colour": "red"}, ""),
        ({"ISGATEWAY": True}, ""),
        ({"example.org/isGatway": True}, ""),
    ],
    ids=["typo", "another typo", "somebody else's", "capitals", "with a domain"],
)
def test_a_typo_is_named_on_stderr(keys: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    parse_config(make_request(**keys))
    assert capsys.readouterr().err == expected


def test_a_del_is_not_strict() -> None:
    assert salvage_config(make_request("DEL", strict=True, isGatway=True, ipMasqBackend="iptables")) == DEFAULT


def test_a_del_keeps_the_mappings_that_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    mappings = [BASE, {"hostPort": -1, "containerPort": 1}]
    config = salvage_config(make_request("DEL", runtimeConfig={"portMappings": mappings}, vlan=9999))
    assert (config.port_mappings, config.vlan) == ((TCP,), 0)
    stderr = capsys.readouterr().err
    assert "cni-bridge: ignored on DEL: vlan: 9999" in stderr
    assert "runtimeConfig.portMappings[1].hostPort: -1" in stderr


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
