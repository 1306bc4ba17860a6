"""Calls that the service must not run, or cannot: the executable runs them itself, and answers as ever."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni_protocol.warm_client import TAKEN_SECONDS
from cni_warm.likeness import find_difference, standing_of
from tests.kit.calls import bare_environment
from tests.kit.host import Host, wait_until
from tests.kit.warm import Counts, Service, code_of, socket_of

pytestmark = pytest.mark.kernel

QUICK = TAKEN_SECONDS  # seconds; a call that waits for a service in vain takes longer


def call_version(host: Host, bin_dir: str, *before: str, kind: str = "cni-bridge") -> float:
    """A call that has to succeed. Returns how many seconds it took."""
    begun = time.monotonic()
    result = subprocess.run(
        host.argv(*before, f"{bin_dir}/{kind}"),
        env=bare_environment("VERSION"),
        input=b'{"cniVersion": "0.4.0"}',
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert result.stderr == b""
    assert b'"cniVersion": "0.4.0"' in result.stdout
    return time.monotonic() - begun


def test_an_ordinary_call_is_taken(host: Host, bin_dir: str, service: Service) -> None:
    call_version(host, bin_dir)
    call_version(host, bin_dir, kind="cni-ipam")
    assert service.stop() == Counts(2, 0)


CONTAINER = "--net=/run/netns/c1"
ANOTHER_ROOT = 'mkdir /run/root && mount --rbind / /run/root && exec chroot /run/root "$0"'


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        pytest.param(["nsenter", CONTAINER], "its net namespace is another", id="network namespace"),
        pytest.param(["unshare", "-m"], "its mnt namespace is another", id="mount namespace"),
        pytest.param(["unshare", "-u"], "its uts namespace is another", id="uts namespace"),
        pytest.param(["unshare", "-i"], "its ipc namespace is another", id="ipc namespace"),
        pytest.param(["unshare", "-p", "-f"], "its pid namespace is another", id="pid namespace"),
        pytest.param(["unshare", "-U", "-r"], "its user namespace is another", id="user namespace"),
        pytest.param(["sh", "-c", ANOTHER_ROOT], "its root directory is another", id="root directory"),
        pytest.param(["setpriv", "--bounding-set=-sys_time"], "its CapEff is another", id="dropped capability"),
        pytest.param(["setpriv", "--inh-caps=+sys_time"], "its CapInh is another", id="inheritable capability"),
        pytest.param(["setpriv", "--no-new-privs"], "its NoNewPrivs is another", id="no new privileges"),
        pytest.param(["setpriv", "--regid=1000", "--clear-groups"], "its Gid is another", id="another group"),
        pytest.param(["env", "--block-signal=USR1"], "its SigBlk is another", id="blocked signal"),
    ],
)
def test_a_client_that_is_elsewhere_or_may_do_less_runs_its_call_itself(
    host: Host, bin_dir: str, service: Service, before: list[str], reason: str
) -> None:
    host.add_container("c1")
    assert call_version(host, bin_dir, *before) < QUICK
    assert service.stop() == Counts(0, 1)
    assert reason in service.said


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(["sh", "-c", 'exec 7</dev/null; exec "$0"'], id="another open file"),
        pytest.param(
            ["setpriv", "--reuid=1000", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"], id="another user"
        ),
        pytest.param(["sh", "-c", 'chmod 666 /run/pycni/warm.socket; exec "$0"'], id="socket for all"),
        pytest.param(["sh", "-c", 'chown 1000 /run/pycni/warm.socket; exec "$0"'], id="socket of somebody else"),
        pytest.param(
            ["sh", "-c", 'mv /run/pycni/warm.socket /run/s; ln -s ../s /run/pycni/warm.socket; exec "$0"'], id="link"
        ),
        pytest.param(["sh", "-c", 'rm /run/pycni/warm.socket; touch /run/pycni/warm.socket; exec "$0"'], id="file"),
        pytest.param(["sh", "-c", 'rm -r /run/pycni; exec "$0"'], id="no socket"),
    ],
)
def test_a_client_does_not_even_ask(host: Host, bin_dir: str, service: Service, before: list[str]) -> None:
    host.run("chmod", "o+x", "/run", "/run/pycni")
    assert call_version(host, bin_dir, *before) < QUICK
    assert service.stop() == Counts(0, 0)


def test_arguments_are_not_for_the_service(host: Host, bin_dir: str, service: Service) -> None:
    said = host.run(f"{bin_dir}/cni-bridge", "--help").stdout
    assert said.startswith("cni-bridge: ")
    assert service.stop() == Counts(0, 0)


def test_a_service_of_another_version_takes_nothing(host: Host, bin_dir: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(code_of(bin_dir))
    service = Service(host, bin_dir, code=str(other))
    assert call_version(host, bin_dir) < QUICK
    assert service.stop() == Counts(0, 1)
    assert f"it is of the installation {code_of(bin_dir)}, this is {other}" in service.said


def test_a_socket_that_nobody_listens_on_costs_no_time(host: Host, bin_dir: str, service: Service) -> None:
    service.end()
    assert os.path.exists(socket_of(host))
    assert call_version(host, bin_dir) < QUICK


def test_a_service_that_hangs_is_not_waited_for_and_does_not_run_the_call_later(
    host: Host, bin_dir: str, service: Service
) -> None:
    service.signal(signal.SIGSTOP)
    assert TAKEN_SECONDS <= call_version(host, bin_dir) < TAKEN_SECONDS + 10  # until both ends of stdout are closed
    service.signal(signal.SIGCONT)
    assert wait_until(lambda: "not taken: " in service.said, 10)
    assert service.stop() == Counts(0, 1)


def test_a_full_backlog_costs_no_time(host: Host, bin_dir: str, listener: socket.socket) -> None:
    with ExitStack() as stack:
        waiting = 0
        try:
            while True:
                asking = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                asking.setblocking(False)
                asking.connect(socket_of(host))
                waiting += 1
        except BlockingIOError:
            assert waiting
        assert call_version(host, bin_dir) < QUICK


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection: connection.close(),
        lambda connection: connection.send(b"X"),
        lambda connection: connection.send(b"TT") and connection.close(),
    ],
    ids=["nothing", "a wrong word", "taken, and gone"],
)
def test_an_answer_that_is_none_costs_nothing(
    host: Host, bin_dir: str, listener: socket.socket, answer: Callable[[socket.socket], object]
) -> None:
    calling = subprocess.Popen(
        host.argv(f"{bin_dir}/cni-bridge"),
        env=bare_environment("VERSION"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        answer(connection)
        stdout, stderr = calling.communicate(timeout=60)
    assert (calling.returncode, stderr) in ((0, b""), (1, b""))
    assert b"supportedVersions" in stdout or b'"code": 11' in stdout


def test_differences_are_named_and_filters_of_system_calls_never_alike() -> None:
    ours = standing_of(os.getpid())
    assert find_difference(ours, ours) == ""
    theirs = ours._replace(equal={**ours.equal, "Uid": "7", "security label": "x"})
    assert find_difference(ours, theirs) == "its Uid is another, its security label is another"
    filtered = ours._replace(equal={**ours.equal, "Seccomp": "2"})
    assert find_difference(filtered, filtered) == "its system calls are filtered (Seccomp)"
