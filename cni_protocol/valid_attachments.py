"""The attachments that GC says are valid. Source: SPEC.md, section "GC"."""

from .errors import INVALID_CONFIG, CNIError
from .fields import Fields
from .light.standard import NamedTuple
from .request import Request

# The second key is an older spelling that libcni sends along.
_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class ValidAttachments(NamedTuple):
    """The container id and interface name of every attachment that is to stay."""

    pairs: frozenset[tuple[str, str]]


def parse_valid_attachments(request: Request) -> ValidAttachments | None:
    """The list of a GC request, None when it has none: then nothing is known, and nothing may be removed.

    An empty list is another thing: no attachment is valid. So is null, which is how Go writes a list without elements.
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
    return ValidAttachments(frozenset(pairs)) if any(fields.stands(key) for key in _KEYS) else None
