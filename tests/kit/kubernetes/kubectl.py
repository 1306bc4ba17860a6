"""The cluster as its administrator has it: kubectl for what users type, and the API itself for what is looked up."""

import shlex
from collections.abc import Sequence
from typing import Any

from tests.kit.kubernetes.api import Api, is_ready, is_rolled_out, path_of, plural
from tests.kit.kubernetes.command import SetupError, await_value
from tests.kit.kubernetes.control_plane import ControlPlane
from tests.kit.kubernetes.machine import SETTINGS

_TOLD = 4000  # characters of events
_CONFIG = f"--kubeconfig={SETTINGS}/admin.conf"


class Kubectl:
    """The client, on the control plane's machine."""

    def __init__(self, control: ControlPlane) -> None:
        self._machine = control
        self.api = Api(control)

    def __call__(self, *arguments: str, seconds: float = 60.0, **options: Any) -> str:
        """Run it and return what it printed. Raises AssertionError with what it said when it fails."""
        variables = {"HOME": "/root"}  # where it keeps what the API server can do
        return self._machine.run("kubectl", _CONFIG, *arguments, timeout=seconds, env=variables, **options).stdout

    def argv(self, *arguments: str) -> list[str]:
        """The command line that runs it."""
        return self._machine.argv("/usr/bin/kubectl", _CONFIG, *arguments)

    def command(self) -> str:
        """The command line that a shell on this machine reaches the cluster by."""
        return shlex.join(self.argv())

    def apply(self, *objects: dict[str, Any]) -> None:
        """Have objects as they are given, new or changed."""
        for each in objects:
            self.api.apply(each)

    def get(self, kind: str, name: str = "", *, namespace: str = "default", selector: str = "", field: str = "") -> Any:
        """An object, or the list of those that selectors of labels and fields choose; "" is all namespaces."""
        path = path_of(plural(kind), namespace, selector=selector, field=field)
        found = self.api.get(f"{path}/{name}" if name else path)
        assert found is not None, f"the API server knows no {kind} {name} in {namespace}"
        return found if name else found["items"]

    def delete(self, *what: str, namespace: str = "default") -> None:
        """Have objects ("deployment/web") go, without a wait until they have."""
        for each in what:
            kind, _, name = each.partition("/")
            self.api.delete(f"{path_of(plural(kind), namespace)}/{name}")

    def await_ready(self, pod: str, seconds: float = 60.0) -> None:
        """Until a pod is Ready."""
        await_value(f"{pod} is Ready", lambda: is_ready(self.get("pod", pod)), seconds)

    def roll_out(self, *what: str, namespace: str = "default", seconds: float = 90.0) -> None:
        """Until each of these ("deployment/web") has all of its pods, of its newest form and ready."""
        for each in what:
            done = lambda: is_rolled_out(self.get(*each.split("/"), namespace=namespace))  # noqa: B023, E731
            try:
                await_value(f"{each} is rolled out", done, seconds)
            except SetupError as error:
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
