"""Tells systemd how the agent is (sd_notify(3)): ready, alive, ending.

Must not: fail where no systemd listens.
"""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """The socket that systemd named in the environment, or none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.interval = _watchdog_interval(environment)

    def send(self, **fields: object) -> None:
        """Send fields such as READY=1; that nobody takes them is no failure."""
        if not self._address:
            return
        text = "".join(f"{name}={value}\n" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return


def _watchdog_interval(environment: Mapping[str, str]) -> float:
    """Seconds between two signs of life, half of what the unit's WatchdogSec allows; 0 where none are wanted."""
    ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return 0.0
    return microseconds / 2e6 if ours and microseconds > 0 else 0.0
