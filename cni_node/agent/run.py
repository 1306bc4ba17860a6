"""`pycni agent`: parses the command line and starts the agent's loop, or with --once sets the node up and ends.

Must not: change anything before the options are checked and it is certain that no other agent runs.
"""

import argparse
import fcntl
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from cni_kernel.errors import KernelError
from cni_node import logs
from cni_node.agent.loop import Agent
from cni_node.agent.setup import set_up
from cni_node.agent.status import refusal_path
from cni_node.host.links import Links
from cni_node.host.overlay import find_mtu, find_own_addresses, renew_own_addresses
from cni_node.host.sysctls import load_module
from cni_node.readiness.admission import TRIAL_MARK
from cni_node.readiness.runtime import CONFIGURATION, read_ranges
from cni_node.readiness.trial import clear_trial
from cni_node.settings import Settings, parse_settings
from cni_node.sources import Source
from cni_node.sources.etcd import EtcdSource
from cni_node.sources.etcd_lease import EtcdSettings
from cni_node.sources.kubernetes import KubernetesSettings, KubernetesSource
from cni_node.sources.static import StaticSettings, StaticSource
from cni_protocol.address import IP

FAILED, WRONG_OPTIONS = 1, 2  # exit statuses
_LOCK = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW  # the file is root's alone: others could lock it if they could open it


def run(options: argparse.Namespace) -> int:
    """Run the agent, or set the node up once. Returns the exit status."""
    try:
        settings = parse_settings(options, socket.gethostname(), os.environ)
    except ValueError as error:
        return _refuse(options.socket, str(error).splitlines(), WRONG_OPTIONS)
    try:
        settings.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with os.fdopen(os.open(settings.socket.with_suffix(".lock"), _LOCK, 0o600), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"pycni: another agent runs, with {settings.socket}", file=sys.stderr)
                return FAILED
            refusal_path(settings.socket).unlink(missing_ok=True)
            return _serve(settings, options.node_name or socket.gethostname())
    except KernelError as error:
        return _refuse(settings.socket, [f"{error} (run this as root)"], FAILED)
    except OSError as error:
        return _refuse(settings.socket, [f"{error.filename or settings.socket}: {error.strerror}"], FAILED)


def _serve(settings: Settings, name: str) -> int:
    source = _make_source(settings)
    if settings.once:
        return set_up(settings, source)
    load_module()
    if problem := clear_trial(settings.bin_dir, settings.socket.with_name(TRIAL_MARK)):
        logs.warn("notice", what=f"a pod on trial of an earlier agent is left: {problem}")
    return Agent(settings, source, name).run()


def _make_source(settings: Settings) -> Source:
    if isinstance(settings.source, StaticSettings):
        return StaticSource(settings.source)
    if isinstance(settings.source, KubernetesSettings):
        return KubernetesSource(settings.source)
    return EtcdSource(_complete(settings, settings.source), _renew)


def _renew(own: tuple[IP, ...]) -> tuple[IP, ...]:
    """This node's addresses, as they are now; as they were when the kernel does not say. For any thread."""
    try:
        links = Links()
        try:
            return renew_own_addresses(links, own)
        finally:
            links.close()
    except KernelError:
        return own


def _complete(settings: Settings, source: EtcdSettings) -> EtcdSettings:
    """Fill in what a node publishes in etcd and the options do not say. Raises KernelError.

    These are its addresses, the MTU of its pods, and as `wanted` the pod range that it had before.
    """
    links = Links()
    try:
        addresses = links.list_addresses()
        own = source.addresses or find_own_addresses(links, addresses)
        mtu = settings.mtu or find_mtu(links, settings.overlay, addresses, own)
    finally:
        links.close()
    wanted = read_ranges(settings.root / settings.conf_dir.lstrip("/") / CONFIGURATION)
    return source._replace(addresses=own, mtu=mtu, wanted=wanted, fixed=bool(source.addresses))


def _refuse(path: Path, problems: list[str], status: int) -> int:
    """Print problems on stderr, and write them to a file that `pycni status` reads. Returns `status`."""
    for problem in problems:
        print(f"pycni: {problem}", file=sys.stderr)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        refusal_path(path).write_text("; ".join(problems) + "\n")
        os.chmod(refusal_path(path), 0o600)
    return status
