"""A whole nftables table with thousands of elements: written in transactions, and read back.

Beside nftables.py, which works on single elements of a table that it shares with others.

Source: include/uapi/linux/netfilter/nf_tables.h.
Must not: know what the table is for; touch another table.
"""

import errno

from cni_protocol.light.standard import Any, Iterator, Mapping, NamedTuple, Sequence, struct

from . import nft_attributes
from .attributes import NESTED, attribute, split
from .expressions import INET, VERDICT
from .filter_expressions import Elements, SetType
from .netlink import ACK, APPEND, CREATE, EXCL, NETFILTER, Message, NetlinkError, NetlinkSocket
from .packed_rules import PackedChain, digest_of

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN = 0, 1, 2, 3, 4, 5  # NFT_MSG_*
_NEWRULE, _GETRULE, _DELRULE, _NEWSET, _GETSET, _DELSET = 6, 7, 8, 9, 10, 11
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 12, 13, 14, 16
_BATCH_BEGIN, _BATCH_END, _BATCH_GENID = 0x10, 0x11, 1  # NFNL_MSG_BATCH_*, NFNL_BATCH_GENID
_INTERVAL, _MAP, _CONCAT = 0x4, 0x8, 0x80  # NFT_SET_*
_END = 0x1  # NFT_SET_ELEM_INTERVAL_END
_KEY, _DATA, _FLAGS, _KEY_END = 1, 2, 3, 10  # NFTA_SET_ELEM_*
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2  # NFTA_DATA_*, NFTA_VERDICT_*
_ELEMENT = 1  # NFTA_LIST_ELEM
_JUMP = attribute(_CODE, (-3).to_bytes(4, "big", signed=True))  # NFT_JUMP
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT
_LIST_BYTES = 60_000  # of elements in one message: a nested attribute holds less than 64 KiB
_HEAD = struct.Struct("!BBH")  # nfgenmsg: family, version, resource id


class Contents(NamedTuple):
    """The contents of a table: the digests of each chain's rules in order, and the elements of each set."""

    chains: dict[str, tuple[str, ...]]
    sets: dict[str, Elements]


