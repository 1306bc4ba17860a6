"""vlan, vlanTrunk, preserveDefaultVlan: by the bytes of the messages, and on a kernel that filters no VLANs.

What a kernel that does filter makes of it: test_vlan_kernel.py.
The kernel's side of the messages: include/uapi/linux/if_bridge.h, if_link.h and rtnetlink.h.
"""

import errno
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge.config import BridgeConfig, parse_config
from cni_bridge.plan import gateway_interface, list_vlans
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.netlink import ACK, Message, NetlinkError
from cni_kernel.values import Link, PortVlan, group_vlans
from cni_kernel.vlans import parse_vlans, vlan_message, vlan_query
from cni_protocol.errors import CNIError
from tests.kit.calls import make_request
from tests.kit.runtime import Runtime, without_bookkeeping
from tests.system.networks import layer_2, network, refused

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19  # RTM_*
AF_BRIDGE, NESTED = 7, 0x8000
IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_LINKINFO = 26, 29, 18
IFLA_BRIDGE_VLAN_INFO = 2
IFLA_BR_VLAN_FILTERING = 7
PVID, UNTAGGED, BEGIN, END = 1 << 1, 1 << 2, 1 << 3, 1 << 4  # BRIDGE_VLAN_INFO_*, the last two of a range
PORT = Link(7, "veth0", "veth", "", 1500, True, True, False, 3, 6, "", False, False, True, False)
BRIDGE = Link(3, "cni0", "bridge", "", 1500, True, True, False, 0, 0, "", False, False, False, False)


def parse(**keys: Any) -> BridgeConfig:
    request = make_request({"type": "cni-bridge"})
    return parse_config(request._replace(config={**request.config, **keys}))


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def ifinfmsg(family: int, index: int) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, 0, 0)


def vlan_info(vid: int, flags: int = 0) -> bytes:
    """A struct bridge_vlan_info in its attribute."""
    return attribute(IFLA_BRIDGE_VLAN_INFO, struct.pack("=HH", flags, vid))


def without_nested_flag(body: bytes) -> bytes:
    """The body of an AF_BRIDGE message with NLA_F_NESTED taken off its first attribute: it may be set or not."""
    head, (length, kind), rest = body[:16], struct.unpack_from("=HH", body, 16), body[20:]
    return head + struct.pack("=HH", length, kind & ~NESTED) + rest


# `bridge vlan add dev veth0 vid 100 pvid untagged` and the like, as iproute2 sends them (bridge/vlan.c)
@pytest.mark.parametrize(
    ("vlans", "infos"),
    [
        ([PortVlan(100, pvid=True, untagged=True)], vlan_info(100, PVID | UNTAGGED)),
        ([PortVlan(100)], vlan_info(100)),
        ([PortVlan(1, untagged=True)], vlan_info(1, UNTAGGED)),
        ([PortVlan(4094, pvid=True)], vlan_info(4094, PVID)),
        ([PortVlan(5), PortVlan(7)], vlan_info(5) + vlan_info(7)),
        ([PortVlan(5), PortVlan(6)], vlan_info(5, BEGIN) + vlan_info(6, END)),
        (
            [PortVlan(1, True, True), *(PortVlan(vid) for vid in range(2, 4095))],
            vlan_info(1, PVID | UNTAGGED) + vlan_info(2, BEGIN) + vlan_info(4094, END),
        ),
        (
            [PortVlan(5, False, True), PortVlan(6, False, True), PortVlan(7)],
            vlan_info(5, UNTAGGED | BEGIN) + vlan_info(6, UNTAGGED | END) + vlan_info(7),
        ),
    ],
    ids=["pvid-untagged", "tagged", "untagged", "pvid", "two", "range", "all", "untagged-range"],
)
@pytest.mark.parametrize("kind", [SETLINK, DELLINK])
def test_message_that_sets_or_deletes_vlans(kind: int, vlans: list[PortVlan], infos: bytes) -> None:
    message = vlan_message(kind, ACK, 7, vlans)
    assert (message.kind, message.flags) == (kind, ACK)
    assert without_nested_flag(message.body) == ifinfmsg(AF_BRIDGE, 7) + attribute(IFLA_AF_SPEC, infos)


