"""What the agent answers on 127.0.0.1, where any user of the node may ask."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from unittest.mock import MagicMock, PropertyMock

import pytest

from cni_kernel.errors import KernelError
from cni_node.agent import server
from cni_node.agent.report import Report
from cni_node.policy.state import PolicyState
from tests.kit.host import wait_until

BOUND = 60.0  # seconds
HALF = b"GET /healthz HTTP/1.1\r\n"


class Answers:
    """A server, and what its page says."""

    def __init__(self) -> None:
        self.enforcer = MagicMock()
        page = server.Page(lambda: Report(ready=True), lambda: True, self.enforcer)
        self.server = server._TcpServer(("127.0.0.1", 0), server._of(page, server._Handler))
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def connect(self, sent: bytes) -> socket.socket:
        """A connection by which something has been sent."""
        sock = socket.create_connection(("127.0.0.1", self.server.socket.getsockname()[1]), timeout=BOUND)
        sock.sendall(sent)
        return sock

    def read(self, path: str) -> bytes:
        """An answer, nothing where there is none."""
        with self.connect(f"GET {path} HTTP/1.0\r\n\r\n".encode()) as sock, sock.makefile("rb") as file:
            return file.read()

    def get(self, path: str) -> bytes:
        """The first line of an answer."""
        return self.read(path).partition(b"\r\n")[0]


@pytest.fixture
def answers() -> Iterator[Answers]:
    found = Answers()
    yield found
    found.server.shutdown()
    found.server.server_close()


OK = b"HTTP/1.0 200 OK"


def test_half_requests_keep_nobody_out_and_take_little(answers: Answers) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(answers.connect(HALF)) for _ in range(40)]
        assert answers.get("/healthz") == OK
        assert len(answers.server._open) <= 8
        assert held[0].recv(1) == b""  # the oldest has been ended
    assert wait_until(lambda: not answers.server._open, BOUND)


def test_a_request_has_a_bound_as_a_whole(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CLIENT_BOUND", 0.5)
    end = time.monotonic() + BOUND
    with answers.connect(HALF) as sock:
        sock.settimeout(0.1)
        while True:
            assert time.monotonic() < end, "the server goes on waiting"
            try:
                if sock.send(b"x") and not sock.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:  # it is closed, and what we sent came too late
                break


def test_what_a_probe_asks_reads_nothing_from_the_kernel(answers: Answers) -> None:
    state = PropertyMock(side_effect=KernelError(1, "nftables cannot be read", "not permitted"))
    type(answers.enforcer).state = state
    answers.enforcer.known_state = PolicyState(ready=True, policies=7)
    assert [answers.get(path) for path in ("/healthz", "/readyz")] == [OK, OK]
    assert not state.called
    document = json.loads(answers.read("/status").partition(b"\r\n\r\n")[2])
    assert "nftables cannot be read" in document["problems"][0]
    assert document["policies"]["policies"] == 7


@pytest.mark.parametrize(
    ("error", "told"), [(BrokenPipeError(32, "Broken pipe"), False), (KeyError("x"), True)], ids=["client", "fault"]
)
def test_a_client_that_is_gone_is_not_in_the_log(
    answers: Answers, capsys: pytest.CaptureFixture[str], error: Exception, told: bool
) -> None:
    type(answers.enforcer).state = PropertyMock(side_effect=error)
    assert answers.read("/status") == b""
    assert ("Traceback" in capsys.readouterr().err) == told
