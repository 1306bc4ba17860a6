"""Interfaces and addresses of this node, through pyroute2, one request at a time.

Must not: decide what should be there, or read lists that may have thousands of entries (entries.py does).
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cni_kernel.errors import KernelError
from cni_protocol.address import CIDR, parse_ip

IFF_UP = 0x1  # netdevice(7)
_NODAD = 0x02  # IFA_F_NODAD
_SCOPE_UNIVERSE = 0  # rtnetlink(7)
_GONE = (errno.EADDRNOTAVAIL, errno.ENODEV, errno.ESRCH)


class Device(NamedTuple):
    """An interface. `mtu` is in bytes; `data` has the settings of its kind, under the kernel's names."""

    ifindex: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    alias: str
    master: int
    data: Mapping[str, Any]


class Local(NamedTuple):
    """An address of this node with global scope, and the index of its interface."""

    device: int
    cidr: CIDR


class Links:
    """The interfaces of the network namespace that the process is in."""

    def __init__(self) -> None:
        with requesting("netlink cannot be used"):
            self._ipr = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._ipr.close()

    @property
    def port(self) -> int:
        """The socket's address (nl_pid). The kernel's notifications name it as the origin of a change."""
        return int(self._ipr.epid)

    def find(self, name: str) -> Device | None:
        """The interface of that name, None when there is none."""
        return self._find(ifname=name)

    def find_at(self, index: int) -> Device | None:
        """The interface with that index, None when there is none."""
        return self._find(index=index)

    def get(self, name: str) -> Device:
        """The interface of that name. Raises KernelError when there is none."""
        device = self.find(name)
        if device is None:
            raise KernelError(errno.ENODEV, f"interface {name}", "it is not there")
        return device

    def list_all(self) -> list[Device]:
        """All interfaces. There may be many, since pods have one each, so call this seldom."""
        with requesting("interfaces cannot be read"):
            return [_device_of(message) for message in self._ipr.link("dump")]

    def create(self, name: str, kind: str, **attributes: Any) -> None:
        """Make an interface, down. Raises KernelError, also when one has that name."""
        with requesting(f"{kind} {name} cannot be created"):
            self._ipr.link("add", ifname=name, kind=kind, **attributes)

    def change(self, device: Device, **attributes: Any) -> None:
        """Set attributes of an interface (address, mtu, ifalias, master, state). Raises KernelError."""
        said = ", ".join(f"{key} {value}" for key, value in attributes.items())
        with requesting(f"{device.name} cannot be given {said}"):
            self._ipr.link("set", index=device.ifindex, **attributes)

    def allow_hairpin(self, port: Device) -> None:
        """Switch hairpin mode on: the bridge port sends frames back to where they came from. Raises KernelError."""
        with requesting(f"hairpin mode of {port.name} cannot be set"):
            self._ipr.brport("set", index=port.index, mode=1)

    def delete(self, device: Device) -> None:
        """Remove an interface, if it is still there. Raises KernelError."""
        with requesting(f"interface {device.name} cannot be removed", _GONE):
            self._ipr.link("del", index=device.ifindex)

    def list_addresses(self) -> list[Local]:
        """The addresses of all interfaces that have global scope. Raises KernelError."""
        with requesting("addresses cannot be read"):
            messages = [message for message in self._ipr.addr("dump") if message["scope"] == _SCOPE_UNIVERSE]
        return [
            Local(
                message["index"],
                CIDR(parse_ip(message.get("local") or message.get("address")), message["prefixlen"]),
            )
            for message in messages
        ]

    def add_address(self, device: Device, address: CIDR) -> None:
        """Add an address, unless it is there; it is usable at once, without duplicate detection. Raises KernelError."""
        with requesting(f"address {address} cannot be given to {device.name}", (errno.EEXIST,)):
            options: dict[str, Any] = {"flags": _NODAD} if address.version == 6 else {}
            if address.version == 4 and address.prefix < 31:
                options["broadcast"] = str(address.last)
            self._ipr.addr("add", index=device.ifindex, address=str(address.ip), prefixlen=address.prefix, **options)

    def delete_address(self, device: Device, address: CIDR) -> None:
        """Remove an address, if it is there. Raises KernelError."""
        with requesting(f"address {address} cannot be removed from {device.name}", _GONE):
            self._ipr.addr("del", index=device.ifindex, address=str(address.ip), prefixlen=address.prefix)

    def find_way_out(self, address: str) -> tuple[int, str] | None:
        """The interface's index and our source address for packets to an address. None when no route leads there."""
        try:
            found = self._ipr.route("get", dst=address)[0]
        except NetlinkError:
            return None
        source = found.get("prefsrc")
        return (found.get("oif"), source) if source else None

    def _find(self, **what: Any) -> Device | None:
        with requesting("interfaces cannot be read"):
            try:
                return _device_of(self._ipr.link("get", **what)[0])
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise


@contextmanager
def requesting(what: str, passed_over: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn pyroute2's errors in the block into KernelError with the description `what`.

    The errnos in `passed_over` are ignored.
    """
    try:
        yield
    except NetlinkError as error:
        if error.code not in passed_over:
            raise KernelError(error.code, what) from None
    except OSError as error:
        raise KernelError(error.errno or 0, what, error.strerror or str(error)) from None


def _device_of(message: Any) -> Device:
    data = message.get(("linkinfo", "data"))
    return Device(
        ifindex=message["index"],
        name=message.get("ifname"),
        kind=message.get(("linkinfo", "kind")) or "",
        mac=message.get("address") or "",
        mtu=message.get("mtu") or 0,
        up=bool(message["flags"] & IFF_UP),
        alias=message.get("ifalias") or "",
        master=message.get("master") or 0,
        data=dict(data["attrs"]) if data else {},
    )
