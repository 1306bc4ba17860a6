"""What stands between the nodes: links, a router, and hosts that are no part of the cluster.

All of it is in the namespaces of one throw-away host, so the machine's network is not touched. A link is a bridge
there; a router or another host is a network namespace on it. Nobody in here knows a route to the pods.
"""

import json
import subprocess
from hashlib import sha256
from typing import Any, NamedTuple

from tests.kit.host import RUN_BOUND, Host, open_host


class Port(NamedTuple):
    """Where a machine is plugged in."""

    link: str
    addresses: tuple[str, ...]  # with prefix lengths
    gateways: tuple[str, ...] = ()  # of default routes


class Machine(NamedTuple):
    """A network namespace with addresses: a node, a pod, or something outside of the cluster."""

    name: str
    netns: str  # a path
    addresses: tuple[str, ...]  # without prefix lengths

    def address(self, version: int) -> str:
        """Its address of an IP version."""
        (found,) = [address for address in self.addresses if version_of(address) == version]
        return found


class Fabric:
    """The links and what is on them. Close it after the nodes."""

    def __init__(self, lifetime: str = "3600") -> None:
        self.host: Host = open_host(lifetime)
        self.links: dict[str, dict[str, tuple[str, ...]]] = {}  # what is on each: names, and their addresses there

    def netns_of(self, name: str) -> str:
        """The network namespace of a router or an outside host."""
        return f"/proc/{self.host.pid}/root/run/netns/{name}"

    def add_machine(self, name: str, *ports: Port, forwards: bool = False) -> Machine:
        """Have a host that is no node, on one or several links."""
        self.host.add_container(name)
        netns = self.netns_of(name)
        for index, port in enumerate(ports):
            self.plug(name, netns, port, ifname=f"eth{index}")
        if forwards:
            for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                run_in(netns, "sysctl", "-qw", f"{key}=1")
        return Machine(name, netns, bare(address for port in ports for address in port.addresses))

    def plug(self, name: str, netns: str, port: Port, ifname: str = "eth0") -> None:
        """Connect a network namespace to a link; the link is made with its first user."""
        if port.link not in self.links:
            self.links[port.link] = {}
            self.host.run("ip", "link", "add", port.link, "type", "bridge")
            self.host.run("ip", "link", "set", port.link, "up")
        self.links[port.link][name] = port.addresses
        socket = socket_of(name, ifname)
        # A machine keeps its network card over a reboot, and its neighbours what they know of it.
        card = "02:" + sha256(f"{name} {ifname}".encode()).digest()[:5].hex(":")
        other_end = ("peer", "name", ifname, "address", card, "netns", netns)
        self.host.run("ip", "link", "add", socket, "master", port.link, "type", "veth", *other_end)
        self.host.run("ip", "link", "set", socket, "up")
        run_in(netns, "ip", "link", "set", ifname, "up")
        for address in port.addresses:
            # The kernel would try a new IPv6 address for two seconds before it may be used.
            options = ("nodad",) if ":" in address else ()
            run_in(netns, "ip", "address", "add", address, "dev", ifname, *options)
        for gateway in port.gateways:
            run_in(netns, "ip", f"-{version_of(gateway)}", "route", "add", "default", "via", gateway)

    def unplug(self, name: str, ifname: str = "eth0") -> None:
        """Take a machine off its link."""
        self.host.run("ip", "link", "delete", socket_of(name, ifname), check=False)  # it may not have got that far
        for link in self.links.values():
            link.pop(name, None)

    def close(self) -> None:
        """Let everything go."""
        self.host.close()


def socket_of(name: str, ifname: str) -> str:
    """The link's end of a machine's interface; names have 15 characters, and their ends tell the machines apart."""
    return f"{name[-10:]}-{ifname}"


def run_in(netns: str, *command: str, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program of this machine in a network namespace."""
    argv = ("/usr/bin/nsenter", f"--net={netns}", "--", *command)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_BOUND, check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} failed ({done.returncode}): {done.stdout}{done.stderr}")
    return done


def ip_in(netns: str, *arguments: str) -> Any:
    """What `ip -j` says in a network namespace."""
    return json.loads(run_in(netns, "ip", "-j", "-d", *arguments).stdout or "[]")


def version_of(address: str) -> int:
    """The IP version of an address or a range."""
    return 6 if ":" in address else 4


def bare(addresses: Any) -> tuple[str, ...]:
    """Addresses without their prefix lengths."""
    return tuple(address.partition("/")[0] for address in addresses)
