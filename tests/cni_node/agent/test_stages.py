"""Which stages the keeper runs for what has changed, with parts that only note what they are asked for."""

import errno
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel.errors import KernelError
from cni_node.agent import keeper
from cni_node.agent.keeper import EXEMPT, LOCAL, ROUTES, RULES, STAGES, SYSCTLS, Done, Keeper
from cni_node.host import bridge, overlay, sysctls
from cni_node.host.entries import Observed
from cni_node.host.exempt import IntervalChange
from cni_node.host.links import Device, Local
from cni_node.host.overlay import Overlay, Underlay
from cni_node.host.peer_routes import PeerRoute
from cni_node.settings import Settings
from cni_node.snapshot import Node, Snapshot
from cni_protocol.address import parse_cidr, parse_ip

PODS = (parse_cidr("10.1.0.0/24"),)
OWN = Node("node1", PODS, (parse_ip("192.168.1.1"),))
PEER = Node("node2", (parse_cidr("10.2.0.0/24"),), (parse_ip("192.168.1.2"),))
OTHER = Node("node3", (parse_cidr("10.3.0.0/24"),), (parse_ip("192.168.1.3"),), 1400)
SEEN = Snapshot(OWN, (PEER,))
UPLINK = Local(2, parse_cidr("192.168.1.1/24"))
BRIDGE = Device(3, "cni0", "bridge", "02:00:00:00:00:01", 1500, up=True, alias="", master=0, data={})


class Kept:
    """A keeper whose kernel has nothing and takes everything."""

    def __init__(self, mocker: MockerFixture, wanted: Overlay | None = None) -> None:
        self.links = mocker.patch.object(keeper, "Links").return_value
        self.links.configure_mock(port=1)
        self.links.list_all.return_value = []
        self.links.list_addresses.return_value = [UPLINK]
        self.entries = mocker.patch.object(keeper, "Entries").return_value
        self.entries.configure_mock(port=2)
        self.entries.observe.return_value = Observed([], frozenset({2}))
        self.entries.apply.return_value = {}
        self.exemptions = mocker.patch.object(keeper, "Exemptions").return_value
        self.exemptions.configure_mock(port=3)
        self.exemptions.ensure.return_value = IntervalChange([], [])
        self.sysctls = mocker.patch.object(sysctls, "ensure_sysctls", return_value=sysctls.Outcome([], []))
        self.repair = mocker.patch.object(keeper, "repair", return_value=([], []))
        self.bridge = mocker.patch.object(bridge, "ensure_bridge", return_value=(BRIDGE, []))
        self.gateways = mocker.patch.object(bridge, "ensure_gateways", return_value=([], []))
        self.former = mocker.patch.object(overlay, "delete_former", return_value=[])
        self.keeper = Keeper(Settings(mocker.Mock(), wanted, root=Path("/r")))

    def settle(self, snapshot: Snapshot = SEEN, *stages: str) -> list[Done]:
        """One settling."""
        return self.keeper.settle(snapshot, stages)

    def routes(self) -> list[list[str]]:
        """The routes that were asked for, time by time."""
        calls = self.entries.apply.call_args_list
        return [[str(entry.dst) for entry in call.args[0].missing if isinstance(entry, PeerRoute)] for call in calls]


@pytest.fixture
def kept(mocker: MockerFixture) -> Kept:
    return Kept(mocker)


def test_all_stages_once_and_then_nothing(kept: Kept) -> None:
    assert kept.keeper.unsettled == set(STAGES)
    assert [done.stage for done in kept.settle(SEEN, *STAGES)] == [ROUTES]
    assert kept.keeper.unsettled == set()
    assert (kept.keeper.routes, kept.keeper.missing, kept.keeper.exempted) == (1, 0, 2)
    assert kept.keeper.ports == {1, 2, 3}
    kept.entries.reset_mock()
    kept.exemptions.reset_mock()
    assert kept.settle() == []
    assert (kept.entries.mock_calls, kept.exemptions.mock_calls, kept.repair.call_count) == ([], [], 1)
    kept.repair.assert_called_once_with(Path("/r/var/lib/cni/results"), apply=True)
    kept.sysctls.assert_called_once_with(sysctls.wanted_sysctls({4}))


