"""Settings that persist over a reboot (sysctl.d, modules-load.d), and `pycni agent --once`.

With --once the node is set up by one pass of the keeper, and no agent runs afterwards.
Must not: change what is right already, so that it can be repeated at any time.
"""

import sys
from collections.abc import Collection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from cni_node.agent.keeper import STAGES, Keeper
from cni_node.host.bridge import gateways_of
from cni_node.host.sysctls import MODULE, load_module, wanted_sysctls
from cni_node.readiness.runtime import CONFIGURATION, put_file, render
from cni_node.readiness.trial import TrialError, try_pod
from cni_node.settings import Settings
from cni_node.snapshot import Snapshot
from cni_node.sources import Source

LIST_BOUND = 30.0  # seconds to wait for the source's first snapshot


def persist(root: Path, versions: Collection[int]) -> list[str]:
    """Write files that set the sysctls and load the module at every boot. Returns failures as sentences."""
    lines = "".join(f"{name.replace('/', '.')} = {value}\n" for name, value in wanted_sysctls(versions).items())
    problems = []
    for name, content in (("etc/modules-load.d/pycni.conf", f"{MODULE}\n"), ("etc/sysctl.d/99-pycni.conf", lines)):
        try:
            put_file(root / name, content.encode())
        except OSError as error:
            problems.append(
                f"/{name} cannot be written ({error.strerror}): a reboot switches off what it would have set"
            )
    return problems


def set_up(settings: Settings, source: Source) -> int:
    """Set this node up once, and print the result. Returns the exit status. Raises OSError."""
    snapshot = _first_snapshot(source)
    if snapshot is None or not snapshot.listed:
        told = snapshot.problems if snapshot else ("the source says nothing",)
        return _refuse(told)
    pods = snapshot.own.pods if snapshot.own else ()
    for problem in persist(settings.root, {cidr.version for cidr in pods}):
        print(f"pycni: notice: {problem}", file=sys.stderr)
    mtu = settings.mtu
    if settings.root == Path("/"):
        load_module()
        keeper = Keeper(settings)
        keeper.settle(snapshot, STAGES)
        keeper.close()
        mtu = keeper.mtu
        problems = [problem for texts in keeper.problems.values() for problem in texts]
        if keeper.unsettled:
            return _refuse(problems)
        for problem in (*snapshot.problems, *problems):
            print(f"pycni: notice: {problem}", file=sys.stderr)
    if not pods:
        print("routes to the peers are in place; this node has no pod range")
        return 0
    return _configure(settings, render(pods, mtu), ", ".join(str(gateway.network) for gateway in gateways_of(pods)))


def _configure(settings: Settings, text: str, pods: str) -> int:
    path = settings.root / settings.conf_dir.lstrip("/") / CONFIGURATION
    if settings.root == Path("/"):
        try:
            try_pod(text, settings.bin_dir, settings.socket.with_name("trial"))
        except TrialError as error:
            return _refuse([f"{error}; {CONFIGURATION} stays as it was"])
    changed = put_file(path, text.encode())  # last, since it tells the runtime that the node is ready
    print(f"{path} {'is written' if changed else 'is as it should be'}: {pods}")
    return 0


def _first_snapshot(source: Source) -> Snapshot | None:
    queue: SimpleQueue[Snapshot] = SimpleQueue()
    stopping = Event()
    thread = Thread(target=source.follow, args=(queue.put, stopping), name="source", daemon=True)
    thread.start()
    try:
        return queue.get(timeout=LIST_BOUND)
    except Empty:
        return None
    finally:
        stopping.set()
        thread.join(LIST_BOUND)


def _refuse(problems: Collection[str]) -> int:
    for problem in problems:
        print(f"pycni: {problem}", file=sys.stderr)
    return 1
