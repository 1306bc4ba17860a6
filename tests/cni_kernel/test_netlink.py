"""The netlink socket: batches, refusals in the kernel's own words, dumps of many objects."""

import errno
import os
import struct
from collections.abc import Iterator

import pytest
from pytest_mock import MockerFixture

from cni_kernel.netlink import ACK, CREATE, EXCL, NETFILTER, ROUTE, Message, NetlinkError, NetlinkSocket
from cni_kernel.rtnetlink import link_info, link_message, parse_link
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEW_TABLE = 10 << 8  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWTABLE


@pytest.fixture
def sock(host: Host) -> Iterator[NetlinkSocket]:
    """A socket of the host."""
    with host.entered():
        opened = NetlinkSocket(ROUTE)
    yield opened
    opened.close()


def bridge_message(name: str, flags: int = CREATE | EXCL | ACK, mtu: int = 1500) -> Message:
    return link_message(NEWLINK, flags, [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), link_info("bridge")])


def test_a_socket_stays_with_the_namespace_it_was_opened_in(host: Host, sock: NetlinkSocket) -> None:
    sock.send([bridge_message("br0")])
    assert host.link_names() == ["br0"]
    assert not os.path.exists("/sys/class/net/br0")


def test_a_batch_is_answered_as_a_whole(host: Host, sock: NetlinkSocket) -> None:
    assert sock.send([bridge_message("br0"), bridge_message("br1")]) == []
    assert host.link_names() == ["br0", "br1"]


def test_an_answer_comes_back_beside_the_acknowledgement(host: Host, sock: NetlinkSocket) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    [reply] = sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", "br0")])])
    assert parse_link(reply).name == "br0"


def test_a_refusal_in_a_batch_names_its_place_and_the_rest_is_done(host: Host, sock: NetlinkSocket) -> None:
    batch = [bridge_message("br0"), bridge_message("br0"), bridge_message("br1"), bridge_message("br1")]
    with pytest.raises(NetlinkError) as caught:
        sock.send(batch)
    assert (caught.value.errno, caught.value.index) == (errno.EEXIST, 1)
    assert host.link_names() == ["br0", "br1"]


def test_the_socket_is_usable_after_a_refusal(host: Host, sock: NetlinkSocket) -> None:
    for _ in range(3):
        with pytest.raises(NetlinkError):
            sock.send([link_message(DELLINK, ACK, [("IFLA_IFNAME", "none")])])
        [reply] = sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", "lo")])])
        assert parse_link(reply).name == "lo"


def test_a_refusal_carries_the_kernels_own_words(sock: NetlinkSocket) -> None:
    with pytest.raises(NetlinkError) as caught:
        sock.send([bridge_message("br0", mtu=70000)])
    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror == f"{os.strerror(errno.EINVAL)} (mtu greater than device maximum)"


def test_a_refusal_without_words_has_those_of_its_errno(sock: NetlinkSocket) -> None:
    with pytest.raises(NetlinkError) as caught:
        sock.send([link_message(DELLINK, ACK, [("IFLA_IFNAME", "none")])])
    assert (caught.value.errno, caught.value.strerror) == (errno.ENODEV, os.strerror(errno.ENODEV))


def test_a_refused_beginning_of_a_batch_stands_for_all_of_it(host: Host) -> None:
    with host.entered():
        sock = NetlinkSocket(NETFILTER)
    try:
        # a generation that the rule set has not: the kernel answers the beginning alone, which asks for no answer
        begin = Message(0x10, 0, struct.pack("!BBH", 0, 0, 10) + struct.pack("=HH", 8, 1) + struct.pack("!I", 1 << 30))
        with pytest.raises(NetlinkError) as caught:
            sock.send([begin, Message(NEW_TABLE, ACK, b"\1\0\0\0"), Message(0x11, 0, b"\0\0\0\x0a")])
        assert caught.value.errno == errno.ERESTART
    finally:
        sock.close()


def test_a_dump_of_many_lists_every_one_once(host: Host, sock: NetlinkSocket) -> None:
    names = [f"br{number}" for number in range(300)]
    sock.send([bridge_message(name) for name in names[:150]])
    sock.send([bridge_message(name) for name in names[150:]])
    found = [parse_link(reply).name for reply in sock.dump(GETLINK, link_message(GETLINK, 0, []).body)]
    assert sorted(found) == sorted(["lo", *names])
    assert sorted(host.link_names()) == sorted(names)


def test_a_late_answer_to_a_request_that_was_given_up_is_passed_over(
    host: Host, sock: NetlinkSocket, mocker: MockerFixture
) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    impatient = mocker.patch.object(NetlinkSocket, "_receive", side_effect=TimeoutError)
    for name in ("none", "lo"):
        with pytest.raises(TimeoutError):
            sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", name)])])
    mocker.stop(impatient)
    replies = sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", "br0")])])
    assert [parse_link(reply).name for reply in replies] == ["br0"]
    impatient = mocker.patch.object(NetlinkSocket, "_receive", side_effect=TimeoutError)
    with pytest.raises(TimeoutError):
        sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", "none")])])
    mocker.stop(impatient)
    listed = sock.dump(GETLINK, link_message(GETLINK, 0, []).body)
    assert [parse_link(reply).name for reply in listed] == ["lo", "br0"]


def test_a_refused_dump_raises(sock: NetlinkSocket) -> None:
    with pytest.raises(NetlinkError, match="Filter by device index not supported") as caught:
        sock.dump(GETLINK, link_message(GETLINK, 0, [], ifindex=1).body)
    assert caught.value.errno == errno.EINVAL


def test_a_protocol_that_the_kernel_lacks_is_an_oserror() -> None:
    with pytest.raises(OSError) as caught:
        NetlinkSocket(31)
    assert caught.value.errno == errno.EPROTONOSUPPORT