def test_query_for_the_vlans_of_all_ports() -> None:
    # RTEXT_FILTER_BRVLAN_COMPRESSED
    assert vlan_query() == ifinfmsg(AF_BRIDGE, 0) + attribute(IFLA_EXT_MASK, struct.pack("=I", 1 << 2))


def reply(index: int, infos: bytes) -> bytes:
    """An RTM_NEWLINK of AF_BRIDGE as a kernel with VLAN filtering answers (br_fill_ifinfo)."""
    name = attribute(3, b"veth0\0")
    return ifinfmsg(AF_BRIDGE, index) + name + attribute(IFLA_AF_SPEC, infos)


@pytest.mark.parametrize(
    ("body", "vlans"),
    [
        (reply(7, vlan_info(1, PVID | UNTAGGED)), [PortVlan(1, True, True)]),
        (reply(7, vlan_info(5) + vlan_info(100, UNTAGGED)), [PortVlan(5), PortVlan(100, False, True)]),
        (
            reply(7, vlan_info(5, UNTAGGED | BEGIN) + vlan_info(7, UNTAGGED | END) + vlan_info(9)),
            [PortVlan(5, False, True), PortVlan(6, False, True), PortVlan(7, False, True), PortVlan(9)],
        ),
        (reply(7, b""), []),
        (ifinfmsg(AF_BRIDGE, 7), []),
    ],
    ids=["default", "several", "range", "none", "no-filtering"],
)
def test_answer_with_vlans_is_read(body: bytes, vlans: list[PortVlan]) -> None:
    assert parse_vlans(body) == (7, vlans)


class Recorder:
    """Stands in for the netlink socket: keeps what is sent, answers dumps with what it was given."""

    def __init__(self, replies: Sequence[bytes] = (), refusal: int = 0) -> None:
        self.replies = list(replies)
        self.refusal = refusal
        self.sent: list[Message] = []
        self.dumped: list[tuple[int, bytes]] = []

    def send(self, messages: Sequence[Message]) -> list[bytes]:
        self.sent += messages
        if self.refusal:
            raise NetlinkError(self.refusal, "", 0)
        return []

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        self.dumped.append((kind, body))
        return self.replies

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def record(mocker: MockerFixture) -> Callable[..., Recorder]:
    def start(*replies: bytes, refusal: int = 0) -> Recorder:
        recorder = Recorder(replies, refusal)
        mocker.patch("cni_kernel.kernel.NetlinkSocket", return_value=recorder)
        return recorder

    return start


def sent(recorder: Recorder) -> list[tuple[int, bytes]]:
    return [(message.kind, without_nested_flag(message.body)) for message in recorder.sent]


def port_message(infos: bytes) -> bytes:
    return ifinfmsg(AF_BRIDGE, 7) + attribute(IFLA_AF_SPEC, infos)


FRESH = reply(7, vlan_info(1, PVID | UNTAGGED))  # what a bridge gives to every new port
OTHERS = reply(8, vlan_info(50, PVID | UNTAGGED))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"vlan": 100}, [(DELLINK, vlan_info(1)), (SETLINK, vlan_info(100, PVID | UNTAGGED))]),
        (
            {"vlan": 100, "preserveDefaultVlan": True},
            [(SETLINK, vlan_info(1, UNTAGGED) + vlan_info(100, PVID | UNTAGGED))],
        ),
        (
            {"vlanTrunk": [{"id": 5}, {"minID": 10, "maxID": 11}]},
            [(SETLINK, vlan_info(5) + vlan_info(10, BEGIN) + vlan_info(11, END))],
        ),
        (
            {"vlan": 100, "vlanTrunk": [{"id": 5}]},
            [(DELLINK, vlan_info(1)), (SETLINK, vlan_info(5) + vlan_info(100, PVID | UNTAGGED))],
        ),
    ],
    ids=["vlan", "vlan-and-default", "trunk", "vlan-and-trunk"],
)
def test_fresh_port_is_put_into_exactly_its_vlans(
    record: Callable[..., Recorder], keys: dict[str, Any], expected: list[tuple[int, bytes]]
) -> None:
    recorder = record(FRESH, OTHERS)
    Kernel().set_vlans(PORT, list_vlans(parse(**keys)))
    assert recorder.dumped == [(GETLINK, vlan_query())]
    assert sent(recorder) == [(kind, port_message(infos)) for kind, infos in expected]
    assert {message.flags for message in recorder.sent} == {ACK}


