"""The cluster's DNS server as objects of Kubernetes: pods/dns.py, at the address that the kubelet names. Pure."""

from typing import Any

from tests.kit.kubernetes.control_plane import NAMES
from tests.kit.kubernetes.images import PODS

_NAMESPACE, _NAME = "kube-system", "kube-dns"
_LABELS = {"k8s-app": _NAME}  # by which Kubernetes' own tests find the server
_META = {"name": _NAME, "namespace": _NAMESPACE, "labels": _LABELS}


def objects() -> list[dict[str, Any]]:
    """All of them, to be applied."""
    reading = [{"apiGroups": [""], "resources": ["services", "endpoints"], "verbs": ["list", "watch"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _NAME}
    subject = {"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}
    ports = [
        {"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    group = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _META},
        {"apiVersion": group, "kind": "ClusterRole", "metadata": {"name": _NAME}, "rules": reading},
        {
            "apiVersion": group,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _NAME},
            "roleRef": role,
            "subjects": [subject],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _META,
            "spec": {"clusterIP": NAMES, "selector": _LABELS, "ports": ports},
        },
        _deployment(),
    ]


def _deployment() -> dict[str, Any]:
    container = {
        "name": "dns",
        "image": PODS,
        "command": ["python3", "-IBS", "/pods/dns.py"],
        "readinessProbe": {"tcpSocket": {"port": 53}, "periodSeconds": 1},
    }
    spec = {
        "serviceAccountName": _NAME,
        "dnsPolicy": "Default",
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
    }
    template = {"metadata": {"labels": _LABELS}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _META,
        # two, on two nodes: names are known while one of them restarts
        "spec": {"replicas": 2, "selector": {"matchLabels": _LABELS}, "template": template},
    }
