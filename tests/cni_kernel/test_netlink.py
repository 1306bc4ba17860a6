"""The netlink socket: batches, refusals in the kernel's own words, dumps of many objects."""

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from pytest_mock import MockerFixture

from cni_kernel import netlink
from cni_kernel.netlink import ACK, ANSWERS, CREATE, EXCL, NETFILTER, ROUTE, Message, NetlinkError, NetlinkSocket
from cni_kernel.rtnetlink import link_info, link_message, parse_link
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

NEWLINK, DELLINK, GETLINK = 16, 17, 18
DONE, MULTI, DUMP_INTR = 3, 0x2, 0x10  # NLMSG_DONE, NLM_F_MULTI, NLM_F_DUMP_INTR
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


def test_a_query_is_answered_or_refused_without_an_acknowledgement(host: Host, sock: NetlinkSocket) -> None:
    host.run("ip", "link", "add", "br0", "type", "bridge")
    for _ in range(2):
        asked = link_message(GETLINK, 0, [("IFLA_IFNAME", "br0")])
        assert parse_link(sock.ask(asked.kind, asked.body)).name == "br0"
        with pytest.raises(NetlinkError) as caught:
            sock.ask(GETLINK, link_message(GETLINK, 0, [("IFLA_IFNAME", "none")]).body)
        assert caught.value.errno == errno.ENODEV


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


def test_a_list_that_is_closed_early_is_read_to_its_end(host: Host, sock: NetlinkSocket) -> None:
    sock.send([bridge_message(f"br{number}") for number in range(150)])
    query = link_message(GETLINK, 0, []).body
    listed = sock.iterate(GETLINK, query)
    next(listed)
    listed.close()
    assert len(list(sock.iterate(GETLINK, query))) == 151


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
    impatient = mocker.patch.object(NetlinkSocket, "_receive", side_effect=TimeoutError)
    with pytest.raises(TimeoutError):
        sock.ask(GETLINK, link_message(GETLINK, 0, [("IFLA_IFNAME", "lo")]).body)
    mocker.stop(impatient)
    assert parse_link(sock.ask(GETLINK, link_message(GETLINK, 0, [("IFLA_IFNAME", "br0")]).body)).name == "br0"


def test_a_refused_dump_raises(sock: NetlinkSocket) -> None:
    with pytest.raises(NetlinkError, match="Filter by device index not supported") as caught:
        sock.dump(GETLINK, link_message(GETLINK, 0, [], ifindex=1).body)
    assert caught.value.errno == errno.EINVAL


def test_a_protocol_that_the_kernel_lacks_is_an_oserror() -> None:
    with pytest.raises(OSError) as caught:
        NetlinkSocket(31)
    assert caught.value.errno == errno.EPROTONOSUPPORT


def alias_message(alias: str, *, ifindex: int = 1) -> Message:
    return link_message(NEWLINK, ACK, [("IFLA_IFALIAS", alias)], ifindex=ifindex)


def alias_of(host: Host) -> str:
    return str(host.ip("link", "show", "lo")[0]["ifalias"])


def test_far_more_messages_than_the_buffer_holds_answers_to_are_all_answered(host: Host, sock: NetlinkSocket) -> None:
    assert sock.send([alias_message(f"number {number}") for number in range(10000)]) == []
    assert alias_of(host) == "number 9999"


def test_the_first_of_many_refusals_is_raised_and_no_further_portion_sent(host: Host, sock: NetlinkSocket) -> None:
    messages = [alias_message(str(number), ifindex=99 if number >= 300 else 1) for number in range(1000)]
    with pytest.raises(NetlinkError) as caught:
        sock.send([*messages, alias_message("the end")])
    assert (caught.value.errno, caught.value.index) == (errno.ENODEV, 300)
    assert alias_of(host) == "299"


def test_all_of_many_may_be_tried_and_every_refusal_told(host: Host, sock: NetlinkSocket) -> None:
    refused = [0, 127, 128, 300, 999]
    messages = [alias_message(str(number), ifindex=99 if number in refused else 1) for number in range(1000)]
    refusals = sock.send_all([*messages, alias_message("the end")])
    assert [(refusal.errno, refusal.index) for refusal in refusals] == [(errno.ENODEV, number) for number in refused]
    assert alias_of(host) == "the end"
    assert sock.send_all([]) == []


@pytest.mark.parametrize("number", [ANSWERS, ANSWERS + 1])
def test_as_much_as_can_be_answered_goes_in_one_system_call(
    sock: NetlinkSocket, mocker: MockerFixture, number: int
) -> None:
    exchange = mocker.spy(NetlinkSocket, "_exchange")
    sock.send([alias_message("a")] * number)
    assert exchange.call_count == (1 if number == ANSWERS else 2)


def test_messages_that_ask_for_no_answer_stay_in_one_portion(host: Host) -> None:
    with host.entered():
        sock = NetlinkSocket(NETFILTER)
    try:
        edge = b"\0\0\0\x0a"
        table = b"\1\0\0\0" + struct.pack("=HH", 10, 1) + b"pycni\0\0\0"
        tables = [Message(NEW_TABLE, CREATE, table)] * 20000  # far more than the send buffer holds by itself
        sock.send([Message(0x10, 0, edge), *tables, Message(NEW_TABLE, CREATE | ACK, table), Message(0x11, 0, edge)])
    finally:
        sock.close()
    assert [entry["table"]["name"] for entry in host.nft()] == ["pycni"]


