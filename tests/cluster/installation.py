"""The installation of a node: the one place that knows how pycni gets there, and how its agent is run and asked."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cni_node.agent.status import fetch
from tests.cluster.node import Node
from tests.conftest import ROOT

CONFLIST = "/etc/cni/net.d/10-pycni.conflist"
PROGRAM = "/opt/cni/lib/pycni/pycni"
SOCKET = "/run/pycni/agent.sock"
UNIT = "pycni-agent"
SETTLE_BOUND = 60.0  # seconds for an agent to get ready, on a machine that is busy
OPTIONS = "/etc/pycni/agent.conf"
# Another directory of code and what starts it, as an unpacked bundle of another version has it. Renamed into place.
_UPGRADE = f"""
set -e
cd {Path(PROGRAM).parent}
old=$(sed -n 's|^#!{Path(PROGRAM).parent}/\\([^/]*\\)/.*|\\1|p' {PROGRAM})
cp -a "$old" "upgraded-$old"
for program in {PROGRAM} /opt/cni/bin/cni-bridge /opt/cni/bin/cni-ipam; do
    sed "s|/$old/|/upgraded-$old/|g" "$program" >"$program.new"
    chmod 755 "$program.new"
    mv "$program.new" "$program"
done
"""


def build_bundle(target: Path) -> Path:
    """The archive of this checkout."""
    subprocess.run(
        [str(ROOT / "install.sh"), "--bundle", str(target)], check=True, timeout=300, stdout=subprocess.DEVNULL
    )
    return target


class Agent:
    """The agent of a node, a unit of what plays systemd there."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def install(self, bundle: Path, options: Sequence[str]) -> None:
        """Unpack the bundle, unless that was done, and have the agent run with these options; or with other ones."""
        file, text = self.node.path(OPTIONS), f"PYCNI_AGENT={' '.join(options)}\n"
        if not self.node.path(PROGRAM).exists():
            with bundle.open("rb") as archive:
                self.node.run("tar", "-xz", "-C", "/", stdin=archive)
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            shutil.copy(ROOT / f"conf/{UNIT}.service", self.node.path("/etc/systemd/system"))
            self.systemctl("stop")
        self.systemctl("enable", "--now")

    def systemctl(self, *verb: str) -> None:
        """Have systemd do something with the agent."""
        self.node.run("systemctl", *verb, UNIT)

    def kill(self) -> int:
        """End its process at once; systemd starts another one in a second. Returns the number that it had."""
        pid = int(self.report()["pid"])
        self.node.run("sh", "-c", f"kill -9 {pid}")
        return pid

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have its process do nothing for a block."""
        pid = int(self.report()["pid"])
        self.node.run("sh", "-c", f"kill -STOP {pid}")
        try:
            yield
        finally:
            self.node.run("sh", "-c", f"kill -CONT {pid}")

    def upgrade(self) -> None:
        """Put another directory of code there, and have the agent run from that."""
        self.node.run("sh", "-c", _UPGRADE)
        self.systemctl("restart")

    def report(self) -> dict[str, Any]:
        """What it says of itself; nothing while it does not answer."""
        try:
            return dict(json.loads(fetch(self.node.path(SOCKET), "/status")))
        except OSError:
            return {}

    def await_report(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float = SETTLE_BOUND
    ) -> dict[str, Any]:
        """The first report with which a condition holds."""
        deadline = time.monotonic() + seconds
        while True:
            report = self.report()
            if report and condition(report):
                return report
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.node.name}: not within {seconds} s: {report}\n{self.log()}")
            time.sleep(0.05)

    def await_settled(self, peers: int) -> dict[str, Any]:
        """Its report when it knows so many peers, and has told the runtime, or has no pods to tell of."""
        return self.await_report(
            lambda report: report["peers"] == peers and report["state"].startswith(("ready", "routes only"))
        )

    def log(self) -> str:
        """What it has said since the node's boot."""
        path = self.node.path(f"/run/{UNIT}.log")
        return path.read_text() if path.exists() else "it was never started"
