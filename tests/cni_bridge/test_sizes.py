"""Long lists: ten thousand of anything work, and cost in proportion to their number."""

import errno
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import masquerade, portmap
from cni_bridge.config import parse_config
from cni_bridge.mappings import PortMapping
from cni_bridge.plan import make_plan
from cni_bridge.sync import delete_own_rules, ensure_rules, find_missing
from cni_bridge.verify import find_differences, make_expected
from cni_kernel.errors import KernelError
from cni_kernel.expressions import Rules
from cni_kernel.netlink import NetlinkSocket
from cni_kernel.nftables import Nftables
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError
from cni_protocol.result import Interface, IPConfig, Result, Route
from tests.cni_bridge import make_request
from tests.cni_bridge.test_verify import HEALTHY
from tests.kit.host import Host

OWN, OTHER = Attachment("mynet", "c1", "eth0"), Attachment("mynet", "c2", "eth0")
V4, V6 = parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")
FEW, MANY = 2500, 10000
# Four times as many cost four times as much, and sixteen times where each is compared with each.
BOUND = 8.0


def assert_proportional(cost: Callable[[int], float]) -> None:
    """Whether processor time grows with the number; the best of some rounds each, since the machine may be busy."""
    few, many = [], []
    for _ in range(5):
        few.append(cost(FEW))
        many.append(cost(MANY))
        if min(many) < BOUND * min(few):
            return
    raise AssertionError(f"{MANY} cost {min(many) / min(few):.1f} times as much as {FEW}")


def seconds(action: Callable[[], object]) -> float:
    """The processor time of an action, the kernel's share included.

    Without the collector of garbage: what that costs goes by all that the tests before have left in memory.
    """
    gc.collect()
    gc.disable()
    try:
        before = time.process_time()
        action()
        return time.process_time() - before
    finally:
        gc.enable()


def ports(number: int, protocol: str = "tcp") -> list[dict[str, Any]]:
    return [{"hostPort": 10000 + i, "containerPort": 80, "protocol": protocol} for i in range(number)]


def addresses(number: int) -> list[CIDR]:
    return [CIDR(IP(4, (10 << 24) + (1 << 16) + 2 + i), 12) for i in range(number)]


def network(number: int) -> CIDR:
    return CIDR(IP(4, (172 << 24) + (number << 4)), 28)


@pytest.mark.slow
def test_port_mappings_are_parsed_in_proportion() -> None:
    def cost(number: int) -> float:
        request = make_request(ipam={"type": "host-local"}, runtimeConfig={"portMappings": ports(number)})
        return seconds(lambda: parse_config(request))

    assert_proportional(cost)
    request = make_request(ipam={"type": "host-local"}, runtimeConfig={"portMappings": ports(MANY)})
    assert len(parse_config(request).port_mappings) == MANY
    twice = [*ports(MANY), {**ports(MANY)[-1], "containerPort": 81}]
    with pytest.raises(CNIError, match="host port 19999/tcp leads to two ports"):
        parse_config(make_request(ipam={"type": "host-local"}, runtimeConfig={"portMappings": twice}))


@pytest.mark.slow
@pytest.mark.parametrize("gateway", [None, "10.1.0.1"], ids=["no gateway", "gateway"])
def test_a_plan_is_made_in_proportion(gateway: str | None) -> None:
    config = parse_config(make_request(isDefaultGateway=bool(gateway), ipMasq=True, ipam={"type": "host-local"}))
    ip = parse_ip(gateway) if gateway else None

    def cost(number: int) -> float:
        ips = tuple(IPConfig(address, ip) for address in addresses(number))
        ipam = Result((), ips, tuple(Route(network(i)) for i in range(number)))
        return seconds(lambda: make_plan(config, ipam))

    assert_proportional(cost)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True], ids=["all there", "none there"])
