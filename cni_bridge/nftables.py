"""nftables through netlink: rules.py's values as messages, sent in transactions, and read back.

A transaction happens whole or not at all. One that names a generation happens only if nobody else has changed the
rule set since that generation was read. The messages are pyroute2's; no `nft` program is started.
Must not: know what the rules are for, or whose the elements are.
"""

import errno
import re
import struct

from cni_protocol.lean import Any, Iterator, Sequence

from . import rules
from .messages import (
    nft_chain_msg,
    nft_gen_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)
from .netlink import ACK, APPEND, CREATE, EXCL, NETFILTER, Message, NetlinkError, NetlinkSocket, body_of
from .rules import Chain, Element, Map

TABLE = "pycni"

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN = 0, 1, 2, 3, 4, 5  # NFT_MSG_*
_NEWRULE, _GETRULE, _DELRULE, _NEWSET = 6, 7, 8, 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 12, 13, 14, 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_BATCH_GENID = 1  # NFNL_BATCH_GENID
_JUMP = -3  # NFT_JUMP
_HOST_ENDIAN = struct.pack("=I", 1)  # BYTEORDER_HOST_ENDIAN of nft(8)


class Nftables:
    """Our table of one family, in the namespace in which this was made."""

    def __init__(self, family: int) -> None:
        """Speak of the tables of rules.INET or rules.BRIDGE. Raises OSError when the kernel has no nfnetlink."""
        self._family = family
        self._socket = NetlinkSocket(NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def commit(self, messages: Sequence[Message], generation: int | None = None) -> None:
        """Do all of this, or nothing of it. Raises NetlinkError (ERESTART: another generation than the one named)."""
        edge = struct.pack("!BBH", 0, 0, _SUBSYSTEM)
        condition = b"" if generation is None else struct.pack("=HH", 8, _BATCH_GENID) + struct.pack("!I", generation)
        begin, end = Message(_BATCH_BEGIN, 0, edge + condition), Message(_BATCH_END, 0, edge)
        self._socket.send([begin, *messages, end])

    def generation(self) -> int:
        """The number of the rule set as it stands; every change by anybody makes it another one."""
        reply = self._socket.send([self._message(_GETGEN, 0, nft_gen_msg(), [])])[0]
        return int(_decoded(nft_gen_msg, reply).get_attr("NFTA_GEN_ID"))

    def add_table(self) -> Message:
        """Our table; one that is there is fine."""
        return self._message(_NEWTABLE, CREATE, nft_table_msg(), [("NFTA_TABLE_NAME", TABLE)])

    def delete_table(self, name: str = TABLE) -> Message:
        """A table (ours) with all that is in it; ENOENT when it is not there."""
        return self._message(_DELTABLE, 0, nft_table_msg(), [("NFTA_TABLE_NAME", name)])

    def has_table(self) -> bool:
        """Whether our table is there."""
        return bool(self._get(self._message(_GETTABLE, 0, nft_table_msg(), [("NFTA_TABLE_NAME", TABLE)])))

    def add_map(self, entry: Map, number: int) -> Message:
        """A set or map; one that is there is fine. `number` tells it from others of the same transaction."""
        attributes = [
            ("NFTA_SET_TABLE", TABLE),
            ("NFTA_SET_NAME", entry.name),
            ("NFTA_SET_FLAGS", {"NFT_SET_MAP"} if entry.data else set()),
            ("NFTA_SET_KEY_TYPE", entry.key[0]),
            ("NFTA_SET_KEY_LEN", entry.key[1]),
            ("NFTA_SET_ID", number),
        ]
        if entry.key == rules.IFNAME:  # a text is kept in host byte order, and nft(8) wants to be told
            attributes.append(("NFTA_SET_USERDATA", [("NFTNL_UDATA_SET_KEYBYTEORDER", _HOST_ENDIAN)]))
        if entry.data:
            attributes += [("NFTA_SET_DATA_TYPE", entry.data[0]), ("NFTA_SET_DATA_LEN", entry.data[1])]
        return self._message(_NEWSET, CREATE, nft_set_msg(), attributes)

    def add_chain(self, chain: Chain) -> Message:
        """A chain, without its rules; one that is there is fine."""
        attributes = _chain(chain.name)
        if chain.kind:
            place = {"attrs": [("NFTA_HOOK_HOOKNUM", chain.hook), ("NFTA_HOOK_PRIORITY", chain.priority)]}
            attributes += [("NFTA_CHAIN_HOOK", place), ("NFTA_CHAIN_TYPE", chain.kind)]
        return self._message(_NEWCHAIN, CREATE, nft_chain_msg(), attributes)

    def delete_chain(self, name: str) -> Message:
        """A chain with its rules; EBUSY when a map leads to it."""
        return self._message(_DELCHAIN, 0, nft_chain_msg(), _chain(name))

    def set_rules(self, chain: Chain) -> Iterator[Message]:
        """Give a chain exactly its rules."""
        place = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain.name)]
        yield self._message(_DELRULE, 0, nft_rule_msg(), place)
        for rule in chain.rules:
            body = [*place, ("NFTA_RULE_EXPRESSIONS", list(rule))]
            yield self._message(_NEWRULE, CREATE | APPEND, nft_rule_msg(), body)

    def add_element(self, element: Element) -> Message:
        """A new element of a set or map; EEXIST when its key is there already."""
        attributes = [
            ("NFTA_SET_ELEM_KEY", rules.data_value(element.key)),
            ("NFTA_SET_ELEM_USERDATA", [("NFTNL_UDATA_SET_ELEM_COMMENT", element.comment)]),
        ]
        if element.chain:
            attributes.append(("NFTA_SET_ELEM_DATA", rules.data_verdict(_JUMP, element.chain)))
        elif element.data:
            attributes.append(("NFTA_SET_ELEM_DATA", rules.data_value(element.data)))
        return self._elements(_NEWSETELEM, CREATE | EXCL, element.map, [{"attrs": attributes}])

    def delete_element(self, element: Element) -> Message:
        """An element of a set or map; ENOENT when it is not there."""
        return self._elements(_DELSETELEM, 0, element.map, [_key(element)])

    def find_element(self, element: Element) -> Element | None:
        """The element that is there with the same key."""
        replies = self._get(self._elements(_GETSETELEM, 0, element.map, [_key(element)]))
        return next((found for reply in replies for found in _parse_elements(reply)), None)

    def find_elements(self, name: str, mark: str) -> list[Element]:
        """The elements of a set or map whose comment begins with `mark`; none when there is no such map."""
        needle = mark.encode()
        replies = self._dump(self._elements(_GETSETELEM, 0, name, []))
        # decoding is slow, and most of a map belongs to others
        found = [element for reply in replies if needle in reply for element in _parse_elements(reply)]
        return [element for element in found if element.comment.startswith(mark)]

    def has_mark(self, name: str, mark: str) -> bool:
        """Whether a comment in a set or map begins with `mark`; quicker than to find the elements."""
        # as libnftnl writes it: NFTNL_UDATA_SET_ELEM_COMMENT, which is 0, a byte with the length, the text
        beginning = re.compile(b"\\0." + re.escape(mark.encode()), re.DOTALL)
        return any(beginning.search(reply) for reply in self._dump(self._elements(_GETSETELEM, 0, name, [])))

    def is_empty(self, name: str) -> bool:
        """Whether a set or map has no element, or is not there."""
        replies = self._dump(self._elements(_GETSETELEM, 0, name, []))
        return not any(_parse_elements(reply) for reply in replies[:1])

    def list_chains(self) -> dict[str, bool]:
        """The chains of our table, and whether the kernel runs them at a hook."""
        replies = self._dump(self._message(_GETCHAIN, 0, nft_chain_msg(), []))
        chains = [_decoded(nft_chain_msg, reply) for reply in replies]
        return {
            chain.get_attr("NFTA_CHAIN_NAME"): chain.get_attr("NFTA_CHAIN_HOOK") is not None
            for chain in chains
            if chain.get_attr("NFTA_CHAIN_TABLE") == TABLE
        }

    def list_rules(self, chain: str) -> list[list[str]]:
        """The rules of a chain of our table, each as the names of its expressions."""
        place = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain)]
        replies = self._dump(self._message(_GETRULE, 0, nft_rule_msg(), place))
        found = [_decoded(nft_rule_msg, reply).get_attr("NFTA_RULE_EXPRESSIONS") for reply in replies]
        return [[entry.get_attr("NFTA_EXPR_NAME") for entry in rule] for rule in found]

    def _elements(self, kind: int, flags: int, name: str, elements: list[Any]) -> Message:
        attributes: list[tuple[str, Any]] = [("NFTA_SET_ELEM_LIST_TABLE", TABLE), ("NFTA_SET_ELEM_LIST_SET", name)]
        if elements:
            attributes.append(("NFTA_SET_ELEM_LIST_ELEMENTS", elements))
        return self._message(kind, flags, nft_set_elem_list_msg(), attributes)

    def _message(self, kind: int, flags: int, message: Any, attributes: Sequence[tuple[str, Any]]) -> Message:
        message["nfgen_family"] = self._family
        message["attrs"] = list(attributes)
        return Message(_SUBSYSTEM << 8 | kind, flags | ACK, body_of(message))

    def _get(self, message: Message) -> list[bytes]:
        """The answer to a request for one object; empty where it is not there."""
        return _unless_absent(lambda: self._socket.send([message]))

    def _dump(self, message: Message) -> list[bytes]:
        """The answers to a request for a list; empty where the table, the chain or the map is not there."""
        return _unless_absent(lambda: self._socket.dump(message.kind, message.body))


