"""Calls that end before they are done: the service dies, the client dies, or the client is asked to end."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cni_protocol.version import NEWEST
from cni_protocol.warm_client import GO, TAKEN
from tests.cni_warm.stand_in import StandIn
from tests.faults.warm import attach
from tests.kit.host import Host, wait_until
from tests.kit.runtime import Runtime
from tests.kit.warm import Counts, Service

pytestmark = pytest.mark.kernel

BOUND = 30


@pytest.fixture
def calling(bin_dir: str, service: Service, stand_in: StandIn) -> "subprocess.Popen[bytes]":
    """An ADD of c1 that a worker runs, held in its middle: c1 has its interface already."""
    return stand_in.begin(f"{bin_dir}/cni-bridge")


def worker_at_work(service: Service) -> int:
    """The worker that has a child."""
    for pid in service.workers:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            if file.read().strip():
                return pid
    raise AssertionError("no worker is at work")


def test_a_worker_that_dies_fails_its_call_alone_and_it_is_not_run_again(
    host: Host, bridge: Runtime, service: Service, stand_in: StandIn, calling: "subprocess.Popen[bytes]"
) -> None:
    os.kill(worker_at_work(service), signal.SIGKILL)
    stdout, stderr = calling.communicate(timeout=BOUND)
    assert (calling.returncode, stderr) == (1, b"")
    error = json.loads(stdout)
    assert (error["cniVersion"], error["code"]) == (NEWEST, 11)
    assert "the warm service of pycni ended" in error["msg"]
    assert stdout == json.dumps(error, indent=4).encode() + b"\n"
    stand_in.release()
    assert stand_in.calls == ["ADD"]
    bridge.path = ("/run/stand-in",)
    bridge.delete("c1", stand_in.config)
    bridge.add("c1", stand_in.config)
    bridge.delete("c1", stand_in.config)
    assert host.link_names() == ["br0"]
    assert service.stop() == Counts(3, 1)


def test_the_service_itself_may_die_and_the_call_goes_on(
    service: Service, stand_in: StandIn, calling: "subprocess.Popen[bytes]"
) -> None:
    os.kill(service.pid, signal.SIGKILL)
    stand_in.release()
    stdout, stderr = calling.communicate(timeout=BOUND)
    assert (calling.returncode, stderr) == (0, b"")
    assert json.loads(stdout)["ips"]


def test_the_service_ends_after_the_calls_that_it_runs(
    bridge: Runtime, service: Service, stand_in: StandIn, calling: "subprocess.Popen[bytes]"
) -> None:
    os.kill(service.pid, signal.SIGTERM)
    assert wait_until(lambda: "warm.socket" not in bridge.host.run("ls", "/run/pycni").stdout, 5)
    assert bridge.call("VERSION", "c2", {}).status == 0
    assert service.running
    stand_in.release()
    assert calling.wait(BOUND) == 0
    assert service.stop() == Counts(1, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_client_that_is_asked_to_end_undoes_as_without_the_service(
    new_host: Callable[[], Host], bin_dir: str, number: signal.Signals
) -> None:
    answers = []
    for warm in (False, True):
        host = new_host()
        stand_in = StandIn(host)
        service = Service(host, bin_dir) if warm else None
        calling = stand_in.begin(f"{bin_dir}/cni-bridge")
        calling.send_signal(number)
        calling.send_signal(number)  # a second one does not interrupt the undoing
        answers.append((*calling.communicate(timeout=BOUND), calling.returncode))
        assert stand_in.calls == ["ADD", "DEL"]
        assert host.link_names() == []
        assert host.link_names("c1") == []
        assert service is None or service.stop() == Counts(1, 0)
    assert answers[0] == answers[1]
    assert number.name.encode() in answers[1][0]


@pytest.mark.parametrize(
    ("said", "status", "stdout"),
    [([b"S\x07all of it"], 7, b"all of it"), ([b"Opart, ", b"S\x00rest"], 0, b"part, rest"), ([b"Opart"], 1, None)],
    ids=["status", "two parts", "no status"],
)
def test_a_signal_that_comes_too_late_to_be_read_spoils_no_answer(
    host: Host, bin_dir: str, listener: socket.socket, said: list[bytes], status: int, stdout: bytes | None
) -> None:
    calling = subprocess.Popen(
        host.argv(f"{bin_dir}/cni-bridge"), env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(BOUND)
        connection.recv(1 << 17)
        connection.send(TAKEN)
        word, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        assert word == GO
        for descriptor in descriptors:
            os.close(descriptor)
        calling.send_signal(signal.SIGTERM)
        assert connection.recv(1, socket.MSG_PEEK) == bytes([signal.SIGTERM])
        for message in said:
            connection.send(message)
    written, _ = calling.communicate(timeout=BOUND)
    assert calling.returncode == status
    assert json.loads(written)["code"] == 11 if stdout is None else written == stdout


def test_a_client_that_is_killed_leaves_nothing_behind(
    host: Host, service: Service, stand_in: StandIn, calling: "subprocess.Popen[bytes]"
) -> None:
    calling.kill()
    service.settle()
    assert stand_in.calls == ["ADD", "DEL"]
    assert host.link_names() == []
    assert host.link_names("c1") == []
    assert service.stop() == Counts(1, 0)


def test_a_client_that_stands_still_keeps_nobody_from_anything(
    bridge: Runtime, service: Service, stand_in: StandIn, calling: "subprocess.Popen[bytes]"
) -> None:
    calling.send_signal(signal.SIGSTOP)
    stand_in.release()
    service.settle()
    assert bridge.call("VERSION", "c2", {}).status == 0
    calling.send_signal(signal.SIGCONT)
    assert calling.wait(BOUND) == 0
    assert service.stop() == Counts(2, 0)


def test_whoever_waits_for_the_ends_of_stdin_and_stderr_waits_for_the_client_only(
    host: Host, bin_dir: str, tmp_path: Path
) -> None:
    service = Service(host, bin_dir, workers=1)
    log = tmp_path / "log"
    attach(host, ["/usr/bin/strace", "-o", str(log), "-e", "trace=close,sendto"], service.workers[0])
    assert Runtime(host, f"{bin_dir}/cni-bridge", ()).call("VERSION", "c1", {}).status == 0
    service.settle()
    assert wait_until(lambda: "+++ exited" in log.read_text(), BOUND)
    calls = re.findall(r"^(?:close\([02]\)|sendto)", log.read_text(), re.MULTILINE)
    assert calls[-3:] == ["close(0)", "close(2)", "sendto"]
