"""Unknown keys of a configuration: a likely typo is named on stderr, and a strict configuration is refused."""

import sys

from .errors import UNSUPPORTED_FIELD, CNIError
from .fields import Fields, shown
from .light.standard import Sequence


def check_keys(plugin: str, strict: bool, objects: Sequence[Fields]) -> None:
    """Report the unknown keys of `objects`. Call it after all known keys have been read.

    With `strict`, raises CNIError (code 2) that names every unknown key and its value. Otherwise prints on stderr each
    unknown key that is similar to a known one; the rest may be meant for other programs.
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
