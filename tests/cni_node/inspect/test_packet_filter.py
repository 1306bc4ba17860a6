"""What the elements of the plugin's maps mean."""

import pytest

from cni_kernel.expressions import Element
from cni_node.inspect.packet_filter import parse_rule
from cni_node.inspect.values import HostPort, Rule
from cni_protocol.address import parse_ip

OWNER = "mynet,c1,eth0"
TCP80, UDP53, SCTP, STRANGE = (
    bytes([protocol, 0, 0, 0]) + port.to_bytes(2, "big") + bytes(2)
    for protocol, port in ((6, 8080), (17, 53), (132, 7), (99, 7))
)
TARGET = parse_ip("10.1.0.2").packed + (80).to_bytes(2, "big") + bytes(2)
TARGET6 = parse_ip("fd00::2").packed + (80).to_bytes(2, "big") + bytes(2)
NODE, NODE6 = parse_ip("192.0.2.1").packed, parse_ip("fd00:a::1").packed
NAME = b"veth0".ljust(16, b"\0")


@pytest.mark.parametrize(
    ("name", "key", "data", "what", "port"),
    [
        ("portmap4", NODE + TCP80, TARGET, "host port", HostPort("192.0.2.1", 8080, "tcp", "10.1.0.2:80")),
        ("portmap6", NODE6 + UDP53, TARGET6, "host port", HostPort("fd00:a::1", 53, "udp", "[fd00::2]:80")),
        ("portmap_any4", SCTP, TARGET, "host port", HostPort("", 7, "sctp", "10.1.0.2:80")),
        ("portmap_any6", STRANGE, TARGET6, "host port", HostPort("::", 7, "99", "[fd00::2]:80")),
        ("portmap_waiting4", TCP80, b"", "waits for a host port", None),
        ("masquerade4", NAME + NODE, b"", "masquerade 192.0.2.1", None),
        ("masquerade6", NAME + NODE6, b"", "masquerade fd00:a::1", None),
        ("genuine", NAME + bytes.fromhex("020000000007") + bytes(2), b"", "only from MAC 02:00:00:00:00:07", None),
        ("other", NAME, b"", "", None),
    ],
)
def test_elements_in_words(name: str, key: bytes, data: bytes, what: str, port: HostPort | None) -> None:
    assert parse_rule(Element(name, key, OWNER, data)) == Rule(OWNER, what, port)
