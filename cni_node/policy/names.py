"""Names of chains and sets in the kernel: digests of what they are, so that what is there need not be made. Pure."""

import hashlib
from typing import Any

_DIGITS = 20  # hexadecimal; who may write policies must not find two of one name


def name_of(kind: str, *content: Any) -> str:
    """`kind` and the digest of values whose repr() is their content; frozensets among them sort first."""
    return f"{kind}_{hashlib.sha256(repr(_stable(content)).encode()).hexdigest()[:_DIGITS]}"


def _stable(value: Any) -> Any:
    """The same without what differs from process to process: the order in a set."""
    if isinstance(value, frozenset):
        return sorted(map(_stable, value))
    if isinstance(value, tuple):
        return tuple(map(_stable, value))
    return value
