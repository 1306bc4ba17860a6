"""Policies and pods as short as a table of cases needs them."""

from collections.abc import Mapping
from typing import Any

from cni_node.policy.model import Cluster, Labels, Pod, Policy
from cni_node.policy.parsing import parse_policy
from cni_node.policy.pods import parse_namespace, parse_pod
from cni_protocol.address import IP, parse_ip


def labels(text: str) -> dict[str, str]:
    """{"app": "web"} from "app=web"."""
    return dict(part.split("=") for part in text.split(",") if part)


def selector(text: str) -> dict[str, Any]:
    """A selector of labels."""
    return {"matchLabels": labels(text)} if text else {}


def policy(namespace: str, name: str, /, **spec: Any) -> Policy:
    """A policy by the keys of its spec."""
    return parse_policy({"metadata": {"namespace": namespace, "name": name}, "spec": spec})


def pod(full_name: str, *addresses: str, **more: Any) -> Pod:
    """The pod "x/a" has the label pod=a; `ports` are "TCP/http/80", the rest are keys of metadata, spec, status."""
    namespace, name = full_name.split("/")
    ports = [_port(text) for text in more.get("ports", ())]
    item = {
        "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}, **more.get("metadata", {})},
        "spec": {
            "nodeName": more.get("node", "node1"),
            "containers": [{"ports": ports}],
            **more.get("spec", {}),
        },
        "status": {"podIPs": [{"ip": each} for each in addresses], **more.get("status", {})},
    }
    return parse_pod(item)


def _port(text: str) -> dict[str, Any]:
    protocol, name, number = text.split("/")
    return {"protocol": protocol, "name": name, "containerPort": int(number)}


def namespaces(*names: str, **more: str) -> dict[str, Labels]:
    """Namespaces with the label ns=NAME, and more labels by their names."""
    found = [{"metadata": {"name": name, "labels": {"ns": name, **labels(more.get(name, ""))}}} for name in names]
    return dict(map(parse_namespace, found))


def cluster(policies: list[Policy], *more: Pod, drop: tuple[str, ...] = ()) -> Cluster:
    """Three namespaces x, y, z with pods a, b, c each: x/a is 10.0.1.1 and fd00::1:1, y/b is 10.0.2.2, and so on.

    All are on node1, which is 10.0.0.1 and 192.0.2.1; node2 is 192.0.2.2. Pods named in `drop` are left out.
    """
    pods = [
        pod(f"{ns}/{name}", f"10.0.{i}.{j}", f"fd00::{i}:{j}", ports=("TCP/http/80", "UDP/dns/53"))
        for i, ns in enumerate("xyz", 1)
        for j, name in enumerate("abc", 1)
        if f"{ns}/{name}" not in drop
    ]
    nodes = {"node1": ips("10.0.0.1", "192.0.2.1", "fd00::1"), "node2": ips("192.0.2.2")}
    return Cluster(tuple(policies), (*pods, *more), namespaces("x", "y", "z"), nodes)


def ips(*texts: str) -> tuple[IP, ...]:
    """Addresses."""
    return tuple(map(parse_ip, texts))


def address_of(state: Cluster, end: str, version: int = 4) -> IP:
    """The address of "x/a", or the address that stands there."""
    if "/" not in end:
        return parse_ip(end)
    named: Mapping[str, Pod] = {each.full_name: each for each in state.pods}
    return next(ip for ip in named[end].addresses if ip.version == version)
