"""An interface that is removed by a child: gone for everybody when the call returns, whatever becomes of the child."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel import departure
from cni_kernel.departure import remove_link
from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.netlink import NetlinkSocket
from cni_kernel.values import Link
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel

ROUNDS = 5


@pytest.fixture
def kernel(host: Host) -> Iterator[Kernel]:
    """The kernel as the host sees it, in which the test runs."""
    host.add_container("c1")
    host.run("ip", "link", "add", "br0", "type", "bridge")
    with host.entered(), Kernel() as opened:
        yield opened


@pytest.fixture(autouse=True)
def children(mocker: MockerFixture) -> Iterator[list[int]]:
    """The children of a test; after it all have ended by themselves."""
    genuine, made = os.fork, list[int]()

    def fork() -> int:
        made.append(genuine())
        return made[-1]

    mocker.patch.object(os, "fork", fork)
    yield made
    for pid in made:
        os.waitpid(pid, 0)


def open_descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_open(kernel: Kernel) -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() <= before


def make_port(host: Host, kernel: Kernel) -> Link:
    """A pair as an attachment has it: one end on the bridge, the other with an address in the container."""
    host.run("ip", "link", "add", "v0", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", "c1")
    host.run("ip", "-n", "c1", "address", "add", "10.1.0.5/16", "dev", "eth0")
    host.run("ip", "link", "set", "v0", "up")
    return kernel.get_link("v0")


def assert_gone(host: Host) -> None:
    assert (host.link_names(), host.link_names("c1")) == (["br0"], [])


def test_it_is_gone_for_everybody_before_our_own_request(
    host: Host, kernel: Kernel, children: list[int], mocker: MockerFixture
) -> None:
    """The request is refused: nothing was left to do for it, so nothing held us up."""
    for _ in range(ROUNDS):
        link = make_port(host, kernel)
        sent = mocker.spy(NetlinkSocket, "send")
        remove_link(link)
        assert getattr(sent.spy_exception, "errno", None) == errno.ENODEV
        mocker.stop(sent)
        assert_gone(host)
        assert kernel.find_link_at(link.ifindex) is None
    assert len(children) == ROUNDS


def test_an_interface_that_is_gone_is_fine(host: Host, kernel: Kernel) -> None:
    link = make_port(host, kernel)
    host.run("ip", "link", "delete", "v0")
    remove_link(link)
    remove_link(link)
    assert_gone(host)


def test_another_one_that_has_its_name_by_now_stays(host: Host, kernel: Kernel) -> None:
    link = make_port(host, kernel)
    host.run("ip", "link", "delete", "v0")
    host.run("ip", "link", "add", "v0", "type", "bridge")
    remove_link(link)
    assert host.link_names() == ["br0", "v0"]


def test_a_refusal_is_told(kernel: Kernel) -> None:
    with pytest.raises(KernelError) as caught:
        remove_link(kernel.get_link("lo"))
    assert caught.value.errno == errno.EOPNOTSUPP
    assert str(caught.value).startswith("interface lo cannot be removed: ")


def test_without_room_for_a_process_it_takes_longer(host: Host, kernel: Kernel, mocker: MockerFixture) -> None:
    mocker.patch.object(os, "fork", side_effect=OSError(errno.EAGAIN, "Resource temporarily unavailable"))
    remove_link(make_port(host, kernel))
    assert_gone(host)


def test_announcements_that_are_lost_do_not_matter(host: Host, kernel: Kernel, mocker: MockerFixture) -> None:
    lost = OSError(errno.ENOBUFS, "No buffer space available")
    mocker.patch.object(NetlinkSocket, "announcements", side_effect=lost)
    remove_link(make_port(host, kernel))
    assert_gone(host)


def test_what_is_announced_of_others_is_not_taken_for_it(host: Host, kernel: Kernel, mocker: MockerFixture) -> None:
    """Nor that the port has left its bridge, which comes first."""
    link = make_port(host, kernel)
    genuine = departure._start_child

    def start(*arguments: Any) -> int:
        host.run("ip", "link", "add", "other", "type", "bridge")
        host.run("ip", "link", "delete", "other")
        host.run("ip", "link", "set", "v0", "nomaster")
        return genuine(*arguments)

    mocker.patch.object(departure, "_start_child", start)
    sent = mocker.spy(NetlinkSocket, "send")
    remove_link(link)
    assert getattr(sent.spy_exception, "errno", None) == errno.ENODEV
    assert_gone(host)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_holds_nothing_of_ours_and_its_death_is_no_harm(
    host: Host, kernel: Kernel, children: list[int], mocker: MockerFixture, number: int
) -> None:
    """It is stopped before it sends. A signal that is not SIGKILL does not end it, so there it goes on in the end."""
    us, genuine, seen = os.getpid(), NetlinkSocket.send, dict[str, str]()
    kept, other = os.pipe()

    def send(socket: NetlinkSocket, messages: Any) -> Any:
        if os.getpid() != us:
            os.kill(os.getpid(), signal.SIGSTOP)
        return genuine(socket, messages)

    def is_stopped() -> bool:
        return "State:\tT" in Path(f"/proc/{children[0]}/status").read_text()

    def await_departure(*arguments: Any) -> None:
        assert wait_until(is_stopped)
        directory = Path(f"/proc/{children[0]}/fd")
        seen.update({name: os.readlink(directory / name) for name in os.listdir(directory)})
        seen["ours"] = os.readlink(f"/proc/self/fd/{kept}")
        os.kill(children[0], number)
        os.kill(children[0], signal.SIGCONT)
        waited(*arguments)

    waited = departure._await_departure
    mocker.patch.object(NetlinkSocket, "send", send)
    mocker.patch.object(departure, "_await_departure", await_departure)
    remove_link(make_port(host, kernel), [kept])
    os.close(kept)
    os.close(other)
    assert_gone(host)
    ours = seen.pop("ours")
    assert sorted(text.partition(":")[0] for text in seen.values()) == ["pipe", "pipe", "socket"]
    assert ours in seen.values()
