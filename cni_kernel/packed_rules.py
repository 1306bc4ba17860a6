"""Rules of nftables as bytes, and their digests, by which a rule that stands is known for what it is. Pure.

Must not: talk to the kernel.
"""

from cni_protocol.light.standard import NamedTuple, sha256

from . import nft_attributes
from .expressions import Rule


class PackedChain(NamedTuple):
    """A chain with its rules, each packed by `pack_rule`; with `kind` one that the kernel runs at a hook."""

    name: str
    rules: tuple[bytes, ...]
    kind: str = ""
    hook: int = 0
    priority: int = 0


def pack_rule(rule: Rule) -> bytes:
    """The expressions of a rule as the kernel wants them."""
    return nft_attributes.RULE.pack([("NFTA_RULE_EXPRESSIONS", rule)])


def digest_of(rule: bytes) -> str:
    """What a packed rule has as its comment: another rule has another one."""
    return sha256(rule).hexdigest()[:16]
