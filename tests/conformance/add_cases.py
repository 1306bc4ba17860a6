"""ADD: the interface, and the result in the shape of every version."""

from typing import Any

from tests.conformance.registry import ALL, BRIDGE, EACH, IPAM, WITH_INTERFACES, case, expect, expect_equal
from tests.conformance.world import Config, World, addresses_of, plain_result, refuse, succeed
from tests.kit.host import wait_until

ONLY_BRIDGE = frozenset({BRIDGE})
_SIDE_MAC = "02:00:00:00:77:01"
_DUAL = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]


@case(15, "The interface is in the container, under the requested name.", needs=ONLY_BRIDGE)
def interface(w: World) -> None:
    w.container()
    for ifname in ("eth0", "fifteen-chars.x", "net_1"):
        w.add(w.layer2_config(), ifname=ifname)
        expect(w.link(ifname, "cnt-1") is not None, f"an interface {ifname}", w.host.link_names("cnt-1"))
        # the kernel finds out a little after ADD that the other end is up, too
        up = wait_until(lambda name=ifname: w.link(name, "cnt-1")["operstate"] != "DOWN")
        expect(up, f"{ifname} is up", w.link(ifname, "cnt-1")["operstate"])


@case(16, "The result is on stdout, and says what the kernel has.", versions=ALL)
def result_on_stdout(w: World) -> None:
    result = w.add(w.config(ipam=w.ipam_config(ranges=_DUAL)))
    expect_equal(sorted(addresses_of(result)), sorted(w.host.addresses("eth0", "cnt-1")), "addresses of the result")


@case(17, "A prevResult that is given is passed on, extended.", needs=ONLY_BRIDGE, versions=WITH_INTERFACES)
def previous_result_is_passed_on(w: World) -> None:
    w.stub()
    before = previous_result(w)
    result = w.add({**w.stub_config(), "prevResult": before})
    names = [entry["name"] for entry in result.get("interfaces", [])]
    expect("side0" in names and "eth0" in names, "interfaces side0 (of prevResult) and eth0 in the result", names)
    addresses = {entry["address"]: names[entry["interface"]] for entry in result["ips"]}
    wanted = {"192.168.77.2/24": "side0", "10.1.0.9/24": "eth0"}
    expect_equal(addresses, wanted, "addresses of the result, each on its interface")
    routes = [route["dst"] for route in result.get("routes", [])]
    expect("192.168.78.0/24" in routes, "the route of prevResult in the result", routes)


@case(
    18,
    "What a plugin does not change of prevResult comes out as an equivalent.",
    needs=ONLY_BRIDGE,
    versions=WITH_INTERFACES,
)
def previous_result_is_kept(w: World) -> None:
    before = previous_result(w)
    result = w.add({**w.layer2_config(), "prevResult": before})
    for key in ("ips", "routes", "dns"):
        expect_equal(result.get(key), before[key], f"{key} of the result of a plugin that sets none")
    wanted = before["interfaces"][0]
    expect(wanted in result.get("interfaces", []), f"interface {wanted} in the result", result.get("interfaces"))


@case(19, "An existing interface of that name is an error, and it is untouched.")
def interface_exists(w: World) -> None:
    w.container()
    w.host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", container="cnt-1")
    w.host.run("ip", "address", "add", "192.168.77.2/24", "dev", "eth0", container="cnt-1")
    before = w.host.ip("address", container="cnt-1")
    refuse(w.call("ADD", w.config()), "ADD on an interface that is there")
    expect_equal(w.host.ip("address", container="cnt-1"), before, "interfaces of the container")
    expect_equal(w.mentions("cnt-1"), [], "reservations of the refused container")
    expect_equal(w.interfaces(), [], "interfaces on the host")


@case(20, "CNI_ARGS and CNI_PATH are optional where no other plugin has to be found.", needs=EACH)
def optional_variables(w: World) -> None:
    w.container()
    without: dict[str, str | None] = {"CNI_ARGS": None, "CNI_PATH": None}
    for role in w.pair.roles():
        config = w.layer2_config() if role == BRIDGE else w.config()
        for command in ("ADD", "DEL"):
            succeed(w.call(command, config, role=role, env=without), f"{role}: {command} without CNI_ARGS and CNI_PATH")


