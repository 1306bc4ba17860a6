"""Configurations that the system tests start from, and what they make of them."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.kit.host import Host
from tests.kit.runtime import Runtime, addresses_of

BOTH_FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def network(number: int = 1, **keys: Any) -> dict[str, Any]:
    """A dual-stack network with its own bridge (brN) and subnets (10.N.0.0/16, fd00:N::/64)."""
    ranges = [[{"subnet": f"10.{number}.0.0/16"}], [{"subnet": f"fd00:{number}::/64"}]]
    return {
        "cniVersion": "1.1.0",
        "name": f"net{number}",
        "type": "cni-bridge",
        "bridge": f"br{number}",
        "isDefaultGateway": True,
        "ipam": {"type": "cni-ipam", "ranges": ranges},
        **keys,
    }


def layer_2(**keys: Any) -> dict[str, Any]:
    """A network without addresses."""
    return {"cniVersion": "1.1.0", "name": "wire", "type": "cni-bridge", "bridge": "br0", **keys}


def mapped(config: Mapping[str, Any], *mappings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as a runtime sends it for a container with these port mappings."""
    return {**config, "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": list(mappings)}}


def address(result: Mapping[str, Any], version: int = 4) -> str:
    """The container's address of an IP version."""
    return next(entry for entry in addresses_of(result) if (":" in entry) == (version == 6))


def mac_of(result: Mapping[str, Any]) -> str:
    """The MAC of the container's interface."""
    return str(next(entry["mac"] for entry in result["interfaces"] if entry.get("sandbox")))


def port_of(result: Mapping[str, Any]) -> str:
    """The host's end of the veth pair: the second interface that the plugin lists."""
    return str(result["interfaces"][1]["name"])


def sysctl(host: Host, name: str, value: object = None, container: str | None = None) -> str:
    """Read a sysctl below net (as a path), or set it."""
    path = f"/proc/sys/net/{name}"
    if value is None:
        return host.run("cat", path, container=container).stdout.strip()
    host.run("sh", "-c", f"echo {value} > {path}", container=container)
    return str(value)


def refused(runtime: Runtime, command: str, name: str, config: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The error object of a call that fails."""
    outcome = runtime.call(command, name, config, **options)
    assert outcome.status == 1, outcome
    assert isinstance(outcome.document, dict), outcome
    return outcome.document


def find_differences(runtime: Runtime, name: str, config: Mapping[str, Any], **options: Any) -> str:
    """What CHECK finds wrong with a container, with the result of its ADD; empty for nothing."""
    outcome = runtime.call("CHECK", name, {**config, "prevResult": runtime.results[name]}, **options)
    if outcome.status == 0:
        assert outcome.stdout == "", outcome
        return ""
    assert outcome.document["code"] == 103, outcome
    return str(outcome.document["msg"])
