"""nftables through netlink: one table of our own, changed in transactions.

Source: include/uapi/linux/netfilter/nf_tables.h, nft(8). The messages are pyroute2's; no `nft` program is started.
A transaction happens whole or not at all. One that names a generation happens only if nobody else has changed the
rule set since that generation was read.
Must not: know what the rules are for.
"""

import errno
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from .messages import (
    nft_chain_msg,
    nft_gen_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)
from .netlink import ACK, APPEND, CREATE, EXCL, NETFILTER, Message, NetlinkError, NetlinkSocket, body_of

TABLE = "pycni"

_INET = 1  # NFPROTO_INET: IPv4 and IPv6
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN, _NEWRULE, _GETRULE, _DELRULE, _NEWSET = 0, 2, 3, 4, 5, 6, 7, 8, 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 12, 13, 14, 16
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_BATCH_GENID = 1  # NFNL_BATCH_GENID

POSTROUTING = 4  # NF_INET_POST_ROUTING
SOURCE_NAT = 100  # NF_IP_PRI_NAT_SRC

_RETURN, _JUMP = -5, -3  # NFT_RETURN, NFT_JUMP
_VERDICT_REGISTER, _REGISTER = 0, 1
_NETWORK_HEADER = 1  # NFT_PAYLOAD_NETWORK_HEADER
_META_NFPROTO = 15
_NFPROTO = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_KEY_TYPE = {4: 7, 6: 8}  # what nft(8) calls ipv4_addr and ipv6_addr
_ADDRESS_BYTES = {4: 4, 6: 16}
SOURCE = {4: 12, 6: 8}  # where the address stands in the network header, in bytes
DESTINATION = {4: 16, 6: 24}
_VERDICT_TYPE = 0xFFFFFF00  # NFT_DATA_VERDICT

Expression = dict[str, Any]


class Element(NamedTuple):
    """An element of a verdict map: an address, the chain it leads to, and whose it is."""

    key: bytes
    chain: str
    comment: str


def _expression(name: str, *attributes: tuple[str, Any]) -> Expression:
    data = [("NFTA_EXPR_DATA", {"attrs": list(attributes)})] if attributes else []
    return {"attrs": [("NFTA_EXPR_NAME", name), *data]}


def _value(data: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _verdict(code: int, chain: str = "") -> dict[str, Any]:
    target = [("NFTA_VERDICT_CHAIN", chain)] if chain else []
    return {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code), *target]})]}


def load_address(version: int, offset: dict[int, int]) -> list[Expression]:
    """Match packets of an IP version and load their SOURCE or DESTINATION address."""
    protocol = bytes([_NFPROTO[version]])
    return [
        _expression("meta", ("NFTA_META_KEY", _META_NFPROTO), ("NFTA_META_DREG", _REGISTER)),
        _expression("cmp", ("NFTA_CMP_SREG", _REGISTER), ("NFTA_CMP_OP", 0), ("NFTA_CMP_DATA", _value(protocol))),
        _expression(
            "payload",
            ("NFTA_PAYLOAD_DREG", _REGISTER),
            ("NFTA_PAYLOAD_BASE", _NETWORK_HEADER),
            ("NFTA_PAYLOAD_OFFSET", offset[version]),
            ("NFTA_PAYLOAD_LEN", _ADDRESS_BYTES[version]),
        ),
    ]


def match_prefix(network: bytes, prefix: int) -> list[Expression]:
    """Go on only if the loaded address lies in a network (`network` in network order)."""
    size = len(network)
    mask = ((1 << prefix) - 1 << size * 8 - prefix).to_bytes(size, "big")
    return [
        _expression(
            "bitwise",
            ("NFTA_BITWISE_SREG", _REGISTER),
            ("NFTA_BITWISE_DREG", _REGISTER),
            ("NFTA_BITWISE_LEN", size),
            ("NFTA_BITWISE_MASK", _value(mask)),
            ("NFTA_BITWISE_XOR", _value(bytes(size))),
        ),
        _expression("cmp", ("NFTA_CMP_SREG", _REGISTER), ("NFTA_CMP_OP", 0), ("NFTA_CMP_DATA", _value(network))),
    ]


