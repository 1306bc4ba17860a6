"""The service itself: its socket, its workers, its end, and what it has imported."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.kit.host import Host, wait_until
from tests.kit.runtime import Runtime
from tests.kit.warm import Counts, Service, command_line, socket_of

pytestmark = pytest.mark.kernel

BOUND = 30
# What systemd does for a socket unit: it listens, hands the socket over as descriptor 3, and keeps it.
ACTIVATE = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[1]))
os.makedirs("/run/pycni")
listener.bind("/run/pycni/warm.socket")
os.chmod("/run/pycni/warm.socket", 0o600)
listener.listen()
if os.fork() == 0:
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execv(sys.argv[2], sys.argv[2:])
_, status = os.wait()
print(os.waitstatus_to_exitcode(status), os.path.exists("/run/pycni/warm.socket"))
"""


def test_socket_is_roots_alone_and_goes_with_the_service(host: Host, service: Service) -> None:
    status = os.lstat(socket_of(host))
    assert (status.st_mode, status.st_uid) == (0o140600, 0)
    assert os.stat(os.path.dirname(socket_of(host))).st_mode & 0o777 == 0o755
    assert os.stat(os.path.join(os.path.dirname(socket_of(host)), "warm.lock")).st_mode == 0o100600
    service.stop()
    assert not os.path.exists(socket_of(host))


def test_a_socket_file_that_nobody_listens_on_is_replaced(host: Host, bin_dir: str, service: Service) -> None:
    service.end()
    stale = os.lstat(socket_of(host)).st_ino
    again = Service(host, bin_dir)
    assert os.lstat(socket_of(host)).st_ino != stale
    assert Runtime(host, f"{bin_dir}/cni-bridge", ()).call("VERSION", "c1", {}).status == 0
    assert again.stop() == Counts(1, 0)


def test_a_second_service_refuses_and_leaves_the_first_alone(host: Host, bin_dir: str, service: Service) -> None:
    second = host.run(*command_line(bin_dir), check=False)
    assert second.returncode == 1
    assert second.stderr == "pycni-warm: /run/pycni/warm.socket: another service listens there\n"
    assert Runtime(host, f"{bin_dir}/cni-bridge", ()).call("VERSION", "c1", {}).status == 0
    assert service.stop() == Counts(1, 1)  # the second one asked


def test_a_service_whose_socket_was_replaced_leaves_the_new_one(host: Host, bin_dir: str, service: Service) -> None:
    os.unlink(socket_of(host))
    second = Service(host, bin_dir)
    service.stop()
    assert os.path.exists(socket_of(host))
    second.stop()


def test_workers_are_replaced_and_serve_one_call_each(host: Host, bin_dir: str, service: Service) -> None:
    before = set(service.workers)
    bridge = Runtime(host, f"{bin_dir}/cni-bridge", ())
    for _ in range(2 * len(before)):
        assert bridge.call("VERSION", "c1", {}).status == 0
    service.settle()
    assert not before & set(service.workers)
    assert service.stop() == Counts(2 * len(before), 0)


def test_a_worker_that_dies_while_it_waits_is_replaced_and_told_of(service: Service) -> None:
    before = set(service.workers)
    os.kill(min(before), signal.SIGKILL)
    assert wait_until(lambda: min(before) not in service.workers, 5)
    service.settle()
    assert "a worker ended while it waited (wait status 9)" in service.said


def test_waiting_workers_end_with_the_service(service: Service) -> None:
    workers = service.workers
    os.kill(service.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 5)


def test_a_client_that_says_nothing_is_not_waited_for_for_ever(host: Host, service: Service) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(socket_of(host))
        asking.settimeout(BOUND)
        assert asking.recv(1) == b""
    service.settle()
    assert service.stop() == Counts(0, 1), service.said


@pytest.mark.parametrize(
    "words", [b"", b"x", b"a\0b\0c", b"\xff\0\xff\0\xff\0\xff"], ids=["empty", "one", "three", "no text"]
)
def test_nonsense_is_refused(host: Host, service: Service, words: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(socket_of(host))
        asking.settimeout(BOUND)
        asking.send(words)
        assert asking.recv(1) == b""
    assert service.stop() == Counts(0, 1), service.said


def test_with_systemds_socket_it_ends_when_nobody_calls_and_leaves_the_socket(host: Host, bin_dir: str) -> None:
    command = [sys.executable, "-c", ACTIVATE, "SOCK_SEQPACKET", *command_line(bin_dir), "--idle", "1"]
    begun = time.monotonic()
    activated = host.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert wait_until(lambda: os.path.exists(socket_of(host)), BOUND)
    assert Runtime(host, f"{bin_dir}/cni-bridge", ()).call("VERSION", "c1", {}).status == 0
    stdout, stderr = activated.communicate(timeout=BOUND)
    assert stdout == "0 True\n"
    assert stderr == "pycni-warm: 1 calls run, 0 not taken\n"
    assert time.monotonic() - begun > 1


def test_systemds_socket_of_another_kind_is_refused(host: Host, bin_dir: str) -> None:
    command = [sys.executable, "-c", ACTIVATE, "SOCK_STREAM", *command_line(bin_dir)]
    result = host.run(*command)
    assert result.stdout == "1 True\n"
    assert "systemd's socket is not of ListenSequentialPacket=" in result.stderr


@pytest.mark.parametrize("options", [["--workers", "0"], ["--workers", "x"], ["--frobnicate"], ["word"]])
def test_wrong_options_are_refused(host: Host, bin_dir: str, options: list[str]) -> None:
    result = host.run(*command_line(bin_dir), *options, check=False)
    assert result.returncode == 2
    assert "usage: pycni-warm" in result.stderr


LATE = """
import ast, pathlib, sys
root = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(root))
import cni_warm.preload
for package in ("cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam"):
    for path in (root / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            elif isinstance(node, ast.ImportFrom):
                stem = ".".join(filter(None, [package, node.module]))
                names = [stem] if node.module else [f"{stem}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name not in sys.modules and name not in sys.argv[2:]:
                    print(path.name, name)
"""


def test_whatever_a_call_may_import_is_imported(bin_dir: str) -> None:
    # the client's; type checkers'; a later Python's; the policies', which are the agent's
    never = ["cni_protocol.warm_client", "hashlib", "typing", "_sha2", "cni_kernel.filter_expressions"]
    command = [sys.executable, "-I", "-c", LATE, str(ROOT), *never]
    result = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=True)
    assert result.stdout == ""
