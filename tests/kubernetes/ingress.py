"""Traefik as the cluster's ingress controller, two shops behind it, and rules of every kind, as objects. Pure."""

import base64
from typing import Any

from tests.kubernetes.workloads import service, serving, workload

IMAGE = "localhost/traefik:1"
CLASS, NAMESPACE = "traefik", "ingress"
NODE_PORT, TLS_NODE_PORT, HOST_PORT = 30081, 30443, 8088
SHOP, SECURE = "shop.example.com", "secure.example.com"
_GROUP = "rbac.authorization.k8s.io"
_RULES = [
    {"apiGroups": [""], "resources": ["services", "endpoints", "secrets"], "verbs": ["get", "list", "watch"]},
    {
        "apiGroups": ["networking.k8s.io", "extensions"],
        "resources": ["ingresses", "ingressclasses"],
        "verbs": ["get", "list", "watch"],
    },
    {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"]},
]


def controller(node: str) -> list[dict[str, Any]]:
    """Traefik on a node, with what it may read, at a port of every node and at a host port of its own one."""
    meta = {"name": CLASS, "namespace": NAMESPACE}
    role = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": CLASS}
    subject = {"kind": "ServiceAccount", **meta}
    ports = [
        {"name": "web", "port": 80, "targetPort": 8000, "nodePort": NODE_PORT},
        {"name": "websecure", "port": 443, "targetPort": 8443, "nodePort": TLS_NODE_PORT},
    ]
    exposed = service(CLASS, CLASS, type="NodePort", ports=ports)
    deployment = workload("Deployment", CLASS, [_container()], replicas=1)
    deployment["spec"]["template"]["spec"].update(serviceAccountName=CLASS, nodeName=node)
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{_GROUP}/v1", "kind": "ClusterRole", "metadata": {"name": CLASS}, "rules": _RULES},
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": CLASS},
            "roleRef": role,
            "subjects": [subject],
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS},
            "spec": {"controller": "traefik.io/ingress-controller"},
        },
        {**exposed, "metadata": meta},
        {**deployment, "metadata": meta},
    ]


def _container() -> dict[str, Any]:
    arguments = [
        *("--entrypoints.web.address=:8000", "--entrypoints.websecure.address=:8443"),
        "--entrypoints.websecure.http.tls=true",
        *("--ping=true", "--ping.entrypoint=web", "--providers.kubernetesingress=true"),
        f"--providers.kubernetesingress.ingressclass={CLASS}",
        *("--global.checknewversion=false", "--global.sendanonymoususage=false"),
    ]
    return {
        "name": CLASS,
        "image": IMAGE,
        "args": arguments,
        "ports": [{"name": "web", "containerPort": 8000, "hostPort": HOST_PORT}],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 8000}, "periodSeconds": 1},
    }


def shops(certificate: bytes, key: bytes) -> list[dict[str, Any]]:
    """Two services, wear and watch: by path of one host, each by a host of its own, and one of them by TLS."""
    objects = []
    for name in ("wear", "watch"):
        objects += [
            workload("Deployment", name, [serving(leave=False)], replicas=1),
            service(name, name, ports=[{"port": 80}]),
        ]
    data = {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(key).decode()}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "secure"},
        "type": "kubernetes.io/tls",
        "data": data,
    }
    return [
        *objects,
        secret,
        _ingress("paths", [_rule(SHOP, {"/wear": "wear", "/watch": "watch"})]),
        _ingress("hosts", [_rule(f"{name}.example.com", {"/": name}) for name in ("wear", "watch")]),
        _ingress("secure", [_rule(SECURE, {"/": "watch"})], tls=[{"hosts": [SECURE], "secretName": "secure"}]),
    ]


def _rule(host: str, paths: dict[str, str]) -> dict[str, Any]:
    listed = [
        {"path": path, "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"number": 80}}}}
        for path, name in paths.items()
    ]
    return {"host": host, "http": {"paths": listed}}


def _ingress(name: str, rules: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
    spec = {"ingressClassName": CLASS, "rules": rules, **further}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec}
