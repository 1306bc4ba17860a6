"""Faults of interfaces: the bridge, its ports, the overlay's device. Pure.

Must not: read anything.
"""

from collections.abc import Iterator

from cni_node.doctor.facts import BREAKS, HINDERS, RISK, Facts, Finding, Link, Network
from cni_protocol.address import CIDR, IP, LINK_LOCAL6, parse_cidr
from cni_protocol.attachment import describe_owner, spelt_anew

_FORWARDING = 3  # BR_STATE_FORWARDING
_FOREIGN = (
    "flannel.",
    "cali",
    "tunl0",
    "weave",
    "vxlan-6784",
    "cilium_",
    "kube-bridge",
    "lxc_health",
    "antrea-",
    "ovn-k8s",
)
_HEADERS = {4: 50, 6: 70}  # bytes that an overlay adds, by the IP version of the underlay
_SILENCE = 50  # packets after which an answer should have come
_LINK_LOCAL4 = parse_cidr("169.254.0.0/16")


def bridges_of(facts: Facts) -> dict[str, tuple[Link, list[Network]]]:
    """The bridges of our networks that are there, by name, with the networks on each."""
    found: dict[str, tuple[Link, list[Network]]] = {}
    for network in facts.networks:
        link = facts.named(network.bridge)
        if link is not None:
            found.setdefault(link.name, (link, []))[1].append(network)
    return found


def ends_of_pods(facts: Facts) -> list[tuple[Link, str]]:
    """The host's ends of our pods' links, with their owners."""
    names = {network.name for network in facts.networks}
    owned = [
        (link, spelt_anew(link.alias)) for link in facts.links if link.kind == "veth" and link.name.startswith("veth")
    ]
    return [(link, owner) for link, owner in owned if owner.count(",") == 2 and owner.split(",")[0] in names]


def overlays_of(facts: Facts) -> list[Link]:
    """The vxlan devices of the agent."""
    return [link for link in facts.links if link.kind == "vxlan" and link.alias in ("pycni,", "pycni/")]


def check_bridge(facts: Facts) -> Iterator[Finding]:
    """The bridge is no bridge, or down."""
    for name, (link, _) in bridges_of(facts).items():
        if link.kind != "bridge":
            remedy = "rename or remove it, or give the network another bridge"
            yield Finding(BREAKS, "bridge-name-taken", name, f"it is no bridge but {link.kind or 'physical'}", remedy)
        elif not link.up:
            yield Finding(BREAKS, "bridge-down", name, "the bridge is down", f"ip link set {name} up")
    used = {network for pod in facts.pods for network in [pod.attachment.network]}
    for network in facts.networks:
        if facts.links and network.name in used and facts.named(network.bridge) is None:
            what = f"bridge {network.bridge} is gone, and pods of network {network.name} run"
            yield Finding(BREAKS, "bridge-missing", network.bridge, what, "start these pods anew")


def check_gateway(facts: Facts) -> Iterator[Finding]:
    """The bridge lacks a gateway address, or has one of a former subnet."""
    for name, (link, networks) in bridges_of(facts).items():
        there = [entry.cidr for entry in facts.addresses if entry.ifindex == link.ifindex]
        there = [cidr for cidr in there if cidr.ip not in LINK_LOCAL6]
        gateways = [gateway for network in networks if network.is_gateway for gateway in network.gateways]
        ports = [each for each in facts.links if each.master == link.ifindex]
        if not gateways or not ports or link.kind != "bridge":
            continue
        for gateway in gateways:
            if gateway.ip not in {cidr.ip for cidr in there}:
                what = f"it lacks the gateway address {gateway}"
                yield Finding(BREAKS, "gateway-missing", name, what, f"ip address add {gateway} dev {name}")
        subnets = [gateway.network for gateway in gateways]
        for cidr in there:
            if not any(cidr.ip in subnet for subnet in subnets) and cidr.ip not in _LINK_LOCAL4:
                what = f"it has the address {cidr}, which is in no subnet of {', '.join(n.name for n in networks)}"
                yield Finding(RISK, "old-address", name, what, f"ip address delete {cidr} dev {name}, or forceAddress")


