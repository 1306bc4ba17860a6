"""Parses pods and namespaces from the API's JSON to the values of model.py. Pure.

Must not: keep more of a pod than policies need, since there are thousands.
"""

import sys
from typing import Any

from cni_node.policy.model import PROTOCOLS, ContainerPort, Labels, Pod
from cni_node.policy.parsing import parse_labels, parse_name
from cni_protocol.address import IP, parse_ip

_NAME = "kubernetes.io/metadata.name"  # the API server gives it to every namespace, from 1.21 on
_MIRROR = "kubernetes.io/config.mirror"  # what a static pod's own uid is, which its runtime knows it by
_FINISHED = ("Succeeded", "Failed")


def parse_pod(item: Any) -> Pod:
    """A Pod object. Raises ValueError for what is none.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
    """
    namespace, name = parse_name(item)
    try:
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        texts = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
        return Pod(
            sys.intern(namespace),
            name,
            _interned(parse_labels(metadata.get("labels"))),
            _addresses(texts),
            _ports(spec),
            sys.intern(str(spec.get("nodeName") or "")),
            host_network=bool(spec.get("hostNetwork")),
            finished=status.get("phase") in _FINISHED,
            terminating=bool(metadata.get("deletionTimestamp")),
            created=str(metadata.get("creationTimestamp") or ""),
            uid=str((metadata.get("annotations") or {}).get(_MIRROR) or metadata.get("uid") or ""),
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the API's object {namespace}/{name} is not that of a pod ({error})") from None


def parse_namespace(item: Any) -> tuple[str, Labels]:
    """The name of a Namespace object, and its labels. Raises ValueError."""
    _, name = parse_name(item)
    return name, parse_labels(item["metadata"].get("labels")) | {(_NAME, name)}


def _interned(labels: Labels) -> Labels:
    return frozenset((sys.intern(key), sys.intern(value)) for key, value in labels)


def _addresses(texts: list[Any]) -> tuple[IP, ...]:
    return tuple(dict.fromkeys(parse_ip(text) for text in texts if text))


def _ports(spec: dict[str, Any]) -> tuple[ContainerPort, ...]:
    """The named ports, also of init containers, since one with restartPolicy Always runs beside the others."""
    found = []
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        for port in container.get("ports") or ():
            name, number, protocol = port.get("name"), port.get("containerPort"), port.get("protocol") or "TCP"
            if isinstance(name, str) and name and isinstance(number, int) and protocol in PROTOCOLS:
                found.append(ContainerPort(protocol, sys.intern(name), number))
    return tuple(dict.fromkeys(found))