def test_vlans_of_a_port_are_listed_without_those_of_others(record: Callable[..., Recorder]) -> None:
    record(OTHERS, FRESH, reply(7, vlan_info(100)))
    assert Kernel().list_vlans(PORT) == [PortVlan(1, True, True), PortVlan(100)]


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_bridge_is_told_to_filter(record: Callable[..., Recorder], on: bool) -> None:
    recorder = record()
    Kernel().filter_vlans(BRIDGE, on=on)
    [message] = recorder.sent
    assert (message.kind, message.flags) == (NEWLINK, ACK)
    assert message.body[:16] == ifinfmsg(0, 3)
    setting = attribute(IFLA_BR_VLAN_FILTERING, b"\1" if on else b"\0")
    kind, data = attribute(1, b"bridge\0"), attribute(2, setting)  # IFLA_INFO_KIND, IFLA_INFO_DATA
    nested_data = attribute(2 | NESTED, setting)
    bodies = [attribute(IFLA_LINKINFO | flag, kind + inner) for flag in (0, NESTED) for inner in (data, nested_data)]
    assert message.body[16:] in bodies


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
@pytest.mark.parametrize(
    "step",
    [lambda kernel: kernel.filter_vlans(BRIDGE), lambda kernel: kernel.set_vlans(PORT, [PortVlan(100)])],
    ids=["filter", "set"],
)
def test_refusal_names_the_feature(
    record: Callable[..., Recorder], step: Callable[[Kernel], None], number: int
) -> None:
    record(refusal=number)
    with pytest.raises(KernelError, match=r"^vlan: .*CONFIG_BRIDGE_VLAN_FILTERING") as caught:
        step(Kernel())
    assert caught.value.errno == number


NATIVE = PortVlan(1, pvid=True, untagged=True)


