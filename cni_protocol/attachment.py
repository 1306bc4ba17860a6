"""Whom things on the host belong to: names and marks that every command derives anew. Pure."""

from cni_protocol.light.standard import NamedTuple, sha256

_OWNER_PART = 100  # characters; an alias holds 255 (IFALIASZ), a comment of nftables 128 or more


class Attachment(NamedTuple):
    """The pair that the specification counts: a container and an interface in it, on a network."""

    network: str
    container_id: str
    ifname: str

    @property
    def host_name(self) -> str:
        """The name of the host's end of the veth pair, the same on every command: DEL needs nothing else."""
        return "veth" + sha256("/".join(self).encode()).hexdigest()[:11]

    @property
    def owner(self) -> str:
        """NETWORK/CONTAINERID/IFNAME, by which host interfaces and rules tell whose they are."""
        return "/".join(shortened(part) for part in self)

    @property
    def owner_prefix(self) -> str:
        """What the owners of all attachments of the same network begin with."""
        return shortened(self.network) + "/"


def shortened(part: str) -> str:
    """A name that fits beside two others: a long one ends in a digest of the whole."""
    return part if len(part) <= _OWNER_PART else f"{part[:35]}:{sha256(part.encode()).hexdigest()}"
