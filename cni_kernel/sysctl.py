"""/proc/sys/net of the namespace that the process is in. Source: Documentation/networking/ip-sysctl in the kernel.

In a container /proc/sys may be read-only. A sysctl without which no packet passes (forwarding, disable_ipv6, and
duplicate address detection where the configuration asks for it) then raises KernelError. All others are optional: the
functions return the refusals, and the caller prints them as warnings.
Must not: decide which interfaces are ours to change.
"""

import errno

from cni_protocol.light.standard import Collection, Iterator, contextmanager
from cni_protocol.light.system import os

from .errors import KernelError, asking

_ROOT = "/proc/sys/net"
_BYTES = 64  # more than any value that is read here
_BRIDGED = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}
_ANNOUNCING = {4: "ipv4/conf/{}/arp_notify", 6: "ipv6/conf/{}/ndisc_notify"}
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


def is_forwarding(version: int) -> bool:
    """Whether the namespace forwards packets of an IP version."""
    return _read(_FORWARDING[version]) == "1"


def ensure_forwarding(version: int) -> None:
    """Switch forwarding of an IP version on, unless it is on. Raises KernelError."""
    if not is_forwarding(version):
        _write(_FORWARDING[version], "1")


def stop_forwarding(version: int) -> None:
    """Switch forwarding of an IP version off. Raises KernelError."""
    _write(_FORWARDING[version], "0")


def forwarding_key(version: int) -> str:
    """The sysctl that switches forwarding, as sysctl(8) names it."""
    return f"net/{_FORWARDING[version]}".replace("/", ".")


