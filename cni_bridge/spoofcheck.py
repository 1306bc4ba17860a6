"""Frames from a container whose source MAC is not its own are dropped, as rules in the bridge table `pycni`. Pure.

set guarded { type ifname; elements = { "veth8c1..." comment "mynet/CONTAINERID/eth0", ... } }
set genuine { type ifname . ether_addr; elements = { "veth8c1..." . 0a:58:0a:f4:00:02 comment "...", ... } }
chain prerouting { type filter hook prerouting priority -300
    iifname @guarded iifname . ether saddr != @genuine drop }
"""

from . import rules
from .attachment import Attachment
from .rules import Chain, Element, Map, Rules

GUARDED = Map("guarded", rules.IFNAME)
GENUINE = Map("genuine", rules.concatenated(rules.IFNAME, rules.ETHER_ADDR))
MAPS = (GUARDED, GENUINE)
_MAC_REGISTER = rules.IFNAME[1] // 4


def make_rules(attachment: Attachment, mac: str) -> Rules:
    """The rules that hold the attachment's port to its MAC."""
    port = attachment.host_name.encode().ljust(rules.IFNAME[1], b"\0")
    genuine = rules.pad(port, bytes.fromhex(mac.replace(":", "")))
    check = [
        rules.load_interface(),
        rules.look_up(GUARDED.name),
        rules.load_interface(),
        rules.load_source_mac(_MAC_REGISTER),
        rules.look_up(GENUINE.name, inverted=True),
        rules.drop(),
    ]
    chain = Chain("prerouting", (check,), "filter", rules.PREROUTING, rules.RAW)
    elements = (
        Element(GENUINE.name, genuine, attachment.owner),
        Element(GUARDED.name, port, attachment.owner),
    )
    return Rules(rules.BRIDGE, MAPS, (chain,), elements)