def look_up_verdict(name: str) -> Expression:
    """Follow what a verdict map says of the loaded address."""
    return _expression(
        "lookup",
        ("NFTA_LOOKUP_SET", name),
        ("NFTA_LOOKUP_SREG", _REGISTER),
        ("NFTA_LOOKUP_DREG", _VERDICT_REGISTER),
    )


def leave_chain() -> Expression:
    """Go back to where the chain was called from."""
    return _expression(
        "immediate", ("NFTA_IMMEDIATE_DREG", _VERDICT_REGISTER), ("NFTA_IMMEDIATE_DATA", _verdict(_RETURN))
    )


def masquerade() -> Expression:
    """Give the connection the source address of the interface that it leaves by."""
    return _expression("masq")


def _message(kind: int, flags: int, message: Any, attributes: Sequence[tuple[str, Any]]) -> Message:
    message["nfgen_family"] = _INET
    message["attrs"] = list(attributes)
    return Message(_SUBSYSTEM | kind, flags | ACK, body_of(message))


def add_table() -> Message:
    """Our table; one that is there is fine."""
    return _message(_NEWTABLE, CREATE, nft_table_msg(), [("NFTA_TABLE_NAME", TABLE)])


def delete_table() -> Message:
    """Our table with all that is in it."""
    return _message(_DELTABLE, 0, nft_table_msg(), [("NFTA_TABLE_NAME", TABLE)])


def add_base_chain(name: str, hook: int, priority: int) -> Message:
    """A NAT chain that the kernel runs at a hook; one that is there is fine."""
    place = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
    extra = [("NFTA_CHAIN_HOOK", place), ("NFTA_CHAIN_TYPE", "nat")]
    return _message(_NEWCHAIN, CREATE, nft_chain_msg(), [*_chain(name), *extra])


def add_chain(name: str) -> Message:
    """A chain to jump to; one that is there is fine."""
    return _message(_NEWCHAIN, CREATE, nft_chain_msg(), _chain(name))


def delete_chain(name: str) -> Message:
    """A chain with its rules; EBUSY when a map leads to it."""
    return _message(_DELCHAIN, 0, nft_chain_msg(), _chain(name))


def _chain(name: str) -> list[tuple[str, Any]]:
    return [("NFTA_CHAIN_TABLE", TABLE), ("NFTA_CHAIN_NAME", name)]


def set_rules(chain: str, rules: Sequence[Sequence[Expression]]) -> list[Message]:
    """Give a chain exactly these rules."""
    place = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain)]
    messages = [_message(_DELRULE, 0, nft_rule_msg(), place)]
    for rule in rules:
        body = [*place, ("NFTA_RULE_EXPRESSIONS", list(rule))]
        messages.append(_message(_NEWRULE, CREATE | APPEND, nft_rule_msg(), body))
    return messages


def add_verdict_map(name: str, version: int) -> Message:
    """A map from addresses of an IP version to verdicts; one that is there is fine."""
    attributes = [
        ("NFTA_SET_TABLE", TABLE),
        ("NFTA_SET_NAME", name),
        ("NFTA_SET_FLAGS", {"NFT_SET_MAP"}),
        ("NFTA_SET_KEY_TYPE", _KEY_TYPE[version]),
        ("NFTA_SET_KEY_LEN", _ADDRESS_BYTES[version]),
        ("NFTA_SET_DATA_TYPE", _VERDICT_TYPE),
        ("NFTA_SET_DATA_LEN", 16),
        ("NFTA_SET_ID", version),
    ]
    return _message(_NEWSET, CREATE, nft_set_msg(), attributes)


def add_element(name: str, element: Element) -> Message:
    """A new element of a verdict map; EEXIST when its key is there already."""
    attributes = [
        ("NFTA_SET_ELEM_KEY", _value(element.key)),
        ("NFTA_SET_ELEM_DATA", _verdict(_JUMP, element.chain)),
        ("NFTA_SET_ELEM_USERDATA", [("NFTNL_UDATA_SET_ELEM_COMMENT", element.comment)]),
    ]
    return _elements(_NEWSETELEM, CREATE | EXCL, name, [{"attrs": attributes}])


def delete_element(name: str, key: bytes) -> Message:
    """An element of a map; ENOENT when it is not there."""
    return _elements(_DELSETELEM, 0, name, [{"attrs": [("NFTA_SET_ELEM_KEY", _value(key))]}])


