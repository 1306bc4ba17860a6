"""The way of a packet through the stacks of a node, and of the answer to it. Pure.

Source: net/ipv4/{ip_input,ip_forward,ip_output,fib_frontend}.c, net/bridge/br_{input,forward,netfilter_hooks}.c.
Must not: read anything; a stack that was not read yet is asked for (NeededError).
"""

from typing import NamedTuple

from cni_node.doctor.facts import Link, Route
from cni_node.why.discovery import Neighbour, Request, discover
from cni_node.why.hooks import Hooks
from cni_node.why.machine import Choose, Scene, is_echo
from cni_node.why.packets import Packet
from cni_node.why.routing import describe, find_route, has_route, is_local, whose
from cni_node.why.segment import Segment
from cni_node.why.values import (
    FORWARD,
    INPUT,
    NODE,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    PROTOCOL_NAMES,
    NeededError,
    Place,
    Stack,
    Step,
    StopError,
    World,
)
from cni_protocol.address import IP

_LOOPBACK = "lo"


class Arrival(NamedTuple):
    """Where a packet came out: a stack's owner, None for beyond the node, with the interface that it left by."""

    owner: str | None
    packet: Packet
    link: str = ""


class Walk:
    """One packet and its answer; `steps` and `notes` grow."""

    def __init__(self, world: World, choose: Choose) -> None:
        self._world = world
        self.steps: list[Step] = []
        self.notes: dict[str, None] = {}
        self.back = False
        self._sizes: list[tuple[str, int]] = []
        self.programs: dict[str, None] = {}  # those on the way, in words
        self._hooks = Hooks(choose, self._say)
        self._segment = Segment(world.stacks[NODE], world.places, self._say)

    def turn_round(self) -> None:
        """The answer comes."""
        self.back = True
        self._hooks.turn_round()
        self._note_sizes()

    @property
    def judged(self) -> Packet | None:
        """The packet as policies were asked about it; None where none was."""
        return self._hooks.judged

    def send(self, stack: Stack, packet: Packet) -> Arrival:
        """A process of a stack sends. Raises StopError, NeededError, UnclearError."""
        route = self._route(stack, packet)
        link = self._link_of(stack, route)
        after = self._hooks.packet(OUTPUT, packet, Scene(stack, "", link.name))
        if (after.destination, after.mark) != (packet.destination, packet.mark):
            route = self._route(stack, after)
            link = self._link_of(stack, route)
        after = self._hooks.packet(POSTROUTING, after, Scene(stack, "", link.name))
        return self._leave(stack, route, after)

    def come_in(self, name: str, packet: Packet) -> Arrival:
        """It comes to the node from beyond, by an interface. Raises the same."""
        stack = self._world.stacks[NODE]
        link = next(link for link in stack.links if link.name == name)
        self._check_link(stack, link)
        self._say(name, f"comes in from {packet.source}")
        own = next((e.cidr.ip for e in stack.addresses if e.ifindex == link.ifindex and e.cidr.version == 6), None)
        if packet.version == 6 and own is not None:
            discover(self._hooks, Request(own, packet, None, Neighbour(stack, name)))
        return self._receive(stack, link, packet)

    def _say(self, where: str, what: str) -> None:
        self.steps.append(Step(where, what, self.back))

    def _pass(self, stack: Stack, link: Link) -> None:
        """Note the programs of an interface."""
        self.programs |= {
            f"{whose(stack)} {link.name} has {each}": None for each in stack.programs.get(link.ifindex, ())
        }

    def stack(self, owner: str) -> Stack:
        """The stack of an owner. Raises NeededError where it was not read yet."""
        if owner not in self._world.stacks:
            raise NeededError(owner)
        return self._world.stacks[owner]

    # --- routes

    def _route(self, stack: Stack, packet: Packet, incoming: str = "") -> Route:
        route = find_route(stack, packet.destination, packet.source, incoming=incoming, mark=packet.mark)
        if route.refuses:
            kind = "route-refuses" if has_route(route) else "no-route"
            raise StopError(kind, whose(stack), f"{describe(route, stack)} to {packet.destination}")
        if not route.local:
            self._say(f"{whose(stack)} route", describe(route, stack))
        return route

    def _link_of(self, stack: Stack, route: Route) -> Link:
        link = stack.at(route.ifindex) if not route.local else None
        if route.local:
            link = next((each for each in stack.links if each.name == _LOOPBACK), None)
        if link is None:
            raise StopError("no-interface", whose(stack), f"interface {route.ifindex} of the route is not there")
        return link

    def _check_link(self, stack: Stack, link: Link) -> None:
        if not link.up:
            raise StopError("link-down", whose(stack), f"{link.name} is down (ip link set {link.name} up)")
        if not link.running:
            raise StopError("no-carrier", whose(stack), f"{link.name} has no carrier: the other end is down")

    # --- out of a stack

    def _leave(self, stack: Stack, route: Route, packet: Packet) -> Arrival:
        link = self._link_of(stack, route)
        if route.local:
            if not link.up:
                raise StopError("link-down", whose(stack), "lo is down (ip link set lo up)")
            return self._receive(stack, link, packet)
        self._check_link(stack, link)
        self._pass(stack, link)
        self._sizes.append((f"{whose(stack)} {link.name}", link.mtu))
        next_hop = route.gw or packet.destination
        if stack.owner != NODE:
            place = self._segment.place_of(stack.owner, link)
            return self._enter(place, next_hop, packet._replace(source_mac=link.mac))
        if link.kind == "bridge":
            place = self._segment.holder(link, next_hop)
            self._segment.check_neighbour(stack, link, next_hop, self.stack(place.owner))
            self._segment.check_vlans(link, self._segment.check_port(place), link)
            discover(self._hooks, Request(next_hop, packet, Neighbour(stack, link.name), self._inside(place)))
            return self._deliver(place, packet)
        gateway = self._segment.gateway_of(link)
        if gateway is not None:
            return self._enter(gateway, next_hop, packet._replace(source_mac=link.mac))
        own = self._segment.at_port(link)
        if own is not None:
            return self._deliver(own, packet)
        self._segment.check_far(link, next_hop, packet.destination)
        discover(self._hooks, Request(next_hop, packet, Neighbour(stack, link.name), None))
        self._say(link.name, f"leaves the node{f' for {next_hop}' if route.gw else ''}")
        return Arrival(None, packet, link.name)

    def _deliver(self, place: Place, packet: Packet) -> Arrival:
        """To a pod, through its end of the pair."""
        stack = self.stack(place.owner)
        link = self._segment.inner(place, stack)
        self._say(place.host_name, f"to {place.name} {link.name}")
        return self._receive(stack, link, packet)

    def _inside(self, place: Place) -> Neighbour:
        return Neighbour(self.stack(place.owner), place.ifname)

    def _enter(self, place: Place, next_hop: IP, packet: Packet) -> Arrival:
        """From a pod, or by an interface of the node's own, by its port of a bridge."""
        node = self._world.stacks[NODE]
        port = self._segment.check_port(place)
        bridge = node.at(port.master)
        assert bridge is not None
        self._say(port.name, f"from {place.name}, port of {bridge.name}")
        self._pass(node, port)
        self._hooks.frame(PREROUTING, packet, Scene(node, port.name))
        gateway = self._segment.find_gateway(bridge, next_hop)
        if gateway is None and is_local(node, next_hop):
            self._segment.check_vlans(port, bridge, bridge)
            discover(self._hooks, Request(next_hop, packet, self._inside(place), Neighbour(node, bridge.name)))
            self._hooks.frame(INPUT, packet, Scene(node, port.name))
            return self._receive(node, bridge, packet, port)
        target = gateway or self._segment.holder(bridge, next_hop)
        self._segment.check_between(place, target)
        filtered = Neighbour(node, bridge.name) if self._is_filtered(packet.version) else None
        discover(self._hooks, Request(next_hop, packet, self._inside(place), self._inside(target), filtered))
        if filtered is None:
            return self._bridge(place, target, packet)
        after = self._hooks.packet(PREROUTING, packet, Scene(node, bridge.name))
        if after.destination != packet.destination:
            return self._routed(node, bridge, after, port)
        return self._filtered(place, target, bridge, after)

    def _is_filtered(self, version: int) -> bool:
        """Whether what is bridged passes the packet filter of IP."""
        name = "bridge/bridge-nf-call-iptables" if version == 4 else "bridge/bridge-nf-call-ip6tables"
        return self._world.stacks[NODE].number(name) == 1

    def _filtered(self, source: Place, target: Place, bridge: Link, packet: Packet) -> Arrival:
        """Within the bridge, through the hooks of IP."""
        node = self._world.stacks[NODE]
        packet = self._hooks.packet(FORWARD, packet, Scene(node, bridge.name, bridge.name))
        packet = self._hooks.packet(POSTROUTING, packet, Scene(node, bridge.name, bridge.name))
        return self._bridge(source, target, packet)

    def _bridge(self, source: Place, target: Place, packet: Packet) -> Arrival:
        node = self._world.stacks[NODE]
        scene = Scene(node, source.host_name, target.host_name)
        self._segment.check_between(source, target)
        self._segment.check_size(source, target)
        self._hooks.frame(FORWARD, packet, scene)
        self._hooks.frame(POSTROUTING, packet, Scene(node, "", target.host_name))
        return self._deliver(target, packet)

    # --- into a stack

    def _receive(self, stack: Stack, link: Link, packet: Packet, port: Link | None = None) -> Arrival:
        self._pass(stack, link)
        before = packet.destination
        packet = self._hooks.packet(PREROUTING, packet, Scene(stack, link.name))
        turned = port if packet.destination != before and self._is_filtered(packet.version) else None
        return self._routed(stack, link, packet, turned)

    def _routed(self, stack: Stack, link: Link, packet: Packet, port: Link | None) -> Arrival:
        """Behind the hook prerouting; with `port` the bridge may turn it round, its destination being another."""
        if link.name != _LOOPBACK:
            self._check_source(stack, link, packet)
        route = self._route(stack, packet, link.name)
        if route.local:
            packet = self._hooks.packet(INPUT, packet, Scene(stack, link.name))
            self._check_process(stack, packet)
            return Arrival(stack.owner, packet)
        self._check_forwarding(stack, link, packet.version)
        if port is not None and route.ifindex == link.ifindex:
            source = self._segment.at_port(port)
            target = self._segment.holder(link, route.gw or packet.destination)
            assert source is not None
            return self._filtered(source, target, link, packet)
        out = self._link_of(stack, route)
        packet = self._hooks.packet(FORWARD, packet, Scene(stack, link.name, out.name))
        packet = self._hooks.packet(POSTROUTING, packet, Scene(stack, link.name, out.name))
        return self._leave(stack, route, packet)

    def _check_forwarding(self, stack: Stack, link: Link, version: int) -> None:
        name = f"ipv4/conf/{link.name}/forwarding" if version == 4 else "ipv6/conf/all/forwarding"
        if not stack.number(name):
            key = "net." + name.replace("/", ".")
            raise StopError("forwarding-off", whose(stack), f"{key} is 0, so it is not forwarded")

    def _check_source(self, stack: Stack, link: Link, packet: Packet) -> None:
        """What the kernel asks of the source of what comes in."""
        if packet.version == 6:
            return
        if packet.source.value >> 24 == 127 or is_local(stack, packet.source):
            what = f"{packet.source} is the {whose(stack)}'s own address, and comes in by {link.name}"
            raise StopError("martian", whose(stack), what)
        if packet.destination.value >> 24 == 127 and not stack.number(f"ipv4/conf/{link.name}/route_localnet"):
            raise StopError("martian", whose(stack), f"{packet.destination} does not come in by {link.name}")
        names = [f"ipv4/conf/{name}/rp_filter" for name in ("all", link.name)]
        mode = max(stack.number(name) for name in names)
        back = find_route(stack, packet.source, packet.destination)
        if mode and (back.refuses or (mode == 1 and back.ifindex != link.ifindex)):
            way = stack.at(back.ifindex)
            where = "nowhere" if back.refuses or way is None else f"by {way.name}"
            what = f"{packet.source} comes in by {link.name}, and leads {where} (rp_filter {mode})"
            raise StopError("reverse-path", whose(stack), what)

    def _check_process(self, stack: Stack, packet: Packet) -> None:
        """Whether somebody answers at its destination."""
        self._say(whose(stack), f"{packet.destination} is here")
        if packet.answer:
            return
        if is_echo(packet.protocol):
            name = "ipv4/icmp_echo_ignore_all" if packet.version == 4 else "ipv6/icmp/echo_ignore_all"
            if stack.number(name):
                raise StopError("no-answer", whose(stack), f"net.{name.replace('/', '.')} is 1")
            return
        name = PROTOCOL_NAMES.get(packet.protocol, "")
        loopback = packet.destination.version == 4 and packet.destination.value >> 24 == 127
        if name in ("tcp", "udp") and not loopback and (name, packet.port) not in stack.listening:
            raise StopError("no-listener", whose(stack), f"no process waits at {name} port {packet.port}")

    def _note_sizes(self) -> None:
        """What is larger than one of the interfaces on the way takes."""
        if self._sizes:
            where, least = min(self._sizes, key=lambda each: each[1])
            if least < self._sizes[0][1]:
                self.notes[f"packets of more than {least} bytes do not pass {where} whole"] = None
