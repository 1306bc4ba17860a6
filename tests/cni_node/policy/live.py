"""A loop of policies between an API server and the kernel of a throw-away host."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cni_node.policy.enforcer import Enforcer
from cni_node.sources.kubernetes import KubernetesSettings
from tests.cni_node.policy.kernel import NODES
from tests.kit.api_server import ApiServer
from tests.kit.host import Host

DENY = {"podSelector": {}, "policyTypes": ["Ingress"]}


def pod_item(name: str, *addresses: str, **metadata: Any) -> dict[str, Any]:
    namespace, short = name.split("-")
    return {
        "metadata": {"namespace": namespace, "name": short, "labels": {"pod": short}, **metadata},
        "spec": {"nodeName": "node1"},
        "status": {"podIPs": [{"ip": address} for address in addresses]},
    }


def put_policy(api: ApiServer, namespace: str, name: str, spec: Any) -> None:
    api.put({"metadata": {"namespace": namespace, "name": name}, "spec": spec}, "networkpolicies")


def settings_of(server: str, directory: Path) -> KubernetesSettings:
    """Those of node1, with a service account in the directory."""
    (directory / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (directory / "token").write_text("first\n")
    return KubernetesSettings("node1", server=server, service_account=str(directory))


@contextmanager
def running(host: Host, server: str, directory: Path) -> Iterator[Enforcer]:
    """The loop of node1; what it leaves in the kernel stays."""
    settings = settings_of(server, directory)
    with host.entered():
        opened = Enforcer(settings, lambda: NODES["node1"], log=False, cut=True)
    opened.start()
    try:
        yield opened
    finally:
        opened.close()
