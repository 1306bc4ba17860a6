"""A command that ends at any of its system calls, or meets a fault there: the next commands find nothing lost.

Each point is tried in a forked process that ends without cleaning up, as SIGKILL would have it, or that is given an
error or an interruption there.
"""

import errno
import os
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cni_protocol.errors import IO_FAILURE, CNIError, Interrupted
from tests.cni_ipam import Network
from tests.kit.marks import slow

Reboot = Callable[[], None]

SMALL = {"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.10"}  # gives .2 to .10
POOL = [f"10.1.0.{i}" for i in range(2, 11)]
DUAL = {"ranges": [[SMALL], [{"subnet": "2001:db8::/124"}]]}

CALLS = (
    *("open", "write", "pwrite", "ftruncate", "link", "unlink", "rename", "mkdir", "rmdir", "scandir", "stat"),
    *("pread", "fstat", "utime"),
)
DONE, REFUSED, INTERRUPTED, CRASHED, NOT_REACHED, UNFORESEEN = range(6)


class Fault:
    """What happens at the n-th call of a function of os, before it or after it; signals until they are ignored."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, _, self.when = kind.partition("-")
        self.left = number

    def wrap(self, real: Any) -> Any:
        def stand_in(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and self.when == "before":
                self.strike()
            try:
                return real(*args, **options)
            finally:
                if self.left == 0 and self.when == "after":
                    self.strike()

        return stand_in

    def ignore_signals(self) -> None:
        if self.kind == "interrupted":
            self.kind = ""

    def strike(self) -> None:
        if self.kind == "killed":
            os._exit(CRASHED)
        if self.kind == "interrupted":
            raise Interrupted("SIGTERM")
        if self.kind == "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def run_with(fault: Fault, network: Network, action: Callable[[], object]) -> int:
    """How an action ends in a process of its own that meets a fault."""
    child = os.fork()
    if child == 0:
        status = UNFORESEEN
        try:
            for name in CALLS:
                setattr(os, name, fault.wrap(getattr(os, name)))
            network.finish = fault.ignore_signals
            action()
            status = NOT_REACHED if fault.left > 0 else DONE
        except CNIError as error:
            status = REFUSED if error.code == IO_FAILURE else UNFORESEEN
        except Interrupted:
            status = INTERRUPTED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare_nothing(_: Network, __: Reboot) -> dict[str, str]:
    return {}


def prepare_running(network: Network, _: Reboot) -> dict[str, str]:
    """Three containers, one of them of host-local; the files of two are damaged."""
    network.add(SMALL, "gone", cni_args="IP=10.1.0.2")
    network.add(SMALL, "ours", cni_args="IP=10.1.0.5")
    network.add(SMALL, "hurt", cni_args="IP=10.1.0.6")
    network.put("10.1.0.7", "theirs\r\neth0")
    network.put("10.1.0.8", "theirs-old")
    network.put("10.1.0.6", "")
    network.put("10.1.0.9", "")
    return {
        "10.1.0.5": "ours\r\neth0",
        "10.1.0.6": "hurt\r\neth0",
        "10.1.0.7": "theirs\r\neth0",
        "10.1.0.8": "theirs-old",
    }


def prepare_rebooted(network: Network, reboot: Reboot) -> dict[str, str]:
    """Two boots with containers, and what host-local has written in the third."""
    network.add(SMALL, "first", cni_args="IP=10.1.0.3")
    reboot()
    for i in (2, 3, 4, 5):
        network.add(SMALL, "gone" if i == 2 else f"old{i}", cni_args=f"IP=10.1.0.{i}")
    reboot()
    (network.directory / "10.1.0.4").unlink()
    network.put("10.1.0.4", "theirs\r\neth0")
    return {"10.1.0.4": "theirs\r\neth0"}


PREPARATIONS = {"nothing": prepare_nothing, "running": prepare_running, "rebooted": prepare_rebooted}
COMMANDS: dict[str, Callable[[Network], object]] = {
    "ADD": lambda network: network.call("ADD", DUAL, "new"),
    "DEL": lambda network: network.call("DEL", DUAL, "gone"),
    "GC": lambda network: network.collect(
        [("ours", "eth0"), ("hurt", "eth0"), ("theirs", "eth0"), ("theirs-old", "x"), ("new", "eth0")]
    ),
}


def check_whole(network: Network, staying: dict[str, str]) -> None:
    """Nothing lost, nothing given twice, nothing left: as the commands after the fault find it."""
    network.call("DEL", DUAL, "gone")
    network.call("DEL", DUAL, "new")
    assert network.reserved() == staying
    holders = {ip: content.partition("\r\n") for ip, content in staying.items()}
    assert network.records() == {f"{ip},mynet,{holder[0]},{holder[2]}" for ip, holder in holders.items()}
    given = network.exhaust(SMALL)
    assert sorted([*given, *staying]) == sorted(POOL)
    assert staying.items() <= network.reserved().items()


@pytest.mark.parametrize(
    ("command", "before"),
    [("ADD", "nothing"), *(slow(command, before) for command in COMMANDS for before in ("running", "rebooted"))],
)
@pytest.mark.parametrize(
    "kind",
    ["killed-before", *map(slow, ("killed-after", "interrupted-before", "interrupted-after", "error-before"))],
)
def test_a_fault_at_any_call_loses_nothing_and_leaves_nothing(
    kind: str, command: str, before: str, memory: Path, reboot: Reboot
) -> None:
    expected = {"killed": {CRASHED}, "interrupted": {INTERRUPTED}, "error": {DONE, REFUSED}}[kind.partition("-")[0]]
    if kind.startswith("interrupted") and command == "ADD":
        expected.add(DONE)  # when it is too late for that
    for number in range(1, 200):
        network = Network(memory / str(number))
        staying = PREPARATIONS[before](network, reboot)
        status = run_with(Fault(kind, number), network, partial(COMMANDS[command], network))
        if status == NOT_REACHED:
            break
        assert status in expected, (number, status)
        if network.directory.exists():
            if command == "ADD" and status in (REFUSED, INTERRUPTED):
                assert "new\r\neth0" not in network.reserved().values(), number
            check_whole(network, staying)
    assert status == NOT_REACHED
    assert number > 10
