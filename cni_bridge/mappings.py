"""A port mapping as the runtime asks for it. Pure.

Must not: know rules; a network without port mappings loads none.
"""

from cni_protocol.address import IP
from cni_protocol.light.standard import NamedTuple

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class PortMapping(NamedTuple):
    """One host port that leads to a port of the container.

    `host_ip` 0.0.0.0 stands for every IPv4 address of the host, :: for every IPv6 address, None for both.
    """

    host_port: int
    container_port: int
    protocol: str
    host_ip: IP | None

    @property
    def claims(self) -> list[tuple[int, str, IP]]:
        """Port, protocol and address of the host that it takes, an address without a bit for all of its version."""
        addresses = [IP(4, 0), IP(6, 0)] if self.host_ip is None else [self.host_ip]
        return [(self.host_port, self.protocol, address) for address in addresses]
