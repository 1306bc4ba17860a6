"""With the service and without, the answers are the same to the byte."""

import json
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.cni_warm.stand_in import StandIn
from tests.kit.calls import bare_environment
from tests.kit.host import Host, Outcome
from tests.kit.runtime import Runtime
from tests.kit.warm import Counts, Service

pytestmark = pytest.mark.kernel

IPAM = {"type": "cni-ipam", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
NETWORK: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "type": "cni-bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": IPAM,
}
LARGE = "x" * 300_000  # an answer that is longer than one packet of the service names it


class Call(NamedTuple):
    """A call of cni-bridge (or of cni-ipam) for a container c1."""

    command: str
    config: dict[str, Any] | bytes
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    executable: str = "cni-bridge"


CALLS = {
    "VERSION": Call("VERSION", {"cniVersion": "0.4.0"}),
    "STATUS": Call("STATUS", NETWORK),
    "ADD": Call("ADD", NETWORK, {"args": "MAC=02:00:00:00:00:01", "env": {"CNI_ARGS": "IgnoreUnknown=1"}}),
    "ADD again": Call("ADD", NETWORK),
    "CHECK without a result": Call("CHECK", NETWORK),
    "typo on stderr": Call("ADD", {**NETWORK, "isGatewya": True}),
    "GC": Call("GC", {**NETWORK, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}),
    "DEL": Call("DEL", NETWORK),
    "DEL again": Call("DEL", NETWORK),
    "DEL without a namespace": Call("DEL", NETWORK, {"netns": ""}),
    "no JSON": Call("ADD", b"{"),
    "no configuration": Call("ADD", b""),
    "no command": Call("", NETWORK),
    "unknown command": Call("FROBNICATE", NETWORK),
    "unknown version": Call("ADD", {**NETWORK, "cniVersion": "9.9.9"}),
    "no such namespace": Call("ADD", NETWORK, {"netns": "/run/netns/nowhere"}),
    "no such IPAM plugin": Call("ADD", {**NETWORK, "ipam": {"type": "nowhere"}}),
    "bytes that are no UTF-8": Call("ADD", NETWORK, {"args": "K=\udcff"}),
    "large answer": Call("ADD", {**NETWORK, "bridge": LARGE}),
    "IPAM ADD": Call("ADD", NETWORK, {}, "cni-ipam"),
    "IPAM DEL": Call("DEL", NETWORK, {}, "cni-ipam"),
    "IPAM error": Call("ADD", {**NETWORK, "ipam": {"type": "cni-ipam"}}, {}, "cni-ipam"),
}


def call_all(host: Host, bin_dir: str) -> dict[str, Outcome]:
    host.add_container("c1")
    outcomes = {}
    for name, call in CALLS.items():
        runtime = Runtime(host, f"{bin_dir}/{call.executable}", (bin_dir,))
        outcomes[name] = runtime.call(call.command, "c1", call.config, **call.options)
    return outcomes