def _elements(kind: int, flags: int, name: str, elements: list[Any]) -> Message:
    attributes: list[tuple[str, Any]] = [("NFTA_SET_ELEM_LIST_TABLE", TABLE), ("NFTA_SET_ELEM_LIST_SET", name)]
    if elements:
        attributes.append(("NFTA_SET_ELEM_LIST_ELEMENTS", elements))
    return _message(kind, flags, nft_set_elem_list_msg(), attributes)


class Nftables:
    """The rule set of the namespace in which it was made."""

    def __init__(self) -> None:
        """Raises OSError when the kernel has no nfnetlink."""
        self._socket = NetlinkSocket(NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def commit(self, messages: Sequence[Message], generation: int | None = None) -> None:
        """Do all of this, or nothing of it. Raises NetlinkError (ERESTART: another generation than the one named)."""
        begin = struct.pack("!BBH", 0, 0, _SUBSYSTEM >> 8)
        if generation is not None:
            begin += struct.pack("=HH", 8, _BATCH_GENID) + struct.pack("!I", generation)
        end = struct.pack("!BBH", 0, 0, _SUBSYSTEM >> 8)
        self._socket.send([Message(_BATCH_BEGIN, 0, begin), *messages, Message(_BATCH_END, 0, end)])

    def generation(self) -> int:
        """The number of the rule set as it stands; every change by anybody makes it another one."""
        reply = self._socket.send([_message(_GETGEN, 0, nft_gen_msg(), [])])[0]
        return int(_decoded(nft_gen_msg, reply).get_attr("NFTA_GEN_ID"))

    def list_chains(self) -> set[str]:
        """The names of the chains of our table."""
        replies = self._dump(_message(_GETCHAIN, 0, nft_chain_msg(), []))
        chains = [_decoded(nft_chain_msg, reply) for reply in replies]
        return {chain.get_attr("NFTA_CHAIN_NAME") for chain in chains if chain.get_attr("NFTA_CHAIN_TABLE") == TABLE}

    def list_rules(self, chain: str) -> list[list[str]]:
        """The rules of a chain of our table, each as the names of its expressions."""
        attributes = [("NFTA_RULE_TABLE", TABLE), ("NFTA_RULE_CHAIN", chain)]
        rules = [
            _decoded(nft_rule_msg, reply) for reply in self._dump(_message(_GETRULE, 0, nft_rule_msg(), attributes))
        ]
        return [
            [entry.get_attr("NFTA_EXPR_NAME") for entry in rule.get_attr("NFTA_RULE_EXPRESSIONS")] for rule in rules
        ]

    def find_elements(self, name: str, comment: str) -> list[Element]:
        """The elements of a verdict map that carry a comment."""
        needle = comment.encode() + b"\0"
        found = []
        for reply in self._dump(_elements(_GETSETELEM, 0, name, [])):
            if needle in reply:  # decoding is slow, and most of the map belongs to others
                entries = _decoded(nft_set_elem_list_msg, reply).get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or []
                found += [_element(entry) for entry in entries]
        return [element for element in found if element.comment == comment]

    def has_element(self, name: str, key: bytes) -> bool:
        """Whether a map has an element with this key."""
        request = _elements(_GETSETELEM, 0, name, [{"attrs": [("NFTA_SET_ELEM_KEY", _value(key))]}])
        try:
            return bool(self._socket.send([request]))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return False
            raise

    def _dump(self, message: Message) -> list[bytes]:
        """A dump; empty where the table, the chain or the map is not there."""
        try:
            return self._socket.dump(message.kind, message.body)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return []
            raise


def _decoded(message_type: Any, body: bytes) -> Any:
    message = message_type(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def _element(entry: Any) -> Element:
    verdict = entry.get_attr("NFTA_SET_ELEM_DATA").get_attr("NFTA_DATA_VERDICT")
    userdata = dict(entry.get_attr("NFTA_SET_ELEM_USERDATA") or [])
    comment = userdata.get("NFTNL_UDATA_SET_ELEM_COMMENT", b"")
    return Element(
        key=bytes(entry.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE")),
        chain=verdict.get_attr("NFTA_VERDICT_CHAIN") or "",
        comment=comment.rstrip(b"\0").decode("utf-8", "replace"),
    )
