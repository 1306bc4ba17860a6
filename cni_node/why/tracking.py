"""Connections as a stack follows them: which translations they have, and what the answer is translated to. Pure.

Must not: know rules.
"""

from cni_node.why.packets import Packet
from cni_node.why.values import INPUT, OUTPUT, POSTROUTING, PREROUTING
from cni_protocol.address import IP

ORIGINAL, REPLY = 0, 1  # IP_CT_DIR_*
_INVALID, _ESTABLISHED, _NEW, _UNTRACKED = 1 << 0, 1 << 1, 1 << 3, 1 << 6  # NF_CT_STATE_*
_SEEN_REPLY, _CONFIRMED, _SOURCE, _DESTINATION = 1 << 1, 1 << 3, 1 << 4, 1 << 5  # IPS_*
DESTINATION_HOOKS, SOURCE_HOOKS = (PREROUTING, OUTPUT), (INPUT, POSTROUTING)


class Connection:
    """A connection in one stack: its ends as they came, and as the answer has them."""

    def __init__(self, packet: Packet) -> None:
        self.first = packet
        self.there = packet  # as it leaves: translated
        self.mark = 0
        self.translated = {"destination": False, "source": False}
        self.decided = {"destination": False, "source": False}

    def translate_destination(self, before: Packet, after: Packet) -> None:
        """What came leads elsewhere."""
        self.there = self.there._replace(destination=after.destination, port=after.port)
        self.translated["destination"] = after != before

    def translate_source(self, before: Packet, address: IP) -> None:
        """What came leaves with another source."""
        self.there = self.there._replace(source=address)
        self.translated["source"] = address != before.source


class Attached:
    """A packet's connection while it passes a stack; None for one that cannot belong to any (`valid` False)."""

    def __init__(self, packet: Packet, known: Connection | None, *, tracked: bool = True) -> None:
        answers = known is not None and packet.ends == known.there.back().ends
        self.direction = REPLY if answers else ORIGINAL
        self.fresh = not answers
        self.connection = known if answers and known is not None else Connection(packet)
        self.tracked = tracked
        self.valid = tracked and (
            answers or not packet.answer or packet.protocol == 17
        )  # IPPROTO_UDP: any packet opens one

    @property
    def state(self) -> int:
        """The bit of `ct state`."""
        if not self.tracked:
            return _UNTRACKED
        if not self.valid:
            return _INVALID
        return _NEW if self.fresh else _ESTABLISHED

    @property
    def status(self) -> int:
        """The bits of `ct status`."""
        translated = self.connection.translated
        bits = 0 if self.fresh else _SEEN_REPLY | _CONFIRMED
        return bits | _SOURCE * translated["source"] | _DESTINATION * translated["destination"]

    def untranslate(self, packet: Packet, hook: int) -> Packet:
        """An answer with that end translated back which is translated at a hook; anything else as it is."""
        if self.fresh:
            return packet
        first = self.connection.first
        if hook in DESTINATION_HOOKS and self.connection.translated["source"]:
            return packet._replace(destination=first.source, port=first.source_port)
        if hook in SOURCE_HOOKS and self.connection.translated["destination"]:
            return packet._replace(source=first.destination, source_port=first.port)
        return packet


def side_of(hook: int) -> str:
    """Which end is translated at a hook, "" for none."""
    return "destination" if hook in DESTINATION_HOOKS else "source" if hook in SOURCE_HOOKS else ""
