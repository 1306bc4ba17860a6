"""strace(1) on a worker of the warm service, which is there before its call comes."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.kit.host import Host, wait_until
from tests.kit.warm import Service

_ATTACH_BOUND = 20.0  # seconds
# Only the first call, as in trials.py. When it comes, the worker of the bridge plugin is at work, so the one that waits
# is the one that the call will go to. strace must not hold the delegate's stdout open.
_STAND_IN = """#!/bin/sh
mkdir '{used}' 2>/dev/null || exec '{plugin}'
while :; do
    for worker in $(cat /proc/{service}/task/{service}/children); do [ "$worker" = {busy} ] || break 2; done
    sleep 0.01
done
while [ "$(cat "/proc/$worker/wchan")" != __skb_wait_for_more_packets ]; do sleep 0.01; done
{words} -p "$worker" </dev/null >/dev/null 2>&1 &
while grep -q '^TracerPid:.0$' "/proc/$worker/status"; do sleep 0.01; done
exec '{plugin}'
"""


def attach(host: Host, strace: Sequence[str], worker: int) -> None:
    """Put a worker that waits under strace, which ends with it. It reads netlink messages where it is on that host."""
    nowhere = subprocess.DEVNULL
    host.start(*strace, "-p", str(worker), stdin=nowhere, stdout=nowhere, stderr=nowhere)
    status = Path(f"/proc/{worker}/status")
    assert wait_until(lambda: "TracerPid:\t0\n" not in status.read_text(), _ATTACH_BOUND), "strace does not attach"


def write_stand_in(directory: Path, plugin: str, service: Service, strace: Sequence[str]) -> None:
    """A stand-in for the address plugin, in a directory for CNI_PATH, that puts the worker of its call under strace."""
    text = _STAND_IN.format(
        used=directory / "log.used",
        plugin=plugin,
        service=service.pid,
        busy=service.workers[0],
        words=" ".join(f"'{word}'" for word in strace),
    )
    stand_in = directory / Path(plugin).name
    stand_in.write_text(text)
    stand_in.chmod(0o755)
