"""The runtime's network configuration of this node: making its text, and writing its file.

Must not: decide when to write it (admission.py does), or name a peer, since the plugin knows none.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni_node.host.bridge import BRIDGE
from cni_node.host.peer_routes import NETWORK
from cni_protocol.address import CIDR, any_network, parse_cidr, parse_ip

CONFIGURATION = f"10-{NETWORK}.conflist"
RESERVATIONS = Path("var/lib/cni/networks") / NETWORK  # below the root; the address plugin's, a file for each address


def render(pods: Sequence[CIDR], mtu: int, agent: str = "", *, policies: bool = False) -> str:
    """The text of the conflist for these pod ranges. `mtu` is in bytes, 0 is the plugin's choice. Pure.

    `agent` is the path of the agent's socket, with which STATUS checks that the agent answers; "" without an agent.
    With `policies`, STATUS also requires bridge netfilter.
    """
    bridge: dict[str, Any] = {
        "type": "cni-bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "capabilities": {"portMappings": True},
    }
    if mtu:
        bridge["mtu"] = mtu
    if agent:
        bridge["agent"] = agent
    if policies:  # packets between pods of this node reach nftables only through bridge netfilter
        bridge["requireBridgeNetfilter"] = True
    bridge["ipam"] = {
        "type": "cni-ipam",
        "ranges": [[{"subnet": str(cidr)}] for cidr in pods],
        "routes": [{"dst": str(any_network(cidr.version))} for cidr in pods],
    }
    # containerd 1.6 reads results up to 1.0.0; a newer runtime takes the newest of cniVersions, with STATUS and GC
    document = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": NETWORK, "plugins": [bridge]}
    return json.dumps(document, indent=2) + "\n"


def has_file(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """Whether a file has this content and mode."""
    try:
        return path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode
    except OSError:
        return False


def put_file(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """Write a file by rename, unless it has this content and mode already. Returns whether it was written.

    A leftover of an interrupted call is overwritten. Raises OSError.
    """
    if has_file(path, content, mode):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # after a power failure the node has the old file or the new one
    temporary.rename(path)
    return True


def read_ranges(path: Path) -> tuple[CIDR, ...]:
    """The pod ranges in a configuration of ours; none when there is no such file."""
    try:
        ranges = json.loads(path.read_bytes())["plugins"][0]["ipam"]["ranges"]
        return tuple(parse_cidr(each[0]["subnet"]) for each in ranges)
    except (OSError, ValueError, LookupError, TypeError):
        return ()


def list_strangers(root: Path, pods: Sequence[CIDR]) -> list[str]:
    """The reserved addresses outside these pod ranges, each with its container id: pods with a former range."""
    found = []
    with suppress(OSError):
        for path in sorted((root / RESERVATIONS).iterdir()):
            with suppress(ValueError):
                ip = parse_ip(path.name)
                if not any(ip in cidr for cidr in pods):
                    found.append(f"{ip} ({_container_of(path)})")
    return found


def _container_of(path: Path) -> str:
    """The container id, on the first line of a reservation (host-local's format)."""
    try:
        return path.read_text(errors="replace").split("\n", 1)[0].strip() or "?"
    except OSError:
        return "?"