def test_without_the_right_to_force_it_the_buffer_is_enlarged_as_far_as_it_may(
    sock: NetlinkSocket, mocker: MockerFixture
) -> None:
    asked = []

    def setsockopt(level: int, option: int, size: int) -> None:
        asked.append((level, option, size))
        if option == 32:  # SO_SNDBUFFORCE
            raise PermissionError(errno.EPERM, "Operation not permitted")

    mocker.patch.object(sock, "_socket", mocker.Mock(setsockopt=setsockopt, close=sock._socket.close))
    sock._make_room(1 << 16)
    assert asked == []
    sock._make_room(1 << 20)
    assert asked == [(socket.SOL_SOCKET, 32, 1 << 20), (socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)]


@pytest.mark.parametrize("interrupted", [1, netlink._DUMP_TRIES - 1, netlink._DUMP_TRIES])
def test_a_list_that_changed_meanwhile_is_read_again_and_never_told_in_part(
    sock: NetlinkSocket, mocker: MockerFixture, interrupted: int
) -> None:
    genuine = NetlinkSocket._receive
    left = [interrupted]

    def receive(self: NetlinkSocket) -> Iterator[tuple[int, int, int, bytes]]:
        for kind, flags, sequence, body in genuine(self):
            changed = DUMP_INTR if left[0] > 0 else 0
            left[0] -= kind == DONE
            yield kind, flags | changed, sequence, body

    mocker.patch.object(NetlinkSocket, "_receive", receive)
    request = link_message(GETLINK, 0, []).body
    if interrupted == netlink._DUMP_TRIES:
        with pytest.raises(NetlinkError, match="the list changed while it was read") as caught:
            sock.dump(GETLINK, request)
        assert caught.value.errno == errno.EINTR
    else:
        assert [parse_link(reply).name for reply in sock.dump(GETLINK, request)] == ["lo"]
    assert left == [0 if interrupted == netlink._DUMP_TRIES else -1]


def test_an_answer_that_does_not_fit_is_an_error_and_not_parsed(sock: NetlinkSocket, mocker: MockerFixture) -> None:
    [whole] = sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", "lo")])])
    mocker.patch.object(netlink, "RECEIVE_BYTES", len(whole))
    with pytest.raises(OSError, match=f"an answer of {len(whole) + 16} bytes, where at most") as caught:
        sock.send([link_message(GETLINK, ACK, [("IFLA_IFNAME", "lo")])])
    assert caught.value.errno == errno.EBADMSG


HEADER = struct.Struct("=IHHII")


@pytest.mark.parametrize(
    "datagram",
    [
        HEADER.pack(17, 16, 0, 1, 0),
        HEADER.pack(15, 16, 0, 1, 0),
        HEADER.pack(0, 16, 0, 1, 0),
        b"\x10\0\0\0",
        HEADER.pack(16, 16, 0, 1, 0) + HEADER.pack(20, 16, 0, 1, 0),
    ],
    ids=["longer than it is", "shorter than a header", "empty", "no header", "the second"],
)
def test_a_message_that_is_cut_off_is_an_error_and_not_parsed(
    sock: NetlinkSocket, mocker: MockerFixture, datagram: bytes
) -> None:
    def receive(*_: int) -> bytes:
        return datagram

    genuine = sock._socket
    mocker.patch.object(sock, "_socket", mocker.Mock(recv=receive, send=genuine.send, close=genuine.close))
    with pytest.raises(OSError, match="a message said to have") as caught:
        sock.dump(GETLINK, link_message(GETLINK, 0, []).body)
    assert caught.value.errno == errno.EBADMSG


# What stands in NLMSG_ERROR (2) and NLMSG_DONE (3), with the flags NLM_F_CAPPED (0x100) and NLM_F_ACK_TLVS (0x200)
REFUSED = HEADER.pack(17, 16, 0, 1, 0) + b"x\0\0\0"  # a message of 17 bytes, padded
OFFSET = struct.pack("=HHI", 8, 2, 20)  # NLMSGERR_ATTR_OFFS
ODD = struct.pack("=HH", 5, 9) + b"y\0\0\0"  # an attribute that is padded
WORDS = struct.pack("=HH", 10, 1) + b"words\0\0\0"  # NLMSGERR_ATTR_MSG


@pytest.mark.parametrize(
    ("kind", "flags", "body", "words"),
    [
        (2, 0x200, REFUSED + OFFSET + WORDS, " (words)"),
        (2, 0x300, HEADER.pack(999, 16, 0, 1, 0) + ODD + WORDS, " (words)"),
        (3, 0x200, OFFSET + WORDS, " (words)"),
        (2, 0x200, REFUSED + WORDS + OFFSET, " (words)"),
        (2, 0x200, REFUSED + OFFSET, ""),
        (2, 0x200, REFUSED + b"\0\0\0\0" + WORDS, " (words)"),
        (2, 0, REFUSED + WORDS, ""),
        (3, 0x200, b"", ""),
    ],
    ids=["whole", "capped", "end of a list", "first", "none", "an attribute without a length", "not announced", "bare"],
)
def test_the_kernels_words_are_found_behind_what_was_refused(kind: int, flags: int, body: bytes, words: str) -> None:
    refusal = netlink._refusal(kind, struct.pack("=i", -errno.EPERM) + body, flags, 7)
    assert refusal is not None
    assert (refusal.errno, refusal.index, refusal.strerror) == (errno.EPERM, 7, os.strerror(errno.EPERM) + words)


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0" + REFUSED])
def test_no_errno_is_no_refusal(body: bytes) -> None:
    assert netlink._refusal(2, body, 0x200, 0) is None