def test_a_check_compares_in_proportion(missing: bool) -> None:
    config = parse_config(make_request(isGateway=True, ipam={"type": "host-local"}))

    def cost(number: int) -> float:
        interfaces = (Interface("eth0", "", sandbox="/run/netns/c1"), Interface("eth1", "", sandbox="/run/netns/c1"))
        own = tuple(IPConfig(address, IP(4, address.ip.value + (1 << 22)), 0) for address in addresses(number))
        others = tuple(IPConfig(network(i << 4), None, 1) for i in range(number))
        previous = Result(interfaces, own + others, tuple(Route(network(i), V4.ip) for i in range(number)))
        expected = make_expected(previous, "eth0", "/run/netns/c1")
        observed = HEALTHY._replace(addresses=[], routes=[], gateways=[])
        if not missing:
            observed = HEALTHY._replace(
                addresses=[entry.address for entry in own],
                routes=list(expected.routes),
                gateways=[CIDR(entry.gateway, 12) for entry in own if entry.gateway],
            )

        def compare() -> None:
            make_expected(previous, "eth0", "/run/netns/c1")
            found = find_differences(config, OWN, expected, observed)
            assert len([text for text in found if "prevResult is missing" in text]) == 2 * number * missing

        return seconds(compare)

    assert_proportional(cost)


def mapping_rules(own: Attachment, number: int, protocol: str = "tcp") -> Rules:
    request = make_request(ipam={"type": "host-local"}, runtimeConfig={"portMappings": ports(number, protocol)})
    return portmap.make_rules(own, "br0", parse_config(request).port_mappings, [V4, V6])


@pytest.fixture
def inside(host: Host) -> Iterator[None]:
    """The test runs inside its host."""
    with host.entered():
        yield


KINDS: dict[str, Callable[[int], Rules]] = {
    "tcp ports": lambda number: mapping_rules(OWN, number),
    "udp ports": lambda number: mapping_rules(OWN, number, "udp"),
    "addresses": lambda number: masquerade.make_rules(OWN, "br0", addresses(number)),
}


@pytest.mark.kernel
@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_rules_come_and_go_in_proportion(host: Host, make: Callable[[int], Rules]) -> None:
    def cost(number: int) -> float:
        wanted = make(number)

        def live() -> None:
            ensure_rules(wanted)
            assert find_missing(wanted) == []
            ensure_rules(wanted)
            delete_own_rules(OWN)

        return seconds(live)

    assert_proportional(cost)
    assert host.nft() == []


@pytest.mark.kernel
@pytest.mark.usefixtures("inside")
def test_subnets_have_their_chains_in_proportion(host: Host) -> None:
    def cost(number: int) -> float:
        wanted = masquerade.make_rules(OWN, "br0", [network(i) for i in range(number // 10)])

        def live() -> None:
            ensure_rules(wanted)
            delete_own_rules(OWN)

        return seconds(live)

    assert_proportional(cost)
    assert host.nft() == []


@pytest.mark.kernel
@pytest.mark.usefixtures("inside")
def test_of_ten_thousand_ports_one_that_is_taken_refuses_all(host: Host) -> None:
    host.run("ip", "link", "add", OTHER.host_name, "type", "bridge")
    ensure_rules(portmap.make_rules(OTHER, "br0", [PortMapping(19999, 80, "tcp", None)], [V4]))
    before = host.nft()
    with pytest.raises(CNIError, match="host port 19999/tcp is taken by container c2"):
        ensure_rules(mapping_rules(OWN, MANY))
    assert host.nft() == before


@pytest.mark.kernel
@pytest.mark.usefixtures("inside")
def test_without_the_right_to_larger_buffers_it_takes_several_transactions(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(NetlinkSocket, "_make_room")
    commit = mocker.spy(Nftables, "commit")
    wanted = mapping_rules(OWN, MANY)
    for _ in range(2):
        ensure_rules(wanted)
        assert find_missing(wanted) == []
    assert commit.call_count > 10
    delete_own_rules(OWN)
    assert host.nft() == []


@pytest.mark.kernel
@pytest.mark.usefixtures("inside")
def test_what_fits_into_no_buffer_at_all_is_an_error(host: Host, mocker: MockerFixture) -> None:
    mocker.patch.object(Nftables, "commit", side_effect=OSError(errno.EMSGSIZE, "Message too long"))
    with pytest.raises(KernelError, match="packet filter rules cannot be set: Message too long"):
        ensure_rules(mapping_rules(OWN, 1))
