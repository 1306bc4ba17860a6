"""The source that asks the Kubernetes API, held against a server that plays the protocol's corners."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_node.api import listwatch
from cni_node.api.client import Client
from cni_node.api.listwatch import ListWatch
from cni_node.snapshot import Node
from cni_node.sources.kubernetes import NODES, KubernetesSettings, KubernetesSource, parse_member
from cni_protocol.address import parse_cidr, parse_ip
from tests.kit.api_server import ApiServer, Refusal, node
from tests.kit.certificates import make_ca, sign
from tests.kit.following import SOON, anything, following, peer_names
from tests.kit.host import wait_until


@pytest.fixture
def api(soon: None) -> Iterator[ApiServer]:
    """A server with two nodes; what fails is tried again soon."""
    with ApiServer() as server:
        server.put(node("node1", "10.244.1.0/24", "192.168.1.11"))
        server.put(node("node2", "10.244.2.0/24", "192.168.1.12"))
        yield server


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A service account's files."""
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")  # unused without TLS
    (tmp_path / "token").write_text("first\n")
    return tmp_path


def source_for(api: ApiServer, account: Path, **settings: Any) -> KubernetesSource:
    return KubernetesSource(KubernetesSettings("node1", server=api.url, service_account=str(account), **settings))


def watched(api: ApiServer, count: int = 1) -> bool:
    return wait_until(lambda: len(api.watches) == count)


