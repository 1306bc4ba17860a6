"""The check of a container's MAC as values."""

from cni_bridge import spoofcheck
from cni_kernel import expressions
from cni_kernel.expressions import Element
from cni_protocol.attachment import Attachment

ATTACHMENT = Attachment("mynet", "c1", "eth0")
MAC = "0a:58:0a:f4:00:02"


def test_a_port_is_guarded_and_bound_to_its_mac() -> None:
    made = spoofcheck.make_rules(ATTACHMENT, MAC)
    port = ATTACHMENT.host_name.encode() + b"\0"
    assert (len(port), made.family) == (16, expressions.BRIDGE)
    assert made.elements == (
        Element("genuine", port + bytes.fromhex("0a580af400020000"), "mynet,c1,eth0"),
        Element("guarded", port, "mynet,c1,eth0"),
    )


def test_the_sets_hold_names_and_names_with_macs() -> None:
    guarded, genuine = spoofcheck.MAPS
    assert (guarded.name, guarded.key, guarded.data) == ("guarded", expressions.IFNAME, None)
    assert (genuine.name, genuine.key, genuine.data) == ("genuine", (41 << 6 | 9, 24), None)


def test_a_frame_of_another_mac_is_dropped_before_it_is_bridged() -> None:
    [chain] = spoofcheck.make_rules(ATTACHMENT, MAC).chains
    assert (chain.name, chain.kind, chain.hook, chain.priority) == ("prerouting", "filter", 0, -300)
    [rule] = chain.rules
    assert list(rule) == [
        expressions.load_interface(),
        expressions.look_up("guarded"),
        expressions.load_interface(),
        expressions.load_source_mac(4),
        expressions.look_up("genuine", inverted=True),
        expressions.drop(),
    ]


def test_all_containers_share_the_chain() -> None:
    other = spoofcheck.make_rules(Attachment("othernet", "c2", "eth1"), "02:00:00:00:00:01")
    assert other.chains == spoofcheck.make_rules(ATTACHMENT, MAC).chains