def expression_names(rule: rules.Rule) -> list[str]:
    """A rule as list_rules shows it."""
    return [dict(expression["attrs"])["NFTA_EXPR_NAME"] for expression in rule]


def _unless_absent(request: Any) -> list[bytes]:
    try:
        return list(request())
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def _chain(name: str) -> list[tuple[str, Any]]:
    return [("NFTA_CHAIN_TABLE", TABLE), ("NFTA_CHAIN_NAME", name)]


def _key(element: Element) -> dict[str, Any]:
    return {"attrs": [("NFTA_SET_ELEM_KEY", rules.data_value(element.key))]}


def _decoded(message_type: Any, body: bytes) -> Any:
    message = message_type(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def _parse_elements(body: bytes) -> list[Element]:
    message = _decoded(nft_set_elem_list_msg, body)
    name = message.get_attr("NFTA_SET_ELEM_LIST_SET")
    return [_parse_element(name, entry) for entry in message.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or []]


def _parse_element(name: str, entry: Any) -> Element:
    data = entry.get_attr("NFTA_SET_ELEM_DATA")
    verdict = data.get_attr("NFTA_DATA_VERDICT") if data else None
    userdata = dict(entry.get_attr("NFTA_SET_ELEM_USERDATA") or [])
    comment = userdata.get("NFTNL_UDATA_SET_ELEM_COMMENT", b"")
    return Element(
        map=name,
        key=bytes(entry.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")),
        comment=comment.rstrip(b"\0").decode("utf-8", "replace"),
        data=bytes((data.get_attr("NFTA_DATA_VALUE") if data else None) or b""),
        chain=(verdict.get_attr("NFTA_VERDICT_CHAIN") if verdict else None) or "",
    )