@case(21, "The result has the input's version, and the shape of that version.", needs=EACH, versions=ALL, demanded=True)
def result_shape(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        config = w.config_for(role)
        if w.pair.ipam:
            config["ipam"] = w.ipam_config(ranges=_DUAL)
        result = succeed(w.call("ADD", config, role=role, name="cnt-1"), f"{role}: ADD").document
        _judge_shape(w, role, result)
        succeed(w.call("DEL", config, role=role), f"{role}: DEL")


def _judge_shape(w: World, role: str, result: Config) -> None:
    expect_equal(result.get("cniVersion"), w.version, f"{role}: cniVersion of the result")
    if w.version not in WITH_INTERFACES:
        expect(not {"ips", "interfaces"} & set(result), f"{role}: no keys of later versions", sorted(result))
        if w.pair.ipam:
            for key, start in (("ip4", "10.1.0."), ("ip6", "fd00:1::")):
                expect(str(result.get(key, {}).get("ip")).startswith(start), f"{role}: {key}.ip {start}…", result)
        return
    expect(not {"ip4", "ip6"} & set(result), f"{role}: no keys of older versions", sorted(result))
    expect(role == IPAM or bool(result.get("interfaces")), f"{role}: interfaces", sorted(result))
    if w.pair.ipam:
        families = [entry.get("version") for entry in result.get("ips", [])]
        wanted = [None, None] if w.version in ("1.0.0", "1.1.0") else ["4", "6"]
        expect_equal(families, wanted, f"{role}: ips[].version (until 0.4.0)")


@case(
    22,
    "`interfaces` lists all that was created, with mac and (from 1.1.0 on) mtu.",
    needs=ONLY_BRIDGE,
    versions=WITH_INTERFACES,
    demanded=True,
)
def all_interfaces(w: World) -> None:
    result = w.add(w.layer2_config(mtu=1400))
    listed = {(entry["name"], bool(entry.get("sandbox"))): entry for entry in result.get("interfaces", [])}
    there = [(link, False) for link in w.host.ip("link") if link["ifname"] != "lo"]
    there += [(link, True) for link in w.host.ip("link", container="cnt-1") if link["ifname"] != "lo"]
    for link, inside in there:
        entry = listed.get((link["ifname"], inside), {})
        where = "in the container" if inside else "on the host"
        expect_equal(entry.get("mac"), link["address"], f"mac of {link['ifname']} {where} in the result")
        if w.version == "1.1.0":
            expect_equal(entry.get("mtu"), link["mtu"], f"mtu of {link['ifname']} {where} in the result")
    expect_equal(len(listed), len(there), "number of interfaces in the result")


@case(
    23,
    "`sandbox` is CNI_NETNS for the container's interface, and empty for the host's.",
    needs=ONLY_BRIDGE,
    versions=WITH_INTERFACES,
)
def sandbox(w: World) -> None:
    w.container()
    for netns in ("/run/netns/cnt-1", "/run/netns/../netns/cnt-1"):
        outcome = succeed(w.call("ADD", w.layer2_config(), env={"CNI_NETNS": netns}), "ADD")
        seen = {entry["name"]: entry.get("sandbox", "") for entry in outcome.document["interfaces"]}
        expect_equal(seen.pop("eth0", None), netns, "sandbox of eth0")
        expect(not any(seen.values()), "no sandbox for interfaces of the host", seen)
        w.delete(w.layer2_config())


@case(24, "`ips` are in CIDR form, with a valid index of the interface.", versions=WITH_INTERFACES)
def ips(w: World) -> None:
    result = w.add(w.config(ipam=w.ipam_config(ranges=_DUAL)))
    expect_equal(len(result.get("ips", [])), 2, "number of addresses")
    for entry in result["ips"]:
        prefix = entry["address"].partition("/")[2]
        expect_equal(prefix, "64" if ":" in entry["address"] else "24", f"prefix length of {entry['address']}")
        index = entry.get("interface")
        interfaces = result["interfaces"]
        expect(isinstance(index, int) and 0 <= index < len(interfaces), "an index into interfaces", index)
        expect_equal(interfaces[index]["name"], "eth0", f"the interface of {entry['address']}")


@case(
    25,
    "The routes listed exist as listed, from 1.1.0 on with mtu, advmss, priority, table, scope.",
    versions=("0.2.0", "0.4.0", "1.0.0", "1.1.0"),
    demanded=True,
)
def routes(w: World) -> None:
    wanted: list[Config] = [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.250"}]
    if w.version == "1.1.0":
        wanted += [
            {"dst": "10.10.0.0/16", "gw": "10.1.0.1", "mtu": 1300, "advmss": 1200, "priority": 77, "table": 200},
            {"dst": "10.11.0.0/16", "scope": 253},
        ]
    result = w.add(w.config(ipam=w.ipam_config(routes=wanted)))
    listed = result["ip4"].get("routes", []) if w.version == "0.2.0" else result.get("routes", [])
    for route in wanted:
        expect(route in listed, f"route {route} in the result", listed)
    there = [_route_of(entry) for entry in w.host.ip("-N", "route", "show", "table", "all", container="cnt-1")]
    for route in listed:
        matching = [entry for entry in there if all(entry.get(key) == value for key, value in route.items())]
        expect(bool(matching), f"route {route} in the kernel", [e for e in there if e["dst"] == route["dst"]])


def _route_of(entry: Any) -> Config:
    """A route of `ip -j -N` with the keys of a result."""
    metrics = entry["metrics"][0] if entry.get("metrics") else {}
    dst = entry["dst"] if entry["dst"] != "default" else "0.0.0.0/0"
    return {
        "dst": dst if "/" in dst else f"{dst}/32",
        "gw": entry.get("gateway"),
        "mtu": metrics.get("mtu"),
        "advmss": metrics.get("advmss"),
        "priority": entry.get("metric"),
        "table": int(entry.get("table", 254)),
        "scope": int(entry.get("scope", 0)),
    }


@case(26, "`dns` has nameservers, domain, search and options.", needs=ONLY_BRIDGE, versions=ALL)
def dns(w: World) -> None:
    stub = w.stub()
    given = {"nameservers": ["10.1.0.53"], "domain": "example.org", "search": ["example.org"], "options": ["ndots:5"]}
    if w.version in WITH_INTERFACES:
        answer = {**plain_result(w.version, "10.1.0.9/24"), "dns": given}
    else:
        answer = {"cniVersion": w.version, "ip4": {"ip": "10.1.0.9/24"}, "dns": given}
    stub.answer("ADD", answer)
    expect_equal(w.add(w.stub_config()).get("dns"), given, "dns that the IPAM plugin gave")
    other = {"nameservers": ["10.1.0.54"], "domain": "example.net", "search": ["example.net"], "options": ["rotate"]}
    w.delete(w.stub_config())
    expect_equal(w.add(w.stub_config(dns=other)).get("dns"), other, "dns of the configuration")


def previous_result(w: World) -> Config:
    """What a plugin earlier in the chain made: the interface side0 in the container."""
    netns = w.container()
    w.host.run("ip", "link", "add", "side0", "type", "veth", "peer", "name", "side1", container="cnt-1")
    for name in ("side0", "side1"):  # without what the kernel would still change a second later
        w.host.run("ip", "link", "set", name, "addrgenmode", "none", container="cnt-1")
    w.host.run("ip", "link", "set", "side0", "address", _SIDE_MAC, "up", container="cnt-1")
    w.host.run("ip", "link", "set", "side1", "up", container="cnt-1")
    up = wait_until(lambda: w.link("side0", "cnt-1")["operstate"] == "UP")
    expect(up, "side0 is up", w.link("side0", "cnt-1")["operstate"])
    w.host.run("ip", "address", "add", "192.168.77.2/24", "dev", "side0", container="cnt-1")
    w.host.run("ip", "route", "add", "192.168.78.0/24", "via", "192.168.77.1", container="cnt-1")
    family = {} if w.version in ("1.0.0", "1.1.0") else {"version": "4"}
    return {
        "cniVersion": w.version,
        "interfaces": [{"name": "side0", "mac": _SIDE_MAC, "sandbox": netns}],
        "ips": [{**family, "interface": 0, "address": "192.168.77.2/24", "gateway": "192.168.77.1"}],
        "routes": [{"dst": "192.168.78.0/24", "gw": "192.168.77.1"}],
        "dns": {"nameservers": ["192.168.77.53"]},
    }
