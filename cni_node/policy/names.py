"""Names of chains and sets in the kernel: digests of their content, so that an equal one is found and kept. Pure."""

import hashlib
from typing import Any

_DIGITS = 20  # hexadecimal; enough that authors of policies cannot produce a collision


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
