"""A run of Kubernetes' own end-to-end tests on a cluster, from the control plane's machine; and what came of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.cluster.cluster import at_once
from tests.kit.kubernetes.cluster import Kubernetes
from tests.kit.kubernetes.control_plane import SERVER
from tests.kit.kubernetes.e2e import ensure_e2e, ensure_image
from tests.kit.kubernetes.machine import SETTINGS

FOCUS = r"\[sig-network\]|different hostIP and protocol"  # the second is of host ports, and another group's
# What takes down nodes or takes long; what needs a cloud or another cluster.
SKIP = r"\[Disruptive\]|\[Slow\]|\[Feature:([^NS]|N[^e]|Networking|SCTPC)|\[Flaky\]"
# What fails for a reason of its own, by a part of the name; the reason stands in the code of the test.
EXPLAINED = {"SCTP HostPort": "looks for the mapping in `iptables-save`; pycni maps ports by nftables"}
_PLACE = "/run/e2e"
_AT_ONCE = 4  # processes
_BOUND = 3600.0  # seconds
# The tests of "Networking" first want http://google.com; so it is this machine itself, by its loopback.
_WORLD = """
mkdir -p /run/world && echo here >/run/world/index.html
grep -q google.com /etc/hosts 2>/dev/null || echo 127.0.0.1 localhost google.com >>/etc/hosts
"""


class Case(NamedTuple):
    """A test that was run."""

    name: str
    seconds: float
    failure: str  # what it said; "" when it passed

    @property
    def reason(self) -> str:
        """Why it is known to fail; "" when it is not."""
        return next((reason for part, reason in EXPLAINED.items() if part in self.name), "")


def run_e2e(cluster: Kubernetes, focus: str) -> list[Case]:
    """Run the tests whose names the regular expression `focus` is found in, but those of SKIP. Raises SetupError.

    Those that are marked serial come afterwards, by themselves.
    """
    programs = ensure_e2e(cluster.say)
    image = ensure_image(programs, cluster.say)
    control = cluster.control
    at_once(lambda name: cluster.nodes[name].import_image(image), list(cluster.nodes))
    control.path(_PLACE).mkdir(exist_ok=True)
    for program in ("ginkgo", "e2e.test"):
        shutil.copy(programs / program, control.path(_PLACE))
    if "world" not in control.daemons():
        control.run("sh", "-c", _WORLD)
        control.start_daemon("world", "busybox", "httpd", "-f", "-p", "127.0.0.1:80", "-h", "/run/world")
    cluster.say(f"running the end-to-end tests with {focus} in their names, without {SKIP}")
    cases = _run(cluster, focus, rf"{SKIP}|\[Serial\]", _AT_ONCE)
    return sorted(cases + _run(cluster, rf"({focus}).*\[Serial\]|\[Serial\].*({focus})", SKIP, 1))


def _run(cluster: Kubernetes, focus: str, skip: str, at_once: int) -> list[Case]:
    """One call of ginkgo, with so many processes."""
    reports = f"{_PLACE}/reports-{at_once}"
    tests = [f"--kubeconfig={SETTINGS}/admin.conf", f"--host={SERVER}", "--kubectl-path=/usr/bin/kubectl"]
    tests += ["--provider=skeleton", "--dns-domain=cluster.local", "--node-os-distro=custom", "--disable-log-dump"]
    tests += [f"--num-nodes={len(cluster.nodes)}", f"--report-dir={reports}"]
    ginkgo = [f"{_PLACE}/ginkgo", f"-nodes={at_once}", "-noColor", "-slowSpecThreshold=600"]
    ginkgo += [f"-focus={focus}", f"-skip={skip}", f"{_PLACE}/e2e.test", "--", *tests]
    done = cluster.control.run(*ginkgo, check=False, timeout=_BOUND, env={"HOME": "/root"})
    cluster.control.path(f"/var/log/kubernetes/e2e-{at_once}").write_text(done.stdout + done.stderr)
    return [case for path in cluster.control.path(reports).glob("*.xml") for case in read_report(path)]


def read_report(path: Path) -> Iterator[Case]:
    """The tests of a JUnit report that were run."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("skipped") is None:
            failed = case.find("failure")
            said = "" if failed is None else (failed.text or "no word of why")
            yield Case(case.attrib["name"], float(case.attrib["time"]), said)
