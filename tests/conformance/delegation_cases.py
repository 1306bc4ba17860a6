"""The IPAM plugin: how it is found and called, and what becomes of its answers."""

import json

from tests.conformance.registry import (
    ALL,
    BRIDGE,
    IPAM,
    WITH_CHECK,
    WITH_INTERFACES,
    WITH_STATUS_AND_GC,
    case,
    expect,
    expect_equal,
)
from tests.conformance.world import World, addresses_of, refuse, succeed

ONLY_BRIDGE, ONLY_IPAM = frozenset({BRIDGE}), frozenset({IPAM})


@case(54, "IPAM results carry address, gateway and routes.", needs=ONLY_IPAM, versions=ALL)
def ipam_result(w: World) -> None:
    w.container()
    result = succeed(w.call("ADD", w.config(), role=IPAM), "ADD").document
    expect_equal(result.get("cniVersion"), w.version, "cniVersion of the result")
    expect_equal(addresses_of(result), ["10.1.0.2/24"], "addresses of the result")
    place = result["ips"][0] if w.version in WITH_INTERFACES else result["ip4"]
    expect_equal(place.get("gateway"), "10.1.0.1", "gateway")
    routes = result.get("routes") if w.version in WITH_INTERFACES else place.get("routes")
    expect(routes is not None and [route["dst"] for route in routes] == ["0.0.0.0/0"], "the default route", routes)


@case(55, "The IPAM plugin gets the same variables.", needs=ONLY_BRIDGE)
def same_variables(w: World) -> None:
    stub = w.stub()
    w.container()
    arguments = "IgnoreUnknown=1;K8S_POD_NAME=one"
    for command in ("ADD", "DEL"):
        succeed(w.call(command, w.stub_config(), env={"CNI_ARGS": arguments}), command)
        given = {key: value for key, value in w.variables(command).items() if key.startswith("CNI_")}
        expect_equal(stub.variables(command), {**given, "CNI_ARGS": arguments}, f"variables of {command}")


@case(56, "The IPAM plugin gets the same stdin, byte for byte.", needs=ONLY_BRIDGE)
def same_stdin(w: World) -> None:
    stub = w.stub()
    w.container()
    text = json.dumps({**w.stub_config(), "unknown": {"ä": [1.0, 1e3]}}, ensure_ascii=False, indent=3)
    stdin = f"\n {text.replace('1000.0', '1e3')}\t\n\n".encode()
    for command in ("ADD", "DEL"):
        succeed(w.call(command, stdin), command)
        expect(stub.stdin(command) == stdin, f"stdin of {command} as it came in", stub.stdin(command))


@case(57, "CNI_PATH is searched in order, across its directories.", needs=ONLY_BRIDGE)
def search_path(w: World) -> None:
    first, second = w.stub("first"), w.stub("second", "10.1.0.10/24")
    path = ["/not-there", str(w.scratch), str(first.directory), str(second.directory)]
    w.container()
    succeed(w.call("ADD", w.stub_config(), env={"CNI_PATH": ":".join(path)}), "ADD")
    expect_equal((first.calls, second.calls), (["ADD"], []), "calls of the first and of the second plugin")
    (first.directory / "stand-in").unlink()
    succeed(w.call("DEL", w.stub_config(), env={"CNI_PATH": ":".join(path)}), "DEL")
    expect_equal(second.calls, ["DEL"], "calls of the second plugin, after the first was gone")


@case(58, "The IPAM plugin's stderr reaches the runtime.", needs=ONLY_BRIDGE)
def error_output(w: World) -> None:
    w.stub().say("a word from the stand-in\n")
    w.container()
    outcome = succeed(w.call("ADD", w.stub_config()), "ADD")
    expect("a word from the stand-in" in outcome.stderr, "the IPAM plugin's words on stderr", outcome.stderr)


@case(59, "The IPAM plugin runs for CHECK, DEL and GC too, and its errors are passed on.", needs=ONLY_BRIDGE)
def all_commands(w: World) -> None:
    stub = w.stub()
    config = w.stub_config()
    result = w.add(config)
    commands = ["DEL"]
    if w.version in WITH_CHECK:
        commands.insert(0, "CHECK")
    if w.version in WITH_STATUS_AND_GC:
        commands.insert(0, "GC")
    valid = [{"containerID": "cnt-1", "ifname": "eth0"}]
    for command in commands:
        msg = stub.fail(command, w.version, msg=f"no {command} today")
        request = {**config, "prevResult": result, "cni.dev/valid-attachments": valid}
        refuse(w.call(command, request), f"{command} when that of the IPAM plugin fails", naming=[msg])
        expect(command in stub.calls, f"the IPAM plugin's {command} is run", stub.calls)


@case(60, "After a failed ADD of the IPAM plugin, its DEL is run.", needs=ONLY_BRIDGE)
def failed_add(w: World) -> None:
    stub = w.stub()
    w.container()
    msg = stub.fail("ADD", w.version)
    refuse(w.call("ADD", w.stub_config()), "ADD when that of the IPAM plugin fails", naming=[msg])
    expect_equal(stub.calls, ["ADD", "DEL"], "calls of the IPAM plugin")
    expect_equal((w.interfaces(), w.host.link_names("cnt-1")), ([], []), "interfaces after the failed ADD")


@case(61, "IPAM results carry no interfaces and no ips[].interface.", needs=ONLY_IPAM, versions=WITH_INTERFACES)
def no_interfaces(w: World) -> None:
    w.container()
    result = succeed(w.call("ADD", w.config(), role=IPAM), "ADD").document
    expect("interfaces" not in result, "no interfaces", result)
    expect(all("interface" not in entry for entry in result["ips"]), "no ips[].interface", result["ips"])