def test_nodes_are_listed_and_followed(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        first = followed.until(anything)
        assert first.own == Node("node1", (parse_cidr("10.244.1.0/24"),), (parse_ip("192.168.1.11"),))
        assert first.peers == (Node("node2", (parse_cidr("10.244.2.0/24"),), (parse_ip("192.168.1.12"),)),)
        assert (first.problems, first.listed) == ((), True)
        assert watched(api)
        api.put(node("node0", "10.244.3.0/24", "192.168.1.10"))
        followed.until(lambda snapshot: peer_names(snapshot) == ["node0", "node2"], SOON)
        api.put(node("node0", "10.244.3.0/24", "192.168.1.30"))
        followed.until(lambda snapshot: snapshot.peers[0].addresses == (parse_ip("192.168.1.30"),), SOON)
        api.delete("node0")
        followed.until(lambda snapshot: peer_names(snapshot) == ["node2"], SOON)


def test_what_is_no_news_is_not_published(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.put(node("node2", "10.244.2.0/24", "192.168.1.12", conditions=[{"type": "Ready"}]))
        api.put(node("node3", "10.244.3.0/24", "192.168.1.13"))
        followed.until(lambda snapshot: len(snapshot.peers) == 2)
        assert len(followed.snapshots) == 2


def test_a_list_comes_in_pages(soon: None, account: Path) -> None:
    with ApiServer(page=3) as api:
        for index in range(8):
            api.put(node(f"node{index}", f"10.244.{index}.0/24", f"192.168.1.{index + 1}"))
        with following(source_for(api, account)) as followed:
            assert len(followed.until(anything).peers) == 7
        assert api.queries("limit") == ["100"] * 3
        assert len(api.queries("continue")) == 2


def test_a_list_whose_pages_expire_is_begun_again(soon: None, account: Path) -> None:
    with ApiServer(page=3) as api:
        for index in range(5):
            api.put(node(f"node{index}", f"10.244.{index}.0/24", f"192.168.1.{index + 1}"))

        def expire() -> None:
            api.before_page = None
            api.put(node("node9", "10.244.9.0/24", "192.168.1.19"))
            api.compact()

        api.before_page = expire
        with following(source_for(api, account)) as followed:
            first = followed.until(anything)
            assert (peer_names(first), first.problems) == (["node0", "node2", "node3", "node4", "node9"], ())


def test_a_watch_that_ends_goes_on_from_the_last_version_bookmarks_included(
    api: ApiServer, account: Path, mocker: Any
) -> None:
    mocker.patch.object(listwatch, "SHORT", 0.0)
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.bookmark()
        api.compact()  # from before the bookmark there is no way on
        api.end_watches()
        assert wait_until(lambda: api.queries("resourceVersion") == ["1002", "1003"])
        assert watched(api)
        api.put(node("node3", "10.244.3.0/24", "192.168.1.13"))
        followed.until(lambda snapshot: len(snapshot.peers) == 2)
    assert len(api.queries("limit")) == 1
    assert followed.last.problems == ()


def test_a_watch_that_breaks_goes_on_from_the_last_version(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.cut()
        assert wait_until(lambda: len(api.queries("watch")) == 2)
        api.delete("node2")
        followed.until(lambda snapshot: not snapshot.peers)
        followed.until(lambda snapshot: not snapshot.problems)
    assert len(api.queries("limit")) == 1


def test_half_a_line_is_no_event(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.say(b'{"type":"DELETED","object":{"metadata":{"name":"node2","resourceVersion":"1')
        api.cut()
        assert wait_until(lambda: len(api.queries("watch")) == 2)
        api.put(node("node3", "10.244.3.0/24", "192.168.1.13"))
        assert peer_names(followed.until(lambda snapshot: len(snapshot.peers) > 1)) == ["node2", "node3"]


@pytest.mark.slow
def test_an_expired_history_leads_to_a_list_and_nothing_is_removed_in_between(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.silent = True
        api.delete("node2")  # its range goes to another: naive code adds the new route, then deletes it with the old
        api.put(node("node3", "10.244.2.0/24", "192.168.1.13"))
        api.compact()
        api.silent = False
        api.refusals = [Refusal(410, '{"message":"too old"}')] * 30  # however often
        api.cut()
        followed.until(lambda snapshot: peer_names(snapshot) == ["node3"])
        assert all(len(snapshot.peers) == 1 for snapshot in followed.snapshots)
        assert not any("too old" in problem for snapshot in followed.snapshots for problem in snapshot.problems)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":[]}\n',
        b'{"type":"WINDY","object":{"metadata":{"name":"node2","resourceVersion":"9"}}}\n',
        b'{"type":"ERROR","object":{"code":500,"message":"the store is on fire"}}\n',
        b'{"type":"DELETED","object":{"metadata":{"resourceVersion":"9"}}}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=["no-json", "no-object", "list", "unknown-kind", "error", "no-name", "deep"],
)
def test_nonsense_on_a_watch_leads_to_a_list_and_removes_nothing(api: ApiServer, account: Path, line: bytes) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.say(line)
        assert wait_until(lambda: len(api.queries("limit")) == 2)
        assert watched(api, 2)
        api.put(node("node3", "10.244.3.0/24", "192.168.1.13"))
        followed.until(lambda snapshot: peer_names(snapshot) == ["node2", "node3"] and not snapshot.problems)
        assert all("node2" in peer_names(snapshot) for snapshot in followed.snapshots)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("{}", "makes no sense"),
        ('{"items":[],"metadata":{}}', "makes no sense"),
        ('{"items":[],"metadata":{"resourceVersion":"1"}}', "the API lists no node at all"),
        ("<html>", "answers no JSON, but '<html>'"),
    ],
    ids=["empty", "no-version", "no-nodes", "html"],
)
def test_a_nonsensical_list_removes_nothing(api: ApiServer, account: Path, answer: str, sentence: str) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.refusals = [Refusal(410), *[Refusal(200, answer)] * 100]
        api.cut()
        followed.until(lambda snapshot: any(sentence in problem for problem in snapshot.problems))
        assert all(peer_names(snapshot) == ["node2"] for snapshot in followed.snapshots)


@pytest.mark.slow
def test_a_silent_watch_is_begun_again(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account, silence=1.2)) as followed:
        followed.until(anything)
        assert watched(api)
        api.silent = True
        api.put(node("node3", "10.244.3.0/24", "192.168.1.13"))
        api.silent = False
        followed.until(lambda snapshot: len(snapshot.peers) == 2)
        assert followed.last.problems == ()
    assert len(api.queries("limit")) == 1


def test_an_api_that_is_away_is_told_and_what_is_known_stays(account: Path, soon: None) -> None:
    with ApiServer() as api:
        api.put(node("node1", "10.244.1.0/24", "192.168.1.11"))
        api.put(node("node2", "10.244.2.0/24", "192.168.1.12"))
        source = source_for(api, account)
        with following(source) as followed:
            followed.until(anything)
            assert watched(api)
            api.__exit__()
            told = followed.until(lambda snapshot: any("connection refused" in each for each in snapshot.problems))
            assert (told.own, told.peers) == (followed.snapshots[0].own, followed.snapshots[0].peers)
            assert f"{api.url} does not answer: connection refused" in told.problems


def test_before_the_first_list_only_problems_are_published(account: Path, soon: None) -> None:
    with following(
        KubernetesSource(KubernetesSettings("node1", server="http://127.0.0.1:1", service_account=str(account)))
    ) as followed:
        snapshot = followed.until(anything)
        assert (snapshot.listed, snapshot.own, snapshot.peers) == (False, None, ())
        assert snapshot.problems == ("http://127.0.0.1:1 does not answer: connection refused",)


def test_an_expired_token_is_read_again_at_once(api: ApiServer, account: Path) -> None:
    api.tokens = {"first"}
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        api.tokens = {"second"}
        (account / "token").write_text("second\n")
        api.cut()
        assert wait_until(lambda: api.asked[-1].headers["authorization"] == "Bearer second")
        assert watched(api)
        api.tokens = {"third"}
        api.cut()
        told = followed.until(lambda snapshot: any("is the token" in each for each in snapshot.problems))
        assert told.peers
        (account / "token").write_text("third\n")
        followed.until(lambda snapshot: not snapshot.problems)


def test_a_server_that_asks_to_wait_is_obeyed(api: ApiServer, account: Path, mocker: Any) -> None:
    api.refusals = [Refusal(429, headers=(("Retry-After", "7"),))]
    settings = KubernetesSettings("node1", server=api.url, service_account=str(account))
    stopping = mocker.Mock(**{"wait.side_effect": [False, True]})
    ListWatch(Client(settings.load), NODES, mocker.Mock()).run(stopping)
    assert stopping.wait.call_args_list == [mocker.call(0.0), mocker.call(7.0)]


def test_a_failure_that_cannot_be_told_ends_nothing(api: ApiServer, account: Path, mocker: Any) -> None:
    """As where the process has no thread left for what is published later."""
    api.refusals = [Refusal(429)]
    settings = KubernetesSettings("node1", server=api.url, service_account=str(account))
    keeper = mocker.Mock(**{"say.side_effect": RuntimeError("can't start new thread")})
    stopping = mocker.Mock(**{"wait.side_effect": [False, False, True]})
    ListWatch(Client(settings.load), NODES, keeper).run(stopping)
    assert keeper.replace.call_count == 2


def test_missing_rights_are_named(api: ApiServer, account: Path) -> None:
    api.refusals = [Refusal(403, '{"message":"nodes is forbidden"}')]
    with following(source_for(api, account)) as followed:
        told = followed.until(anything)
    refused = f"{api.url} refuses GET /api/v1/nodes: 403, nodes is forbidden"
    assert told.problems == (f"{refused}: its role needs the verbs list and watch on nodes",)


def test_tls_is_checked_and_a_new_ca_is_taken(tmp_path: Path, soon: None) -> None:
    ca, other = make_ca(tmp_path / "ca"), make_ca(tmp_path / "other")
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(other.certificate.read_bytes())
    with ApiServer(tls=sign(ca, "server")) as api:
        api.put(node("node1", "10.244.1.0/24", "192.168.1.11"))
        with following(source_for(api, tmp_path)) as followed:
            told = followed.until(anything)
            assert "its certificate is not accepted" in told.problems[0]
            (tmp_path / "ca.crt").write_bytes(ca.certificate.read_bytes())
            assert followed.until(lambda snapshot: snapshot.listed and not snapshot.problems).own


def test_a_node_that_makes_no_sense_stays_as_it_was(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        before = followed.until(anything)
        assert watched(api)
        api.put(node("node2", "10.244.2.0/24/24", "192.168.1.12"))
        told = followed.until(lambda snapshot: bool(snapshot.problems))
        assert told.peers == before.peers
        assert told.problems[0].startswith("node node2 is left as it was: '10.244.2.0/24/24' is no address")
        api.say(b"nonsense\n")  # so all are listed again
        assert wait_until(lambda: len(api.queries("limit")) == 2)
        api.put(node("node3", "10.244.3.0/24", "192.168.1.13"))
        assert followed.until(lambda snapshot: len(snapshot.peers) == 2).peers[0] == before.peers[0]
        api.put(node("node2", "10.244.2.0/24", "192.168.1.22"))
        followed.until(lambda snapshot: not snapshot.problems)


def test_this_node_stays_when_its_object_goes(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        before = followed.until(anything)
        assert watched(api)
        api.delete("node1")
        told = followed.until(lambda snapshot: bool(snapshot.problems))
        assert told.own == before.own
        assert told.problems == ("the API has no node 'node1', which this node is to be: see kubectl get nodes",)


def test_a_node_without_a_range_is_told_of(api: ApiServer, account: Path) -> None:
    api.put(node("node1", "", "192.168.1.11"))
    api.put(node("node3", "", "192.168.1.13"))
    with following(source_for(api, account)) as followed:
        told = followed.until(anything)
        assert told.own is not None
        assert told.own.pods == ()
        assert told.problems == (
            "node node1 has no pod range; the controller manager gives it one if it runs with --allocate-node-cidrs",
        )


def test_a_thousand_changes_are_few_snapshots(api: ApiServer, account: Path) -> None:
    with following(source_for(api, account)) as followed:
        followed.until(anything)
        assert watched(api)
        for index in range(1000):
            api.put(node("node3", "10.244.3.0/24", f"192.168.{index // 200}.{index % 200 + 20}"))
        followed.until(
            lambda snapshot: bool(snapshot.peers) and parse_ip("192.168.4.219") in snapshot.peers[-1].addresses
        )
        assert len(followed.snapshots) < 100


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (node("a", "fd00:1::/64,10.1.0.0/24", "10.0.0.1"), "10.1.0.0/24,fd00:1::/64 10.0.0.1"),
        (node("a", "10.1.0.5/24", "10.0.0.1"), "10.1.0.0/24 10.0.0.1"),
        (node("a", "10.1.0.0/24", "fd00::1,10.0.0.1,10.0.0.2"), "10.1.0.0/24 10.0.0.1,fd00::1"),
        ({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.1.0.0/24"}}, "10.1.0.0/24 "),
        ({"metadata": {"name": "a"}, "spec": None, "status": None}, " "),
        (
            node(
                "a",
                addresses=[{"type": "ExternalIP", "address": "1.1.1.1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            ),
            " 10.0.0.1",
        ),
        (node("a", addresses=[{"type": "ExternalIP", "address": "1.1.1.1"}]), " 1.1.1.1"),
        (node("a", addresses=[{"type": "InternalDNS", "address": "a.example"}]), " "),
    ],
    ids=["families", "host-bits", "one-a-family", "podCIDR", "nothing", "internal-first", "external", "names"],
)
def test_a_node_object_is_understood(item: dict[str, Any], expected: str) -> None:
    found = parse_member(item).node
    assert f"{','.join(map(str, found.pods))} {','.join(map(str, found.addresses))}" == expected


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"metadata": {"name": "a"}, "spec": 7},
        {"metadata": {"name": "a"}, "spec": {"podCIDRs": [5]}},
        {"metadata": {"name": "a"}, "status": {"addresses": [{"type": "InternalIP"}]}},
        node("a", address="10.0.0.256"),
        node("a", pods="10.1.0.0/24,10.2.0.0/24"),
    ],
    ids=["empty", "spec", "number", "no-address", "address", "two-ranges"],
)
def test_a_nonsensical_object_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_member(item)
