"""nftables through netlink: expressions.py's values as messages, sent in transactions, and read back.

A transaction takes effect as a whole or not at all. One that names a generation fails if anybody has changed the rule
set since that generation was read. No `nft` program is started.
Must not: know what the rules are for, or whose the elements are.
"""

import errno
import sys

from cni_protocol.light.standard import Any, Iterator, Sequence, sha256, struct

from . import expressions, nft_attributes
from .attributes import Table
from .expressions import Chain, Element, Map
from .netlink import ACK, APPEND, CREATE, EXCL, NETFILTER, Message, NetlinkError, NetlinkSocket
from .nft_presence import TABLE

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN = 0, 1, 2, 3, 4, 5  # NFT_MSG_*
_NEWRULE, _GETRULE, _DELRULE, _NEWSET = 6, 7, 8, 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 12, 13, 14, 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_BATCH_GENID = 1  # NFNL_BATCH_GENID
_JUMP = -3  # NFT_JUMP
_SET_INTERVAL, _SET_MAP = 0x4, 0x8  # NFT_SET_*
_INTERVAL_END = 0x1  # NFT_SET_ELEM_INTERVAL_END
_KEY_BYTE_ORDER, _HOST_ENDIAN = 0, 1  # NFTNL_UDATA_SET_KEYBYTEORDER; BYTEORDER_HOST_ENDIAN of nft(8)
_PER_MESSAGE = 128  # elements of any of our maps: an attribute holds less than 64 KiB
_PER_ANSWER = 32  # elements requested at once: each is answered by a datagram of some 4 KiB
_COMMENT = 0  # NFTNL_UDATA_SET_ELEM_COMMENT, NFTNL_UDATA_RULE_COMMENT
_JUMP_CODE = nft_attributes.VERDICT.pack([("NFTA_VERDICT_CODE", _JUMP)])
_HEAD = struct.Struct("!BBH")  # nfgenmsg: family, version, resource id


