"""Keys that are not known: named on stderr when they look like a typo, refused in a strict configuration."""

import sys

from .errors import UNSUPPORTED_FIELD, CNIError
from .fields import Fields, shown
from .light.standard import Sequence


def check_keys(plugin: str, strict: bool, objects: Sequence[Fields]) -> None:
    """Look at the keys that nobody asked for, after all known ones have been read.

    With `strict` raises CNIError (code 2) naming every such key with its value. Otherwise one that is close to a known
    key is named on stderr, with the known one; the others may be meant for somebody else.
    """
    unsupported = []
    for fields in objects:
        for key, like in fields.unknown().items():
            hint = f"; did you mean {like!r}?" if like else ""
            unsupported.append(f"{fields.path(key)}={shown(fields.raw(key))} is not known{hint}")
            if like and not strict:
                print(f"{plugin}: {fields.path(key)} is not known{hint}", file=sys.stderr)
    if strict and unsupported:
        raise CNIError(UNSUPPORTED_FIELD, "unsupported keys in a strict configuration: " + "; ".join(unsupported))
