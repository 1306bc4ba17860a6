"""Tells the runtime that this node is ready, and not before it is: its configuration is written last.

A node is ready when a pod on trial could be connected, when what leads to the peers is in the kernel, and when the
peers answer from their gateway addresses to ours: then they know this node's range. Peers that are down would hold
it up for ever, so that wait ends after some seconds, and who was silent is named. A configuration that is in place
with the right text needs none of this: an agent that is restarted changes nothing.

Must not: touch the kernel itself (the plugin does, on trial), or take the configuration away again.
"""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cni_node.bridge import gateways_of
from cni_node.probe import find_silent, targets_of
from cni_node.runtime import CONFIGURATION, has_file, put_file, render
from cni_node.settings import OFF, Settings
from cni_node.snapshot import Node
from cni_node.trial import TrialError, try_pod
from cni_protocol.address import CIDR

TRIAL_MARK = "trial"  # beside the socket, while a pod is on trial
_AGAIN, _LONGEST = 5.0, 60.0  # seconds until what failed is tried again, and at most


class Admitted(NamedTuple):
    """What became of a trial: the configuration that it was for, what was against it, and which peers were silent."""

    text: str
    problem: str
    silent: tuple[str, ...]


class Admission:
    """The runtime's configuration of this node. Its methods are for the loop."""

    def __init__(self, settings: Settings, publish: Callable[[Admitted], None]) -> None:
        self._settings, self._publish = settings, publish
        self.path = settings.root / settings.conf_dir.lstrip("/") / CONFIGURATION
        self.serving = False  # what the runtime has is right
        self.problem = ""
        self.silent: tuple[str, ...] = ()
        self._trying = ""  # the text that a pod is on trial for
        self._admitted = ""
        self._rendered_for: tuple[tuple[CIDR, ...], int] = ((), 0)
        self._rendered = ""
        self._next, self._wait = 0.0, _AGAIN

    def step(self, pods: Sequence[CIDR], peers: Sequence[Node], mtu: int, now: float) -> bool:
        """Go on towards a configuration with these ranges and this MTU. Returns whether the file was written.

        `now` counts seconds on the monotonic clock.
        """
        text = self._render(tuple(pods), mtu)
        self.serving = has_file(self.path, text.encode())
        if self.serving:
            self._admitted, self.problem = text, ""
            return False
        if self._admitted == text:  # somebody has changed or removed it
            return self._write(text)
        if now >= self._next and not self._trying:
            self._trying = text
            work = threading.Thread(target=self._try, args=(text, tuple(pods), tuple(peers)), name="trial", daemon=True)
            work.start()
        return False

    def take(self, result: Admitted, now: float) -> None:
        """Take the end of a trial; the next step writes the configuration, or tries again later."""
        self._trying = ""
        self.problem, self.silent = result.problem, result.silent
        if result.problem:
            self._next, self._wait = now + self._wait, min(self._wait * 2, _LONGEST)
        else:
            self._admitted, self._wait = result.text, _AGAIN

    def _render(self, pods: tuple[CIDR, ...], mtu: int) -> str:
        """The configuration; it is compared twice a second, and made only for others than before."""
        if (pods, mtu) != self._rendered_for:
            policies = self._settings.policies != OFF
            self._rendered = render(pods, mtu, str(self._settings.socket), policies=policies)
            self._rendered_for = (pods, mtu)
        return self._rendered

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
