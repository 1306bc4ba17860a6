"""Reads libcni's cache: a file for each attachment, with the configuration and the result of its ADD.

Source: libcni/api.go of containernetworking/cni (cniCacheV1); containerd, CRI-O and podman keep it in the same place.
Must not: assume that a cached attachment still runs.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY = Path("/var/lib/cni/results")
PLUGIN = "cni-bridge"


class Cached(NamedTuple):
    """An attachment of cni-bridge in the cache. `config` is what CHECK would get on stdin, with prevResult."""

    network: str
    container_id: str
    ifname: str
    netns: str
    args: str
    config: dict[str, Any]


def list_attachments(directory: Path = DIRECTORY) -> tuple[list[Cached], list[str]]:
    """The attachments of our plugin in a cache directory, and as sentences which files could not be read."""
    found, problems = [], []
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file())
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{directory} cannot be read: {error.strerror}"]
    for path in paths:
        try:
            found += list(_parse(json.loads(path.read_bytes())))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            problems.append(f"{path} is no result of libcni: {error!r}")
    return found, problems


def _parse(document: Any) -> Iterator[Cached]:
    if document.get("kind") != "cniCacheV1":
        return
    conflist = json.loads(base64.b64decode(document["config"]))
    result = document["result"]
    capabilities = document.get("capabilityArgs") or {}
    for plugin in conflist.get("plugins", [conflist]):
        if plugin.get("type") != PLUGIN:
            continue
        wanted = plugin.get("capabilities") or {}
        runtime = {key: value for key, value in capabilities.items() if wanted.get(key)}
        yield Cached(
            network=document["networkName"],
            container_id=document["containerId"],
            ifname=document["ifName"],
            netns=_sandbox_of(result, document["ifName"]),
            args=";".join("=".join(pair) for pair in document.get("cniArgs") or []),
            config={
                **plugin,
                "name": document["networkName"],
                "cniVersion": result.get("cniVersion") or conflist.get("cniVersion", ""),
                **({"runtimeConfig": runtime} if runtime else {}),
                "prevResult": result,
            },
        )


def _sandbox_of(result: Any, ifname: str) -> str:
    interfaces = result.get("interfaces") or []
    found = (entry.get("sandbox", "") for entry in interfaces if entry.get("name") == ifname and entry.get("sandbox"))
    return str(next(found, ""))
