"""Tells whether kube-proxy is in IPVS mode, whose packets to services never come through the hook of policies.

Must not: change anything.
"""

import fcntl
import socket
import struct

_SIOCGIFINDEX = 0x8933  # netdevice(7)
_DEVICE = b"kube-ipvs0"  # kube-proxy has one in that mode alone
_REQUEST = struct.pack("16s24x", _DEVICE)  # struct ifreq
_PROBLEM = (
    "kube-proxy is in IPVS mode (there is an interface kube-ipvs0), so no policy judges packets to services: "
    "have it run in mode nftables or iptables"
)


class ServiceProxy:
    """The mode of kube-proxy, in the network namespace in which this object was made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def problems(self) -> tuple[str, ...]:
        """A sentence about IPVS mode; none in another mode."""
        try:
            fcntl.ioctl(self._socket, _SIOCGIFINDEX, _REQUEST)
        except OSError:  # ENODEV
            return ()
        return (_PROBLEM,)
