"""The source in which nodes find each other, on real etcds."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import pytest

from cni_node.api.client import CallError
from cni_node.snapshot import Node, Snapshot
from cni_node.sources.etcd import EtcdSource
from cni_node.sources.etcd_calls import CompactedError, Etcd, EtcdAccess
from cni_node.sources.etcd_keys import Cluster, parse_cluster
from cni_node.sources.etcd_lease import EtcdSettings, Registration
from cni_node.sources.etcd_listing import read_holdings, render_holdings
from cni_node.sources.etcd_messages import Entry
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import ALREADY_EXISTS, NO_ADDRESS, CNIError
from tests.kit.certificates import make_ca, sign
from tests.kit.etcd import PASSWORD, EtcdCluster, Tls
from tests.kit.following import SOON, Followed, anything, following, peer_names
from tests.kit.host import Host, wait_until
from tests.kit.proxy import Proxy

pytestmark = pytest.mark.kernel

LEASE = 3  # seconds
SMALL = Cluster((parse_cidr("10.32.0.0/24"),), (28,))  # 16 nodes

NINE = '{"pods": ["10.33.0.0/24"], "addresses": ["192.168.1.9"]}'  # a node that is written by hand


@pytest.fixture
def entered(host: Host) -> Iterator[Host]:
    """This process is in the network of a host of its own."""
    with host.entered():
        yield host


@pytest.fixture
def etcd(entered: Host) -> EtcdCluster:
    """One member."""
    return EtcdCluster(entered)


def settings_of(etcd: EtcdCluster, name: str, **changes: Any) -> EtcdSettings:
    number = int(name[-1])
    values: dict[str, Any] = {"lease": LEASE, "mtu": 1450, **changes}
    access = values.pop("access", EtcdAccess(etcd.urls))
    return EtcdSettings(access, name, (parse_ip(f"192.168.1.{number}"),), **values)


@pytest.fixture
def follow() -> Iterator[Callable[[EtcdSettings], Followed]]:
    """Follows sources until the test is over."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(following(EtcdSource(settings)))


def registered(snapshot: Snapshot) -> bool:
    return snapshot.own is not None and not snapshot.problems


def sees(*names: str) -> Callable[[Snapshot], bool]:
    return lambda snapshot: peer_names(snapshot) == list(names) and registered(snapshot)


def never_gone(followed: Followed) -> bool:
    """Whether this node and the other, once known, have stayed known."""
    known = [bool(snapshot.own and snapshot.own.pods and snapshot.peers) for snapshot in followed.snapshots]
    return known == sorted(known) and known[-1]


