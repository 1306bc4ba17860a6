"""Reads our nftables tables: rules by owner, networks exempt from NAT, counts of policies.

Must not: change anything. A missing table counts as one without rules.
"""

from typing import NamedTuple

from cni_bridge.attachment_rules import ALL_MAPS, SHARED_MAPS
from cni_kernel.errors import KernelError, asking
from cni_kernel.expressions import Element
from cni_kernel.nft_tables import TableSocket
from cni_kernel.nftables import Nftables
from cni_node.inspect.values import HostPort, Policies, Rule
from cni_node.policy.desired import PENDING
from cni_node.policy.model import DIRECTIONS
from cni_node.policy.rules import TABLE, denied_chain
from cni_protocol.address import IP
from cni_protocol.attachment import spelt_anew

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_NAME_BYTES = 16  # of an interface in a key


class Filter(NamedTuple):
    """The rules of attachments, and the names of the nodes whose networks are exempt, by the first address."""

    rules: list[Rule]
    exempt: dict[bytes, str]


def read_filter(problems: list[str]) -> Filter | None:
    """Read the plugin's tables. Returns None when they cannot be read, and notes the problem."""
    rules: list[Rule] = []
    exempt: dict[bytes, str] = {}
    try:
        for family, maps in ALL_MAPS.items():
            with asking("rules cannot be read", "nf_tables"):
                table = Nftables(family)
                try:
                    for entry in maps:
                        rules += map(parse_rule, _no_ends(table.find_elements(entry.name, "")))
                    for entry in SHARED_MAPS[family]:
                        elements = _no_ends(table.find_elements(entry.name, ""))
                        exempt |= {element.key: element.comment for element in elements}
                finally:
                    table.close()
    except KernelError as error:
        problems.append(str(error))
        return None
    return Filter(list(dict.fromkeys(rules)), exempt)


def read_policies(problems: list[str]) -> Policies | None:
    """Counts of the table of policies. None when there is none, or it cannot be read."""
    try:
        with asking("policies cannot be read", "nf_tables"):
            table = TableSocket(TABLE)
            try:
                contents = table.read({})
                if contents is None:
                    return None
                names = {denied_chain(direction): direction for direction in DIRECTIONS}
                names |= {name: name for name in ("cut", "stray", PENDING)}
                denied = {why: table.counted(chain) for chain, why in names.items()}
            finally:
                table.close()
    except KernelError as error:
        problems.append(str(error))
        return None
    isolated = {key for name, keys in contents.sets.items() if name.rstrip("46") in DIRECTIONS for key in keys}
    chains = sum(name.startswith(("e_", "i_")) for name in contents.chains)
    return Policies(len(isolated), chains, len(contents.sets), denied)


def parse_rule(element: Element) -> Rule:
    """Describe an element of one of the plugin's maps."""
    owner, name = spelt_anew(element.comment), element.map
    if name.startswith(("portmap4", "portmap6", "portmap_any4", "portmap_any6")):
        return Rule(owner, "host port", _parse_port(name, element.key, element.data))
    if name.startswith("masquerade"):
        return Rule(owner, f"masquerade {_address(element.key[_NAME_BYTES:])}")
    if name == "genuine":
        mac = element.key[_NAME_BYTES : _NAME_BYTES + 6].hex(":")
        return Rule(owner, f"only from MAC {mac}")
    if name.startswith("portmap_waiting"):
        return Rule(owner, "waits for a host port")
    return Rule(owner, "")  # an element that only accompanies another one


def _parse_port(name: str, key: bytes, data: bytes) -> HostPort:
    """Keys are an address (or none), protocol and port, each in whole words of 32 bits; data is address and port."""
    address, protocol, port = key[:-8], key[-8], int.from_bytes(key[-4:-2], "big")
    target = f"{_address(data[:-4])}:{int.from_bytes(data[-4:-2], 'big')}"
    if len(data) > 8:
        target = f"[{_address(data[:-4])}]:{int.from_bytes(data[-4:-2], 'big')}"
    where = _address(address) if address else ("" if name.endswith("4") else "::")
    return HostPort(where, port, _PROTOCOLS.get(protocol, str(protocol)), target)


def _address(packed: bytes) -> str:
    return str(IP(4 if len(packed) == 4 else 6, int.from_bytes(packed, "big")))


def _no_ends(elements: list[Element]) -> list[Element]:
    return [element for element in elements if not element.end]