class Nftables:
    """Our table of one family, in the namespace in which this object was made.

    Methods that return messages only encode; the errnos that they mention come from commit.
    """

    def __init__(self, family: int, socket: NetlinkSocket | None = None) -> None:
        """Speak of our table of family INET or BRIDGE, by a socket that there is. Raises OSError without nfnetlink."""
        self._family = family
        self._socket = socket or NetlinkSocket(NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address (nl_pid). The kernel's notifications name it as the origin of a change."""
        return self._socket.port

    def commit(self, messages: Sequence[Message], generation: int | None = None) -> None:
        """Send messages as one transaction, in one system call: all or none take effect.

        Raises NetlinkError (ERESTART when `generation` is no longer that of the rule set), and OSError (EMSGSIZE) when
        the process may not have a send buffer of that size. Only the last message asks for an acknowledgement; a
        refused message is answered without asking.
        """
        edge = _HEAD.pack(0, 0, _SUBSYSTEM)
        condition = b"" if generation is None else struct.pack("=HH", 8, _BATCH_GENID) + struct.pack("!I", generation)
        begin, end = Message(_BATCH_BEGIN, 0, edge + condition), Message(_BATCH_END, 0, edge)
        quiet = [message._replace(flags=message.flags & ~ACK) for message in messages[:-1]]
        self._socket.send([begin, *quiet, *messages[-1:], end])

    def generation(self) -> int:
        """The generation of the rule set: a number that changes with every change by anybody."""
        [reply] = self._socket.send([self._message(_GETGEN, 0, nft_attributes.GENERATION, [])])
        return int(nft_attributes.GENERATION.unpack(reply[_HEAD.size :])["NFTA_GEN_ID"])

    def add_table(self) -> Message:
        """Add our table, unless it is there."""
        return self._message(_NEWTABLE, CREATE, nft_attributes.TABLE, [("NFTA_TABLE_NAME", TABLE)])

    def delete_table(self, name: str = TABLE) -> Message:
        """Delete a table (by default ours) and its contents; ENOENT when it is not there."""
        return self._message(_DELTABLE, 0, nft_attributes.TABLE, [("NFTA_TABLE_NAME", name)])

    def has_table(self) -> bool:
        """Whether our table is there."""
        return bool(self._get(self._message(_GETTABLE, 0, nft_attributes.TABLE, [("NFTA_TABLE_NAME", TABLE)])))

    def add_map(self, entry: Map, number: int) -> Message:
        """Add a set or map, unless it is there. `number` must be unique in the transaction."""
        attributes = [
            ("NFTA_SET_TABLE", TABLE),
            ("NFTA_SET_NAME", entry.name),
            ("NFTA_SET_FLAGS", (_SET_MAP if entry.data else 0) | (_SET_INTERVAL if entry.interval else 0)),
            ("NFTA_SET_KEY_TYPE", entry.key[0]),
            ("NFTA_SET_KEY_LEN", entry.key[1]),
            ("NFTA_SET_ID", number),
        ]
        if entry.key == expressions.IFNAME:  # tells nft(8) that a text is in host byte order
            order = _HOST_ENDIAN.to_bytes(4, sys.byteorder)
            attributes.append(("NFTA_SET_USERDATA", nft_attributes.pack_user_data(_KEY_BYTE_ORDER, order)))
        if entry.data:
            attributes += [("NFTA_SET_DATA_TYPE", entry.data[0]), ("NFTA_SET_DATA_LEN", entry.data[1])]
        return self._message(_NEWSET, CREATE, nft_attributes.SET, attributes)

    def add_chain(self, chain: Chain) -> Message:
        """Add a chain without its rules, unless it is there."""
        attributes = _chain(chain.name)
        if chain.kind:
            place = [("NFTA_HOOK_HOOKNUM", chain.hook), ("NFTA_HOOK_PRIORITY", chain.priority)]
            attributes += [("NFTA_CHAIN_HOOK", place), ("NFTA_CHAIN_TYPE", chain.kind)]
        return self._message(_NEWCHAIN, CREATE, nft_attributes.CHAIN, attributes)

    def delete_chain(self, name: str) -> Message:
        """Delete a chain and its rules; EBUSY when a map jumps to it."""
        return self._message(_DELCHAIN, 0, nft_attributes.CHAIN, _chain(name))

    def set_rules(self, chain: Chain) -> Iterator[Message]:
        """Replace all rules of a chain with those of `chain`."""
        place = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain.name)]
        yield self._message(_DELRULE, 0, nft_attributes.RULE, place)
        for rule in chain.rules:
            mark = nft_attributes.pack_user_data(_COMMENT, digest_of(rule).encode() + b"\0")
            body = [*place, ("NFTA_RULE_EXPRESSIONS", rule), ("NFTA_RULE_USERDATA", mark)]
            yield self._message(_NEWRULE, CREATE | APPEND, nft_attributes.RULE, body)

    def add_elements(self, name: str, elements: Sequence[Element]) -> Iterator[Message]:
        """Add elements to one set or map; EEXIST when a key is there already, or intervals overlap."""
        for portion in _portions(elements, _PER_MESSAGE):
            yield self._elements(_NEWSETELEM, CREATE | EXCL, name, [_describe(element) for element in portion])

    def delete_elements(self, name: str, elements: Sequence[Element]) -> Iterator[Message]:
        """Delete elements of one set or map; ENOENT when one is not there."""
        for portion in _portions(elements, _PER_MESSAGE):
            yield self._elements(_DELSETELEM, 0, name, [_key(element) for element in portion])

    def change_elements(self, deleted: Sequence[Element], added: Sequence[Element]) -> Iterator[Message]:
        """Delete elements of any sets and maps, then add others."""
        for name, elements in by_map(deleted).items():
            yield from self.delete_elements(name, elements)
        for name, elements in by_map(added).items():
            yield from self.add_elements(name, elements)

    def find_same(self, elements: Sequence[Element]) -> dict[tuple[str, bytes], Element]:
        """The elements in the kernel that have the map and key of one of these, by map and key."""
        found = [
            entry
            for name, own in by_map(elements).items()
            for portion in _portions(own, _PER_ANSWER)
            for entry in self._find(name, portion)
        ]
        return {(entry.map, entry.key): entry for entry in found}

    def _find(self, name: str, elements: Sequence[Element]) -> list[Element]:
        try:
            replies = self._socket.send([self._elements(_GETSETELEM, 0, name, [_key(each) for each in elements])])
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            half = len(elements) // 2  # the answer ends at the first key that is not there
            return [*self._find(name, elements[:half]), *self._find(name, elements[half:])] if half else []
        return [entry for reply in replies for entry in _parse_elements(reply)]

    def find_elements(self, name: str, hint: str) -> list[Element]:
        """The elements of a set or map whose comment contains `hint`; none when the map does not exist."""
        needle = hint.encode()
        replies = self._dump(self._elements(_GETSETELEM, 0, name, []))
        # most elements belong to other attachments: do not decode these
        found = [element for reply in replies if needle in reply for element in _parse_elements(reply)]
        return [element for element in found if hint in element.comment]

    def list_targets(self, name: str) -> set[str]:
        """The chains that elements of a map jump to. Searches the encoded bytes, which is faster than decoding."""
        dumped = self._dump(self._elements(_GETSETELEM, 0, name, []))
        return {nft_attributes.chain_after(part) for reply in dumped for part in reply.split(_JUMP_CODE)[1:]}

    def is_empty(self, name: str) -> bool:
        """Whether a set or map has no element, or does not exist. An interval's end alone, left by nft(8), is none."""
        replies = self._dump(self._elements(_GETSETELEM, 0, name, []))
        return all(element.end for reply in replies[:1] for element in _parse_elements(reply))

    def list_chains(self) -> dict[str, bool]:
        """The chains of our table, and whether the kernel runs them at a hook."""
        replies = self._dump(self._message(_GETCHAIN, 0, nft_attributes.CHAIN, []))
        chains = [nft_attributes.CHAIN.unpack(reply[_HEAD.size :]) for reply in replies]
        return {
            chain["NFTA_CHAIN_NAME"]: "NFTA_CHAIN_HOOK" in chain
            for chain in chains
            if chain["NFTA_CHAIN_TABLE"] == TABLE
        }

    def list_rules(self, chain: str) -> list[tuple[list[str], str]]:
        """The rules of a chain of our table, each as the names of its expressions and its comment."""
        return [
            (nft_attributes.names_in(rule["NFTA_RULE_EXPRESSIONS"]), _comment_of(rule.get("NFTA_RULE_USERDATA", b"")))
            for rule in self._rules(chain)
        ]

    def has_rules(self, chain: Chain) -> bool:
        """Whether a chain in the kernel has exactly these rules; compares all values, unlike list_rules."""
        there = [nft_attributes.values_in(rule["NFTA_RULE_EXPRESSIONS"]) for rule in self._rules(chain.name)]
        return there == [nft_attributes.values_in(nft_attributes.pack_rule(rule)) for rule in chain.rules]

    def _rules(self, chain: str) -> list[dict[str, Any]]:
        place = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain)]
        replies = self._dump(self._message(_GETRULE, 0, nft_attributes.RULE, place))
        return [nft_attributes.RULE.unpack(reply[_HEAD.size :]) for reply in replies]

    def _elements(self, kind: int, flags: int, name: str, elements: list[Any]) -> Message:
        attributes: list[tuple[str, Any]] = [("NFTA_SET_ELEM_LIST_TABLE", TABLE), ("NFTA_SET_ELEM_LIST_SET", name)]
        if elements:
            attributes.append(("NFTA_SET_ELEM_LIST_ELEMENTS", elements))
        return self._message(kind, flags, nft_attributes.ELEMENTS, attributes)

    def _message(self, kind: int, flags: int, table: Table, attributes: Sequence[tuple[str, Any]]) -> Message:
        return Message(_SUBSYSTEM << 8 | kind, flags | ACK, _HEAD.pack(self._family, 0, 0) + table.pack(attributes))

    def _get(self, message: Message) -> list[bytes]:
        """The answer to a request for one object, empty when it does not exist."""
        return _unless_absent(lambda: self._socket.send([message]))

    def _dump(self, message: Message) -> list[bytes]:
        """The answers to a request for a list, empty when the table, the chain or the map does not exist."""
        return _unless_absent(lambda: self._socket.dump(message.kind, message.body))


