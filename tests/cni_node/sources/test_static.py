"""The source of options and files."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cni_node.snapshot import Node, Snapshot
from cni_node.sources import static
from cni_node.sources.static import StaticSettings, StaticSource, arrange, parse_nodes, parse_peer
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import CNIError
from tests.kit.following import SOON, Followed, anything, following, peer_names
from tests.kit.host import wait_until

THREE = """\
# pods          address
10.240.1.0/24   192.168.1.11   node1
10.240.2.0/24   192.168.1.12   node2  # in the cellar

10.240.3.0/24,fd00:3::/64   192.168.1.13,fd00::13
"""


def node(name: str, pods: str, addresses: str) -> Node:
    return Node(name, tuple(map(parse_cidr, pods.split())), tuple(map(parse_ip, addresses.split())))


OWN = node("node1", "", "192.168.1.11")


def test_a_file_has_one_node_a_line() -> None:
    assert parse_nodes(THREE, "peers") == (
        node("node1", "10.240.1.0/24", "192.168.1.11"),
        node("node2", "10.240.2.0/24", "192.168.1.12"),
        node("192.168.1.13", "10.240.3.0/24 fd00:3::/64", "192.168.1.13 fd00::13"),
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "peers has no node"),
        ("# nobody\n", "peers has no node"),
        ("10.240.1.0/24", "peers line 1: CIDR[,CIDR] ADDRESS[,ADDRESS] [NAME] was expected"),
        ("10.240.1.0/24 1.1.1.1 a b", "peers line 1: CIDR[,CIDR] ADDRESS[,ADDRESS] [NAME] was expected"),
        ("\n10.240.1.0 1.1.1.1", "peers line 2: '10.240.1.0' is no address with a prefix length"),
        ("10.240.1.5/24 1.1.1.1", "line 1: 10.240.1.5/24 has host bits set; the network is 10.240.1.0/24"),
        ("10.240.1.0/24 node1", "line 1: 'node1' is no IP address"),
        ("10.1.0.0/24,10.2.0.0/24 1.1.1.1", "line 1: two pod ranges of one family: 10.1.0.0/24,10.2.0.0/24"),
        ("10.1.0.0/24 1.1.1.1,1.1.1.2", "line 1: two addresses of one family: 1.1.1.1,1.1.1.2"),
        ("a b\nc d", "peers line 1: 'a' is no IP address; peers line 2: 'c' is no IP address"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_nodes(text, "peers")
    assert sentence in caught.value.msg


def test_an_option_names_a_peer() -> None:
    assert parse_peer("10.240.2.0/24=192.168.1.12") == node("192.168.1.12", "10.240.2.0/24", "192.168.1.12")
    both = parse_peer("fd00:2::/64,10.240.2.0/24=fd00::12,192.168.1.12")
    assert both == node("192.168.1.12", "10.240.2.0/24 fd00:2::/64", "192.168.1.12 fd00::12")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.240.2.0/24", "'10.240.2.0/24' is no peer, as in 10.244.2.0/24=192.168.1.12"),
        ("10.240.2.0/24=", "peer 10.240.2.0/24=: '' is no IP address"),
        ("=1.1.1.1", "peer =1.1.1.1: '' is no IP address"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_peer(text)
    assert caught.value.msg == sentence


def arranged(own: Node, *nodes: Node) -> str:
    """What arrange makes of it, as one line."""
    snapshot = arrange(own, nodes)
    assert snapshot.own is not None
    everyone = (snapshot.own, *snapshot.peers)
    return "; ".join(f"{each.name} {' '.join(map(str, each.pods))}" for each in everyone)


def test_who_is_a_peer() -> None:
    own = node("me", "10.1.0.0/24", "1.1.1.1")
    b, a = node("b", "10.2.0.0/24", "1.1.1.2"), node("a", "10.3.0.0/24", "1.1.1.3")
    assert arranged(own, b, a) == "me 10.1.0.0/24; a 10.3.0.0/24; b 10.2.0.0/24"
    assert arranged(own, node("c", "10.1.0.0/24", "1.1.1.1")) == "me 10.1.0.0/24"
    assert arranged(own, node("c", "10.1.0.0/24", "1.1.1.9")) == "me 10.1.0.0/24"
    assert arranged(own._replace(pods=()), node("c", "10.1.0.0/24", "1.1.1.1")) == "me 10.1.0.0/24"
    assert arranged(own, b, node("b6", "fd00:2::/64", "1.1.1.2")) == "me 10.1.0.0/24; b 10.2.0.0/24 fd00:2::/64"


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (["10.2.0.0/24=1.1.1.2", "10.2.0.0/25=1.1.1.3"], "overlaps with what node"),
        (["10.1.0.0/16=1.1.1.2"], "pod range 10.1.0.0/16 of node 1.1.1.2 overlaps with what node me has already"),
        (["10.2.0.0/24=1.1.1.2", "10.3.0.0/24=1.1.1.2"], "1.1.1.2 has two pod ranges of one family"),
        (["10.2.0.0/24=1.1.1.1"], "this node has 10.1.0.0/24, but is listed with 10.2.0.0/24"),
    ],
)
def test_contradictions_are_refused(nodes: list[str], sentence: str) -> None:
    with pytest.raises(CNIError) as caught:
        arrange(node("me", "10.1.0.0/24", "1.1.1.1"), map(parse_peer, nodes))
    assert sentence in caught.value.msg


def test_options_alone_are_published_once() -> None:
    settings = StaticSettings(node("me", "10.1.0.0/24", "1.1.1.1"), (parse_peer("10.2.0.0/24=1.1.1.2"),))
    with following(StaticSource(settings)) as followed:
        assert peer_names(followed.until(anything)) == ["1.1.1.2"]
    assert len(followed.snapshots) == 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of three nodes in a directory of its own."""
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc" / "peers"
    path.write_text(THREE)
    return path


