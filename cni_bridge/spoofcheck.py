"""Dropping frames of a container with a foreign source MAC (macspoofchk), as rules in the bridge table `pycni`. Pure.

set guarded { type ifname; elements = { "veth8c1..." comment "mynet,CONTAINERID,eth0", ... } }
set genuine { type ifname . ether_addr; elements = { "veth8c1..." . 0a:58:0a:f4:00:02 comment "...", ... } }
chain prerouting { type filter hook prerouting priority -300
    iifname @guarded iifname . ether saddr != @genuine drop }
"""

from cni_kernel import expressions
from cni_kernel.expressions import Chain, Element, Map, Rules
from cni_protocol.attachment import Attachment

GUARDED = Map("guarded", expressions.IFNAME)
GENUINE = Map("genuine", expressions.concatenated(expressions.IFNAME, expressions.ETHER_ADDR))
MAPS = (GUARDED, GENUINE)
_MAC_REGISTER = expressions.IFNAME[1] // 4


def make_rules(attachment: Attachment, mac: str) -> Rules:
    """The rules that drop frames from the attachment's port with another source MAC than this one."""
    port = expressions.pack_name(attachment.host_name)
    genuine = expressions.pad(port, bytes.fromhex(mac.replace(":", "")))
    check = [
        expressions.load_interface(),
        expressions.look_up(GUARDED.name),
        expressions.load_interface(),
        expressions.load_source_mac(_MAC_REGISTER),
        expressions.look_up(GENUINE.name, inverted=True),
        expressions.drop(),
    ]
    chain = Chain("prerouting", (check,), "filter", expressions.PREROUTING, expressions.RAW)
    elements = (
        Element(GENUINE.name, genuine, attachment.owner),
        Element(GUARDED.name, port, attachment.owner),
    )
    return Rules(expressions.BRIDGE, MAPS, (chain,), elements)
