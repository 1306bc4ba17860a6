"""Which packet filter rules an attachment has: masquerading, port mappings, the check of its MAC. Pure."""

from cni_kernel.expressions import BRIDGE, INET, Map, Rules
from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import Sequence

from . import masquerade, portmap, spoofcheck
from .config import BridgeConfig
from .plan import gateway_interface

# Every map that elements of an attachment may be in, by the family of its table.
ALL_MAPS: dict[int, tuple[Map, ...]] = {
    INET: (*masquerade.MAPS.values(), *portmap.MAPS),
    BRIDGE: spoofcheck.MAPS,
}
# Those that others fill: their elements are no attachment's, but are lost with the table.
SHARED_MAPS: dict[int, tuple[Map, ...]] = {INET: tuple(masquerade.EXEMPT.values()), BRIDGE: ()}


def list_rules(config: BridgeConfig, attachment: Attachment, addresses: Sequence[CIDR], mac: str) -> list[Rules]:
    """The rules for a container with these addresses (and their subnets) and this MAC."""
    found = []
    interface = gateway_interface(config)
    if config.ip_masq and addresses:
        found.append(masquerade.make_rules(attachment, interface, addresses))
    if config.port_mappings and addresses:
        found.append(portmap.make_rules(attachment, interface, config.port_mappings, addresses))
    if config.spoof_check and mac:
        found.append(spoofcheck.make_rules(attachment, mac))
    return found


def sample_rules(config: BridgeConfig) -> list[Rules]:
    """Rules of every kind that this network uses, for a container that is not there (documentation addresses)."""
    addresses = [parse_cidr("192.0.2.2/24"), parse_cidr("2001:db8::2/64")]
    return list_rules(config, Attachment(config.network, "sample", "eth0"), addresses, "02:00:00:00:00:01")
