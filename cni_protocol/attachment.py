"""The identity of an attachment, and the names derived from it. Pure.

Interfaces, nftables elements and reservations are marked with this identity (the owner). Every command computes it from
the runtime's parameters, so nothing has to be remembered between two calls.
"""

from .light.standard import NamedTuple, sha256

# The most bytes that the network's name and the container id take up in an owner. A whole owner then has at most 125:
# nft(8) allows 128 in a comment, the kernel 255 in an alias (IFALIASZ) and in a file name (NAME_MAX).
_NETWORK_BYTES, _CONTAINER_BYTES = 40, 68
_KEPT, _DIGEST_DIGITS = 23, 16  # a shortened name is its first 23 bytes, `~`, and 16 digits of its digest


class Attachment(NamedTuple):
    """An attachment as the specification defines it: a network, a container, and the name of an interface in it."""

    network: str
    container_id: str
    ifname: str

    @property
    def host_name(self) -> str:
        """The name of the host's end of the veth pair. Every command computes the same one, so DEL needs no result."""
        return "veth" + sha256("/".join(self).encode()).hexdigest()[:11]

    @property
    def owner(self) -> str:
        """NETWORK,CONTAINERID,IFNAME, as it stands in interface aliases, nftables comments and names of records."""
        return f"{self.owner_prefix}{shortened(self.container_id, _CONTAINER_BYTES)},{self.ifname}"

    @property
    def owner_prefix(self) -> str:
        """The text that the owner of every attachment of this network begins with."""
        return shortened(self.network, _NETWORK_BYTES) + ","

    def chain_name(self, kind: str, subnet: str) -> str:
        """The name of a chain that the attachments of this network in one subnet share, as nft(8) can read it back.

        It reads neither a colon nor a tilde.
        """
        return f"{kind}-{self.owner_prefix[:-1]}-{subnet}".replace(":", "_").replace("~", "_")

    @property
    def hint(self) -> str:
        """A text that every owner of this container contains; without a container id, of this network.

        It selects candidates cheaply: other owners may contain it too.
        """
        return (self.container_id or self.network)[:_KEPT]


def shortened(name: str, size: int) -> str:
    """A network's name or a container id in at most `size` bytes; a longer one is cut, and a digest is appended.

    The `~` before the digest cannot occur in a name, so a shortened name never equals another name.
    """
    return name if len(name) <= size else _cut(name, sha256(name.encode()).hexdigest())


def _cut(name: str, digest: str) -> str:
    return f"{name[:_KEPT]}~{digest[:_DIGEST_DIGITS]}"


def describe_owner(owner: str) -> str:
    """An owner in words, for messages. A text that is no owner is returned in quotes."""
    network, _, rest = owner.partition(",")
    container_id, _, ifname = rest.partition(",")
    return f"container {container_id} interface {ifname} of network {network}" if ifname else repr(owner)


def spelt_anew(mark: str) -> str:
    """The owner in an alias or a comment, converted where an earlier version of pycni wrote it.

    That version wrote NETWORK/CONTAINERID/IFNAME, and a shortened name as START:DIGEST. No name contains a slash, so
    any other text is returned unchanged.
    """
    parts = mark.split("/")
    if len(parts) != 3:
        return mark
    network, container_id = (_cut(*part.split(":", 1)) if ":" in part else part for part in parts[:2])
    return Attachment(network, container_id, parts[2]).owner
