"""Plays DaemonSet controller and kubelets for the stand-ins of kind and kubectl: has the pods of conf/pycni.yaml run.

$STAND_INS/cluster.json says which nodes there are and how to run programs on them, $STAND_INS/applied has the manifest.
Called as `python -m tests.cluster.kubelet VERB [NODE...]`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni_node.agent.status import fetch
from tests.kit.manifest import Manifest, parse_manifest

BOUND = 120.0  # seconds for one command, and for all pods to be ready
ACCOUNT = "/run/account"  # on a node: the files of the service account, as a kubelet mounts them
_ROOT = "/run/another-root"  # the modules of the machine are not for a test to load
_NAME = "pycni"  # of the container
_IMAGE = "docker.io/library/{}"
# Waits until it has ended: the next one would find its lock taken. After a reboot there is only what the disk has.
_END = f"""
ctr() {{ command ctr -n k8s.io "$@" >/dev/null 2>&1; }}
if ctr tasks kill -s SIGTERM {_NAME}; then
    while command ctr -n k8s.io tasks ls | grep -q '^{_NAME} .*RUNNING'; do sleep 0.05; done
fi
ctr tasks rm {_NAME}
ctr containers rm {_NAME}
ctr snapshots rm {_NAME}
exit 0
"""


class Kubelet:
    """What one node is told to run."""

    def __init__(self, name: str, there: dict[str, Any], manifest: Manifest, api: Sequence[Any]) -> None:
        self.name, self._there, self._manifest, self._api = name, there, manifest, api

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """A program of the node, on it."""
        argv = [*self._there["prefix"], *command]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=BOUND, check=False)
        if check and done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command)} failed: {done.stdout}{done.stderr}")
        return done

    def restart(self) -> None:
        """Have the pod anew: the init containers one after the other, then the agent."""
        manifest = self._manifest
        self.run("sh", "-c", _END)
        self.run("mkdir", "-p", _ROOT, *manifest.volumes.values())
        for container in (manifest.install, manifest.load):
            self._ctr("--rm", *manifest.init_options(container, _ROOT), container=container, words=container["args"])
        host, port = self._api
        variables = {"NODE_NAME": self.name, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        options = ["--detach", "--log-uri=file:///run/agent.log", *manifest.agent_options(ACCOUNT, variables)]
        self._ctr(*options, container=manifest.agent, words=manifest.agent_arguments(variables))

    def is_ready(self) -> bool:
        """As the readiness probe of the agent has it."""
        with suppress(OSError, ValueError):
            return bool(fetch(Path(self._there["root"], "run/pycni/agent.sock"), "/readyz"))
        return False

    def _ctr(self, *options: str, container: dict[str, Any], words: Sequence[str]) -> None:
        cgroup = f"{self._there['cgroup']}/{_NAME}"
        image = _IMAGE.format(container["image"])
        self.run("ctr", "-n", "k8s.io", "run", "--cgroup", cgroup, *options, image, _NAME, "pycni", *words)


def main(arguments: Sequence[str]) -> int:
    """Restart the pods, or wait until they are ready. Returns the exit status."""
    verb, *names = arguments
    place = Path(os.environ["STAND_INS"])
    cluster = json.loads((place / "cluster.json").read_text())
    manifest = parse_manifest((place / "applied").read_text())
    kubelets = [
        Kubelet(name, there, manifest, cluster["api"])
        for name, there in cluster["nodes"].items()
        if name in names or not names
    ]
    if verb == "restart":
        for kubelet in kubelets:
            kubelet.restart()
        return 0
    deadline = time.monotonic() + BOUND
    waiting = kubelets
    while waiting := [kubelet for kubelet in waiting if not kubelet.is_ready()]:
        if time.monotonic() > deadline:
            raise SystemExit(f"timed out waiting for {', '.join(kubelet.name for kubelet in waiting)}")
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
