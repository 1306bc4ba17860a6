"""What is asked of etcd's gateway, and what is made of its answers; the real one is asked in test_etcd.py."""

import base64
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest

from cni_node.api.client import CallError
from cni_node.snapshot import Node
from cni_node.sources import etcd_calls
from cni_node.sources.etcd import EtcdSource
from cni_node.sources.etcd_calls import CompactedError, Etcd, EtcdAccess, explain
from cni_node.sources.etcd_lease import EtcdSettings, Registration
from cni_node.sources.etcd_listing import Holding, Holdings, read_holdings, render_holdings
from cni_node.sources.etcd_messages import Batch, Entry, behind, to_entry
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.errors import CNIError

ACCESS = EtcdAccess(("http://one:2379", "http://two:2379"))
AT_9 = {"header": {"revision": "9"}}
NODE = '{"pods": ["10.32.1.0/24"], "addresses": ["192.168.1.1"], "mtu": 1450}'


def in64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kv(key: str, value: str = "v", lease: int = 0) -> dict[str, str]:
    entry = {"key": in64(key), "value": in64(value), "create_revision": "3", "mod_revision": "5"}
    return {**entry, "lease": str(lease)} if lease else entry


class Gateway:
    """Answers, one after the other; an exception is raised. Notes what was asked, and by which client."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        self.clients: list[Gateway.Client] = []

    class Client:
        """As Client."""

        gateway: "Gateway"

        def __init__(self, load: Any, timeout: float) -> None:
            self.load, self.timeout, self.closed = load, timeout, False
            self.gateway.clients.append(self)

        def call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
            assert method == "POST"
            self.gateway.asked.append((path, body, headers))
            answer = self.gateway.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def stream(self, path: str, body: Any, headers: dict[str, str], silence: float) -> Iterator[Any]:
            assert silence == etcd_calls.SILENCE
            return iter(self.call("POST", path, body, headers))

        def close(self) -> None:
            self.closed = True


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = Gateway()
    monkeypatch.setattr(Gateway.Client, "gateway", made, raising=False)
    monkeypatch.setattr(etcd_calls, "Client", Gateway.Client)
    return made


def test_one_entry_is_asked_for(gateway: Gateway) -> None:
    gateway.answers = [{**AT_9, "kvs": [kv("/a", "x", 77)]}, AT_9]
    etcd = Etcd(ACCESS)
    assert etcd.get("/a") == Entry("/a", "x", 3, 5, 77)
    assert etcd.get("/b") is None
    assert gateway.asked == [("/v3/kv/range", {"key": in64(key)}, {}) for key in ("/a", "/b")]


def test_pages_are_of_one_revision(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_calls, "PAGE", 2)
    pages = [[kv("/n/a"), kv("/n/b")], [kv("/n/c"), kv("/n/d")], [kv("/n/e")]]
    gateway.answers = [{"header": {"revision": str(9 + n)}, "kvs": page} for n, page in enumerate(pages)]
    found, revision = Etcd(ACCESS).entries("/n/")
    assert ([entry.key for entry in found], revision) == (["/n/a", "/n/b", "/n/c", "/n/d", "/n/e"], 9)
    whole = {"range_end": in64("/n0"), "limit": "2"}
    assert [body for _, body, _ in gateway.asked] == [
        {**whole, "key": in64("/n/")},
        {**whole, "key": in64("/n/b\0"), "revision": "9"},
        {**whole, "key": in64("/n/d\0"), "revision": "9"},
    ]


@pytest.mark.parametrize("lease", [0, 77])
def test_values_are_written_if_nothing_has_changed(gateway: Gateway, lease: int) -> None:
    gateway.answers = [{"succeeded": True}, {}]
    etcd = Etcd(ACCESS)
    unchanged = {"/a": Entry("/a", "x", 3, 5, 0), "/b": None}
    assert [etcd.put_if(unchanged, {"/b": "y"}, lease) for _ in range(2)] == [True, False]
    tied = {"lease": "77"} if lease else {}
    compare = {"target": "MOD", "result": "EQUAL"}
    assert gateway.asked[0] == (
        "/v3/kv/txn",
        {
            "compare": [
                {"key": in64("/a"), **compare, "mod_revision": "5"},
                {"key": in64("/b"), **compare, "mod_revision": "0"},
            ],
            "success": [{"request_put": {"key": in64("/b"), "value": in64("y"), **tied}}],
        },
        {},
    )


def test_leases(gateway: Gateway) -> None:
    gateway.answers = [{"ID": "77"}, {"result": {"TTL": "3"}}, {"result": {}}, {"TTL": "-1"}]
    etcd = Etcd(ACCESS)
    assert (etcd.grant(9), etcd.keep_alive(77), etcd.keep_alive(77), etcd.seconds_left(77)) == (77, 3, 0, -1)
    assert [(path, body) for path, body, _ in gateway.asked] == [
        ("/v3/lease/grant", {"TTL": "9"}),
        ("/v3/lease/keepalive", {"ID": "77"}),
        ("/v3/lease/keepalive", {"ID": "77"}),
        ("/v3/lease/timetolive", {"ID": "77"}),
    ]


def test_a_lease_that_is_not_renewed_is_told(gateway: Gateway) -> None:
    gateway.answers = [{"error": {"message": "etcdserver: no leader"}}]
    with pytest.raises(CallError, match=r"does not renew the lease: .*no leader") as caught:
        Etcd(ACCESS).keep_alive(77)
    assert caught.value.status == 503


def batches(gateway: Gateway, *messages: Any, revision: int = 6) -> list[Batch]:
    gateway.answers = [messages]
    return list(Etcd(ACCESS).watch("/n/", revision))


def result(revision: int, *events: Any, **more: Any) -> dict[str, Any]:
    return {"result": {"header": {"revision": str(revision)}, "events": list(events), **more}}


def test_a_watch_tells_what_was_changed_before_it_and_since(gateway: Gateway) -> None:
    found = batches(
        gateway,
        result(7, created=True),
        result(9, {"kv": {**kv("/n/a"), "mod_revision": "6"}}),
        result(9, {"type": "DELETE", "kv": {"key": in64("/n/b"), "mod_revision": "9"}}),
        result(12),
    )
    assert found == [
        Batch(5, (), (), True),
        Batch(6, (Entry("/n/a", "v", 3, 6, 0),), (), True),
        Batch(9, (), ("/n/b",), False),
        Batch(12, (), (), False),
    ]
    request = {"key": in64("/n/"), "range_end": in64("/n0"), "start_revision": "6", "progress_notify": True}
    [(path, body, headers)] = gateway.asked
    assert (path, body) == ("/v3/watch", {"create_request": request})
    assert headers == {"Grpc-Metadata-hasleader": "true"}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(result(9, canceled=True, compact_revision="8"), id="compacted"),
        pytest.param(result(4, created=True), id="an etcd that was set up anew"),
    ],
)
def test_a_watch_that_cannot_go_on_has_all_listed_anew(gateway: Gateway, message: Any) -> None:
    with pytest.raises(CompactedError):
        batches(gateway, message)


@pytest.mark.parametrize(
    ("message", "said", "status"),
    [
        ({"error": {"message": "no leader"}}, "etcd ends the watch: no leader", 503),
        ({"error": 7}, "etcd ends the watch: {'error': 7}", 503),
        (7, "etcd ends the watch: 7", 503),
        (result(9, canceled=True, cancel_reason="no permission"), "etcd refuses the watch: no permission", 200),
        (result(9, canceled=True), "etcd refuses the watch: no reason given", 200),
        ({"result": {"header": 7}}, "makes no sense: 'revision'", 200),
        (result(9, {"type": "PUT"}), "makes no sense: 'kv'", 200),
        (result(9, 7), "makes no sense: 'kv'", 200),
    ],
)
def test_a_watch_that_ends_says_why(gateway: Gateway, message: Any, said: str, status: int) -> None:
    with pytest.raises(CallError, match=said) as caught:
        batches(gateway, message)
    assert caught.value.status == status
    assert [client.closed for client in gateway.clients] == ([True, False] if status == 503 else [False])


def test_a_watch_begins_where_etcd_is(gateway: Gateway) -> None:
    assert batches(gateway, result(5, created=True)) == [Batch(5, (), (), True)]


@pytest.mark.parametrize("status", [0, 502, 503, 504])
def test_each_member_is_asked_once(gateway: Gateway, status: int) -> None:
    gateway.answers = [CallError("away", status), {"TTL": "5"}, CallError("away", status), CallError("gone", status)]
    left: list[int] = []
    etcd = Etcd(ACCESS, left=lambda: left.append(1))
    assert etcd.seconds_left(1) == 5
    with pytest.raises(CallError, match="gone"):
        etcd.seconds_left(1)
    assert (len(gateway.asked), len(left), [client.closed for client in gateway.clients]) == (
        4,
        3,
        [True] * 3 + [False],
    )


def test_a_refusal_is_not_asked_for_elsewhere(gateway: Gateway) -> None:
    gateway.answers = [CallError("no", 400)]
    with pytest.raises(CallError, match="no"):
        Etcd(ACCESS).seconds_left(1)
    assert len(gateway.asked) == 1


@pytest.mark.parametrize("answer", [[], None, {"kvs": 7}, {"kvs": [7]}, {"header": {"revision": "x"}}])
def test_answers_that_make_no_sense(gateway: Gateway, answer: Any) -> None:
    gateway.answers = [answer]
    with pytest.raises(CallError, match="makes no sense"):
        Etcd(ACCESS).entries("/n/")


def test_a_token_is_fetched_once_and_again_when_it_has_ended(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    etcd = Etcd(ACCESS._replace(user="root", password_file=str(tmp_path / "password")))
    ended = [CallError("ended", 401), CallError("ended", 500, {"code": 16})]
    told = {"TTL": "5"}
    for answers in (
        [{"token": "t0"}, told],
        [told],
        [ended[0], {"token": "t1"}, told],
        [ended[1], {"token": "t2"}, told],
    ):
        gateway.answers = answers
        assert etcd.seconds_left(1) == 5
    named: Any = ("/v3/auth/authenticate", {"name": "root", "password": "secret"}, {})
    tokens = [{"Authorization": f"t{number}"} for number in (0, 0, 0, 1, 1, 2)]
    asked = [("/v3/lease/timetolive", {"ID": "1"}, token) for token in tokens]
    assert gateway.asked == [named, *asked[:3], named, *asked[3:5], named, asked[5]]


def test_other_failures_with_a_token_are_told(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    etcd = Etcd(ACCESS._replace(user="root", password_file=str(tmp_path / "password")))
    gateway.answers = [{"token": "t"}, {}, CallError("no", 400, {"code": 7})]
    etcd.seconds_left(1)
    with pytest.raises(CallError, match="no"):
        etcd.seconds_left(1)
    with pytest.raises(CallError) as caught:
        Etcd(ACCESS._replace(user="root", password_file=str(tmp_path / "none"))).seconds_left(1)
    assert caught.value.status == 401


def test_after_closing_nothing_is_asked_by_a_new_client(gateway: Gateway) -> None:
    gateway.answers = [CallError("away"), CallError("away")]
    etcd = Etcd(ACCESS)
    etcd.close()
    with pytest.raises(CallError):
        etcd.seconds_left(1)
    assert [client.closed for client in gateway.clients] == [True, True, True]


def test_there_must_be_an_endpoint() -> None:
    with pytest.raises(CNIError, match="no endpoint"):
        Etcd(EtcdAccess(()))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CallError("denied", 403, {"code": 7}), "denied: the user needs a role with the permission readwrite on "),
        (CallError("user name is empty", 400), "user name is empty: etcd asks for a user and a password"),
        (CallError("user name is empty", 500), "user name is empty"),
        (CallError("else", 400, "text"), "else"),
    ],
)
def test_failures_are_explained(error: CallError, said: str) -> None:
    found = explain(error, "/pycni")
    assert found == said or (said.endswith(" ") and found == f"{said}the prefix /pycni/")


def test_an_entry_without_value_and_lease() -> None:
    assert to_entry({"key": in64("/a")}) == Entry("/a", "", 0, 0, 0)
    assert behind("/n/") == "/n0"


def test_who_has_what_is_read(gateway: Gateway) -> None:
    nodes = [kv("/p/nodes/node1", NODE, 77), kv("/p/nodes/node2", NODE), kv("/p/nodes/node3", "x")]
    owners = [("10.32.1.0-24", '{"node": "node1"}'), ("10.32.2.0-24", "{}"), ("10.32.3.0-24", '{"node": "node7"}')]
    subnets = [kv(f"/p/subnets/{key}", value) for key, value in (*owners, ("x", "{}"))]
    gateway.answers = [{**AT_9, "kvs": nodes}, {**AT_9, "kvs": subnets}, {"TTL": "9"}]
    found = read_holdings(Etcd(ACCESS), "/p")
    assert [(node.name, seconds) for node, seconds in found.nodes] == [("node1", 9), ("node2", -1)]
    assert found.reserved == ("10.32.2.0/24", "10.32.3.0/24 node7")
    assert [problem.partition(": ")[0] for problem in found.problems] == ["node node3"]
    assert [body["key"] for _, body, _ in gateway.asked[:2]] == [in64("/p/nodes/"), in64("/p/subnets/")]


def test_who_has_what_is_shown() -> None:
    pods, address = parse_cidr("10.32.1.0/24"), parse_ip("192.168.1.1")
    nodes = (Holding(Node("node1", (pods,), (address,), 1450), 0), Holding(Node("n2", (), (), 0), -1))
    shown = render_holdings(Holdings(nodes, ("10.32.2.0/24",), ("node x: no",)))
    assert shown == (
        "NODE   PODS          ADDRESS      MTU   LEASE\n"
        "node1  10.32.1.0/24  192.168.1.1  1450  0 s\n"
        "n2     -             -            -     none\n"
        "reserved: 10.32.2.0/24\n"
        "problem: node x: no\n"
    )


def test_a_source_that_is_stopped_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the lease is to be renewed the next time, which is later than the threads are waited for."""
    kept, stopping = Event(), Event()

    monkeypatch.setattr(Registration, "keep", lambda *_: kept.set())
    monkeypatch.setattr(EtcdSource, "_watch", lambda *_: stopping.wait())
    source = EtcdSource(EtcdSettings(ACCESS, "node1", (parse_ip("192.168.1.1"),)))
    following = Thread(target=source.follow, args=(lambda _: None, stopping))
    following.start()
    assert kept.wait(30)
    stopping.set()
    following.join(60)
    assert "etcd-keep" not in {thread.name for thread in enumerate_threads()}
