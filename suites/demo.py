"""The body of scripts/demo: two containers, an outside host, pings, a picture. usage: demo BIN_DIR CONFLIST."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from suites import sandbox
from suites.sandbox import ip, run

CONTAINERS = ("c1", "c2")
OUTSIDE = "outside"
HOST_ADDRESS, OUTSIDE_ADDRESS = "192.0.2.1", "192.0.2.2"  # RFC 5737, for documentation
PORT = 8080
WIDTH = 80

# Tells everybody who connects the address that the connection came from.
SERVER = """
import socket
with socket.create_server(("", {port})) as server:
    server.settimeout(60)
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        with connection:
            connection.sendall(peer[0].encode() + b"\\n")
"""


class Report:
    """What the demo prints, and whether all was as it should be. Colours only on a terminal."""

    def __init__(self) -> None:
        self.failures = 0
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def heading(self, text: str) -> None:
        """What comes now."""
        print(f"\n{self._paint('1', text)}", flush=True)

    def shell(self, text: str) -> None:
        """Text as a program gave it."""
        print(textwrap.indent(text.rstrip().expandtabs(4), "    "), flush=True)

    def check(self, text: str, good: object, why: object = "") -> None:
        """One line about something that must be so."""
        mark = self._paint("32", "ok  ") if good else self._paint("31", "FAIL")
        print(f"  {mark}  {text}" + (f"\n        {why}" if why and not good else ""), flush=True)
        self.failures += not good

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def main() -> int:
    """Run the demo. Returns the exit status."""
    bin_dir, conflist = sys.argv[1:]
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a locale without line drawing
    config = dict(sandbox.plugin_configs(json.loads(Path(conflist).read_text("utf-8")))[0])
    report = Report()
    sandbox.set_up()
    report.heading("A host of its own, an outside host behind it, two containers without a network")
    server = make_surroundings()
    try:
        report.check(f"host {HOST_ADDRESS} reaches outside {OUTSIDE_ADDRESS}", pings(OUTSIDE_ADDRESS))
        results = add_all(report, config, bin_dir, conflist)
        if report.failures == 0:
            report.heading("What now stands, as `ip -j` and `nft -j` tell it")
            print(draw(config["bridge"]))
            report.heading("The NAT rules, all in a table of their own")
            report.shell(run("nft", "list", "ruleset"))
            report.heading("Who reaches whom")
            ping_all(report, {name: result["ips"][0] for name, result in results.items()})
            report.heading("CHECK: is all as ADD left it?")
            for name, result in results.items():
                reply = sandbox.call_plugin("CHECK", {**config, "prevResult": result}, bin_dir, name)
                report.check(f"CHECK {name}", reply.status == 0 and reply.document is None, reply.document)
        delete_all(report, config, bin_dir, results)
    finally:
        server.kill()
        server.wait()
    print(f"\n{report.failures} of the lines above say FAIL" if report.failures else "\nAll is as it should be.")
    return 1 if report.failures else 0


def make_surroundings() -> "subprocess.Popen[str]":
    """The outside host with its server, a link from the host to it, and the containers. Returns the server."""
    for name in (OUTSIDE, *CONTAINERS):
        sandbox.add_container(name)
    run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", OUTSIDE)
    for name, address, inside in (("uplink", HOST_ADDRESS, ""), ("eth0", OUTSIDE_ADDRESS, OUTSIDE)):
        run("ip", "address", "add", f"{address}/24", "dev", name, inside=inside)
        run("ip", "link", "set", name, "up", inside=inside)
    command = sandbox.argv(sys.executable, "-I", "-c", SERVER.format(port=PORT), inside=OUTSIDE)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if server.stdout is None or server.stdout.readline() != "ready\n":
        raise RuntimeError("the outside host's server does not start")
    return server


def add_all(report: Report, config: dict[str, Any], bin_dir: str, conflist: str) -> dict[str, Any]:
    """ADD for every container. Returns the results by container."""
    results = {}
    for name in CONTAINERS:
        report.heading(f"ADD {name}, with {conflist}")
        reply = sandbox.call_plugin("ADD", config, bin_dir, name)
        report.shell(json.dumps(reply.document, indent=2))
        report.check(f"ADD {name}", reply.status == 0)
        if reply.status == 0:
            results[name] = reply.document
    return results


def pings(address: str, inside: str = "") -> bool:
    """Whether an address answers."""
    return sandbox.attempt("busybox", "ping", "-c", "1", "-W", "2", address, inside=inside).returncode == 0


def ping_all(report: Report, attached: dict[str, Any]) -> None:
    """Every direction: between the containers, host to containers and back, and out through NAT."""
    addresses = {name: entry["address"].split("/")[0] for name, entry in attached.items()}
    for name, entry in attached.items():
        for other, address in addresses.items():
            if other != name:
                report.check(f"{name} -> {other:8} {address}", pings(address, name))
        report.check(f"{name} -> gateway  {entry['gateway']}", pings(entry["gateway"], name))
        report.check(f"{name} -> outside  {OUTSIDE_ADDRESS}", pings(OUTSIDE_ADDRESS, name))
        seen = sandbox.attempt("busybox", "nc", "-w", "5", OUTSIDE_ADDRESS, str(PORT), inside=name).stdout.strip()
        text = f"{name} -> outside  {OUTSIDE_ADDRESS}, TCP: the outside saw {seen or 'nothing'}, the host's address"
        report.check(text, seen == HOST_ADDRESS, "NAT should have put the host's address there")
        report.check(f"host -> {name}     {addresses[name]}", pings(addresses[name]))


def delete_all(report: Report, config: dict[str, Any], bin_dir: str, results: dict[str, Any]) -> None:
    """DEL for every container, and a look at what is left."""
    report.heading("DEL, and what is left")
    for name in CONTAINERS:
        previous = {"prevResult": results[name]} if name in results else {}
        reply = sandbox.call_plugin("DEL", {**config, **previous}, bin_dir, name)
        report.check(f"DEL {name}", reply.status == 0 and reply.document is None, reply.document)
    for name in CONTAINERS:
        left = names(name)
        report.check(f"{name} has no interface but its loopback", left == ["lo"], left)
    left = names("")
    wanted = ["lo", "uplink", config["bridge"]]
    report.check(f"the host has none but its own and the empty bridge {config['bridge']}", left == wanted, left)
    rules = run("nft", "list", "ruleset")
    report.check("nftables is empty", not rules.strip(), rules)
    directory = Path("/var/lib/cni/networks", config["name"])
    reserved = [entry.name for entry in directory.iterdir() if is_address(entry.name)] if directory.is_dir() else []
    report.check(f"no address is reserved in {directory}", not reserved, reserved)


def names(inside: str) -> list[str]:
    """The interfaces of the host or of a namespace."""
    return [link["ifname"] for link in ip("link", inside=inside)]


def is_address(name: str) -> bool:
    """Whether a file name is that of a reservation."""
    with suppress(OSError):
        return bool(socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name))
    return False


def draw(bridge: str) -> str:
    """The picture: the outside host, the host with its bridge, the containers at the bridge's ports."""
    links = {link["ifname"]: link for link in ip("address")}
    ports = [link for link in links.values() if link.get("master") == bridge]
    inner = {name: [link for link in ip("address", inside=name) if link["ifname"] != "lo"] for name in CONTAINERS}
    host = [*interface(links["uplink"]), "", *interface(links[bridge], "bridge")]
    for link in ports:
        leads_to = [f"eth0 in {name}" for name, found in inner.items() if any(is_pair(link, other) for other in found)]
        state = link["linkinfo"]["info_slave_data"]["state"]
        host.append(f"   └─ {link['ifname']}  {link['address']}  {state}, leads to {''.join(leads_to) or 'nowhere'}")
    host += ["", *routes(""), "", "NAT for", *(f"   {address}" for address in masqueraded())]
    outside = [line for link in ip("address", inside=OUTSIDE) if link["ifname"] != "lo" for line in interface(link)]
    half = (WIDTH - 2) // 2
    boxes = [
        box(f"container {name}", [*(line for link in found for line in interface(link)), *routes(name)], half)
        for name, found in inner.items()
    ]
    down = "│".rjust(half // 2 + 1)
    return "\n".join(
        [
            *box("outside", [*outside, *routes(OUTSIDE)], half),
            f"{down}  a link",
            *box("host", host, WIDTH),
            f"{down.ljust(half + 2)}{down}  a veth pair each",
            *(f"{left}  {right}" for left, right in zip_longest(*boxes, fillvalue=" " * half)),
        ]
    )


def is_pair(port: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two interfaces are the ends of a veth pair: each names the other's index."""
    return (port.get("link_index"), port["ifindex"]) == (other["ifindex"], other.get("link_index"))


def interface(link: dict[str, Any], kind: str = "") -> list[str]:
    """An interface in words: name, MAC, state, MTU, and its addresses (without those of the link's scope)."""
    addresses = [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link"]
    state = "up" if "UP" in link["flags"] else "down"
    name = f"{link['ifname']} ({kind})" if kind else link["ifname"]
    return [f"{name}  {', '.join(addresses)}", f"   {link['address']}  {state}, mtu {link['mtu']}"]


def routes(inside: str) -> list[str]:
    """The IPv4 routes of the host or of a namespace in words."""
    lines = ["routes"]
    for route in ip("-4", "route", inside=inside):
        via = f"via {route['gateway']} " if "gateway" in route else ""
        lines.append(f"   {route['dst']} {via}dev {route['dev']}")
    return lines


def masqueraded() -> list[str]:
    """The source addresses that get the host's address on their way out: the keys of the verdict maps."""
    objects = json.loads(run("nft", "-j", "list", "ruleset"))["nftables"]
    elements = [pair for entry in objects if "map" in entry for pair in entry["map"].get("elem", [])]
    keys = [key["elem"]["val"] if isinstance(key, dict) else key for key, _ in elements]
    return [str(key) for key in keys]


def box(title: str, lines: list[str], width: int) -> list[str]:
    """Lines with a frame around them; long ones are wrapped."""
    wrapped = [part for line in lines for part in wrap(line, width - 4)]
    return [
        f"┌─ {title} ".ljust(width - 1, "─") + "┐",
        *(f"│ {line.ljust(width - 4)} │" for line in wrapped),
        "└" + "─" * (width - 2) + "┘",
    ]


def wrap(line: str, width: int) -> list[str]:
    """A line in pieces that fit, the later ones indented deeper than the first."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


if __name__ == "__main__":
    raise SystemExit(main())
