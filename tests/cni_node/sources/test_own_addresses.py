"""The addresses that a node has when no option names them, on the kernel."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_node.agent.run import _make_source
from cni_node.settings import Settings
from cni_node.sources.etcd import EtcdSource
from cni_node.sources.etcd_calls import EtcdAccess
from cni_node.sources.etcd_lease import EtcdSettings
from cni_protocol.address import parse_ip
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

OWN = (parse_ip("192.0.2.11"), parse_ip("2001:db8:1::11"))
WAY = "ip route replace default via 192.0.2.1 dev uplink"


@pytest.fixture
def source(host: Host, tmp_path: Path) -> Iterator[EtcdSource]:
    """The source of a node with an address of each family, and default routes."""
    host.run("sh", "-ec", "ip link add uplink type veth peer name wire; ip link set wire up; ip link set uplink up")
    host.run("sh", "-ec", f"ip address add 192.0.2.11/24 dev uplink; {WAY}")
    host.run("sh", "-ec", "ip address add 2001:db8:1::11/64 dev uplink nodad; ip -6 route add default dev uplink")
    with host.entered():
        settings = EtcdSettings(EtcdAccess(("http://127.0.0.1:1",)), "node1", ())
        made = _make_source(Settings(settings, root=tmp_path))
        assert isinstance(made, EtcdSource)
        yield made


@pytest.mark.parametrize(
    ("change", "now"),
    [
        pytest.param("true", OWN, id="none"),
        pytest.param("ip address add 192.0.2.77/24 dev uplink", OWN, id="one more"),
        pytest.param(
            f"ip address del 192.0.2.11/24 dev uplink; ip address add 192.0.2.77/24 dev uplink; {WAY}",
            (parse_ip("192.0.2.77"), OWN[1]),
            id="another of one family",
        ),
        pytest.param("ip address flush dev uplink", OWN, id="none left"),
    ],
)
def test_an_address_that_is_gone_gives_way_to_the_next(
    host: Host, source: EtcdSource, change: str, now: tuple[object, ...]
) -> None:
    assert source._settings.addresses == OWN
    host.run("sh", "-ec", change)
    assert source._renew(OWN) == now


def test_a_node_that_had_no_address_yet_gets_those_that_come(source: EtcdSource) -> None:
    assert source._renew(()) == OWN
