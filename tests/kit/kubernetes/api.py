"""The API server, asked by this process as the cluster's administrator: to start kubectl takes many times as long.

What a user does stays kubectl's business (kubectl.py); this is for looking, for waiting, and for the tests' objects.
"""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import quote

from tests.kit.kubernetes.control_plane import ADDRESS, PORT, ControlPlane
from tests.kit.node import entered

_BOUND = 30.0  # seconds for an answer
_GROUPS = {
    **dict.fromkeys(("deployments", "daemonsets", "statefulsets"), "apps/v1"),
    "ingresses": "networking.k8s.io/v1",
}
_OF_NO_NAMESPACE = ("clusterrolebindings", "clusterroles", "ingressclasses", "namespaces", "nodes")


class Api:
    """The client."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._context: ssl.SSLContext | None = None

    def get(self, path: str) -> Any:
        """What stands at a path, or None. Raises AssertionError for any other answer, and OSError without one."""
        status, answer = self._ask("GET", path)
        assert status in (200, 404), f"GET {path}: {status}, {answer.decode(errors='replace')}"
        return json.loads(answer) if status == 200 else None

    def apply(self, wanted: dict[str, Any]) -> None:
        """Have an object, new or changed."""
        meta = wanted["metadata"]
        path = path_of(plural(wanted["kind"]), meta.get("namespace", "default"), group=wanted["apiVersion"])
        status, answer = self._ask("POST", path, wanted)
        if status == 409:
            status, answer = self._ask("PATCH", f"{path}/{meta['name']}", wanted)
        assert status in (200, 201), f"{path}: {status}, {answer.decode(errors='replace')}"

    def delete(self, path: str) -> None:
        """Have an object go, now or as soon as what it owns has gone; one that is not there is gone."""
        status, answer = self._ask("DELETE", path)
        assert status in (200, 202, 404), f"DELETE {path}: {status}, {answer.decode(errors='replace')}"

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        connection = http.client.HTTPSConnection(ADDRESS, PORT, timeout=_BOUND, context=self._credentials())
        try:
            with entered(self._control.netns):
                connection.connect()
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _credentials(self) -> ssl.SSLContext:
        if self._context is None:
            directory = self._control.authority.directory
            self._context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
            self._context.load_cert_chain(directory / "admin.crt", directory / "admin.key")
        return self._context


def plural(kind: str) -> str:
    """As paths have a kind that is written "Ingress", "ingress" or "ingresses"."""
    name = kind.lower()
    if name.endswith("ss"):
        return f"{name}es"
    return name if name.endswith("s") else f"{name}s"


def path_of(kind: str, namespace: str = "", *, group: str = "", selector: str = "", field: str = "") -> str:
    """Where the objects of a kind ("pods") stand: in a namespace, or, where that is "", in all of them.

    `group` is theirs as in "apps/v1", where the kind is none of the usual ones; the others are those of ?labelSelector=
    and ?fieldSelector=.
    """
    group = group or _GROUPS.get(kind, "v1")
    top = f"/apis/{group}" if "/" in group else f"/api/{group}"
    inside = f"/namespaces/{namespace}" if namespace and kind not in _OF_NO_NAMESPACE else ""
    chosen = [f"{key}Selector={quote(value)}" for key, value in (("label", selector), ("field", field)) if value]
    return f"{top}{inside}/{kind}" + (f"?{'&'.join(chosen)}" if chosen else "")


def is_rolled_out(workload: dict[str, Any]) -> bool:
    """Whether a Deployment, DaemonSet or StatefulSet has all of its pods, of its newest form and ready, no others."""
    status = workload["status"]
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return False
    if "desiredNumberScheduled" in status:
        wanted, keys = (
            status["desiredNumberScheduled"],
            ("updatedNumberScheduled", "currentNumberScheduled", "numberReady"),
        )
    else:
        wanted, keys = workload["spec"]["replicas"], ("updatedReplicas", "replicas", "readyReplicas")
    return all(status.get(key, 0) == wanted for key in keys)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod or a node is."""
    conditions = pod["status"].get("conditions", [])
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)
