"""The identity of an attachment: whose an interface, a rule or a reservation is, spelt the same everywhere. Pure.

Every command derives it anew from what the runtime says, so nothing has to be remembered between two calls.
"""

from .light.standard import NamedTuple, sha256

# Bytes of a network's name and of a container id in an owner; a whole owner has at most 125. A comment of nft(8) holds
# 128, an alias 255 (IFALIASZ), a file name 255 (NAME_MAX).
_NETWORK_BYTES, _CONTAINER_BYTES = 40, 68
_KEPT, _DIGEST_DIGITS = 23, 16  # of a name that is shortened


class Attachment(NamedTuple):
    """What the specification counts: a container and an interface in it, on a network."""

    network: str
    container_id: str
    ifname: str

    @property
    def host_name(self) -> str:
        """The name of the host's end of the veth pair, the same on every command: DEL needs nothing else."""
        return "veth" + sha256("/".join(self).encode()).hexdigest()[:11]

    @property
    def owner(self) -> str:
        """NETWORK,CONTAINERID,IFNAME: in interface aliases, nftables comments and names of records."""
        return f"{self.owner_prefix}{shortened(self.container_id, _CONTAINER_BYTES)},{self.ifname}"

    @property
    def owner_prefix(self) -> str:
        """What the owners of all attachments of the same network begin with."""
        return shortened(self.network, _NETWORK_BYTES) + ","

    @property
    def hint(self) -> str:
        """A text that every owner of this container (of this network, without a container id) contains."""
        return (self.container_id or self.network)[:_KEPT]


def shortened(name: str, size: int) -> str:
    """A network's name or a container id in at most `size` bytes: a longer one ends in a digest of the whole.

    The mark before the digest occurs in no identifier, so nothing shortened is the name of anything else.
    """
    return name if len(name) <= size else _cut(name, sha256(name.encode()).hexdigest())


def _cut(name: str, digest: str) -> str:
    return f"{name[:_KEPT]}~{digest[:_DIGEST_DIGITS]}"


def describe_owner(owner: str) -> str:
    """An owner in words, for messages; what is no owner is given back as it is."""
    network, _, rest = owner.partition(",")
    container_id, _, ifname = rest.partition(",")
    return f"container {container_id} interface {ifname} of network {network}" if ifname else repr(owner)


def spelt_anew(mark: str) -> str:
    """An owner from an alias or a comment: NETWORK/CONTAINERID/IFNAME, as it was once written, becomes what it is now.

    No name contains a slash, so nothing else is changed. A long name was once cut as START:DIGEST.
    """
    parts = mark.split("/")
    if len(parts) != 3:
        return mark
    network, container_id = (_cut(*part.split(":", 1)) if ":" in part else part for part in parts[:2])
    return Attachment(network, container_id, parts[2]).owner