@pytest.mark.parametrize(
    ("keys", "vlans"),
    [
        ({}, ()),
        ({"vlan": 0}, ()),
        ({"preserveDefaultVlan": True}, ()),
        ({"vlan": 100}, (PortVlan(100, True, True),)),
        ({"vlan": 1, "preserveDefaultVlan": True}, (NATIVE,)),
        ({"vlan": 100, "preserveDefaultVlan": True}, (PortVlan(1, False, True), PortVlan(100, True, True))),
        ({"vlanTrunk": []}, ()),
        ({"vlanTrunk": [{"id": 5}]}, (NATIVE, PortVlan(5))),
        ({"vlanTrunk": [{"id": 1}, {"id": 5}]}, (NATIVE, PortVlan(5))),
        ({"vlanTrunk": [{"minID": 5, "maxID": 7}, {"id": 6}]}, (NATIVE, PortVlan(5), PortVlan(6), PortVlan(7))),
        ({"vlanTrunk": [{"id": 9, "minID": 5, "maxID": 5}]}, (NATIVE, PortVlan(5), PortVlan(9))),
        ({"vlan": 6, "vlanTrunk": [{"minID": 5, "maxID": 6}]}, (PortVlan(5), PortVlan(6, True, True))),
        (
            {"vlan": 6, "vlanTrunk": [{"id": 1}], "preserveDefaultVlan": True},
            (PortVlan(1), PortVlan(6, True, True)),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_vlans_of_a_configuration(keys: dict[str, Any], vlans: tuple[PortVlan, ...]) -> None:
    assert list_vlans(parse(**keys)) == vlans


def test_whole_trunk() -> None:
    vlans = list_vlans(parse(vlanTrunk=[{"minID": 1, "maxID": 4094}]))
    assert [vlan.vid for vlan in vlans] == list(range(1, 4095))
    assert [vlan for vlan in vlans if vlan.pvid] == [NATIVE]


@pytest.mark.parametrize(
    ("vlans", "ranges"),
    [
        ([], []),
        ([PortVlan(5)], [(5, 5)]),
        ([PortVlan(5), PortVlan(6), PortVlan(7), PortVlan(9), PortVlan(10)], [(5, 7), (9, 10)]),
        ([PortVlan(5), PortVlan(6, True, True), PortVlan(7)], [(5, 5), (6, 6), (7, 7)]),
        ([PortVlan(5, False, True), PortVlan(6, False, True)], [(5, 6)]),
    ],
    ids=["none", "one", "two-ranges", "pvid-between", "untagged"],
)
def test_neighbours_with_the_same_flags_are_a_range(vlans: list[PortVlan], ranges: list[tuple[int, int]]) -> None:
    grouped = group_vlans(vlans)
    assert [(first.vid, last.vid) for first, last in grouped] == ranges
    assert all(first[1:] == last[1:] for first, last in grouped)
    assert {first for first, _ in grouped} | {last for _, last in grouped} <= set(vlans)


@pytest.mark.parametrize(
    ("keys", "interface"), [({}, "cni0"), ({"vlan": 100}, "cni0.100"), ({"vlanTrunk": [{"id": 5}]}, "cni0")]
)
def test_interface_of_the_gateway(keys: dict[str, Any], interface: str) -> None:
    assert gateway_interface(parse(**keys)) == interface


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"vlan": -1}, ["vlan", "-1"]),
        ({"vlan": 4095}, ["vlan", "4095", "4094"]),
        ({"vlan": "100"}, ["vlan", '"100"']),
        ({"vlan": True}, ["vlan", "true"]),
        ({"vlan": 1.5}, ["vlan", "1.5"]),
        ({"vlanTrunk": {"id": 1}}, ["vlanTrunk"]),
        ({"vlanTrunk": [5]}, ["vlanTrunk[0]", "5"]),
        ({"vlanTrunk": [{}]}, ["vlanTrunk[0].id", "missing"]),
        ({"vlanTrunk": [{"id": 0}]}, ["vlanTrunk[0].id", "0"]),
        ({"vlanTrunk": [{"id": 1}, {"id": 4095}]}, ["vlanTrunk[1].id", "4095"]),
        ({"vlanTrunk": [{"minID": 5}]}, ["vlanTrunk[0].minID"]),
        ({"vlanTrunk": [{"maxID": 5}]}, ["vlanTrunk[0].maxID"]),
        ({"vlanTrunk": [{"minID": 7, "maxID": 5}]}, ["vlanTrunk[0].minID", "7", "5"]),
        ({"vlanTrunk": [{"minID": 0, "maxID": 5}]}, ["vlanTrunk[0].minID", "0"]),
        ({"vlanTrunk": [{"minID": 5, "maxID": 10**30}]}, ["vlanTrunk[0].maxID"]),
        ({"preserveDefaultVlan": 1}, ["preserveDefaultVlan", "1"]),
        ({"bridge": "averylongname", "vlan": 100, "isGateway": True}, ["averylongname.100"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_vlans_are_errors_of_the_configuration(keys: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CNIError) as caught:
        parse(**keys)
    assert caught.value.code == 7
    for word in words:
        assert word in caught.value.msg


def _filters_vlans(runtime: Runtime) -> bool:
    """Whether this kernel's bridges can filter VLANs, as ip(8) finds out."""
    host = runtime.host
    host.run("ip", "link", "add", "probe", "type", "bridge")
    done = host.run("ip", "link", "set", "probe", "type", "bridge", "vlan_filtering", "1", check=False)
    host.run("ip", "link", "delete", "probe")
    return done.returncode == 0


@pytest.mark.kernel
@pytest.mark.parametrize("make", [network, layer_2], ids=["gateway", "layer-2"])
@pytest.mark.parametrize("keys", [{"vlan": 100}, {"vlanTrunk": [{"id": 5}]}], ids=["vlan", "vlanTrunk"])
@pytest.mark.parametrize("bridge_is_there", [False, True], ids=["fresh-bridge", "bridge-in-use"])
def test_kernel_without_vlan_filtering_is_named_and_nothing_is_left(
    bridge: Runtime, snapshot: Callable[[], Any], make: Any, keys: dict[str, Any], bridge_is_there: bool
) -> None:
    if bridge_is_there:
        bridge.add("c0", make())
    bridge.host.add_container("c1")
    able = _filters_vlans(bridge)
    before = snapshot()
    if able:  # then VLANs keep to themselves
        bridge.add("c1", make(**keys))
        bridge.check("c1", make(**keys))
        bridge.delete("c1", make(**keys))
        return
    error = refused(bridge, "ADD", "c1", make(**keys))
    assert error["code"] == 100
    assert "vlan" in error["msg"]
    assert "CONFIG_BRIDGE_VLAN_FILTERING" in error["msg"]
    assert without_bookkeeping(snapshot()) == without_bookkeeping(before)
    assert bridge.call("DEL", "c1", make(**keys)) == (0, None, "", "")