def check_ports(facts: Facts) -> Iterator[Finding]:
    """A pod's host end is down, on no bridge or another one, does not forward, or its pod is gone."""
    bridges = bridges_of(facts)
    by_name = {network.name: network for network in facts.networks}
    for link, owner in ends_of_pods(facts):
        whose, network = describe_owner(owner), by_name[owner.split(",")[0]]
        bridge = bridges.get(network.bridge)
        if not link.peer_known:
            yield Finding(HINDERS, "pod-end-gone", link.name, f"the end of {whose} is not reachable", "delete the pod")
        if not link.up:
            yield Finding(
                HINDERS, "port-down", link.name, f"it is down, so {whose} is cut off", f"ip link set {link.name} up"
            )
        elif bridge is not None and link.master != bridge[0].ifindex:
            what = f"it is no port of {network.bridge}, so {whose} is cut off"
            yield Finding(HINDERS, "port-detached", link.name, what, f"ip link set {link.name} master {network.bridge}")
        elif bridge is not None and bridge[0].up and link.state != _FORWARDING:
            what = f"the bridge does not forward for {whose} (state {link.state})"
            yield Finding(HINDERS, "port-not-forwarding", link.name, what, f"bridge link set dev {link.name} state 3")


def check_port_flags(facts: Facts) -> Iterator[Finding]:
    """A port lacks hairpin mode that the network wants, or is isolated against its will."""
    by_name = {network.name: network for network in facts.networks}
    for link, owner in ends_of_pods(facts):
        network = by_name[owner.split(",")[0]]
        if link.master and network.hairpin and not link.hairpin:
            what = f"hairpin mode is off: {describe_owner(owner)} does not reach itself through a service"
            yield Finding(HINDERS, "hairpin-off", link.name, what, f"bridge link set dev {link.name} hairpin on")
        if link.master and link.isolated and not network.isolated:
            what = f"{describe_owner(owner)} is isolated from the other pods of its bridge"
            yield Finding(HINDERS, "port-isolated", link.name, what, f"bridge link set dev {link.name} isolated off")


def check_mtu(facts: Facts) -> Iterator[Finding]:
    """Pods send packets that do not fit the way out."""
    ports = [link for link, _ in ends_of_pods(facts) if link.master]
    largest = max((link.mtu for link in ports), default=0)
    by_index = {link.ifindex: link for link in facts.links}
    for overlay in overlays_of(facts):
        under = by_index.get(overlay.lower)
        if under is not None and overlay.mtu > (room := under.mtu - _HEADERS[overlay.underlay_version]):
            what = f"its MTU is {overlay.mtu}, and {under.name} below has {under.mtu}: large packets are lost"
            remedy = f"ip link set {overlay.name} mtu {room}; give the agent no larger --mtu"
            yield Finding(HINDERS, "mtu-overlay", overlay.name, what, remedy)
    ways = [by_index[r.ifindex] for r in facts.routes if not r.dst.prefix and not r.refuses and r.ifindex in by_index]
    for way in {link.ifindex: link for link in [*overlays_of(facts), *ways]}.values():
        if largest > way.mtu:
            what = f"its MTU is {way.mtu}, and pods send up to {largest}: large packets are lost or cut"
            yield Finding(
                HINDERS, "mtu-pods", way.name, what, f'"mtu": {way.mtu} in the network, and start the pods anew'
            )
    for name, (bridge, _) in bridges_of(facts).items():
        for link in ports:
            if link.master == bridge.ifindex and link.mtu > bridge.mtu:
                what = f"its MTU is {link.mtu}, that of {name} {bridge.mtu}: large packets are lost"
                yield Finding(
                    HINDERS, "mtu-port", link.name, what, f"ip link set {name} mtu {link.mtu}, or one MTU for all"
                )