def test_routes_are_looked_at_again_where_the_place_or_a_device_has_changed(kept: Kept) -> None:
    kept.settle(SEEN, *STAGES)
    more = [UPLINK, Local(2, parse_cidr("192.168.7.1/24"))]
    for addresses, done, observed in (([UPLINK], [], 0), ([UPLINK], ["up"], 1), (more, [], 1), (more, [], 0)):
        kept.entries.observe.reset_mock()
        kept.links.list_addresses.return_value = addresses
        kept.bridge.return_value = (BRIDGE, done)
        kept.settle(SEEN, LOCAL)
        assert bool(kept.entries.observe.call_count) == bool(observed), (addresses, done)


def test_peers_that_come_and_go_are_a_difference(kept: Kept) -> None:
    kept.settle(SEEN, *STAGES)
    done = kept.settle(SEEN._replace(peers=(PEER, OTHER)))
    assert [entry.stage for entry in done] == [ROUTES, EXEMPT]
    assert done[0].what == ["route 10.3.0.0/24 via 192.168.1.3 made"]
    assert kept.routes() == [["10.2.0.0/24"], ["10.3.0.0/24"]]
    assert kept.entries.observe.call_count == 2  # all of it in the first turn
    assert kept.settle(SEEN._replace(peers=(PEER._replace(), OTHER))) == []
    done = kept.settle(SEEN._replace(peers=(OTHER,)))
    assert done[0].what == ["route 10.2.0.0/24 via 192.168.1.2 removed"]
    assert done[1].what[0].endswith(" exempt intervals removed")
    assert (kept.keeper.routes, kept.exemptions.change.call_count, kept.exemptions.ensure.call_count) == (1, 2, 1)


def test_a_stage_that_fails_is_named_and_the_next_run(kept: Kept) -> None:
    kept.links.list_addresses.side_effect = KernelError(errno.EPERM, "addresses cannot be read")
    kept.exemptions.ensure.side_effect = KernelError(errno.EPERM, "the sets cannot be written")
    kept.settle(SEEN, *STAGES)
    assert kept.keeper.unsettled == {LOCAL, EXEMPT}
    assert kept.keeper.problems[LOCAL] == ["addresses cannot be read: Operation not permitted"]
    assert (kept.repair.call_count, kept.entries.apply.call_count) == (1, 1)
    kept.links.list_addresses.side_effect = kept.exemptions.ensure.side_effect = None
    kept.settle(SEEN, LOCAL, EXEMPT)
    assert kept.keeper.unsettled == set()
    assert (kept.keeper.problems[LOCAL], kept.keeper.problems[EXEMPT]) == ([], [])


def test_what_the_kernel_refuses_is_tried_again(kept: Kept) -> None:
    kept.entries.apply.side_effect = lambda difference, _: dict.fromkeys(difference.missing, "refused")
    kept.settle(SEEN, *STAGES)
    assert (kept.keeper.unsettled, kept.keeper.missing, kept.keeper.problems[ROUTES]) == ({ROUTES}, 1, ["refused"])
    kept.settle(SEEN._replace(peers=()))
    assert (kept.keeper.missing, kept.keeper.problems[ROUTES]) == (0, [])


def test_what_others_refused_is_told(kept: Kept, mocker: MockerFixture) -> None:
    kept.sysctls.return_value = sysctls.Outcome(["set"], ["a sysctl"])
    finding = mocker.Mock(missing=("host port 80",))
    finding.attachment.owner = "net,c1,eth0"
    kept.repair.return_value = ([finding], ["a result"])
    done = kept.settle(SEEN, SYSCTLS, RULES)
    assert done[0] == Done(SYSCTLS, ["set"])
    assert done[-1] == Done(RULES, ["rules of net,c1,eth0 put back: host port 80"])
    assert (kept.keeper.problems[SYSCTLS], kept.keeper.problems[RULES]) == (["a sysctl"], ["a result"])


def test_the_bridge_has_the_gateways_of_this_node(kept: Kept) -> None:
    kept.bridge.return_value = (BRIDGE, ["bridge cni0 made"])
    kept.gateways.return_value = (["given"], [parse_cidr("10.9.0.1/24")])
    assert kept.settle(SEEN, LOCAL)[0] == Done(LOCAL, ["bridge cni0 made", "given"])
    kept.gateways.assert_called_once_with(kept.links, BRIDGE, [UPLINK], [parse_cidr("10.1.0.1/24")])
    kept.settle(SEEN, LOCAL)
    assert [call.args for call in kept.bridge.call_args_list] == [(kept.links, 0, ""), (kept.links, 0, BRIDGE.mac)]
    assert kept.keeper.former == [parse_cidr("10.9.0.1/24")] * 2
    kept.settle(SEEN._replace(own=None), LOCAL)
    assert kept.bridge.call_count == 2


