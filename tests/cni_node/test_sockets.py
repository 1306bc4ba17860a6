"""The sockets of the node's program on the kernel: a failure leaves none open, and announcements have room to wait."""

import os
import socket
from collections.abc import Iterator

import pytest
from pyroute2.netlink import rtnl

from cni_node.agent import watch
from cni_node.readiness import probe
from cni_protocol.address import parse_ip
from tests.kit.host import Host

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    """Every test of this file runs inside its host."""
    with host.entered():
        yield


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("own", ["192.0.2.1", "2001:db8::1"])
def test_a_probe_from_an_address_that_is_not_ours_leaves_nothing_open(own: str) -> None:
    before = open_files()
    with pytest.raises(OSError, match="Cannot assign") as caught:  # its traceback holds the socket
        probe._open(parse_ip(own))
    assert (open_files(), caught.type) == (before, OSError)


def test_a_watch_that_cannot_be_set_up_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SO_RCVBUFFORCE", 9999)
    before = open_files()
    with pytest.raises(OSError, match="Protocol not available") as caught:
        watch._open(socket.NETLINK_ROUTE, 1)
    assert (open_files(), caught.type) == (before, OSError)


def test_a_watch_hears_what_it_should_and_has_room_for_it() -> None:
    with watch._open(socket.NETLINK_ROUTE, watch._GROUPS) as sock:
        wanted = ("LINK", "NEIGH", "IPV4_IFADDR", "IPV4_ROUTE", "IPV6_IFADDR", "IPV6_ROUTE")
        assert sock.getsockname()[1] == sum(getattr(rtnl, f"RTMGRP_{name}") for name in wanted)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 4 << 20
