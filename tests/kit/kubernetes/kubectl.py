"""kubectl on the control plane's machine: what users type, with answers as values."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from tests.kit.kubernetes.machine import SETTINGS, Machine

_TOLD = 4000  # characters of events
_SLACK = 10.0  # seconds beside the bound that kubectl itself has
_CONFIG = f"--kubeconfig={SETTINGS}/admin.conf"


class Kubectl:
    """The client, as the cluster's administrator."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __call__(self, *arguments: str, seconds: float = 60.0, **options: Any) -> str:
        """Run it and return what it printed. Raises AssertionError with what it said when it fails."""
        variables = {"HOME": "/root"}  # where it keeps what the API server can do
        return self._machine.run("kubectl", _CONFIG, *arguments, timeout=seconds, env=variables, **options).stdout

    def command(self) -> str:
        """The command line that a shell on this machine reaches the cluster by."""
        return shlex.join(self._machine.argv("/usr/bin/kubectl", _CONFIG))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Have objects as they are given, new or changed."""
        self("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind: str, name: str = "", *, namespace: str = "default", selector: str = "") -> Any:
        """An object, or the list of them."""
        named = [name] if name else []
        chosen = [f"--selector={selector}"] if selector else []
        answer = json.loads(self("get", kind, *named, f"--namespace={namespace}", *chosen, "--output=json"))
        return answer if name else answer["items"]

    def wait(self, condition: str, *what: str, namespace: str = "default", seconds: float = 60.0) -> None:
        """Until objects have a condition: Ready, Available, or "delete"."""
        wanted = condition if condition == "delete" else f"condition={condition}"
        bound = f"--timeout={seconds:.0f}s"
        self("wait", f"--for={wanted}", bound, f"--namespace={namespace}", *what, seconds=seconds + _SLACK)

    def roll_out(self, *what: str, namespace: str = "default", seconds: float = 90.0) -> None:
        """Until each of these ("deployment/web") has all of its pods, of its newest form and ready."""
        for each in what:
            command = ("rollout", "status", each, f"--namespace={namespace}", f"--timeout={seconds:.0f}s")
            try:
                self(*command, seconds=seconds + _SLACK)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.events(namespace)}") from error

    def events(self, namespace: str = "default") -> str:
        """The pods of a namespace, and what has happened to them."""
        where = f"--namespace={namespace}"
        pods = self("get", "pods", "--output=wide", where)
        return pods + self("get", "events", "--sort-by=.lastTimestamp", where)[-_TOLD:]

    def pods(self, selector: str, *, namespace: str = "default") -> list["Pod"]:
        """Pods that run, by label."""
        found = self.get("pods", namespace=namespace, selector=selector)
        return [Pod(each) for each in found if not each["metadata"].get("deletionTimestamp")]

    def execute(self, pod: str, *command: str, namespace: str = "default", seconds: float = 60.0) -> str:
        """Run a program in a pod."""
        return self("exec", f"--namespace={namespace}", pod, "--", *command, seconds=seconds)


class Pod:
    """What the API tells of a pod."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.name: str = described["metadata"]["name"]
        self.namespace: str = described["metadata"]["namespace"]
        self.node: str = described["spec"].get("nodeName", "")
        self.address: str = described["status"].get("podIP", "")
        self.phase: str = described["status"].get("phase", "")
        self.restarts = sum(each["restartCount"] for each in described["status"].get("containerStatuses", []))


def names_of(pods: Sequence[Pod]) -> set[str]:
    """The names of pods."""
    return {pod.name for pod in pods}
