"""A shop of three tiers in a namespace of its own, as objects of Kubernetes; what its policy is about. Pure."""

from typing import Any

from tests.kit.kubernetes.images import PODS
from tests.kubernetes.workloads import SERVE, service, workload

NAMESPACE = "tiers"
FRONTEND, BACKEND, DATABASE = "frontend", "backend", "database"
SPEAKS = {FRONTEND: 80, BACKEND: 8080, DATABASE: 3306}
OTHER = 9090  # a port that all of them serve too, and nobody has to reach
IMPOSTOR = "impostor"  # a pod with a frontend's label, in the namespace of others


def objects() -> list[dict[str, Any]]:
    """A frontend on every node, two backends, a database, a service for each; and an impostor."""
    parts = (
        workload("DaemonSet", FRONTEND, _containers(FRONTEND)),
        workload("Deployment", BACKEND, _containers(BACKEND), replicas=2),
        workload("Deployment", DATABASE, _containers(DATABASE), replicas=1),
        *(service(name, name, ports=_ports(name)) for name in SPEAKS),
    )
    spec = {"containers": [{"name": IMPOSTOR, "image": PODS}], "terminationGracePeriodSeconds": 0}
    meta = {"name": IMPOSTOR, "labels": {"app": FRONTEND}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *({**part, "metadata": {**part["metadata"], "namespace": NAMESPACE}} for part in parts),
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec},
    ]


def _containers(app: str) -> list[dict[str, Any]]:
    """A server at each port; the kubelet asks the one that matters."""
    probe = {"httpGet": {"path": "/ready", "port": SPEAKS[app]}, "periodSeconds": 1}
    command = SERVE[:-1]
    return [
        {"name": app, "image": PODS, "command": [*command, str(SPEAKS[app])], "readinessProbe": probe},
        {"name": "other", "image": PODS, "command": [*command, str(OTHER)]},
    ]


def _ports(app: str) -> list[dict[str, Any]]:
    return [{"name": f"port-{port}", "port": port} for port in (SPEAKS[app], OTHER)]