def expression_names(rule: expressions.Rule) -> list[str]:
    """The names of a rule's expressions as list_rules shows them."""
    return [name for name, _ in rule]


def digest_of(rule: expressions.Rule) -> str:
    """The comment of our rules: a digest of all values, so that rules with the same expressions differ."""
    return "pycni " + sha256(nft_attributes.pack_rule(rule)).hexdigest()[:8]


def _unless_absent(request: Any) -> list[bytes]:
    try:
        return list(request())
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def _chain(name: str) -> list[tuple[str, Any]]:
    return [("NFTA_CHAIN_TABLE", TABLE), ("NFTA_CHAIN_NAME", name)]


def by_map(elements: Sequence[Element]) -> dict[str, list[Element]]:
    """Elements by the name of their set or map."""
    found: dict[str, list[Element]] = {}
    for element in elements:
        found.setdefault(element.map, []).append(element)
    return found


def _portions(elements: Sequence[Element], size: int) -> Iterator[Sequence[Element]]:
    return (elements[start : start + size] for start in range(0, len(elements), size))


def _key(element: Element) -> expressions.Attributes:
    end = [("NFTA_SET_ELEM_FLAGS", _INTERVAL_END)] if element.end else []
    return [("NFTA_SET_ELEM_KEY", expressions.data_value(element.key)), *end]