def has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all."""
    return os.path.isdir(f"{_ROOT}/ipv6")


def own_interface(name: str, *, ipv6: bool, detect_duplicates: bool) -> list[KernelError]:
    """Prepare an interface that is still down, so that it gets addresses and routes from us only.

    It ignores router advertisements. With `ipv6`, IPv6 is enabled on it and on the loopback, whatever the namespace's
    default, and it keeps its IPv6 addresses while it is down. `detect_duplicates` switches duplicate address detection
    on or off. Returns the optional settings that were refused. Raises KernelError for the others.
    """
    if ipv6 and not has_ipv6():
        raise KernelError(
            errno.EAFNOSUPPORT, "an IPv6 address is wanted", "this kernel runs without IPv6 (ipv6.disable)"
        )
    detection = [(f"ipv6/conf/{name}/accept_dad", "1" if detect_duplicates else "0")]
    if ipv6:
        _write("ipv6/conf/lo/disable_ipv6", "0")
        if detect_duplicates:
            _write(*detection.pop())
    if detect_duplicates:
        detection.append((f"ipv6/conf/{name}/enhanced_dad", "1"))
    return ignore_router_advertisements(name) + _prefer(*detection) + (allow_ipv6(name) if ipv6 else [])


def announce_changes(name: str, versions: Collection[int]) -> list[KernelError]:
    """Have the kernel announce an interface's addresses of these IP versions to its neighbours when its MAC is set.

    Without it neighbours keep an outdated MAC for a while. A bridge copies each announcement to every port: so none is
    made for nothing. Returns the optional settings that were refused.
    """
    return _prefer(*[(_ANNOUNCING[version].format(name), "1") for version in versions])


def ignore_router_advertisements(name: str) -> list[KernelError]:
    """Have an interface ignore router advertisements. Returns the optional settings that were refused."""
    return _prefer((f"ipv6/conf/{name}/accept_ra", "0"))


def allow_ipv6(name: str) -> list[KernelError]:
    """Enable IPv6 on an interface, and have it keep its IPv6 addresses while it is down.

    Returns the optional settings that were refused. Raises KernelError for disable_ipv6.
    """
    _write(f"ipv6/conf/{name}/disable_ipv6", "0")
    return _prefer((f"ipv6/conf/{name}/keep_addr_on_down", "1"))


def list_ipv6_settings(name: str) -> list[tuple[str, str]]:
    """The IPv6 settings of an interface that the functions above change: key and value, for restore_settings."""
    keys = [f"ipv6/conf/{name}/{key}" for key in ("accept_ra", "disable_ipv6", "keep_addr_on_down")]
    return [(key, value) for key in keys if (value := _read(key))]


def restore_settings(settings: list[tuple[str, str]]) -> None:
    """Set the values that list_ipv6_settings returned. Raises KernelError."""
    for key, value in settings:
        _write(key, value)


def may_have_ipv6(name: str) -> bool:
    """Whether IPv6 is enabled on an interface."""
    return _read(f"ipv6/conf/{name}/disable_ipv6") == "0"


def listens_to_routers(name: str) -> bool:
    """Whether an interface accepts router advertisements as long as it does not forward (accept_ra is 1)."""
    return _read(f"ipv6/conf/{name}/accept_ra") == "1"


def listen_to_routers(name: str, *, while_forwarding: bool) -> None:
    """Have an interface accept router advertisements, with `while_forwarding` also when it forwards.

    Raises KernelError. When forwarding is switched on, the kernel removes the default routes that other interfaces have
    learnt from routers (rt6_purge_dflt_routers in net/ipv6/route.c).
    """
    _write(f"ipv6/conf/{name}/accept_ra", "2" if while_forwarding else "1")


@contextmanager
def keeping_addresses(name: str) -> Iterator[None]:
    """While the block runs, have an interface keep its IPv6 addresses when it goes down. Raises KernelError."""
    key = f"ipv6/conf/{name}/keep_addr_on_down"
    before = _read(key)
    if before:
        _write(key, "1")
    try:
        yield
    finally:
        if before:
            _write(key, before)


def detect_no_duplicates(name: str) -> list[KernelError]:
    """Switch duplicate address detection off on an interface that is still down, so that it is ready once it is up.

    The link-local address would be tentative for one to two seconds. Until then the kernel asks for no neighbour on
    behalf of packets that it forwards (ndisc_send_ns in net/ipv6/ndisc.c), and nobody outside reaches the containers.
    Returns the optional settings that were refused.
    """
    return _prefer((f"ipv6/conf/{name}/accept_dad", "0"))


def loosen_reverse_path(name: str) -> None:
    """Set loose reverse path filtering: accept packets though the route to their source leaves by another interface.

    Packets between a node and a pod of another node may take the overlay in one direction only. Raises KernelError.
    """
    _write(f"ipv4/conf/{name}/rp_filter", "2")


def filters_bridged(version: int) -> bool:
    """Whether bridged packets pass the IP packet filter, for an IP version (module br_netfilter)."""
    return _read(_BRIDGED[version]) == "1"


def bridged_key(version: int) -> str:
    """The sysctl that sends bridged packets through the IP packet filter, as sysctl(8) names it."""
    return f"net/{_BRIDGED[version]}".replace("/", ".")


def _read(name: str) -> str:
    try:
        with open(f"{_ROOT}/{name}", "rb", buffering=0) as file:
            return file.read(_BYTES).strip().decode()
    except OSError:
        return ""


def _prefer(*settings: tuple[str, str]) -> list[KernelError]:
    """Set optional sysctls. Returns the refusals; that a kernel without IPv6 has none of its settings is none.

    Only afterwards is it asked whether there is IPv6: each look into /proc/sys/net takes the longer the more network
    namespaces there are, since the directories of all of them stand in one chain of the kernel's cache of names.
    """
    refusals = []
    for name, value in settings:
        try:
            _write(name, value)
        except KernelError as error:
            if not name.startswith("ipv6/") or has_ipv6():
                refusals.append(error)
    return refusals


def _write(name: str, value: str) -> None:
    """Set a sysctl; where that cannot be done it is fine if it has that value (a read-only /proc/sys)."""
    key = f"net/{name}".replace(".", "%").replace("/", ".").replace("%", "/")
    with asking(f"sysctl {key}={value} cannot be set"):
        try:
            with open(f"{_ROOT}/{name}", "wb", buffering=0) as file:
                file.write(value.encode())
        except OSError:
            if _read(name) != value:
                raise
