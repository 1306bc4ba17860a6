"""Lists the nftables rules of an attachment: masquerading, port mappings, the check of its MAC. Pure."""

from cni_kernel.expressions import BRIDGE, INET, Map, Rules
from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.attachment import Attachment
from cni_protocol.light.standard import Sequence

from . import masquerade, portmap, spoofcheck
from .config import BridgeConfig
from .plan import gateway_interface

# Every map that may have elements of an attachment, by the family of its table.
ALL_MAPS: dict[int, tuple[Map, ...]] = {
    INET: (*masquerade.MAPS.values(), *portmap.MAPS),
    BRIDGE: spoofcheck.MAPS,
}
# Maps that the node's agent fills. The table must stay as long as they have elements.
SHARED_MAPS: dict[int, tuple[Map, ...]] = {INET: tuple(masquerade.EXEMPT.values()), BRIDGE: ()}


def list_rules(config: BridgeConfig, attachment: Attachment, addresses: Sequence[CIDR], mac: str) -> list[Rules]:
    """The rules for a container with these addresses (each with the prefix length of its subnet) and this MAC."""
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
    """One example of every kind of rules that this network uses, with documentation addresses, to try the kernel."""
    addresses = [parse_cidr("192.0.2.2/24"), parse_cidr("2001:db8::2/64")]
    return list_rules(config, Attachment(config.network, "sample", "eth0"), addresses, "02:00:00:00:00:01")
