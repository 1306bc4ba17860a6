"""STATUS: each obstacle to an ADD is found on a throw-away host, and nothing is changed."""

import errno
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import sync
from cni_bridge.attachment_rules import sample_rules
from cni_bridge.config import parse_config
from cni_bridge.status import require_ready
from cni_kernel.netlink import NetlinkError, NetlinkSocket
from cni_kernel.nftables import Nftables
from cni_protocol.errors import CNIError
from tests.cni_bridge import make_request
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

GATEWAY = {"isGateway": True}
ALL = {
    "isGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
}


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    """Every test of this file runs inside its host, which forwards nothing."""
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.run("sh", "-c", f"echo 0 > /proc/sys/net/{path}")
    with host.entered():
        yield


def ask(**keys: Any) -> None:
    config = parse_config(make_request("STATUS", cniVersion="1.1.0", ipam={"type": "host-local"}, **keys))
    require_ready(config, sample_rules(config))


def add_bridge(host: Host, *addresses: str, up: bool = True, name: str = "cni0") -> None:
    host.run("ip", "link", "add", name, "type", "bridge")
    for address in addresses:
        host.run("ip", "address", "add", address, "dev", name)
    if up:
        host.run("ip", "link", "set", name, "up")


def switch_forwarding_on(host: Host, *versions: int) -> None:
    for version in versions:
        path = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}[version]
        host.run("sh", "-c", f"echo 1 > /proc/sys/net/{path}")


def state(host: Host) -> list[Any]:
    links = [(link["ifname"], "UP" in link["flags"], link["address"]) for link in host.ip("link")]
    sysctls = host.run("sh", "-c", "cd /proc/sys/net; cat ipv4/ip_forward ipv6/conf/all/forwarding").stdout
    return [links, host.nft(), sysctls]


@pytest.mark.parametrize("keys", [{}, GATEWAY, ALL], ids=["plain", "gateway", "everything"])
def test_an_empty_host_is_ready_and_stays_empty(host: Host, keys: dict[str, Any]) -> None:
    before = state(host)
    ask(**keys)
    assert state(host) == before
    assert host.link_names() == []
    assert host.nft() == []


@pytest.mark.parametrize(
    ("addresses", "versions", "keys"),
    [
        ([], [], {}),
        ([], [], GATEWAY),
        (["10.1.0.1/16"], [4], GATEWAY),
        (["10.1.0.1/16", "fd00:1::1/64"], [4, 6], GATEWAY),
        (["10.1.0.1/16"], [], {}),
        (["fe80::1234/64"], [], GATEWAY),
    ],
    ids=["plain", "no address yet", "IPv4", "both", "no gateway", "link-local"],
)
def test_a_host_that_works_is_ready(
    host: Host, addresses: list[str], versions: list[int], keys: dict[str, Any]
) -> None:
    add_bridge(host, *addresses)
    switch_forwarding_on(host, *versions)
    before = state(host)
    ask(**keys)
    assert state(host) == before


def refused(code: int, *words: str, **keys: Any) -> None:
    with pytest.raises(CNIError) as caught:
        ask(**keys)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.msg


@pytest.mark.parametrize(
    "obstacle",
    ["ip link add cni0 type veth peer name other", "ip link add other type veth peer name cni0"],
    ids=["veth", "other end"],
)
def test_a_bridge_name_that_is_taken_is_found(host: Host, obstacle: str) -> None:
    host.run(*obstacle.split())
    refused(50, "interface cni0 is there and is of kind veth")


def test_another_name_of_a_bridge_is_found(host: Host) -> None:
    host.run("ip", "link", "add", "longer", "type", "bridge")
    host.run("ip", "link", "property", "add", "dev", "longer", "altname", "cni0")
    refused(50, "cni0 is another name of longer")


def test_a_bridge_that_is_down_is_found(host: Host) -> None:
    add_bridge(host, up=False)
    refused(51, "bridge cni0 is down (`ip link set cni0 up`)")


