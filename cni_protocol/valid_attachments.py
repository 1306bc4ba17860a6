"""The list of valid attachments in a GC request. Source: SPEC.md, section "GC"."""

from .errors import INVALID_CONFIG, CNIError
from .fields import Fields
from .light.standard import NamedTuple
from .request import Request

# The second key is an older spelling that libcni sends along.
_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class ValidAttachments(NamedTuple):
    """The container id and interface name of every attachment that GC must keep."""

    pairs: frozenset[tuple[str, str]]


def parse_valid_attachments(request: Request) -> ValidAttachments | None:
    """The list of a GC request, None when the key is absent: then GC must remove nothing.

    An empty list says that no attachment is valid. null says the same: Go writes an empty list as null.
    Raises CNIError (code 7) for a malformed list.
    """
    problems: list[str] = []
    fields = Fields(request.config, "", problems)
    pairs = set()
    for key in _KEYS:
        for entry in fields.objects(key):
            pair = entry.text("containerID"), entry.text("ifname")
            if not all(pair):
                entry.problem("", "must have containerID and ifname")
            pairs.add(pair)
    if problems:  # an attachment that cannot be read may be a valid one
        raise CNIError(INVALID_CONFIG, "nothing was removed: " + "; ".join(problems))
    return ValidAttachments(frozenset(pairs)) if any(fields.is_given(key) for key in _KEYS) else None
