"""Transactions on a whole table, byte by byte; that the kernel takes them is tested where they are used."""

import struct
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel import nft_tables
from cni_kernel.netlink import ACK, Message
from cni_kernel.nft_tables import TableSocket

EDGE = bytes([0, 0, 0, 10])  # struct nfgenmsg: AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)
FIRST, LAST = Message(0xA00, 1, b"first"), Message(0xA01, 2, b"last")


@pytest.fixture
def socket(mocker: MockerFixture) -> Any:
    """A netlink socket that notes what it is to send."""
    return mocker.patch.object(nft_tables, "NetlinkSocket").return_value


@pytest.mark.parametrize(
    ("generation", "condition"),
    [
        pytest.param(None, b"", id="of any generation"),
        pytest.param(7, struct.pack("=HH", 8, 1) + bytes([0, 0, 0, 7]), id="of one"),  # NFNL_BATCH_GENID
    ],
)
def test_a_transaction_has_edges_and_its_last_message_is_answered(
    socket: Any, generation: int | None, condition: bytes
) -> None:
    TableSocket("t").commit([FIRST, LAST], generation)
    begin, end = Message(0x10, 0, EDGE + condition), Message(0x11, 0, EDGE)  # NFNL_MSG_BATCH_BEGIN, _END
    [((sent,), _)] = socket.send.call_args_list
    assert sent == [begin, FIRST, LAST._replace(flags=2 | ACK), end]


def test_the_generation_is_asked_for(socket: Any) -> None:
    socket.send.return_value = [bytes(4) + struct.pack("=HH", 8, 1) + bytes([0, 0, 1, 2])]  # NFTA_GEN_ID
    assert TableSocket("t").generation() == 258
    [(([asked],), _)] = socket.send.call_args_list
    assert asked == Message(10 << 8 | 16, ACK, bytes([1, 0, 0, 0]))  # NFT_MSG_GETGEN of NFPROTO_INET


def test_an_open_socket_knows_its_port_and_is_closed(socket: Any) -> None:
    table = TableSocket("t")
    assert table.port is socket.port
    table.close()
    socket.close.assert_called_once_with()