def test_nodes_take_ranges_and_find_each_other(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    one = follow(settings_of(etcd, "node1"))
    own = one.until(registered).own
    assert own is not None
    assert (own.name, own.addresses, own.mtu) == ("node1", (parse_ip("192.168.1.1"),), 1450)
    assert own.pods[0].prefix == 24
    assert own.pods[0].ip in parse_cidr("10.32.0.0/12")
    assert len(one.snapshots) == 1
    with following(EtcdSource(settings_of(etcd, "node2"))) as two:
        assert one.until(sees("node2"), SOON).peers == (two.until(sees("node1"), SOON).own,)
        assert two.last.peers == (own,)
    stopped = time.monotonic()  # as if it had died: nothing is taken back
    one.until(sees(), LEASE + 3)
    assert time.monotonic() - stopped > LEASE / 3
    assert set(etcd.keys("/pycni/")) == {
        "/pycni/config",
        "/pycni/nodes/node1",
        f"/pycni/subnets/{str(own.pods[0]).replace('/', '-')}",
    }
    assert etcd.keys("/pycni/config")["/pycni/config"] == {"networks": ["10.32.0.0/12"], "nodePrefixes": [24]}


def test_a_node_that_is_deleted_is_gone_at_once(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    one = follow(settings_of(etcd, "node1"))
    one.until(registered)
    etcd.ctl("put", "/pycni/nodes/node9", NINE)
    assert one.until(sees("node9"), SOON).peers[0].pods == (parse_cidr("10.33.0.0/24"),)
    etcd.ctl("del", "/pycni/nodes/node9")
    one.until(sees(), SOON)


def test_a_node_that_comes_back_has_its_range(etcd: EtcdCluster) -> None:
    etcd.ctl("put", "/pycni/subnets/10.32.0.0-13", '{"node": ""}')  # so that where its name points may be taken
    with following(EtcdSource(settings_of(etcd, "node1"))) as one:
        before = one.until(registered).own
    etcd.ctl("del", "/pycni/subnets/10.32.0.0-13")
    with following(EtcdSource(settings_of(etcd, "node1", mtu=1400))) as one:
        again = one.until(registered).own
    assert before is not None
    assert again == before._replace(mtu=1400)


def test_wanted_ranges_are_taken_if_they_are_free(etcd: EtcdCluster) -> None:
    wanted = (parse_cidr("10.40.7.0/24"),)
    with following(EtcdSource(settings_of(etcd, "node1", wanted=wanted))) as one:
        own = one.until(registered).own
    assert own is not None
    assert own.pods == wanted
    with following(EtcdSource(settings_of(etcd, "node2", wanted=wanted))) as two:
        own = two.until(registered).own
    assert own is not None
    assert own.pods != wanted


def test_a_range_is_taken_while_its_node_says_so(etcd: EtcdCluster) -> None:
    """Also where somebody has deleted the range's own key."""
    client = Etcd(EtcdAccess(etcd.urls))
    Registration(client, settings_of(etcd, "node1", lease=30)).keep()
    (subnet,) = etcd.keys("/pycni/subnets/")
    etcd.ctl("del", subnet)
    wanted = (parse_cidr(subnet.rpartition("/")[2].replace("-", "/")),)
    Registration(client, settings_of(etcd, "node2", lease=30, wanted=wanted)).keep()
    nodes = etcd.keys("/pycni/nodes/")
    assert nodes["/pycni/nodes/node1"]["pods"] == [str(wanted[0])]
    assert nodes["/pycni/nodes/node2"]["pods"] != [str(wanted[0])]


def test_both_families_have_one_number(etcd: EtcdCluster) -> None:
    cluster = Cluster((parse_cidr("10.32.0.0/12"), parse_cidr("fd00:32::/48")), (24, 64))
    with following(EtcdSource(settings_of(etcd, "node1", cluster=cluster))) as one:
        own = one.until(registered).own
    assert own is not None
    four, six = own.pods
    assert (six.ip.value >> 64) & 0xFFFF == (four.ip.value >> 8) & 0xFFF
    assert len(etcd.keys("/pycni/subnets/")) == 2


def test_nodes_that_start_together_have_different_ranges(etcd: EtcdCluster) -> None:
    """Sixteen nodes for sixteen ranges, all at once."""
    ranges: list[Any] = []

    def register(name: str) -> None:
        client = Etcd(EtcdAccess(etcd.urls))
        settings = settings_of(etcd, name, cluster=SMALL, lease=60)
        for _ in range(5):  # each time it was not quick enough ten times
            try:
                Registration(client, settings).keep()
                break
            except CNIError as error:
                assert error.code != NO_ADDRESS
        node = client.get(f"/pycni/nodes/{name}")
        assert node is not None
        ranges.append(node.value)

    threads = [Thread(target=register, args=(f"n-{index}",)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ranges) == 16
    assert len(etcd.keys("/pycni/subnets/")) == 16
    with pytest.raises(CNIError) as caught:
        Registration(Etcd(EtcdAccess(etcd.urls)), settings_of(etcd, "node9", cluster=SMALL)).keep()
    assert caught.value.msg == "all 16 parts of 10.32.0.0/24 are taken in etcd"


def test_a_name_that_another_node_has_is_refused(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    one = follow(settings_of(etcd, "node1"))
    own = one.until(registered).own
    assert own is not None
    twin = follow(settings_of(etcd, "node1")._replace(addresses=(parse_ip("192.168.1.77"),)))
    told = twin.until(lambda snapshot: bool(snapshot.problems) and snapshot.listed)
    assert told.own is None
    assert told.problems == (
        "the name node1 is that of another node in etcd, with 192.168.1.1; this one has 192.168.1.77",
    )
    assert told.peers == (own._replace(name="node1 (another)"),)
    assert etcd.keys("/pycni/nodes/")["/pycni/nodes/node1"]["addresses"] == ["192.168.1.1"]


def test_a_node_whose_address_changes_tells_the_new_one(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]
) -> None:
    two = follow(settings_of(etcd, "node2"))
    before, after = (parse_ip("192.168.1.1"),), (parse_ip("192.168.1.77"),)
    now = before
    with following(EtcdSource(settings_of(etcd, "node1"), lambda _: now)) as one:
        own = one.until(sees("node2")).own
        assert own is not None
        now = after
        assert one.until(lambda snapshot: snapshot.own == own._replace(addresses=after)).problems == ()
        assert two.until(lambda snapshot: peer_names(snapshot) == ["node1"] and snapshot.peers[0].addresses == after)
        one.until(sees("node2"))
    assert all(peer_names(snapshot) in ([], ["node2"]) for snapshot in one.snapshots), "it has seen itself as another"


@pytest.mark.parametrize(("lease", "name"), [(7, "node1"), (8, "node1 (another)"), (0, "node1 (another)")])
def test_an_entry_with_our_lease_is_ours_whatever_its_address(lease: int, name: str) -> None:
    source = EtcdSource(EtcdSettings(EtcdAccess(("http://127.0.0.1:1",)), "node1", (parse_ip("192.168.1.77"),)))
    source._registration._lease = min(lease, 7)
    _, member = source._understood(Entry("/pycni/nodes/node1", NINE, 1, 1, lease))
    assert member is not None
    assert member.node.name == name


def test_an_address_that_an_option_says_stays_and_is_told(etcd: EtcdCluster) -> None:
    fixed = settings_of(etcd, "node1", fixed=True)
    with following(EtcdSource(fixed, lambda _: (parse_ip("192.168.1.77"),))) as one:
        told = one.until(lambda snapshot: snapshot.own is not None)
    assert told.own is not None
    assert told.own.addresses == fixed.addresses
    assert told.problems == (
        "--node-ip says 192.168.1.1, and this node has 192.168.1.77: change the option, and start the agent anew",
    )


def lease_of(etcd: EtcdCluster) -> str:
    return etcd.ctl("lease", "list").splitlines()[-1]


def test_a_lost_lease_is_taken_again(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    one, two = follow(settings_of(etcd, "node1", lease=30)), follow(settings_of(etcd, "node2", lease=30))
    before = one.until(sees("node2")).own
    two.until(sees("node1"))
    for lease in etcd.ctl("lease", "list").splitlines()[1:]:
        etcd.ctl("lease", "revoke", lease)
    assert wait_until(lambda: len(etcd.keys("/pycni/nodes/")) == 2)
    assert one.until(sees("node2"), 5.0).own == before
    assert two.until(sees("node1"), 5.0).peers == (before,)
    assert all(snapshot.own == before for snapshot in one.snapshots if snapshot.own)


def test_a_key_that_is_deleted_is_put_back(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    one = follow(settings_of(etcd, "node1", lease=30))
    one.until(registered)
    before = etcd.keys("/pycni/")
    lease = lease_of(etcd)
    etcd.ctl("del", "/pycni/nodes/node1")
    assert wait_until(lambda: etcd.keys("/pycni/") == before)
    assert lease_of(etcd) == lease


def test_a_range_that_went_to_another_is_not_taken_back(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]
) -> None:
    client = Etcd(EtcdAccess(etcd.urls))
    registration = Registration(client, settings_of(etcd, "node1", lease=30))
    registration.keep()
    (subnet,) = etcd.keys("/pycni/subnets/")
    cidr = parse_cidr(subnet.rpartition("/")[2].replace("-", "/"))
    etcd.ctl("lease", "revoke", lease_of(etcd))
    Registration(client, settings_of(etcd, "node2", lease=30, wanted=(cidr,))).keep()
    before = etcd.keys("/pycni/")
    for _ in range(2):
        with pytest.raises(CNIError) as caught:
            registration.keep()
        assert caught.value.code == ALREADY_EXISTS
        assert f"{cidr}, of the pod range of this node, went to node node2" in caught.value.msg
        assert etcd.keys("/pycni/") == before
    etcd.ctl("lease", "revoke", lease_of(etcd))
    registration.keep()  # it is free again
    assert set(etcd.keys("/pycni/nodes/")) == {"/pycni/nodes/node1"}


def test_an_etcd_that_is_away_changes_nothing(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    one, two = follow(settings_of(etcd, "node1")), follow(settings_of(etcd, "node2"))
    one.until(sees("node2"))
    two.until(sees("node1"))
    (member,) = etcd.members
    member.kill()
    refused = f"{member.url} does not answer: connection refused"
    one.until(lambda snapshot: snapshot.problems == (refused,))
    two.until(lambda snapshot: bool(snapshot.problems))
    assert not wait_until(lambda: not one.last.peers or not two.last.peers, LEASE + 1)
    member.start()
    one.until(sees("node2"), 20.0)
    two.until(sees("node1"), 20.0)
    assert never_gone(one)
    assert never_gone(two)


def test_an_etcd_that_is_set_up_anew_is_filled_again(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]
) -> None:
    one, two = follow(settings_of(etcd, "node1")), follow(settings_of(etcd, "node2"))
    first = one.until(sees("node2"))
    two.until(sees("node1"))
    (member,) = etcd.members
    member.kill()
    member.wipe()
    member.start()
    assert wait_until(lambda: bool(one.last.problems) and bool(two.last.problems), 10.0)
    assert one.until(sees("node2"), 20.0) == first
    two.until(sees("node1"), 20.0)
    assert never_gone(one)
    assert never_gone(two)


def test_who_went_during_an_outage_is_kept_as_long_as_a_lease_lives(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]
) -> None:
    """As where all nodes were cut off from etcd, and it ended all leases: each comes back when it can."""
    etcd.ctl("put", "/pycni/nodes/node9", NINE)
    proxy = Proxy(etcd.urls[0])
    one = follow(settings_of(etcd, "node1", access=EtcdAccess((proxy.url,))))
    before = one.until(sees("node9")).own
    proxy.cut()
    one.until(lambda snapshot: bool(snapshot.problems))
    etcd.ctl("del", "/pycni/nodes/node9")
    assert wait_until(lambda: not etcd.keys("/pycni/nodes/"), LEASE + 5.0)  # ours has ended, too
    proxy.mend()
    told = one.until(lambda snapshot: "kept for a while" in "".join(snapshot.problems))
    assert (peer_names(told), told.own) == (["node9"], before)
    begun = time.monotonic()
    assert one.until(sees()).own == before
    assert time.monotonic() - begun > LEASE / 2
    etcd.ctl("put", "/pycni/nodes/node9", NINE)
    one.until(sees("node9"), SOON)
    etcd.ctl("del", "/pycni/nodes/node9")
    one.until(sees(), LEASE - 0.5)  # it is believed at once again, and not after LEASE seconds


def test_who_came_and_went_during_an_outage_leaves_nothing(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]
) -> None:
    """etcd sends both changes in one message."""
    proxy = Proxy(etcd.urls[0])
    one = follow(settings_of(etcd, "node1", lease=60, access=EtcdAccess((proxy.url,))))
    one.until(registered)
    proxy.cut()
    one.until(lambda snapshot: bool(snapshot.problems))
    etcd.ctl("put", "/pycni/nodes/node9", NINE)
    etcd.ctl("del", "/pycni/nodes/node9")
    etcd.ctl("put", "/pycni/nodes/node8", NINE.replace(".9", ".8"))  # with the range of the one that is gone
    proxy.mend()
    told = one.until(lambda snapshot: bool(snapshot.peers))
    assert (peer_names(told), told.peers[0].pods) == (["node8"], (parse_cidr("10.33.0.0/24"),))


def test_a_watch_that_is_silent_is_begun_again(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    proxy = Proxy(etcd.urls[0])
    one = follow(settings_of(etcd, "node1", lease=60, access=EtcdAccess((proxy.url,), silence=2.0)))
    one.until(registered)
    etcd.ctl("put", "/pycni/nodes/node9", NINE)
    one.until(sees("node9"))
    proxy.cut()  # an outage before does not make it hold on to anybody
    one.until(lambda snapshot: bool(snapshot.problems))
    proxy.mend()
    one.until(sees("node9"))
    etcd.ctl("put", "/pycni/nodes/node8", NINE.replace("33", "34").replace(".9", ".8"))
    one.until(sees("node8", "node9"))
    proxy.lose()
    etcd.ctl("del", "/pycni/nodes/node9")
    one.until(sees("node8"), 5.0)


def test_three_members_may_lose_one_and_then_their_majority(
    entered: Host, follow: Callable[[EtcdSettings], Followed]
) -> None:
    etcd = EtcdCluster(entered, 3)
    one = follow(settings_of(etcd, "node1", lease=20))
    one.until(registered)
    etcd.members[0].kill()
    two = follow(settings_of(etcd, "node2", lease=20))
    two.until(sees("node1"), 20.0)
    one.until(sees("node2"), 20.0)
    etcd.members[1].kill()
    told = one.until(lambda snapshot: bool(snapshot.problems), 20.0)
    assert peer_names(told) == ["node2"]
    etcd.members[0].start()
    one.until(sees("node2"), 30.0)
    three = follow(settings_of(etcd, "node3", lease=20))
    three.until(sees("node1", "node2"), 20.0)
    one.until(sees("node2", "node3"), 5.0)
    assert all(peer_names(snapshot)[:1] == ["node2"] for snapshot in one.snapshots if snapshot.problems)


@pytest.mark.parametrize("behind", [0, 1], ids=["the leader", "a follower"])
def test_a_member_that_is_frozen_is_left(
    entered: Host, follow: Callable[[EtcdSettings], Followed], mocker: Any, behind: int
) -> None:
    """Without a leader the others notice, too; a follower is missed only by who asks it."""
    etcd = EtcdCluster(entered, 3)
    frozen = (etcd.leader + behind) % 3
    mocker.patch("cni_node.sources.etcd_members.by_chance", return_value=frozen)
    access = EtcdAccess(etcd.urls, timeout=1.0)
    one = follow(settings_of(etcd, "node1", access=access))
    one.until(registered)
    etcd.members[frozen].freeze()
    try:
        two = follow(settings_of(etcd, "node2", access=access))
        two.until(sees("node1"), 40.0)
        one.until(sees("node2"), 40.0)
    finally:
        etcd.members[frozen].thaw()


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """Certificates of one CA."""
    ca = make_ca(tmp_path / "tls")
    return Tls(ca.certificate, sign(ca, "server"), sign(ca, "client"))


def test_over_tls_with_a_client_certificate(
    entered: Host, tls: Tls, tmp_path: Path, follow: Callable[[EtcdSettings], Followed]
) -> None:
    etcd = EtcdCluster(entered, tls=tls)
    files = EtcdAccess(etcd.urls, str(tls.ca), str(tls.client.certificate), str(tls.client.key))
    follow(settings_of(etcd, "node1", access=files)).until(registered)
    url = etcd.urls[0]
    other = str(make_ca(tmp_path / "other").certificate)
    told = follow(settings_of(etcd, "node2", access=files._replace(ca_file=other))).until(anything)
    refused = f"{url} does not answer: its certificate is not accepted (unable to get local issuer certificate)"
    assert told == Snapshot(None, (), (refused,), listed=False)
    told = follow(settings_of(etcd, "node3", access=files._replace(certificate_file="", key_file=""))).until(anything)
    assert told.problems[0].startswith(f"{url} does not answer: ")
    told = follow(settings_of(etcd, "node4", access=files._replace(ca_file=str(tmp_path / "no")))).until(anything)
    assert told.problems == (f"{tmp_path}/no cannot be read: No such file or directory",)


def test_with_a_password(entered: Host, tmp_path: Path, follow: Callable[[EtcdSettings], Followed]) -> None:
    etcd = EtcdCluster(entered)
    etcd.require_passwords("/pycni")
    password, wrong = tmp_path / "password", tmp_path / "wrong"
    password.write_text(f"{PASSWORD}\n")
    wrong.write_text("guess\n")
    access = EtcdAccess(etcd.urls, user="pycni", password_file=str(password))
    one = follow(settings_of(etcd, "node1", access=access))
    one.until(registered)
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("node2", {"password_file": str(wrong)}, "authentication failed, invalid user ID or password"),
        ("node3", {"user": "nobody"}, "the user needs a role with the permission readwrite on the prefix /pycni/"),
        ("node4", {"user": ""}, "etcd asks for a user and a password"),
        ("node5", {"password_file": str(tmp_path / "no")}, f"{tmp_path}/no cannot be read"),
    )
    for name, changed, sentence in cases:
        told = follow(settings_of(etcd, name, access=access._replace(**changed))).until(anything)
        assert sentence in told.problems[0], (name, told)


def test_a_token_that_has_ended_is_renewed(entered: Host, tmp_path: Path) -> None:
    etcd = EtcdCluster(entered)
    etcd.require_passwords("/pycni")
    (tmp_path / "password").write_text(PASSWORD)
    client = Etcd(EtcdAccess(etcd.urls, user="pycni", password_file=str(tmp_path / "password")))
    assert client.get("/pycni/x") is None
    client._token = "ended.1"  # one that etcd no longer knows, as after its time, or a restart
    assert client.get("/pycni/x") is None
    assert client._token != "ended.1"


def test_history_that_is_compacted_or_another_is_told(etcd: EtcdCluster) -> None:
    client = Etcd(EtcdAccess(etcd.urls))
    for index in range(3):
        etcd.ctl("put", "/pycni/nodes/x", f"{index}")
    _, revision = client.entries("/pycni/nodes/")
    etcd.ctl("compaction", str(revision))
    with pytest.raises(CompactedError):
        list(client.watch("/pycni/nodes/", 2))
    with pytest.raises(CompactedError):
        list(client.watch("/pycni/nodes/", revision + 100))
    etcd.ctl("put", "/pycni/nodes/x", "7")
    batches = client.watch("/pycni/nodes/", revision + 1)
    assert next(batches).revision == revision  # what comes next is from before the watch
    assert next(batches).replayed
    revision += 1
    watch = client.watch("/pycni/nodes/", revision + 1)
    assert next(watch).put == ()
    etcd.ctl("put", "/pycni/nodes/x", "9")
    batch = next(watch)
    assert ([entry.value for entry in batch.put], batch.revision, batch.replayed) == (["9"], revision + 1, False)
    client.close()
    with pytest.raises(CallError):
        next(watch)


def test_a_watch_without_a_leader_ends(entered: Host) -> None:
    etcd = EtcdCluster(entered, 2)
    client = Etcd(EtcdAccess(etcd.urls[:1]))
    watch = client.watch("/pycni/nodes/", 1)
    next(watch)
    etcd.members[1].kill()
    timer = Timer(20.0, client.close)
    timer.start()
    with pytest.raises(CallError, match="no leader"):
        next(watch)
    timer.cancel()


def test_more_entries_than_a_page_are_listed(etcd: EtcdCluster, mocker: Any) -> None:
    mocker.patch("cni_node.sources.etcd_calls.PAGE", 4)
    for index in range(9):
        etcd.ctl("put", f"/pycni/nodes/{index}", "x")
    entries, revision = Etcd(EtcdAccess(etcd.urls)).entries("/pycni/nodes/")
    assert [entry.key[-1] for entry in entries] == list("012345678")
    assert revision == max(entry.modified for entry in entries)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("nonsense", "node node9 in etcd is left as it was"),
        ('{"pods": 7}', "node node9 in etcd is left as it was: its entry '{\"pods\": 7}' is not that of a node"),
        ('{"pods": ["x"], "addresses": []}', "node node9 in etcd is left as it was: 'x' is no IP address"),
    ],
)
def test_an_entry_that_makes_no_sense_stays_as_it_was(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed], value: str, sentence: str
) -> None:
    one = follow(settings_of(etcd, "node1"))
    one.until(registered)
    etcd.ctl("put", "/pycni/nodes/node9", NINE)
    before = one.until(sees("node9"), SOON).peers
    etcd.ctl("put", "/pycni/nodes/node9", value)
    told = one.until(lambda snapshot: bool(snapshot.problems), SOON)
    assert told.peers == before
    assert sentence in told.problems[0]


