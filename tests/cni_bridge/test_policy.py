"""Asking the agent for a pod's policies: what is said, how long it is waited for, and what a silence means."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from cni_bridge import policy
from cni_bridge.policy import announce_pod, withdraw_pod
from cni_kernel.errors import KernelError
from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.errors import TRY_AGAIN_LATER, CNIError
from cni_protocol.request import Request
from tests.cni_bridge import make_request

ADDRESSES = [parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")]
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=abc"


def request_of(args: str = ARGS) -> Request:
    return make_request(cni_args=args)


class Agent:
    """A socket that answers one call with some bytes, or not at all."""

    def __init__(self, path: Path, answer: bytes, delay: float = 0.0) -> None:
        self.path, self.heard = str(path), b""
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen()
        self._answer, self._delay = answer, delay
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        caller, _ = self._server.accept()
        while b"}" not in self.heard:
            self.heard += caller.recv(4096)
        time.sleep(self._delay)
        with contextlib.suppress(OSError):
            caller.sendall(self._answer)
        caller.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    yield lambda answer, delay=0.0: Agent(tmp_path / "agent.sock", answer, delay)


def said(state: str) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps({"state": state}).encode()


@pytest.mark.parametrize("state", ["in force", "pending", "off"])
def test_the_pod_is_announced_with_all_its_addresses(
    agent: Callable[..., Agent], state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = agent(said(state))
    announce_pod(asked.path, request_of(), ADDRESSES, required=False)
    head, _, body = asked.heard.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /pods HTTP/1.0\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {
        "namespace": "shop",
        "name": "web-1",
        "uid": "abc",
        "addresses": ["10.1.0.5", "fd00:1::5"],
        "containerId": request_of().container_id,
        "ifname": "eth0",
    }
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", "HTTP/1.0 503 Service Unavailable"),
        (b"", "it said nothing"),
        (b"HTTP/1.0 200 OK\r\n\r\nnonsense", "does not answer"),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "[]"),
        (said(""), "may come late"),
    ],
    ids=["refused", "silent", "no JSON", "no object", "no state"],
)
def test_any_other_answer_is_a_warning(
    agent: Callable[..., Agent], answer: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    announce_pod(agent(answer).path, request_of(), ADDRESSES, required=False)
    warning = capsys.readouterr().err
    assert warning.startswith("cni-bridge: warning: policies of pod shop/web-1 may come late: ")
    assert words in warning


def test_an_agent_that_is_not_there_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce_pod(str(tmp_path / "none"), request_of(), ADDRESSES, required=False)
    assert f"the agent at {tmp_path}/none does not answer: " in capsys.readouterr().err


def test_an_agent_that_hangs_is_waited_for_with_a_bound(
    agent: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(policy, "BOUND", 0.2)
    asked = agent(said("in force"), 5.0)
    begun = time.monotonic()
    announce_pod(asked.path, request_of(), ADDRESSES, required=False)
    assert time.monotonic() - begun < 4
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["in force", "pending"])
def test_required_policies_that_are_in_force_let_a_pod_start(agent: Callable[..., Agent], state: str) -> None:
    announce_pod(agent(said(state)).path, request_of(), ADDRESSES, required=True)


def test_a_pod_does_not_start_where_nobody_cares_for_required_policies(agent: Callable[..., Agent]) -> None:
    with pytest.raises(CNIError, match="policies of pod shop/web-1 are required and not in force: ") as caught:
        announce_pod(agent(said("off")).path, request_of(), ADDRESSES, required=True)
    assert caught.value.code == TRY_AGAIN_LATER


@pytest.fixture
def changed(mocker: MockerFixture) -> list[tuple[str, list[str]]]:
    """What is done in the table instead of the agent."""
    done: list[tuple[str, list[str]]] = []
    for name in ("hold_back", "let_go"):
        mocker.patch(f"cni_bridge.hold_back.{name}", lambda ips, name=name: done.append((name, list(map(str, ips)))))
    return done


def test_a_pod_without_its_required_policies_is_held_back(
    agent: Callable[..., Agent], changed: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce_pod(agent(said("")).path, request_of(), ADDRESSES, required=True)
    announce_pod(str(tmp_path / "none"), request_of(), ADDRESSES, required=True)
    assert changed == [("hold_back", ["10.1.0.5", "fd00:1::5"])] * 2
    assert (
        f"pod shop/web-1 is held back, nothing passes: the agent at {tmp_path}/none does not" in capsys.readouterr().err
    )


def test_a_pod_that_goes_is_taken_out_by_the_agent_or_else_by_us(
    agent: Callable[..., Agent], changed: list[object], tmp_path: Path
) -> None:
    asked = agent(said("gone"))
    withdraw_pod(asked.path, request_of(), ADDRESSES)
    assert json.loads(asked.heard.partition(b"\r\n\r\n")[2])["gone"] is True
    assert changed == []
    withdraw_pod(str(tmp_path / "none"), request_of(), ADDRESSES)
    assert changed == [("let_go", ["10.1.0.5", "fd00:1::5"])]
    withdraw_pod(str(tmp_path / "none"), request_of(""), ADDRESSES)  # no pod: nothing can be left of it
    assert len(changed) == 1


@pytest.mark.parametrize(
    ("args", "addresses", "let_go"),
    [
        ("", ADDRESSES, [("let_go", ["10.1.0.5", "fd00:1::5"])]),
        ("IgnoreUnknown=1;K8S_POD_NAME=web-1", ADDRESSES[:1], [("let_go", ["10.1.0.5"])]),
        (ARGS, [], []),
    ],
    ids=["no pod", "no namespace", "no address"],
)
def test_what_is_no_pod_is_not_held_back_where_no_agent_answers(
    args: str, addresses: list[CIDR], let_go: object, changed: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    announce_pod("/nowhere", request_of(args), addresses, required=False)
    assert capsys.readouterr().err == ""
    assert changed == let_go


def test_of_what_is_no_pod_the_agent_is_told_so_too(agent: Callable[..., Agent], changed: list[object]) -> None:
    """Else it would close the address again, for a pod that had it."""
    asked = agent(said("in force"))
    announce_pod(asked.path, request_of(""), ADDRESSES, required=True)
    told = json.loads(asked.heard.partition(b"\r\n\r\n")[2])
    assert (told["namespace"], told["name"], told["addresses"]) == ("-", "c1", ["10.1.0.5", "fd00:1::5"])
    assert changed == []


def test_a_kernel_without_a_table_of_policies_keeps_nobody_from_starting(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = KernelError(2, "nftables cannot be asked", "No such file or directory")
    mocker.patch("cni_bridge.hold_back.let_go", side_effect=refusal)
    announce_pod("/nowhere", request_of(""), ADDRESSES, required=False)
    assert "warning: what is left of a pod that had its address: nftables cannot be asked" in capsys.readouterr().err