class TableSocket:
    """One table of the family inet, in the network namespace in which this object was made.

    The methods add_* and delete_* return messages for commit; the errnos that they mention come from commit.
    """

    def __init__(self, name: str) -> None:
        """Raises OSError when the kernel has no nfnetlink."""
        self._table = name
        self._socket = NetlinkSocket(NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address (nl_pid). The kernel's notifications name it as the origin of a change."""
        return self._socket.port

    def generation(self) -> int:
        """The generation of the rule set: a number that changes with every change by anybody."""
        [reply] = self._socket.send([_message(_GETGEN, ACK, b"")])
        return int(nft_attributes.GENERATION.unpack(reply[_HEAD.size :])["NFTA_GEN_ID"])

    def commit(self, messages: Sequence[Message], generation: int | None) -> None:
        """Send messages as one transaction: all or none take effect.

        Raises NetlinkError; its errno is ERESTART when `generation` is given and no longer that of the rule set.
        """
        edge = _HEAD.pack(0, 0, _SUBSYSTEM)
        condition = b"" if generation is None else attribute(_BATCH_GENID, generation.to_bytes(4, "big"))
        begin = Message(_BATCH_BEGIN, 0, edge + condition)
        last = messages[-1]._replace(flags=messages[-1].flags | ACK)  # a refused message is answered also without ACK
        self._socket.send([begin, *messages[:-1], last, Message(_BATCH_END, 0, edge)])

    def read(self, types: Mapping[str, SetType]) -> Contents | None:
        """The table's contents, None when there is no table.

        `types` has the type of a set by the part of its name before the first `_`.
        """
        place = nft_attributes.TABLE.pack([("NFTA_TABLE_NAME", self._table)])
        if self._table not in [
            nft_attributes.TABLE.unpack(reply[_HEAD.size :])["NFTA_TABLE_NAME"]
            for reply in self._dump(_GETTABLE, place)
        ]:
            return None
        chains: dict[str, tuple[str, ...]] = dict.fromkeys(self._names(_GETCHAIN, nft_attributes.CHAIN, "CHAIN"), ())
        for reply in self._dump(_GETRULE, nft_attributes.RULE.pack([("NFTA_RULE_TABLE", self._table)])):
            rule = dict(split(reply[_HEAD.size :]))
            table, chain = (rule[number].rstrip(b"\0").decode() for number in (1, 2))  # NFTA_RULE_TABLE, _CHAIN
            if table == self._table:
                chains[chain] = (*chains[chain], _comment_of(rule.get(7, b"")))  # NFTA_RULE_USERDATA
        names = self._names(_GETSET, nft_attributes.SET, "SET")
        return Contents(chains, {name: self._read_set(name, types.get(name.partition("_")[0])) for name in names})

    def find_elements(self, name: str) -> Elements:
        """The elements of a set without intervals, or of a verdict map; none where there is no such set, or table."""
        try:
            return self._read_set(name, None)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return {}

    def has_rules(self, chain: str) -> bool:
        """Whether a chain is there and has a rule."""
        place = [("NFTA_RULE_TABLE", self._table), ("NFTA_RULE_CHAIN", chain)]
        try:
            return bool(self._dump(_GETRULE, nft_attributes.RULE.pack(place)))
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return False

    def counted(self, chain: str) -> int:
        """The packets that the first counter in a chain has counted; 0 without a counter."""
        place = [("NFTA_RULE_TABLE", self._table), ("NFTA_RULE_CHAIN", chain)]
        for reply in self._dump(_GETRULE, nft_attributes.RULE.pack(place)):
            rule = dict(split(reply[_HEAD.size :]))
            for _, expression in split(rule[4]):  # NFTA_RULE_EXPRESSIONS
                (_, name), *data = split(expression)  # NFTA_EXPR_NAME, NFTA_EXPR_DATA
                if name == b"counter\0":
                    return int.from_bytes(dict(split(data[0][1]))[2], "big")  # NFTA_COUNTER_PACKETS
        return 0

    def add_table(self) -> Message:
        """Add the table, unless it is there."""
        return _message(_NEWTABLE, CREATE, nft_attributes.TABLE.pack([("NFTA_TABLE_NAME", self._table)]))

    def delete_table(self) -> Message:
        """Delete the table and its contents; ENOENT when it is not there."""
        return _message(_DELTABLE, 0, nft_attributes.TABLE.pack([("NFTA_TABLE_NAME", self._table)]))

    def add_set(self, name: str, kind: SetType, number: int) -> Message:
        """Add a set without elements, unless it is there. `number` must be unique in the transaction."""
        intervals = _INTERVAL * kind.intervals | _CONCAT * bool(kind.parts)
        attributes: list[tuple[str, Any]] = [
            ("NFTA_SET_TABLE", self._table),
            ("NFTA_SET_NAME", name),
            ("NFTA_SET_FLAGS", intervals | _MAP * kind.verdicts),
            ("NFTA_SET_KEY_TYPE", kind.key[0]),
            ("NFTA_SET_KEY_LEN", kind.key[1]),
            ("NFTA_SET_ID", number),
        ]
        if kind.verdicts:
            attributes += [("NFTA_SET_DATA_TYPE", VERDICT[0]), ("NFTA_SET_DATA_LEN", VERDICT[1])]
        return _message(_NEWSET, CREATE, nft_attributes.SET.pack(attributes) + _describe_parts(kind.parts))

    def delete_set(self, name: str) -> Message:
        """Delete a set; EBUSY when a rule uses it."""
        place = [("NFTA_SET_TABLE", self._table), ("NFTA_SET_NAME", name)]
        return _message(_DELSET, 0, nft_attributes.SET.pack(place))

    def add_elements(self, name: str, kind: SetType, elements: Elements) -> Iterator[Message]:
        """Add elements to a set; EEXIST when a key is there already."""
        return self._portions(_NEWSETELEM, CREATE | EXCL, name, _pack_elements(kind, elements, with_data=True))

    def delete_elements(self, name: str, kind: SetType, elements: Elements) -> Iterator[Message]:
        """Delete elements of a set; ENOENT when one is not there."""
        return self._portions(_DELSETELEM, 0, name, _pack_elements(kind, elements, with_data=False))

    def add_chain(self, chain: PackedChain) -> Message:
        """A chain without its rules; one that is there is fine."""
        attributes: list[tuple[str, Any]] = [("NFTA_CHAIN_TABLE", self._table), ("NFTA_CHAIN_NAME", chain.name)]
        if chain.kind:
            hook = [("NFTA_HOOK_HOOKNUM", chain.hook), ("NFTA_HOOK_PRIORITY", chain.priority)]
            attributes += [("NFTA_CHAIN_HOOK", hook), ("NFTA_CHAIN_TYPE", chain.kind)]
        return _message(_NEWCHAIN, CREATE, nft_attributes.CHAIN.pack(attributes))

    def add_rules(self, chain: PackedChain) -> Iterator[Message]:
        """The rules of a chain, behind those that it has."""
        place = nft_attributes.RULE.pack([("NFTA_RULE_TABLE", self._table), ("NFTA_RULE_CHAIN", chain.name)])
        for rule in chain.rules:
            mark = nft_attributes.pack_user_data(_COMMENT, digest_of(rule).encode() + b"\0")
            yield _message(_NEWRULE, CREATE | APPEND, place + rule + attribute(7, mark))  # NFTA_RULE_USERDATA

    def delete_rules(self, chain: str) -> Message:
        """Delete all rules of a chain."""
        place = [("NFTA_RULE_TABLE", self._table), ("NFTA_RULE_CHAIN", chain)]
        return _message(_DELRULE, 0, nft_attributes.RULE.pack(place))

    def delete_chain(self, name: str) -> Message:
        """Delete a chain and its rules; EBUSY when a rule or a map jumps to it."""
        place = [("NFTA_CHAIN_TABLE", self._table), ("NFTA_CHAIN_NAME", name)]
        return _message(_DELCHAIN, 0, nft_attributes.CHAIN.pack(place))

    def _portions(self, kind: int, flags: int, name: str, elements: Iterator[bytes]) -> Iterator[Message]:
        place = nft_attributes.ELEMENTS.pack(
            [("NFTA_SET_ELEM_LIST_TABLE", self._table), ("NFTA_SET_ELEM_LIST_SET", name)]
        )
        portion: list[bytes] = []
        size = 0
        for element in elements:
            if size + len(element) > _LIST_BYTES:
                yield _message(kind, flags, place + attribute(3 | NESTED, b"".join(portion)))
                portion, size = [], 0
            portion.append(element)
            size += len(element)
        if portion:
            yield _message(kind, flags, place + attribute(3 | NESTED, b"".join(portion)))  # NFTA_SET_ELEM_LIST_ELEMENTS

    def _names(self, kind: int, table: Any, what: str) -> list[str]:
        place = table.pack([(f"NFTA_{what}_TABLE", self._table)])
        found = [table.unpack(reply[_HEAD.size :]) for reply in self._dump(kind, place)]
        return [entry[f"NFTA_{what}_NAME"] for entry in found if entry[f"NFTA_{what}_TABLE"] == self._table]

    def _read_set(self, name: str, kind: SetType | None) -> Elements:
        place = [("NFTA_SET_ELEM_LIST_TABLE", self._table), ("NFTA_SET_ELEM_LIST_SET", name)]
        replies = self._dump(_GETSETELEM, nft_attributes.ELEMENTS.pack(place))
        found = [entry for reply in replies for entry in _parse_elements(reply[_HEAD.size :])]
        if kind is not None and kind.intervals and not kind.parts:
            return _paired(found, kind.key[1])
        return {key: value for key, value, _ in found}

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        message = _message(kind, 0, body)
        return self._socket.dump(message.kind, message.body)


def _message(kind: int, flags: int, body: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, _HEAD.pack(INET, 0, 0) + body)


def _describe_parts(parts: tuple[int, ...]) -> bytes:
    """NFTA_SET_DESC: the lengths of the parts of a concatenated key."""
    if not parts:
        return b""
    fields = [attribute(_ELEMENT | NESTED, attribute(1, size.to_bytes(4, "big"))) for size in parts]
    return attribute(9 | NESTED, attribute(2 | NESTED, b"".join(fields)))  # NFTA_SET_DESC_CONCAT


def _pack_elements(kind: SetType, elements: Elements, *, with_data: bool) -> Iterator[bytes]:
    for key, value in elements.items():
        packed = _packed_key(_KEY, key)
        if kind.parts:
            packed += _packed_key(_KEY_END, value)  # type: ignore[arg-type]
        elif kind.verdicts and with_data:
            chain = _JUMP + attribute(_CHAIN, value.encode() + b"\0")  # type: ignore[union-attr]
            packed += attribute(_DATA | NESTED, attribute(_VERDICT | NESTED, chain))
        yield attribute(_ELEMENT | NESTED, packed)
        if kind.intervals and not kind.parts:
            behind = int.from_bytes(value, "big") + 1  # type: ignore[arg-type]
            if behind >> len(key) * 8 == 0:
                end = _packed_key(_KEY, behind.to_bytes(len(key), "big")) + attribute(_FLAGS, _END.to_bytes(4, "big"))
                yield attribute(_ELEMENT | NESTED, end)


def _packed_key(number: int, key: bytes) -> bytes:
    return attribute(number | NESTED, attribute(_VALUE, key))


def _parse_elements(body: bytes) -> Iterator[tuple[bytes, bytes | str, bool]]:
    """For each element of a message its key, its value, and whether it is the end of an interval."""
    for number, data in split(body):
        if number != 3:  # NFTA_SET_ELEM_LIST_ELEMENTS
            continue
        for _, element in split(data):
            parts = dict(split(element))
            key, value = parts[_KEY][4:], b""
            if _KEY_END in parts:
                value = parts[_KEY_END][4:]
            if _DATA in parts:
                verdict = dict(split(dict(split(parts[_DATA]))[_VERDICT]))
                yield key, verdict[_CHAIN].rstrip(b"\0").decode() if _CHAIN in verdict else "", False
                continue
            yield key, value, bool(int.from_bytes(parts.get(_FLAGS, b""), "big") & _END)


def _paired(found: list[tuple[bytes, bytes | str, bool]], size: int) -> Elements:
    """Intervals (first key -> last key) out of the elements for their beginnings and ends.

    An interval without an end reaches up to the highest key.
    """
    intervals: dict[bytes, bytes | str] = {}
    begin: bytes | None = None
    for key, _, end in sorted(found, key=lambda entry: (entry[0], not entry[2])):
        if begin is not None:
            intervals[begin] = (int.from_bytes(key, "big") - 1).to_bytes(size, "big")
        begin = None if end else key
    if begin is not None:
        intervals[begin] = b"\xff" * size
    return intervals


def _comment_of(user_data: bytes) -> str:
    return nft_attributes.unpack_user_data(user_data).get(_COMMENT, b"").rstrip(b"\0").decode("utf-8", "replace")
