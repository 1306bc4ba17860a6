"""Reads the runtime's configurations and our networks in them, the plugins that they need, and the address store.

Must not: write, take a lock, or assume that a file is valid.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cni_node.doctor.facts import Configuration, Network, Reservation
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip

_SUFFIXES = (".conf", ".conflist", ".json")
_STORE = "/var/lib/cni/networks"
_HOLDER_BYTES = 4096
_MACHINES = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "s390x": 22, "riscv64": 243}  # EM_*


def read_configurations(directory: Path) -> tuple[list[Configuration], list[Network]]:
    """The configuration files, sorted by name as the runtime does, and our networks in them. Raises OSError."""
    found: list[Configuration] = []
    networks: list[Network] = []
    for path in sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES):
        try:
            document = json.loads(path.read_bytes())
            plugins = document.get("plugins", [document])
            types = [str(plugin["type"]) for plugin in plugins]
            ipam = [str(plugin["ipam"]["type"]) for plugin in plugins if (plugin.get("ipam") or {}).get("type")]
            ours = [plugin for plugin in plugins if plugin["type"] == "cni-bridge"]
            networks += [parse_network(str(document["name"]), plugin) for plugin in ours]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            found.append(Configuration(str(path), error=reason or str(error)))
            continue
        found.append(Configuration(str(path), tuple(dict.fromkeys([*types, *ipam])), ours=bool(ours)))
    return found, networks


def parse_network(name: str, plugin: Mapping[str, Any]) -> Network:
    """The parts of a network that the checks need. Raises ValueError, LookupError, TypeError, AttributeError."""
    ipam = plugin.get("ipam") or {}
    own = ipam if ipam.get("type") == "cni-ipam" else {}
    sets = [*own.get("ranges", []), *([[own]] if "subnet" in own else [])]
    ranges = [entry for one in sets for entry in one]
    subnets = [parse_cidr(entry["subnet"]).network for entry in ranges]
    is_gateway = bool(plugin.get("isGateway") or plugin.get("isDefaultGateway")) and not plugin.get("vlan")
    return Network(
        name=name,
        bridge=str(plugin.get("bridge") or "cni0"),
        gateways=tuple(_gateway_of(entry) for entry in ranges),
        subnets=tuple(dict.fromkeys(subnets)),
        pools=tuple(tuple(map(_bounds_of, one)) for one in sets if not any(entry.get("exclude") for entry in one)),
        is_gateway=is_gateway,
        hairpin=bool(plugin.get("hairpinMode")),
        isolated=bool(plugin.get("portIsolation")),
        agent=str(plugin.get("agent") or ""),
        store=str(own.get("dataDir") or _STORE) if own else "",
    )


def _gateway_of(entry: Mapping[str, Any]) -> CIDR:
    subnet = parse_cidr(entry["subnet"])
    if entry.get("gateway"):
        return CIDR(parse_ip(entry["gateway"]), subnet.prefix)
    return CIDR(IP(subnet.version, subnet.first.value + 1), subnet.prefix)


def _bounds_of(entry: Mapping[str, Any]) -> tuple[IP, IP]:
    subnet = parse_cidr(entry["subnet"])
    first = IP(subnet.version, subnet.first.value + 1)
    last = IP(subnet.version, subnet.last.value - (subnet.version == 4))
    start, end = entry.get("rangeStart"), entry.get("rangeEnd")
    return (parse_ip(start) if start else first, parse_ip(end) if end else last)


def read_plugin(directories: list[Path], name: str) -> str:
    """Why a plugin cannot run, empty for one that can."""
    for directory in directories:
        path = directory / name
        if not path.exists():
            if path.is_symlink():
                return f"{path} leads nowhere"
            continue
        if not path.is_file() or not path.stat().st_mode & 0o111:
            return f"{path} is not executable"
        return _wrong_machine(path)
    return f"it is not in {', '.join(map(str, directories))}"


def _wrong_machine(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(20)
    expected = _MACHINES.get(platform.machine())
    if head[:4] != b"\x7fELF" or expected is None or len(head) < 20:
        if head[:2] != b"#!" and head[:4] != b"\x7fELF":
            return f"{path} is no program ({os.path.getsize(path)} bytes)"
        return ""
    found = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return "" if found == expected else f"{path} is for another kind of machine than {platform.machine()}"


def read_reservations(root: Path, network: Network) -> Iterator[Reservation]:
    """The reservations of a network; none if it was never used. Raises OSError."""
    directory = root / network.store.lstrip("/") / network.name
    if not os.path.lexists(directory):
        return
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        try:
            ip = parse_ip(entry.name)
        except ValueError:
            continue
        try:
            with open(entry.path, "rb") as file:
                lines = file.read(_HOLDER_BYTES).decode().split("\n")
            holder = [line.strip() for line in (*lines, "")][:2]
            error = "" if holder[0] else "it names no container"
        except (OSError, ValueError) as problem:
            holder, error = ["", ""], str(problem)
        yield Reservation(network.name, ip, holder[0], holder[1], entry.path, error)
