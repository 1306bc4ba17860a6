"""Many interfaces removed together, on the real kernel: all of them, and nobody else's."""

import errno
import os
from collections.abc import Callable, Iterator

import pytest
from pytest_mock import MockerFixture

from cni_kernel.kernel import Kernel
from cni_kernel.link_groups import delete_links
from cni_kernel.netlink import Message, NetlinkError, NetlinkSocket
from cni_kernel.rtnetlink import parse_group
from cni_kernel.values import Link
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

DELLINK = 17


@pytest.fixture
def kernel(host: Host) -> Iterator[Kernel]:
    """The kernel as the host sees it, in which the test runs."""
    with host.entered(), Kernel() as opened:
        yield opened


def make_pairs(host: Host, number: int) -> None:
    """Veth pairs v0, v1, ... whose other ends are a container's."""
    host.add_container("c1")
    lines = [f"link add v{i} type veth peer name e{i} netns c1\n" for i in range(number)]
    host.run("ip", "-batch", "-", input="".join(lines))


def links_of(kernel: Kernel, *names: str) -> list[Link]:
    return [link for link in kernel.list_links() if link.kind == "veth" and (not names or link.name in names)]


@pytest.mark.parametrize("number", [0, 1, 2, 300])
def test_exactly_these_are_removed(host: Host, kernel: Kernel, number: int) -> None:
    make_pairs(host, number + 2)
    staying = ["v0", "v1"]
    assert delete_links([link for link in links_of(kernel) if link.name not in staying]) == []
    assert host.link_names() == staying
    assert [link["group"] for link in host.ip("link", "show", "type", "veth")] == ["default"] * 2


def test_both_ends_of_a_pair_may_be_among_them(host: Host, kernel: Kernel) -> None:
    for number in range(3):
        host.run("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", f"w{number}")
    assert delete_links(links_of(kernel)) == []
    assert host.link_names() == []


def test_one_that_has_gone_meanwhile_is_fine(host: Host, kernel: Kernel) -> None:
    make_pairs(host, 4)
    links = links_of(kernel)
    host.run("ip", "link", "delete", "v2")
    assert delete_links(links) == []
    assert host.link_names() == []


def test_many_go_in_a_few_requests(host: Host, kernel: Kernel, mocker: MockerFixture) -> None:
    make_pairs(host, 250)
    sent = mocker.spy(NetlinkSocket, "send")
    assert delete_links(links_of(kernel)) == []
    kinds = [message.kind for call in sent.call_args_list for message in call.args[1]]
    assert kinds == [DELLINK] * 2


def test_an_interface_that_cannot_be_removed_is_named_and_the_others_go(host: Host, kernel: Kernel) -> None:
    make_pairs(host, 3)
    assert [str(error) for error in delete_links([*links_of(kernel), kernel.get_link("lo")])] == [
        "interface lo cannot be removed: Operation not supported"
    ]
    assert host.link_names() == []


def test_a_group_that_somebody_else_has_a_member_in_is_not_deleted(
    host: Host, kernel: Kernel, mocker: MockerFixture
) -> None:
    make_pairs(host, 4)
    mocker.patch.object(os, "urandom", return_value=b"\0\0\7")
    host.run("ip", "link", "set", "v3", "group", str(8 << 7))
    assert delete_links(links_of(kernel, "v0", "v1", "v2")) == []
    assert host.link_names() == ["v3"]


@pytest.mark.parametrize("refused", ["the group", "the mark"])
def test_what_cannot_be_done_together_is_done_one_by_one(
    host: Host, kernel: Kernel, mocker: MockerFixture, refused: str
) -> None:
    make_pairs(host, 3)
    links = links_of(kernel)
    genuine_all, genuine = NetlinkSocket.send_all, NetlinkSocket.send

    def send_all(sock: NetlinkSocket, messages: list[Message]) -> list[NetlinkError]:
        if refused == "the mark" and messages[0].kind != DELLINK:
            return [NetlinkError(errno.EPERM, "", 1), *genuine_all(sock, [messages[0], messages[2]])]
        return genuine_all(sock, messages)

    def send(sock: NetlinkSocket, messages: list[Message]) -> list[bytes]:
        if refused == "the group" and messages[0].kind == DELLINK:
            raise NetlinkError(errno.EOPNOTSUPP, "", 0)
        return genuine(sock, messages)

    mocker.patch.object(NetlinkSocket, "send_all", send_all)
    mocker.patch.object(NetlinkSocket, "send", send)
    assert delete_links(links) == []
    assert host.link_names() == []


@pytest.mark.parametrize("group", [0, 7, 0xFFFFFFF])
def test_the_group_of_a_link_is_read(host: Host, kernel: Kernel, mocker: MockerFixture, group: int) -> None:
    host.run("ip", "link", "set", "lo", "group", str(group))
    found: list[tuple[int, int]] = []
    dump: Callable[..., list[bytes]] = NetlinkSocket.dump

    def keep(sock: NetlinkSocket, kind: int, body: bytes) -> list[bytes]:
        replies = dump(sock, kind, body)
        found.extend(map(parse_group, replies))
        return replies

    mocker.patch.object(NetlinkSocket, "dump", keep)
    kernel.list_links()
    assert found == [(1, group)]
