"""What Debian's containernetworking-plugins 1.1.1 (bridge and host-local) are known to fail, and why.

The reference is the control: a suite that nothing fails proves little. Each entry is a fault of the plugins, or a thing
of version 1.1.0 of the specification, which they do not speak.
"""

from typing import NamedTuple

from tests.conformance.registry import ALL, WITH_INTERFACES

_SPOKEN = ALL[:-1]
_NEWEST = ("1.0.0",)  # of the versions that they speak
_NEW = ("1.1.0",)


class Failure(NamedTuple):
    """The versions that a case fails for, and the reason."""

    versions: tuple[str, ...]
    reason: str


KNOWN = {
    3: Failure(_NEWEST, "a path as the network's type is not looked at (one as ipam.type is refused)"),
    7: Failure(_SPOKEN, "error objects have no cniVersion"),
    9: Failure(_NEWEST, "an invalid variable is not named in the message; without CNI_COMMAND the exit status is 0"),
    13: Failure(_NEWEST, "an invalid IPAM configuration gives code 999"),
    17: Failure(WITH_INTERFACES[:-1], "bridge drops a prevResult on ADD"),
    18: Failure(WITH_INTERFACES[:-1], "bridge drops a prevResult on ADD"),
    20: Failure(_NEWEST, "CNI_PATH is demanded for every command"),
    21: Failure(_NEW, "version 1.1.0 is not spoken"),
    22: Failure(_NEW, "version 1.1.0 is not spoken; results have no mtu"),
    25: Failure(_NEW, "version 1.1.0 is not spoken; routes have only dst and gw"),
    26: Failure(_SPOKEN, "bridge replaces the DNS settings of its IPAM plugin by its own, also when it has none"),
    30: Failure(_NEWEST, "NAT rules stay when the namespace is gone"),
    34: Failure(_NEWEST, "CHECK compares MACs, which a later plugin may change"),
    36: Failure(_NEWEST, "CHECK does not look at NAT"),
    37: Failure(_NEWEST, "CHECK does not notice that the host's end is down"),
    39: Failure(_NEWEST, "CHECK of a network without IPAM looks for an IPAM plugin"),
    40: Failure(_NEW, "there is no STATUS"),
    41: Failure(_NEW, "there is no STATUS"),
    43: Failure(_NEW, "there is no STATUS"),
    44: Failure(_NEW, "there is no STATUS"),
    45: Failure(_NEW, "there is no STATUS"),
    46: Failure(ALL[:-2], "VERSION answers with the newest version, whatever the input says"),
    48: Failure(_NEW, "there is no GC"),
    49: Failure(_NEW, "there is no GC"),
    50: Failure(_NEW, "there is no GC"),
    51: Failure(_NEW, "there is no GC"),
    52: Failure(_NEW, "there is no GC"),
    60: Failure(_NEWEST, "no DEL follows a failed ADD of the IPAM plugin"),
    66: Failure(_NEWEST, "host-local adds the IP of CNI_ARGS to the addresses of runtimeConfig"),
    68: Failure(_NEWEST, "bridge drops a prevResult on ADD"),
}
