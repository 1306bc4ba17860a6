"""Reads the reservations of the address store, file by file: without its lock, and skipping broken files.

The format is that of host-local: DATADIR/NETWORK/ADDRESS with the container id and the interface in it.
Must not: write anything, or take the lock: a call may hold it.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cni_node.inspect.values import Reservation
from cni_protocol.address import parse_ip

DIRECTORY = Path("/var/lib/cni/networks")
_BYTES = 4096  # of a reservation that are looked at


def list_reservations(directories: Iterable[Path]) -> tuple[list[Reservation], list[str]]:
    """The reservations in some directories, and in sentences what could not be read."""
    found: list[Reservation] = []
    problems: list[str] = []
    for directory in directories:
        for network in _entries(directory, problems):
            if network.startswith("."):  # records beside the files
                continue
            if (directory / network).is_dir():
                found += _list_network(directory, network, problems)
            else:
                problems.append(f"{directory / network} is no directory of a network")
    return found, problems


def _entries(directory: Path, problems: list[str]) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"reservations in {directory} cannot be read: {error.strerror}")
        return []


def _list_network(directory: Path, network: str, problems: list[str]) -> Iterator[Reservation]:
    for name in _entries(directory / network, problems):
        path = directory / network / name
        try:
            ip = parse_ip(name)
        except ValueError:
            continue  # the lock, the last address
        try:
            content = _read(path).decode()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"reservation {path} cannot be read: {getattr(error, 'strerror', None) or error}")
            continue
        container_id, _, ifname = content.replace("\r\n", "\n").strip().partition("\n")
        if not container_id.isprintable() or not ifname.isprintable():
            problems.append(f"reservation {path} is damaged")
            continue
        if not container_id:
            problems.append(f"reservation {path} names no container")
        yield Reservation(str(directory), network, ip, container_id, ifname)


def _read(path: Path) -> bytes:
    """The beginning of a file. Follows no symbolic link, and does not wait for a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, _BYTES)
    finally:
        os.close(descriptor)
