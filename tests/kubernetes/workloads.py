"""What the tests run on the cluster, as objects of Kubernetes. Pure."""

from typing import Any

from tests.kit.kubernetes.images import PODS

WEB, CLIENT, MEMBER = "web", "client", "member"
REPLICAS = 4
NODE_PORT, STICKY_PORT = 30080, 30090
SERVE = ["python3", "-IBS", "/pods/serve.py", "80"]
_SPREAD = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}


def web() -> list[dict[str, Any]]:
    """A web server in several pods, two with names of their own, clients, and services of every kind."""
    port = [{"name": "http", "port": 8080, "targetPort": 80}]
    udp = {"name": "udp", "port": 8080, "targetPort": 80, "protocol": "UDP"}
    outside = {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}
    member = {"serviceName": MEMBER, "podManagementPolicy": "Parallel"}
    return [
        workload("Deployment", WEB, [serving()], replicas=REPLICAS),
        workload("DaemonSet", CLIENT, [{"name": CLIENT, "image": PODS}]),
        workload("StatefulSet", MEMBER, [serving()], replicas=2, **member),
        service(WEB, WEB, ports=[*port, udp]),
        service("web-node", WEB, type="NodePort", ports=[{**port[0], "nodePort": NODE_PORT}]),
        service(
            "web-sticky", WEB, type="NodePort", sessionAffinity="ClientIP", ports=[{**port[0], "nodePort": STICKY_PORT}]
        ),
        service(MEMBER, MEMBER, clusterIP="None", ports=[{"name": "http", "port": 80}]),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "elsewhere"}, "spec": outside},
    ]


def serving(*, leave: bool = True) -> dict[str, Any]:
    """A container that says whom it sees, at port 80; and unless told otherwise takes its time to end."""
    probe = {"httpGet": {"path": "/ready", "port": 80}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 80}]
    container = {"name": "serve", "image": PODS, "command": SERVE, "ports": ports, "readinessProbe": probe}
    # A pod that ends goes on serving until every node has taken it out of its services' rules.
    return {**container, "lifecycle": {"preStop": {"exec": {"command": ["sleep", "4"]}}}} if leave else container


def workload(kind: str, name: str, containers: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    """Pods with the label app=NAME, spread over the nodes."""
    labels = {"app": name}
    pod: dict[str, Any] = {"containers": containers, "terminationGracePeriodSeconds": 20}
    if containers[0].get("lifecycle") is None:
        pod["terminationGracePeriodSeconds"] = 0  # nothing in there waits for a signal
    if kind == "Deployment":
        pod["topologySpreadConstraints"] = [{**_SPREAD, "labelSelector": {"matchLabels": labels}}]
    template = {"metadata": {"labels": labels}, "spec": pod}
    whole = {**spec, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": whole}


def service(name: str, app: str, **spec: Any) -> dict[str, Any]:
    """A service for the pods of an app."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, **spec},
    }