def source_of(file: Path) -> StaticSource:
    return StaticSource(StaticSettings(OWN, (), str(file)))


def two_peers(snapshot: Snapshot) -> bool:
    return peer_names(snapshot) == ["192.168.1.13", "node2"]


def one_peer(snapshot: Snapshot) -> bool:
    return peer_names(snapshot) == ["node2"]


FEWER = "\n".join(THREE.splitlines()[:3])


def write(file: Path, text: str) -> None:
    file.write_text(text)


def replace(file: Path, text: str) -> None:
    (file.parent / "new").write_text(text)
    (file.parent / "new").rename(file)


def write_slowly(file: Path, text: str) -> None:
    """Line by line, each opened and closed, as a shell script does; never at rest for as long as a write takes."""
    file.write_text("")
    for line in text.splitlines():
        with file.open("a") as opened:
            opened.write(f"{line}\n")


@pytest.mark.parametrize("change", [write, replace, write_slowly])
def test_a_file_that_changes_is_read_again(file: Path, change: Callable[[Path, str], None]) -> None:
    with following(source_of(file)) as followed:
        first = followed.until(two_peers)
        assert first.own == node("node1", "10.240.1.0/24", "192.168.1.11")
        change(file, FEWER)
        followed.until(one_peer, SOON)
        replace(file, THREE)
        followed.until(two_peers, SOON)
    assert len(followed.snapshots) == 3


def test_a_file_behind_a_link_is_watched(tmp_path: Path, file: Path) -> None:
    (tmp_path / "link").mkdir()
    link = tmp_path / "link" / "peers"
    link.symlink_to(file)
    with following(source_of(link)) as followed:
        followed.until(two_peers)
        write(file, FEWER)
        followed.until(one_peer, SOON)


def test_a_volume_of_kubernetes_is_watched(tmp_path: Path) -> None:
    """There the file is a link to `..data/peers`, and `..data` is replaced by renaming."""
    for version, text in (("..1", THREE), ("..2", FEWER)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "peers").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "peers").symlink_to("..data/peers")
    with following(source_of(tmp_path / "peers")) as followed:
        followed.until(two_peers)
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        followed.until(one_peer, SOON)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "has no node"), ("nonsense", "line 1: CIDR"), ("10.1.0.0/24 a", "line 1: 'a' is no IP address")],
)
def test_nonsense_in_a_file_changes_nothing(file: Path, text: str, sentence: str) -> None:
    with following(source_of(file)) as followed:
        before = followed.until(two_peers)
        write(file, text)
        told = followed.until(lambda snapshot: bool(snapshot.problems), SOON)
        assert sentence in told.problems[0]
        assert (told.own, told.peers, told.listed) == (before.own, before.peers, True)
        write(file, FEWER)
        assert followed.until(one_peer).problems == ()


def test_a_file_that_goes_changes_nothing_and_may_come_back(file: Path) -> None:
    with following(source_of(file)) as followed:
        before = followed.until(two_peers)
        file.unlink()
        told = followed.until(lambda snapshot: bool(snapshot.problems), SOON)
        assert told.peers == before.peers
        assert told.problems == (f"{file} cannot be read: No such file or directory",)
        write(file, FEWER)
        followed.until(one_peer, SOON)


def test_a_directory_that_goes_changes_nothing_and_may_come_back(file: Path, mocker: Any) -> None:
    mocker.patch.object(static, "AGAIN", 0.05)
    with following(source_of(file)) as followed:
        before = followed.until(two_peers)
        shutil.rmtree(file.parent)
        told = followed.until(lambda snapshot: "cannot be watched" in "".join(snapshot.problems), SOON)
        assert told.peers == before.peers
        file.parent.mkdir()
        write(file, FEWER)
        followed.until(one_peer)


def test_before_the_first_list_there_are_only_problems(tmp_path: Path) -> None:
    with following(source_of(tmp_path / "peers")) as followed:
        told = followed.until(anything)
        assert told == Snapshot(
            None, (), (f"{tmp_path}/peers cannot be read: No such file or directory",), listed=False
        )
        write(tmp_path / "peers", THREE)
        followed.until(two_peers)


def test_a_file_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    with following(source_of(tmp_path / "peers")) as followed:
        followed.until(anything)
        with (tmp_path / "peers").open("w") as opened:
            assert not wait_until(lambda: len(followed.snapshots) > 1, 0.4)
            opened.write(THREE)
        followed.until(two_peers, SOON)
    assert len(followed.snapshots) == 2


def test_it_costs_nothing_while_nothing_happens(file: Path) -> None:
    (file.parent / "other").write_text("")
    source, followed, stopping = source_of(file), Followed(), threading.Event()
    thread = threading.Thread(target=source.follow, args=(followed.publish, stopping), daemon=True)
    thread.start()
    followed.until(two_peers)
    clock = time.pthread_getcpuclockid(thread.ident or 0)  # of no other thread
    begun = time.clock_gettime(clock)
    assert not stopping.wait(0.5)
    assert time.clock_gettime(clock) - begun < 0.01
    stopping.set()
    thread.join(5)
    assert not [fd for fd in os.listdir("/proc/self/fd") if "inotify" in _target(fd)]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