def test_another_range_for_the_cluster_is_told_and_not_taken(
    etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]
) -> None:
    etcd.ctl("put", "/pycni/config", '{"networks": ["10.99.0.0/16"], "nodePrefixes": [24]}')
    told = follow(settings_of(etcd, "node1")).until(lambda snapshot: snapshot.own is not None)
    assert told.own is not None
    assert told.own.pods[0].ip in parse_cidr("10.99.0.0/16")
    assert told.problems[0].startswith('/pycni/config in etcd has {"networks": ["10.99.0.0/16"]')


def test_who_has_what_is_shown(etcd: EtcdCluster, follow: Callable[[EtcdSettings], Followed]) -> None:
    own = follow(settings_of(etcd, "node1", lease=30)).until(registered).own
    assert isinstance(own, Node)
    etcd.ctl("put", "/pycni/nodes/old", '{"pods": [], "addresses": []}')
    etcd.ctl("put", "/pycni/nodes/odd", "?")
    etcd.ctl("put", "/pycni/subnets/10.33.0.0-24", "{}")
    lines = render_holdings(read_holdings(Etcd(EtcdAccess(etcd.urls)), "/pycni")).splitlines()
    assert lines[0].split() == ["NODE", "PODS", "ADDRESS", "MTU", "LEASE"]
    name, pods, address, mtu, seconds, unit = lines[1].split()
    assert (name, pods, address, mtu, unit) == ("node1", str(own.pods[0]), "192.168.1.1", "1450", "s")
    assert 20 <= int(seconds) <= 30
    assert lines[2].split() == ["old", "-", "-", "-", "none"]
    assert lines[3] == "reserved: 10.33.0.0/24"
    assert lines[4].startswith("problem: node odd: ")


def test_what_a_node_asks_for_is_checked(etcd: EtcdCluster) -> None:
    for changes, sentence in (
        ({"name": "a/b"}, "'a/b' is no name for a node in etcd"),
        ({"addresses": ()}, "this node has no address"),
        ({"cluster": Cluster((parse_cidr("10.32.0.0/12"),), (12,))}, "a node's part of 10.32.0.0/12 is /13 to /30"),
    ):
        settings = settings_of(etcd, "node1")._replace(**changes)
        with pytest.raises(CNIError) as caught:
            Registration(Etcd(EtcdAccess(etcd.urls)), settings).keep()
        assert sentence in caught.value.msg
    assert parse_cluster('{"networks": ["10.32.0.0/24"], "nodePrefixes": [28]}') == SMALL