def _describe(element: Element) -> expressions.Attributes:
    """All attributes of an element. The end of an interval has no comment."""
    attributes = _key(element)
    if element.comment:
        mark = nft_attributes.pack_user_data(_COMMENT, element.comment.encode() + b"\0")
        attributes.append(("NFTA_SET_ELEM_USERDATA", mark))
    if element.chain:
        attributes.append(("NFTA_SET_ELEM_DATA", expressions.data_verdict(_JUMP, element.chain)))
    elif element.data:
        attributes.append(("NFTA_SET_ELEM_DATA", expressions.data_value(element.data)))
    return attributes


def _parse_elements(body: bytes) -> list[Element]:
    found = nft_attributes.ELEMENTS.unpack(body[_HEAD.size :])
    name = found["NFTA_SET_ELEM_LIST_SET"]
    return [_parse_element(name, entry) for entry in found.get("NFTA_SET_ELEM_LIST_ELEMENTS", [])]


def _parse_element(name: str, entry: Any) -> Element:
    data = entry.get("NFTA_SET_ELEM_DATA", {})
    return Element(
        map=name,
        key=entry["NFTA_SET_ELEM_KEY"]["NFTA_DATA_VALUE"],
        comment=_comment_of(entry.get("NFTA_SET_ELEM_USERDATA", b"")),
        data=data.get("NFTA_DATA_VALUE", b""),
        chain=data.get("NFTA_DATA_VERDICT", {}).get("NFTA_VERDICT_CHAIN", ""),
        end=bool(entry.get("NFTA_SET_ELEM_FLAGS", 0) & _INTERVAL_END),
    )


def _comment_of(user_data: bytes) -> str:
    return nft_attributes.unpack_user_data(user_data).get(_COMMENT, b"").rstrip(b"\0").decode("utf-8", "replace")
