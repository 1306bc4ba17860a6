"""CHECK: finds what is broken, and only that."""

from tests.conformance.registry import BRIDGE, IPAM, WITH_CHECK, case, expect
from tests.conformance.world import NETWORK_BRIDGE, World, refuse, succeed

ONLY_BRIDGE = frozenset({BRIDGE})


@case(33, "CHECK judges against prevResult: a different address or interface is an error.", versions=WITH_CHECK)
def against_previous_result(w: World) -> None:
    config = w.config()
    result = w.add(config)
    succeed(w.check(config, result), "CHECK with the result of ADD", silent=True)
    other = {**result, "ips": [{**result["ips"][0], "address": "10.1.0.77/24"}]}
    refuse(w.check(config, other), "CHECK with another address in prevResult")
    interfaces = [{**entry, "name": "net7"} if entry.get("sandbox") else entry for entry in result["interfaces"]]
    refuse(w.check(config, {**result, "interfaces": interfaces}), "CHECK with another interface in prevResult")


@case(34, "What a later plugin of the chain may change (routes, addresses, the MAC) is no error.")
def later_changes(w: World) -> None:
    config = w.config()
    result = w.add(config)
    for what, command in (
        ("a further route", ("ip", "route", "add", "10.99.0.0/16", "via", "10.1.0.1")),
        ("a route in another table", ("ip", "route", "add", "10.98.0.0/16", "via", "10.1.0.1", "table", "99")),
        ("a further address", ("ip", "address", "add", "10.1.0.200/24", "dev", "eth0")),
        ("another MAC", ("ip", "link", "set", "eth0", "address", "02:00:00:00:99:01")),
    ):
        w.host.run(*command, container="cnt-1")
        succeed(w.check(config, result), f"CHECK after a later plugin set {what}", silent=True)


@case(35, "A missing interface, host end, address or route is an error.")
def missing_parts(w: World) -> None:
    config = w.config()
    breakages = {
        "the interface": ["ip link delete eth0"],
        "the address": ["ip address flush dev eth0 scope global"],
        "the route": ["ip route delete default"],
        "the host end": [
            "ip link delete eth0",
            "ip link add eth0 address {mac} type veth peer name elsewhere",
            "ip link set eth0 up",
            "ip link set elsewhere up",
            "ip address add {address} dev eth0",
            "ip route add default via 10.1.0.1",
        ],
    }
    for number, (what, commands) in enumerate(breakages.items()):
        name = f"cnt-{number}"
        result = w.add(config, name)
        mac = next(entry["mac"] for entry in result["interfaces"] if entry.get("sandbox"))
        succeed(w.check(config, result, name), "CHECK right after ADD", silent=True)
        for command in commands:
            text = command.format(mac=mac, address=result["ips"][0]["address"])
            w.host.run(*text.split(), container=name)
        refuse(w.check(config, result, name), f"CHECK without {what}")


@case(36, "A missing NAT or filter rule, or a missing reservation, is an error.")
def missing_rules(w: World) -> None:
    empty = w.rules()
    for number, key in enumerate(("ipMasq", "macspoofchk")):
        config, name = w.config(name=key, **{key: True}), f"cnt-{number}"
        result = w.add(config, name)
        if w.rules() == empty and key != "ipMasq":
            continue  # a plugin that does not know the key
        w.host.run("nft", "flush", "ruleset")
        refuse(w.check(config, result, name), f"CHECK after the rules of {key} were flushed")
    config = w.config()
    result = w.add(config, "cnt-9")
    succeed(w.call("DEL", config, role=IPAM, name="cnt-9"), "DEL of the IPAM plugin alone")
    refuse(w.check(config, result, "cnt-9"), "CHECK without a reservation")


@case(37, "A container that is known to be unreachable (link, host end or bridge down, port detached) is an error.")
def unreachable(w: World) -> None:
    config = w.config(ipam=w.ipam_config(routes=[]))
    results = {name: w.add(config, name) for name in ("cnt-0", "cnt-1", "cnt-2", "cnt-3")}
    ends = {name: w.host_end(name) for name in results}
    for name, what, command in (
        ("cnt-0", "its port detached from the bridge", ("ip", "link", "set", ends["cnt-0"], "nomaster")),
        ("cnt-1", "its host end down", ("ip", "link", "set", ends["cnt-1"], "down")),
        ("cnt-2", "its interface down", ("ip", "-n", "cnt-2", "link", "set", "eth0", "down")),
        ("cnt-3", "the bridge down", ("ip", "link", "set", NETWORK_BRIDGE, "down")),
    ):
        w.host.run(*command)
        refuse(w.check(config, results[name], name), f"CHECK of a container with {what}")


@case(38, "CHECK right after ADD passes, with duplicate address detection on.", versions=WITH_CHECK)
def right_after_add(w: World) -> None:
    ranges = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    config = w.config(enabledad=True, ipMasq=True, ipam=w.ipam_config(ranges=ranges, routes=routes))
    result = w.add(config)
    succeed(w.check(config, result), "CHECK right after ADD", silent=True)


@case(39, "The IPAM plugin's CHECK is run and its error passed on; networks of layer 2 only pass.", needs=ONLY_BRIDGE)
def ipam_check(w: World) -> None:
    stub = w.stub()
    result = w.add(w.stub_config())
    succeed(w.check(w.stub_config(), result), "CHECK", silent=True)
    expect("CHECK" in stub.calls, "the IPAM plugin's CHECK is run", stub.calls)
    msg = stub.fail("CHECK", w.version)
    refuse(w.check(w.stub_config(), result), "CHECK when that of the IPAM plugin fails", naming=[msg])
    result = w.add(w.layer2_config(name="flat"), "cnt-2")
    succeed(w.check(w.layer2_config(name="flat"), result, "cnt-2"), "CHECK of a layer 2 network", silent=True)
