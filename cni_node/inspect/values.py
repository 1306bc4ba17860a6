"""Plain values: what was read of a node (Reading), and the same joined by owner (View). Pure.

Must not: read anything, or decide how it is shown.
"""

from typing import Any, NamedTuple

from cni_kernel.values import Address, Link
from cni_protocol.address import CIDR, IP


class Remembered(NamedTuple):
    """An attachment as the runtime remembers it. `pod` is NAMESPACE/NAME, empty where the runtime named none."""

    network: str
    container_id: str
    ifname: str
    netns: str
    pod: str
    bridge: str
    addresses: tuple[str, ...]


class Inside(NamedTuple):
    """The container's end of a pair. `netns` is "ok", "gone" or "unread"; the rest is empty where it was not found."""

    netns: str
    link: Link | None = None
    addresses: tuple[CIDR, ...] = ()


class Reservation(NamedTuple):
    """A file of the address store; those of old versions name no interface, damaged ones no container."""

    directory: str
    network: str
    ip: IP
    container_id: str
    ifname: str


class HostPort(NamedTuple):
    """A port of the host that leads to a container; `address` is empty for every address of the host."""

    address: str
    port: int
    protocol: str
    target: str


class Rule(NamedTuple):
    """An element of our nftables maps: its owner, and what it does in words; `port` is set for host ports."""

    owner: str
    what: str
    port: HostPort | None = None


class Policies(NamedTuple):
    """The table of policies in numbers: isolated pods, chains of policies, sets, and packets denied by why."""

    pods: int
    chains: int
    sets: int
    denied: dict[str, int]


class Peer(NamedTuple):
    """A way to another node's pods. `node` is where an overlay delivers; `lacks` says what is missing for that."""

    name: str
    pods: str
    via: str
    device: str
    node: str
    lacks: str


class Reading(NamedTuple):
    """All that was read. A value is None or empty when it could not be read; then `problems` has a sentence."""

    node: str
    links: list[Link]
    addresses: list[Address]
    uplinks: list[tuple[str, str]]  # interface, gateway
    remembered: list[Remembered]
    inside: dict[str, Inside]  # by owner
    reservations: list[Reservation]
    rules: list[Rule] | None
    exempt: int | None
    policies: Policies | None
    peers: list[Peer]
    has_links: bool
    has_results: bool
    problems: list[str]


class Attached(NamedTuple):
    """An attachment: all that has the same owner. `host` is the host's end; `state` are its faults, in words."""

    owner: str
    network: str
    container_id: str
    ifname: str
    pod: str
    netns: str
    bridge: str
    host: Link | None
    inside: Inside
    addresses: tuple[str, ...]
    reserved: tuple[str, ...]
    ports: tuple[HostPort, ...]
    rules: tuple[str, ...]
    state: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name to show: the pod's, otherwise the beginning of the container id."""
        return self.pod or shorten(self.container_id)

    @property
    def unaddressed(self) -> str:
        """The text to show instead of addresses when there are none."""
        return "no address" if self.inside.netns == "ok" else "addresses unknown"


class Bridge(NamedTuple):
    """A bridge with its addresses, the owners of its ports, and the names of ports that are not ours."""

    link: Link
    addresses: tuple[str, ...]
    owners: tuple[str, ...]
    others: tuple[str, ...]


class Network(NamedTuple):
    """A network as it is on this node, in numbers."""

    name: str
    bridges: tuple[str, ...]
    attachments: int
    reservations: int


class Leftover(NamedTuple):
    """Something whose attachment does not exist any more: its kind, a description, and the reason."""

    kind: str
    what: str
    why: str


class View(NamedTuple):
    """A node, joined by owner. `sure`: links and results could all be read, so `leftovers` are certain."""

    node: str
    uplinks: list[dict[str, Any]]
    overlay: list[Link]
    networks: list[Network]
    bridges: list[Bridge]
    attached: list[Attached]
    peers: list[Peer]
    exempt: int | None
    policies: Policies | None
    leftovers: list[Leftover]
    sure: bool
    problems: list[str]


def shorten(name: str, size: int = 12) -> str:
    """A name in at most so many characters."""
    return name if len(name) <= size else name[: size - 1] + "…"
