"""The client of JSON APIs: connections, bounds, and what is said of failures."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni_node.api import client as module
from cni_node.api.client import CallError, Client
from cni_node.api.connection import parse_server
from cni_node.api.credentials import Access, load_files
from cni_protocol.errors import CNIError
from tests.kit.api_server import ApiServer, Refusal
from tests.kit.certificates import Pair, make_ca, sign
from tests.kit.host import wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Scripted:
    """A server that answers each connection by its next script: a function of the connection, run after a request."""

    def __init__(self, *scripts: Callable[[socket.socket], object]) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._scripts = scripts
        self.open: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for script in self._scripts:
            connection, _ = self._listening.accept()
            self.open.append(connection)
            connection.recv(1 << 16)
            script(connection)

    def client(self, timeout: float = 5.0) -> Client:
        return Client(lambda: Access(self.url), timeout)


def answering(*parts: bytes, close: bool = False) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        if close:
            connection.close()

    return answer


def test_a_connection_is_kept_and_notices_a_dead_peer() -> None:
    with ApiServer() as api:
        client = Client(lambda: Access(api.url))
        client.call("GET", "/api/v1/nodes")
        assert client._connection is not None
        first = client._connection.open_socket
        client.call("GET", "/api/v1/nodes")
        assert client._connection.open_socket is first
        assert first is not None
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [first.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3]


def test_a_connection_that_the_server_has_closed_is_made_anew() -> None:
    server = Scripted(answering(OK, close=True), answering(OK))
    client = server.client()
    assert client.call("GET", "/") == {}
    assert client.call("GET", "/") == {}


def test_an_answer_has_a_bound() -> None:
    server = Scripted(answering())
    begun = time.monotonic()
    with pytest.raises(CallError) as caught:
        server.client(timeout=0.2).call("GET", "/")
    assert str(caught.value) == f"{server.url} does not answer: no answer in time"
    assert time.monotonic() - begun < 4.5  # the client's usual bound is 5


@pytest.mark.parametrize(
    ("parts", "sentence", "status"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], "does not answer: it has ended in the middle", 0),
        ([b"SSH-2.0-x\r\n\r\n"], "does not answer: SSH-2.0-x", 0),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\xffabcd"], "answers no JSON, but '\ufffdabcd'", 200),
        ([b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n"], "refuses GET /x: 418, Teapot", 418),
    ],
    ids=["cut", "not-http", "no-json", "no-reason"],
)
def test_an_answer_that_makes_no_sense_is_told(parts: list[bytes], sentence: str, status: int) -> None:
    server = Scripted(answering(*parts, close=True), answering(*parts, close=True))
    with pytest.raises(CallError) as caught:
        server.client().call("GET", "/x?query=1")
    assert str(caught.value).startswith(f"{server.url} {sentence}")
    assert caught.value.status == status


def test_answers_and_lines_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1 << 20)
    long = b" " * (1 << 20)
    server = Scripted(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1048580\r\n\r\n", long, b"{}  "))
    with pytest.raises(CallError, match="an answer of more than 1 MiB"):
        server.client().call("GET", "/")
    server = Scripted(answering(CHUNKED, b"200000\r\n", long, long))
    with pytest.raises(CallError, match="a line of more than 1 MiB"):
        list(server.client().stream("/"))


def test_lines_come_as_they_are_sent_however_they_are_cut() -> None:
    server = Scripted(answering(CHUNKED, b'5\r\n{"a":\r\n', b"6\r\n1}\n{}\n\r\n", b"4\r\n\n[2]\r\n", b"0\r\n\r\n"))
    client = server.client()
    assert list(client.stream("/")) == [{"a": 1}, {}, [2]]  # the last one has no end of line
    assert client._connection is not None  # and the connection is good for more


def test_a_silent_stream_ends() -> None:
    server = Scripted(answering(CHUNKED, b"3\r\n{}\n\r\n"))
    begun = time.monotonic()
    assert list(server.client().stream("/", silence=0.2)) == [{}]
    assert 0.2 <= time.monotonic() - begun < 10


def test_closing_ends_what_another_thread_waits_for() -> None:
    for ask in (lambda client: client.call("GET", "/"), lambda client: list(client.stream("/"))):
        server = Scripted(answering(CHUNKED, b"3\r\n{}\n\r\n"))
        client = server.client(timeout=30.0)
        failed: list[CallError] = []

        def wait(
            ask: Callable[[Client], object] = ask, client: Client = client, failed: list[CallError] = failed
        ) -> None:
            try:
                ask(client)
            except CallError as error:
                failed.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert wait_until(lambda server=server: server.open)
        client.close()
        thread.join(5)
        assert len(failed) == 1
        with pytest.raises(CallError, match="is not asked any more"):
            client.call("GET", "/")


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Pair]:
    """A CA."""
    yield make_ca(tmp_path / "ca")


def failure_of(access: Callable[[], Access]) -> str:
    with pytest.raises(CallError) as caught:
        Client(access).call("GET", "/api/v1/nodes")
    return str(caught.value)


def test_names_in_certificates_are_checked(authority: Pair) -> None:
    server = sign(authority, "server", hosts="DNS:api.example")
    with ApiServer(tls=server) as api:
        access = load_files(api.url, str(authority.certificate))
        assert "IP address mismatch" in failure_of(lambda: access)
        named = access._replace(server_name="api.example")
        assert Client(lambda: named).call("GET", "/api/v1/nodes")["items"] == []


def test_certificates_that_cannot_be_used_are_named(authority: Pair, tmp_path: Path) -> None:
    pair, other = sign(authority, "one"), sign(authority, "two")
    url = "https://127.0.0.1:1"
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    ca = str(authority.certificate)
    told = failure_of(lambda: load_files(url, str(damaged)))
    assert told.startswith(f"the CA's certificate cannot be read ({damaged}): ")
    told = failure_of(lambda: load_files(url, ca, str(pair.certificate), str(other.key)))
    assert told.startswith("certificate and key do not fit or are damaged (") and str(other.key) in told


def test_a_client_with_a_certificate_of_its_own_gets_an_answer(authority: Pair) -> None:
    own = sign(authority, "node")
    with ApiServer(tls=sign(authority, "server")) as api:
        access = load_files(api.url, str(authority.certificate), str(own.certificate), str(own.key))
        assert Client(lambda: access).call("GET", "/api/v1/nodes")["items"] == []


def test_a_file_that_is_being_replaced_does_no_harm(tmp_path: Path, authority: Pair) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate.read_bytes())
    with ApiServer(tls=sign(authority, "server")) as api:
        client = Client(lambda: load_files(api.url, str(ca)))
        client.call("GET", "/api/v1/nodes")
        ca.unlink()
        client.call("GET", "/api/v1/nodes")
        ca.write_text("")
        client.call("GET", "/api/v1/nodes")
        ca.write_bytes(make_ca(tmp_path / "other").certificate.read_bytes())
        with pytest.raises(CallError, match="its certificate is not accepted"):
            client.call("GET", "/api/v1/nodes")


def test_what_the_server_says_is_passed_on() -> None:
    with ApiServer() as api:
        api.refusals = [Refusal(503, '{"message":"starting"}', (("Retry-After", "3"),)), Refusal(500, "[]")]
        client = Client(lambda: Access(api.url))
        with pytest.raises(CallError) as caught:
            client.call("GET", "/api/v1/nodes")
        assert (str(caught.value), caught.value.retry_after) == (
            f"{api.url} refuses GET /api/v1/nodes: 503, starting",
            3,
        )
        assert caught.value.body == {"message": "starting"}
        with pytest.raises(CallError, match="500, Internal Server Error"):
            client.call("GET", "/api/v1/nodes")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("60", 60.0),
        ("61", 60.0),
        ("99999999999", 60.0),
        pytest.param("9" * 400, 60.0, id="more than a float holds"),
        ("-1", 0.0),
        ("nan", 0.0),
        ("1e9", 0.0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", 0.0),
    ],
)
def test_a_server_can_ask_for_a_minute_at_most(text: str, seconds: float) -> None:
    with ApiServer() as api:
        api.refusals = [Refusal(429, "{}", (("Retry-After", text),))]
        with pytest.raises(CallError) as caught:
            Client(lambda: Access(api.url)).call("GET", "/api/v1/nodes")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("https://10.0.0.1:6443", ("10.0.0.1", 6443, True)),
        ("https://[fd00::1]:6443/", ("fd00::1", 6443, True)),
        ("http://api", ("api", 80, False)),
        ("https://api", ("api", 443, True)),
    ],
)
def test_a_server_is_named_by_a_url(text: str, server: tuple[str, int, bool]) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:6443",
        "https://fd00::1:443",
        "https://[fd00::1:443",
        "ftp://api",
        "https://",
        "https://api:x",
        "https://api:99999",
        "http://a/b",
        "http://u@a",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_server(text)
    assert caught.value.msg == f"{text!r} is no address of a server, as in https://192.168.1.10:6443"
