"""Tells systemd the state of the agent (sd_notify(3)): ready, alive, stopping.

Must not: fail when systemd does not listen.
"""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """The socket that systemd names in the environment, if it does. `interval` is that of WATCHDOG=1, in seconds."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.interval = _watchdog_interval(environment)

    def send(self, **fields: object) -> None:
        """Send fields such as READY=1. Errors are ignored."""
        if not self._address:
            return
        text = "".join(f"{name}={value}\n" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return


def _watchdog_interval(environment: Mapping[str, str]) -> float:
    """Seconds between two WATCHDOG=1 messages: half of the unit's WatchdogSec. 0 when it has none."""
    ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return 0.0
    return microseconds / 2e6 if ours and microseconds > 0 else 0.0