def test_other_mtus_are_named_when_peers_change(mocker: MockerFixture) -> None:
    kept = Kept(mocker)
    kept.keeper.mtu = 1450
    kept.settle(SEEN._replace(peers=(OTHER,)))
    assert len(kept.keeper.problems["mtu"]) == 1
    kept.settle(SEEN)
    assert kept.keeper.problems["mtu"] == []


def test_an_overlay_has_its_place(mocker: MockerFixture) -> None:
    kept = Kept(mocker, Overlay(42, 4789, direct=True))
    vxlan = BRIDGE._replace(ifindex=7, name="vxlan.42", kind="vxlan")
    under = mocker.patch.object(overlay, "find_underlay", return_value=Underlay(2, 1500, parse_ip("192.168.1.1")))
    made = mocker.patch.object(overlay, "ensure_overlay", return_value=(vxlan, ["vxlan.42 made"]))
    sources = mocker.patch.object(overlay, "ensure_sources", return_value=["given"])
    assert kept.settle(SEEN, LOCAL)[0] == Done(LOCAL, ["vxlan.42 made", "given"])
    known = [parse_ip("192.168.1.1"), parse_ip("192.168.1.2"), *overlay.ANYWHERE]
    assert under.call_args.args[2:] == ([UPLINK], known)
    assert made.call_args.args[2] == under.return_value
    assert sources.call_args.args[1:] == (vxlan, [UPLINK], [parse_ip("10.1.0.1")])
    assert kept.keeper.mtu == 1450
    assert kept.keeper.place == (
        frozenset({parse_ip("192.168.1.1")}),
        7,
        4,
        (parse_ip("10.1.0.1"),),
        (parse_cidr("192.168.1.0/24"),),
    )
    assert kept.bridge.call_args.args[1] == 1450


def test_former_overlays_are_removed_once_routes_are_settled(mocker: MockerFixture) -> None:
    ours = BRIDGE._replace(name="vxlan.1", alias="pycni,")
    links = mocker.patch.object(keeper, "Links")
    links.return_value.list_all.return_value = [ours, BRIDGE]
    for name in ("Entries", "Exemptions", "repair"):
        mocker.patch.object(keeper, name)
    former = mocker.patch.object(overlay, "delete_former", return_value=["vxlan.1 removed"])
    made: Any = Keeper(Settings(mocker.Mock()))
    made.entries.observe.return_value = Observed([], frozenset())
    made.entries.apply.return_value = {}
    for names in (["vxlan.1"], []):
        assert made.settle(Snapshot(None, ()), {ROUTES}) == [Done(ROUTES, ["vxlan.1 removed"])]
        assert former.call_args.args[1] == names


@pytest.mark.parametrize(
    ("addresses", "peers", "known"),
    [
        pytest.param(["192.168.1.1", "fd00:a::1"], [], ["192.168.1.1", "fd00:a::1"], id="no peer"),
        pytest.param(["fd00:a::1"], ["192.168.1.2", "fd00:a::2"], ["192.168.1.2", "fd00:a::1", "fd00:a::2"], id="both"),
        pytest.param(["192.168.1.1"], ["fd00:a::2"], ["fd00:a::2", "192.168.1.1"], id="IPv6 alone"),
        pytest.param(["192.168.1.1"], ["192.168.1.1"], ["192.168.1.1"], id="a peer with our address"),
    ],
)
def test_the_way_out_is_looked_for_by_the_peers_family(
    mocker: MockerFixture, addresses: list[str], peers: list[str], known: list[str]
) -> None:
    kept = Kept(mocker, Overlay(42, 4789))
    kept.links.list_addresses.return_value = [
        Local(2, parse_cidr("192.168.1.1/24")),
        Local(2, parse_cidr("fd00:a::1/64")),
    ]
    under = mocker.patch.object(overlay, "find_underlay", side_effect=KernelError(errno.ENETUNREACH, "no way"))
    own = OWN._replace(addresses=tuple(map(parse_ip, addresses)))
    others = (PEER._replace(addresses=tuple(map(parse_ip, peers))),) if peers else ()
    kept.settle(Snapshot(own, others), LOCAL)
    assert under.call_args.args[3] == [*map(parse_ip, known), *overlay.ANYWHERE]
