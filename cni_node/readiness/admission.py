"""Decides when this node is ready, and then writes the runtime's configuration: a runtime starts pods once it has one.

A node is ready when the routes to its peers are in the kernel, a trial pod could be connected, and the peers have
answered a ping from our gateway address to theirs, which proves that they have a route to this node's pod range. Peers
may be down, so the ping ends after some seconds, and the silent ones are named. If the configuration is there already
with the right text, nothing of this is done: an agent that is restarted changes nothing.

Must not: touch the kernel itself (the plugin does, for the trial pod), or remove the configuration again.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cni_node.host.bridge import gateways_of
from cni_node.readiness.probe import find_silent, targets_of
from cni_node.readiness.runtime import CONFIGURATION, has_file, put_file, render
from cni_node.readiness.trial import TrialError, try_pod
from cni_node.settings import OFF, Settings
from cni_node.snapshot import Node
from cni_protocol.address import CIDR

TRIAL_MARK = "trial"  # name of a file beside the agent's socket that exists while there is a trial pod
_AGAIN, _LONGEST = 5.0, 60.0  # seconds until a failed trial is repeated: the first time, and at most


class Admitted(NamedTuple):
    """The result of a trial: the configuration that was tried, why it failed ("" if it did not), the silent peers."""

    text: str
    problem: str
    silent: tuple[str, ...]


class Admission:
    """The runtime's configuration of this node. Its methods are called by the agent's loop."""

    def __init__(self, settings: Settings, publish: Callable[[Admitted], None]) -> None:
        self._settings, self._publish = settings, publish
        self.path = settings.root / settings.conf_dir.lstrip("/") / CONFIGURATION
        self.serving = False  # the runtime has the right configuration
        self.problem = ""
        self.silent: tuple[str, ...] = ()
        self._trying = ""  # the configuration that is being tried now
        self._admitted = ""
        self._rendered: dict[tuple[tuple[CIDR, ...], int], str] = {}  # the last one
        self._next, self._wait = 0.0, _AGAIN

    def step(self, pods: Sequence[CIDR], peers: Sequence[Node], mtu: int, now: float) -> bool:
        """Take the next step towards a configuration with these pod ranges and this MTU (bytes).

        It starts a trial in a thread, or writes the file after a successful one. Returns whether it has written the
        file. `now` is in seconds of the monotonic clock.
        """
        text = self._render(tuple(pods), mtu)
        self.serving = has_file(self.path, text.encode())
        if self.serving:
            self._admitted, self.problem = text, ""
            return False
        if self._admitted == text:  # admitted now or before: then someone has changed or removed the file
            return self._write(text)
        if now >= self._next and not self._trying:
            self._trying = text
            work = threading.Thread(target=self._try, args=(text, tuple(pods), tuple(peers)), name="trial", daemon=True)
            work.start()
        return False

    def take(self, result: Admitted, now: float) -> None:
        """Note the result of a trial. The next step writes the configuration, or repeats the trial later."""
        self._trying = ""
        self.problem, self.silent = result.problem, result.silent
        if result.problem:
            self._next, self._wait = now + self._wait, min(self._wait * 2, _LONGEST)
        else:
            self._admitted, self._wait = result.text, _AGAIN

    def _render(self, pods: tuple[CIDR, ...], mtu: int) -> str:
        """The text of the configuration. It is needed at every turn, so the last one is kept."""
        if (pods, mtu) not in self._rendered:
            policies = self._settings.policies != OFF
            self._rendered = {(pods, mtu): render(pods, mtu, str(self._settings.socket), policies=policies)}
        return self._rendered[pods, mtu]

    def _write(self, text: str) -> bool:
        try:
            self.serving = put_file(self.path, text.encode())
            self.problem = ""
        except OSError as error:
            self.problem = f"{self.path} cannot be written: {error.strerror}"
        return self.serving

    def _try(self, text: str, pods: Sequence[CIDR], peers: Sequence[Node]) -> None:
        try:
            try_pod(text, self._settings.bin_dir, self._settings.socket.with_name(TRIAL_MARK))
            silent = find_silent(gateways_of(pods), targets_of(peers))
            self._publish(Admitted(text, "", tuple(silent)))
        except TrialError as error:
            self._publish(Admitted(text, f"{error}; {CONFIGURATION} stays as it was", ()))
        except OSError as error:
            self._publish(Admitted(text, f"peers cannot be asked: {error.strerror}", ()))
        except Exception as error:  # a fault of ours must not be the last trial
            self._publish(Admitted(text, f"internal error during the trial: {error!r}", ()))