def check_duplicates(facts: Facts) -> Iterator[Finding]:
    """Two running pods of a network with one address or one MAC."""
    for kind, values_of in (
        ("duplicate-address", lambda pod: pod.addresses),
        ("duplicate-mac", lambda pod: (pod.mac,) if pod.mac else ()),
    ):
        holders: dict[tuple[str, IP | str], str] = {}
        for pod in facts.pods:
            for value in values_of(pod):
                first = holders.setdefault((pod.attachment.network, value), pod.attachment.owner)
                if first != pod.attachment.owner:
                    what = f"{describe_owner(first)} has {value}, too"
                    remedy = "delete one of the two pods"
                    yield Finding(HINDERS, kind, describe_owner(pod.attachment.owner), what, remedy)


def check_foreign_addresses(facts: Facts) -> Iterator[Finding]:
    """Somebody else gives addresses to our interfaces, or manages them."""
    bridges = {link.ifindex: link for link, _ in bridges_of(facts).values()}
    overlays = {link.ifindex: link for link in overlays_of(facts)}
    ends = {link.ifindex: link for link, _ in ends_of_pods(facts)}
    for entry in facts.addresses:
        strange = entry.ifindex in ends and entry.cidr.ip not in LINK_LOCAL6
        if strange or (entry.ifindex in {**bridges, **overlays} and entry.cidr.ip in _LINK_LOCAL4):
            name = {**bridges, **overlays, **ends}[entry.ifindex].name
            what = f"it has the address {entry.cidr}, which another program gave it"
            yield Finding(
                HINDERS, "foreign-address", name, what, "tell that program (a DHCP client?) to leave it alone"
            )
    for index, link in {**bridges, **overlays, **ends}.items():
        if index in facts.managed:
            remedy = f"unmanaged-devices=interface-name:{link.name} in NetworkManager's configuration"
            yield Finding(RISK, "networkmanager", link.name, "NetworkManager manages it", remedy)


def check_duplicate_detection(facts: Facts) -> Iterator[Finding]:
    """An IPv6 address of the node failed duplicate address detection."""
    names = {link.ifindex: link.name for link in facts.links}
    for entry in facts.addresses:
        if entry.duplicate:
            what = f"another host has its address {entry.cidr}, so the kernel does not use it"
            yield Finding(
                HINDERS, "address-conflict", names.get(entry.ifindex, "?"), what, "give one of the two another"
            )


def check_overlay(facts: Facts) -> Iterator[Finding]:
    """The overlay's device is down, has another MAC than the peers expect, or never hears an answer."""
    for link in overlays_of(facts):
        if not link.up:
            yield Finding(BREAKS, "overlay-down", link.name, "the overlay is down", f"ip link set {link.name} up")
        if link.derived and link.mac != link.derived:
            what = f"its MAC is {link.mac}, the other nodes send to {link.derived}: they are not heard"
            remedy = f"ip link set {link.name} address {link.derived}; MACAddressPolicy=none for it under systemd"
            yield Finding(BREAKS, "overlay-mac", link.name, what, remedy)
        if link.sent >= _SILENCE and not link.received:
            what = f"{link.sent} packets were sent and none came back"
            remedy = "let the overlay's UDP port through between the nodes, and use one --vni and --port on all"
            yield Finding(BREAKS, "overlay-silent", link.name, what, remedy)


def check_leftover_links(facts: Facts) -> Iterator[Finding]:
    """Interfaces of another pod network."""
    own = {network.bridge for network in facts.networks}
    if not own:
        return
    for link in facts.links:
        if link.name.startswith(_FOREIGN) and link.name not in own:
            what = "it belongs to another pod network, whose routes and rules may be in the way"
            yield Finding(RISK, "other-network", link.name, what, "uninstall that one, or reboot once it is")


def overlap(first: CIDR, second: CIDR) -> bool:
    """Whether two networks have an address in common."""
    return first.ip in second or second.network.ip in first
