"""/proc/sys/net of the namespace that the process is in. Source: Documentation/networking/ip-sysctl in the kernel.

/proc/sys may be read-only, in a container. What no packet gets through without (forwarding, disable_ipv6, the detection
of duplicates that was asked for) raises KernelError then. All else is a nicety: what could not be set is returned, for
the caller to say so.
Must not: decide which interfaces are ours to change.
"""

import errno

from cni_protocol.light.standard import Iterator, contextmanager
from cni_protocol.light.system import os

from .errors import KernelError, asking

_ROOT = "/proc/sys/net"
_BYTES = 64  # more than a number has
_BRIDGED = {4: "bridge/bridge-nf-call-iptables", 6: "bridge/bridge-nf-call-ip6tables"}
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


def is_forwarding(version: int) -> bool:
    """Whether the namespace forwards packets of an IP version."""
    return _read(_FORWARDING[version]) == "1"


def ensure_forwarding(version: int) -> None:
    """Have packets of an IP version forwarded. Raises KernelError."""
    if not is_forwarding(version):
        _write(_FORWARDING[version], "1")


def stop_forwarding(version: int) -> None:
    """Have packets of an IP version no longer forwarded. Raises KernelError."""
    _write(_FORWARDING[version], "0")


def forwarding_key(version: int) -> str:
    """The sysctl that switches forwarding, as sysctl(8) names it."""
    return f"net/{_FORWARDING[version]}".replace("/", ".")


def has_ipv6() -> bool:
    """Whether the kernel speaks IPv6 at all."""
    return os.path.isdir(f"{_ROOT}/ipv6")


def own_interface(name: str, *, ipv6: bool, detect_duplicates: bool) -> list[KernelError]:
    """Prepare an interface, before it is up, for addresses and routes that come from us alone.

    Router advertisements are not listened to. With `ipv6` the interface and the loopback may have IPv6 addresses
    whatever the namespace's default says, and keep them over a link-down; `detect_duplicates` switches duplicate
    address detection. Returns the niceties that could not be had. Raises KernelError.
    """
    if not has_ipv6():
        if ipv6:
            raise KernelError(
                errno.EAFNOSUPPORT, "an IPv6 address is wanted", "this kernel runs without IPv6 (ipv6.disable)"
            )
        return []
    detection = [(f"ipv6/conf/{name}/accept_dad", "1" if detect_duplicates else "0")]
    if ipv6:
        _write("ipv6/conf/lo/disable_ipv6", "0")
        if detect_duplicates:
            _write(*detection.pop())
    if detect_duplicates:
        detection.append((f"ipv6/conf/{name}/enhanced_dad", "1"))
    return ignore_router_advertisements(name) + _prefer(*detection) + (allow_ipv6(name) if ipv6 else [])


def announce_changes(name: str) -> list[KernelError]:
    """Have the kernel tell the neighbours the addresses of an interface whenever its MAC is set; else they learn later.

    Returns the niceties that could not be had.
    """
    ipv6 = [(f"ipv6/conf/{name}/ndisc_notify", "1")] if has_ipv6() else []
    return _prefer((f"ipv4/conf/{name}/arp_notify", "1"), *ipv6)


def ignore_router_advertisements(name: str) -> list[KernelError]:
    """Have an interface ignore router advertisements. Returns the niceties that could not be had."""
    return _prefer((f"ipv6/conf/{name}/accept_ra", "0")) if has_ipv6() else []


def allow_ipv6(name: str) -> list[KernelError]:
    """Let an interface have IPv6 addresses, and keep them while it is down. Returns the niceties that could not be had.

    Raises KernelError.
    """
    _write(f"ipv6/conf/{name}/disable_ipv6", "0")
    return _prefer((f"ipv6/conf/{name}/keep_addr_on_down", "1"))


def list_ipv6_settings(name: str) -> list[tuple[str, str]]:
    """The settings that the functions above change on an interface, for restore_settings."""
    keys = [f"ipv6/conf/{name}/{key}" for key in ("accept_ra", "disable_ipv6", "keep_addr_on_down")]
    return [(key, value) for key in keys if (value := _read(key))]


def restore_settings(settings: list[tuple[str, str]]) -> None:
    """Set again what was read. Raises KernelError."""
    for key, value in settings:
        _write(key, value)


def may_have_ipv6(name: str) -> bool:
    """Whether an interface may have IPv6 addresses."""
    return _read(f"ipv6/conf/{name}/disable_ipv6") == "0"


def listens_to_routers(name: str) -> bool:
    """Whether an interface may take addresses and routes from router advertisements, as long as it does not forward."""
    return _read(f"ipv6/conf/{name}/accept_ra") == "1"


def listen_to_routers(name: str, *, while_forwarding: bool) -> None:
    """Take addresses and routes from router advertisements, also while forwarding or only without. Raises KernelError.

    When forwarding is switched on, the kernel forgets the routes of interfaces that do not listen while forwarding
    (rt6_purge_dflt_routers in net/ipv6/route.c).
    """
    _write(f"ipv6/conf/{name}/accept_ra", "2" if while_forwarding else "1")


@contextmanager
def keeping_addresses(name: str) -> Iterator[None]:
    """Let an interface that goes down in the block keep its IPv6 addresses. Raises KernelError, before the block."""
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
    """Have all IPv6 addresses of an interface that is still down usable as soon as it is up.

    While its link-local address is tentative, one to two seconds, the kernel looks for no neighbour on behalf of what
    it forwards (ndisc_send_ns in net/ipv6/ndisc.c): nobody reaches the containers from outside. Returns the niceties
    that could not be had.
    """
    return _prefer((f"ipv6/conf/{name}/accept_dad", "0")) if has_ipv6() else []


def loosen_reverse_path(name: str) -> None:
    """Take packets from an interface that the way back to their source does not lead to.

    What a node sends to a pod of another node may go through the overlay one way and around it the other.
    """
    _write(f"ipv4/conf/{name}/rp_filter", "2")


def filters_bridged(version: int) -> bool:
    """Whether packets that cross a bridge pass the packet filter of an IP version (module br_netfilter)."""
    return _read(_BRIDGED[version]) == "1"


def bridged_key(version: int) -> str:
    """The sysctl that has bridged packets filtered, as sysctl(8) names it."""
    return f"net/{_BRIDGED[version]}".replace("/", ".")


def _read(name: str) -> str:
    try:
        with open(f"{_ROOT}/{name}", "rb", buffering=0) as file:
            return file.read(_BYTES).strip().decode()
    except OSError:
        return ""


def _prefer(*settings: tuple[str, str]) -> list[KernelError]:
    """Set sysctls that are niceties. Returns the refusals."""
    refusals = []
    for name, value in settings:
        try:
            _write(name, value)
        except KernelError as error:
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