@pytest.mark.parametrize(
    ("addresses", "on", "found", "not_found"),
    [
        (["10.1.0.1/16"], [], ["IPv4"], ["IPv6"]),
        (["10.1.0.1/16"], [6], ["IPv4"], ["IPv6"]),
        (["fd00:1::1/64"], [4], ["IPv6"], ["IPv4"]),
        (["10.1.0.1/16", "fd00:1::1/64"], [], ["IPv4", "IPv6"], []),
        (["10.1.0.1/16", "fd00:1::1/64"], [4], ["IPv6"], ["IPv4"]),
    ],
    ids=["IPv4", "only the other is on", "IPv6", "both", "one of both"],
)
def test_forwarding_that_was_switched_off_is_found(
    host: Host, addresses: list[str], on: list[int], found: list[str], not_found: list[str]
) -> None:
    add_bridge(host, *addresses)
    switch_forwarding_on(host, *on)
    with pytest.raises(CNIError) as caught:
        ask(**GATEWAY)
    assert caught.value.code == 51
    assert [f"forwarding of {name} is off" in caught.value.msg for name in found + not_found] == [True] * len(found) + [
        False
    ] * len(not_found)
    assert "sysctl -w net.ipv" in caught.value.msg


def test_a_bridge_that_is_down_and_forwarding_that_is_off_are_reported_together(host: Host) -> None:
    add_bridge(host, "10.1.0.1/16", up=False)
    refused(51, "bridge cni0 is down", "forwarding of IPv4 is off", **GATEWAY)


def test_the_gateway_of_a_vlan_is_looked_at(host: Host) -> None:
    add_bridge(host)
    add_bridge(host, "10.1.0.1/16", name="cni0.5")
    refused(51, "forwarding of IPv4 is off", vlan=5, **GATEWAY)
    ask(vlan=6, **GATEWAY)
    ask(**GATEWAY)


@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_kind_of_link_that_the_kernel_lacks_is_found(mocker: MockerFixture, kind: str) -> None:
    genuine = NetlinkSocket.send

    def send(sock: NetlinkSocket, messages: Any) -> list[bytes]:
        if any(kind.encode() in message.body for message in messages):
            raise NetlinkError(errno.EOPNOTSUPP, "Unknown device type", 0)
        return genuine(sock, messages)

    mocker.patch.object(NetlinkSocket, "send", send)
    refused(50, f"interfaces of kind {kind} cannot be made", "this kernel lacks it")


@pytest.mark.parametrize(
    ("keys", "matters"),
    [({}, False), (GATEWAY, False), ({"ipMasq": True}, True), ({"macspoofchk": True}, True)],
    ids=["plain", "gateway", "ipMasq", "macspoofchk"],
)
def test_a_kernel_without_nftables_is_found_when_it_matters(
    mocker: MockerFixture, keys: dict[str, Any], matters: bool
) -> None:
    mocker.patch.object(sync, "Nftables", side_effect=OSError(errno.EPROTONOSUPPORT, "Protocol not supported"))
    if matters:
        refused(50, "modules nf_tables", **keys)
    else:
        ask(**keys)


def test_a_kernel_that_refuses_the_rules_is_found(mocker: MockerFixture) -> None:
    mocker.patch.object(Nftables, "commit", side_effect=NetlinkError(errno.EOPNOTSUPP, "", 4))
    refused(50, "packet filter rules cannot be set", "Operation not supported", **ALL)


def test_no_right_is_found(mocker: MockerFixture) -> None:
    genuine = NetlinkSocket.send

    def send(sock: NetlinkSocket, messages: Any) -> list[bytes]:
        if any(message.kind == 16 for message in messages):  # RTM_NEWLINK
            raise NetlinkError(errno.EPERM, "", 0)
        return genuine(sock, messages)

    mocker.patch.object(NetlinkSocket, "send", send)
    refused(50, "run the plugin as root")


@pytest.mark.parametrize("version", [4, 6])
def test_bridged_packets_that_pass_no_packet_filter_are_told_of_or_refused(
    host: Host, version: int, capfd: pytest.CaptureFixture[str]
) -> None:
    key = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}[version]
    add_bridge(host, {4: "10.1.0.1/16", 6: "fd00:1::1/64"}[version])
    switch_forwarding_on(host, version)
    host.run("sh", "-c", f"echo 0 > /proc/sys/net/{key}")
    words = f"bridged IPv{version} packets pass no packet filter"
    ask(**GATEWAY)
    assert f"cni-bridge: {words}" in capfd.readouterr().err
    refused(51, words, f"sysctl -w net.{key.replace('/', '.')}=1", **GATEWAY, requireBridgeNetfilter=True)
    host.run("sh", "-c", f"echo 1 > /proc/sys/net/{key}")
    ask(**GATEWAY, requireBridgeNetfilter=True)
    assert capfd.readouterr().err == ""