def plain(outcome: Outcome) -> tuple[int, str, str]:
    """Without the MAC addresses, which the kernel draws."""
    stdout = re.sub(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC", outcome.stdout)
    return outcome.status, stdout, outcome.stderr


def test_all_commands_and_errors_are_answered_as_without_the_service(
    new_host: Callable[[], Host], bin_dir: str
) -> None:
    cold, warm = new_host(), new_host()
    service = Service(warm, bin_dir)
    expected, seen = call_all(cold, bin_dir), call_all(warm, bin_dir)
    counts = service.stop()
    assert {name: plain(outcome) for name, outcome in seen.items()} == {
        name: plain(outcome) for name, outcome in expected.items()
    }
    assert counts.run >= len(CALLS)
    assert counts.not_taken == 0
    assert (expected["ADD"].status, expected["DEL"].status, expected["no JSON"].status) == (0, 0, 1)
    assert "isGateway" in seen["typo on stderr"].stderr
    assert len(seen["large answer"].stdout) > len(LARGE)


@pytest.mark.parametrize(("variables", "counts"), [(1, Counts(1, 0)), (4, Counts(0, 0))], ids=["long", "too long"])
def test_a_long_environment_is_passed_on_and_one_that_is_too_long_stays_here(
    bridge: Runtime, service: Service, variables: int, counts: Counts
) -> None:
    env = {f"VARIABLE_{number}": "x" * 60_000 for number in range(variables)}
    outcome = bridge.call("ADD", "c1", {**NETWORK, "ipam": {"type": "nowhere"}}, env=env)
    assert (outcome.status, outcome.document["code"]) == (1, 4)  # c1 has no namespace
    assert service.stop() == counts


def test_many_calls_at_once_are_all_run(host: Host, bridge: Runtime, service: Service) -> None:
    names = [f"c{i}" for i in range(24)]
    for name in names:
        host.add_container(name)

    def attach(name: str) -> str:
        return str(bridge.add(name, NETWORK)["ips"][0]["address"])

    with ThreadPoolExecutor(len(names)) as pool:
        addresses = list(pool.map(attach, names))
        assert len(set(addresses)) == len(names)
        for _ in pool.map(lambda name: bridge.delete(name, NETWORK), names):
            pass
    assert host.reservations("mynet") == []
    assert host.link_names() == ["cni0"]
    assert service.stop().run >= len(names)


PECULIAR = [
    *("prlimit", "--nofile=77:99", "--fsize=1234567", "--core=0", "--stack=4194304"),
    *("sh", "-c", 'trap "" HUP USR1; umask 027; cd /var/lib/cni; exec "$0"'),
]


@pytest.mark.parametrize("before", [[], PECULIAR], ids=["plain", "peculiar"])
def test_a_delegate_inherits_the_same_and_nothing_carries_over(
    new_host: Callable[[], Host], bin_dir: str, before: list[str]
) -> None:
    told = []
    for warm in (False, True):
        host = new_host()
        host.add_container("c1")
        stand_in = StandIn(host)
        service = Service(host, bin_dir, workers=1) if warm else None
        config = json.dumps(stand_in.config).encode()
        calls = (("ADD", PECULIAR, {"EARLIER": "1"}), ("DEL", before, {"LATER": "2", "EMPTY": ""}))
        for command, command_line, extra in calls:
            result = subprocess.run(
                host.argv(*command_line, f"{bin_dir}/cni-bridge"),
                env={**stand_in.variables(command), **extra},
                input=config,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert result.returncode == 0, result
        namespaces = re.compile(r"(net|mnt|uts|ipc):\[\d+\]")
        told.append(namespaces.sub(r"\1", stand_in.inherited))
        assert service is None or service.stop() == Counts(2, 0)
    cold, warm_ = told
    assert warm_ == cold
    assert "LATER=2" in cold
    assert "EARLIER" not in cold


@pytest.mark.parametrize(
    ("redirection", "status", "run"),
    [
        (">/dev/full", 120, 2),
        ("2>/dev/full", None, 2),
        (">/dev/null", None, 2),
        ("<&-", None, 0),
        (">&-", None, 0),
        ("2>&-", None, 0),
        (">&- 3</dev/null", None, 0),
    ],
)
def test_stdin_stdout_and_stderr_may_be_closed_or_broken(
    new_host: Callable[[], Host], bin_dir: str, redirection: str, status: int | None, run: int
) -> None:
    seen = []
    for warm in (False, True):
        host = new_host()
        service = Service(host, bin_dir) if warm else None
        for command in ("VERSION", "ADD"):
            result = subprocess.run(
                host.argv("sh", "-c", f'exec "$0" {redirection}', f"{bin_dir}/cni-bridge"),
                env=bare_environment(command),
                input=b'{"cniVersion": "1.0.0", "isGatewya": true}',
                capture_output=True,
                timeout=60,
                check=False,
            )
            seen.append((warm, command, result.returncode, result.stdout))
            assert status in (None, result.returncode), result
        assert service is None or service.stop() == Counts(run, 0)
    assert [case[1:] for case in seen[:2]] == [case[1:] for case in seen[2:]]
