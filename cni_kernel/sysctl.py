"""/proc/sys/net of the namespace that the process is in. Source: Documentation/networking/ip-sysctl in the kernel."""

import errno
import os

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


def forwarding_key(version: int) -> str:
    """The sysctl that switches forwarding, as sysctl(8) names it."""
    return f"net/{_FORWARDING[version]}".replace("/", ".")


def has_ipv6() -> bool:
    """Whether the kernel speaks IPv6 at all."""
    return os.path.isdir(f"{_ROOT}/ipv6")


def own_interface(name: str, *, ipv6: bool, detect_duplicates: bool) -> None:
    """Prepare an interface, before it is up, for addresses and routes that come from us alone.

    Router advertisements are not listened to. With `ipv6` the interface and the loopback may have IPv6 addresses
    whatever the namespace's default says, and keep them over a link-down; `detect_duplicates` switches duplicate
    address detection. Raises KernelError.
    """
    if not has_ipv6():
        if ipv6:
            raise KernelError(
                errno.EAFNOSUPPORT, "an IPv6 address is wanted", "this kernel runs without IPv6 (ipv6.disable)"
            )
        return
    _write(f"ipv6/conf/{name}/accept_ra", "0")
    _write(f"ipv6/conf/{name}/accept_dad", "1" if detect_duplicates else "0")
    if detect_duplicates:
        _write(f"ipv6/conf/{name}/enhanced_dad", "1")
    if ipv6:
        _write("ipv6/conf/lo/disable_ipv6", "0")
        _write(f"ipv6/conf/{name}/disable_ipv6", "0")
        _write(f"ipv6/conf/{name}/keep_addr_on_down", "1")


def announce_changes(name: str) -> None:
    """Have the kernel tell the neighbours the addresses of an interface whenever its MAC is set. Raises KernelError."""
    _write(f"ipv4/conf/{name}/arp_notify", "1")
    if has_ipv6():
        _write(f"ipv6/conf/{name}/ndisc_notify", "1")


def ignore_router_advertisements(name: str, *, ipv6: bool) -> None:
    """Have the bridge ignore router advertisements; `ipv6`: and be able to have, and keep, an IPv6 gateway address."""
    if has_ipv6():
        _write(f"ipv6/conf/{name}/accept_ra", "0")
        if ipv6:
            _write(f"ipv6/conf/{name}/disable_ipv6", "0")
            _write(f"ipv6/conf/{name}/keep_addr_on_down", "1")


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


def _write(name: str, value: str) -> None:
    """Set a sysctl unless it has that value already (so a read-only /proc/sys with the right values will do)."""
    if _read(name) == value:
        return
    key = f"net/{name}".replace(".", "%").replace("/", ".").replace("%", "/")
    with asking(f"sysctl {key}={value} cannot be set"), open(f"{_ROOT}/{name}", "wb", buffering=0) as file:
        file.write(value.encode())
