"""The versions of the CNI specification, and what each one allows. Source: SPEC.md and its older releases."""

from .errors import INCOMPATIBLE_VERSION, CNIError

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST = SUPPORTED[0]
NEWEST = SUPPORTED[-1]

FIRST_WITH_COMMAND = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}


def at_least(version: str, other: str) -> bool:
    """Whether `version` is `other` or newer; both must be in SUPPORTED."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def require_supported(version: str) -> None:
    """Raise CNIError (code 1) unless this build supports `version`."""
    if version not in SUPPORTED:
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {version!r} is not supported; set it to one of {', '.join(SUPPORTED)}",
        )


def require_command(command: str, version: str) -> None:
    """Raise CNIError (code 1) when `command` was introduced in a later version of the specification than `version`."""
    first = FIRST_WITH_COMMAND.get(command, OLDEST)
    if not at_least(version, first):
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"{command} exists from cniVersion {first} on; the configuration says {version}",
        )
