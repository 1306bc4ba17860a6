"""CONVENTIONS.md: capabilities, args, CNI_ARGS; and use in a chain."""

import socket

from tests.conformance.add_cases import previous_result
from tests.conformance.registry import EACH, IPAM, WITH_CHECK, case, expect, expect_equal
from tests.conformance.world import Config, World, addresses_of, refuse, succeed

_MAC = "02:00:00:00:00:62"
_PORT, _HOST_PORT = 5062, 8062
_CONNECT_BOUND = 3.0  # seconds


@case(62, "The capabilities ips, ipRanges, mac and portMappings are honoured where they are declared.")
def capabilities(w: World) -> None:
    other = [[{"subnet": "10.62.0.0/24"}]]
    for capability, value in (("ips", ["10.1.0.62/24"]), ("ipRanges", other), ("mac", _MAC)):
        if capability not in w.pair.capabilities:
            continue
        ipam = w.ipam_config() if capability != "ipRanges" else {"type": w.pair.ipam}
        config = _with_capability(w, capability, value, ipam=ipam, bridge=f"br-{capability}")
        result = w.add(config, capability)
        addresses = addresses_of(result)
        if capability == "ips":
            expect_equal(addresses, ["10.1.0.62/24"], "the address with runtimeConfig.ips")
        elif capability == "ipRanges":
            expect(addresses == ["10.62.0.2/24"], "an address of runtimeConfig.ipRanges", addresses)
        else:
            expect_equal(w.link("eth0", capability)["address"], _MAC, "the MAC with runtimeConfig.mac")
        w.delete(config, capability)
        w.host.run("ip", "link", "delete", f"br-{capability}")
    if "portMappings" in w.pair.capabilities:
        _judge_port_mapping(w)


def _judge_port_mapping(w: World) -> None:
    w.connect_outside()
    mappings = [{"hostPort": _HOST_PORT, "containerPort": _PORT, "protocol": "tcp"}]
    w.add(_with_capability(w, "portMappings", mappings), "mapped")
    with w.host.entered("mapped"):
        listener = socket.create_server(("0.0.0.0", _PORT))
    with listener:
        with w.host.entered("outside"):
            client = socket.socket()
        with client:
            client.settimeout(_CONNECT_BOUND)
            refused = client.connect_ex(("192.0.2.1", _HOST_PORT))
            expect(refused == 0, "a connection from outside to the mapped port", f"errno {refused}")


@case(63, "A malformed capability or argument is an error, not ignored.")
def malformed(w: World) -> None:
    calls: list[tuple[str, Config, str]] = []
    for capability, values in {
        "ips": (["10.1.0"], ["10.1.0.5/99"], "10.1.0.5"),
        "ipRanges": ([[{"subnet": "10.62.0.0/99"}]], [{"subnet": "10.62.0.0/24"}]),
        "mac": ("no-mac", "02:00:00:00:00", 5),
        "portMappings": ([{"hostPort": 99999, "containerPort": 1}], [{"hostPort": "x", "containerPort": 1}]),
    }.items():
        for value in values if capability in w.pair.capabilities else ():
            calls.append((f"{capability} {value!r}", _with_capability(w, capability, value), ""))
    for key, malformed_value in (("ips", ["10.1.0"]), ("mac", "no-mac")):
        calls.append((f"args.cni.{key} {malformed_value!r}", w.config(args={"cni": {key: malformed_value}}), ""))
    for text in ("IP=10.1.0", "MAC=no-mac"):
        calls.append((f"CNI_ARGS {text}", w.config(), f"IgnoreUnknown=1;{text}"))
    for number, (what, config, text) in enumerate(calls):
        name = f"cnt-{number}"  # another one each time: one that was left half done would refuse the next call too
        w.container(name)
        refuse(w.call("ADD", config, name=name, env={"CNI_ARGS": text}), f"ADD with {what}")
        expect_equal(w.mentions(name), [], f"reservations after ADD with {what}")


@case(64, "Unknown `args` are ignored.", needs=EACH)
def unknown_args(w: World) -> None:
    w.container()
    args = {"cni": {"no-such-key": [1, {"a": None}]}, "org.example": {"ips": ["nonsense"]}}
    for role in w.pair.roles():
        succeed(w.call("ADD", w.config_for(role, args=args), role=role), f"{role}: ADD with unknown args")
        succeed(w.call("DEL", w.config_for(role, args=args), role=role), f"{role}: DEL with unknown args")


@case(65, "Requested addresses come with and without a prefix length.", needs=frozenset({IPAM}))
def requested_addresses(w: World) -> None:
    w.container()
    configs: list[tuple[str, Config, str]] = []
    for number, text in ((71, "10.1.0.71/24"), (51, "10.1.0.51")):  # none is the next that would be given
        wanted = f"10.1.0.{number}/24"
        configs.append((wanted, _with_capability(w, "ips", [text]), ""))
    configs.append(("10.1.0.61/24", w.config(args={"cni": {"ips": ["10.1.0.61/24"]}}), ""))
    configs.append(("10.1.0.41/24", w.config(args={"cni": {"ips": ["10.1.0.41"]}}), ""))
    configs.append(("10.1.0.81/24", w.config(), "IP=10.1.0.81"))
    for number, (wanted, config, arguments) in enumerate(configs):
        outcome = w.call("ADD", config, role=IPAM, name=f"cnt-{number}", env={"CNI_ARGS": arguments})
        result = succeed(outcome, f"ADD that asks for {wanted}").document
        expect_equal(addresses_of(result), [wanted], "the address")


@case(66, "CNI_ARGS are ignored where `args` or runtimeConfig carry the same thing.")
def precedence(w: World) -> None:
    asked = {"CNI_ARGS": "IgnoreUnknown=1;IP=10.1.0.66;MAC=02:00:00:00:00:66"}
    for name, config in (
        ("by-runtime", _with_capability(w, "mac", _MAC)),
        ("by-args", w.config(args={"cni": {"mac": _MAC}})),
    ):
        config = {**config, "ipam": w.ipam_config()}
        w.container(name)
        succeed(
            w.call("ADD", config, name=name, env={"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:66"}),
            "ADD with two MACs",
        )
        expect_equal(w.link("eth0", name)["address"], _MAC, f"the MAC {name}, not that of CNI_ARGS")
    for name, config in (
        ("by-runtime", _with_capability(w, "ips", ["10.1.0.81/24"])),
        ("by-args", w.config(args={"cni": {"ips": ["10.1.0.81/24"]}})),
    ):
        outcome = w.call("ADD", config, role=IPAM, name=f"ips-{name}", env=asked)
        # Without the message: a plugin that adds both up may name either of them.
        what = f"ADD with an address {name} and another in CNI_ARGS: exit status 0"
        expect(outcome.status == 0, what, f"exit status {outcome.status}")
        expect_equal(addresses_of(outcome.document), ["10.1.0.81/24"], f"the address {name}, not that of CNI_ARGS")
        succeed(w.call("DEL", config, role=IPAM, name=f"ips-{name}"), "DEL")


@case(
    67,
    "CNI_ARGS are `K=V;K=V` in any order, possibly empty; a malformed one is an error; IgnoreUnknown holds.",
    needs=EACH,
)
def arguments(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        config = w.config_for(role)
        for text in (
            "",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=one",
            "K8S_POD_NAMESPACE=default;K8S_POD_NAME=one;IgnoreUnknown=1",
            "K8S_POD_NAME=;IgnoreUnknown=true",
        ):
            for command in ("ADD", "DEL"):
                outcome = w.call(command, config, role=role, env={"CNI_ARGS": text})
                succeed(outcome, f"{role}: {command} with CNI_ARGS {text!r}")
        for text in ("nonsense", "IgnoreUnknown=1;nonsense"):
            name = f"{role}-{len(text)}"
            w.container(name)
            outcome = w.call("ADD", config, role=role, name=name, env={"CNI_ARGS": text})
            refuse(outcome, f"{role}: ADD with CNI_ARGS {text!r}")


@case(68, "In a chain, behind another plugin and with its prevResult, ADD, CHECK and DEL do their part only.")
def chain(w: World) -> None:
    before = previous_result(w)
    side = w.host.ip("address", "show", "dev", "side0", container="cnt-1")
    config = w.config(ipMasq=True)
    result = w.add({**config, "prevResult": before})
    names = [entry["name"] for entry in result.get("interfaces", [])]
    expect("side0" in names and "eth0" in names, "interfaces of both plugins in the result", names)
    if w.version in WITH_CHECK:
        succeed(w.check(config, result), "CHECK with the result of the chain", silent=True)
        w.host.run("ip", "link", "set", "eth0", "down", container="cnt-1")
        refuse(w.check(config, result), "CHECK with the interface down")
    w.delete({**config, "prevResult": result})
    expect_equal(w.host.ip("address", "show", "dev", "side0", container="cnt-1"), side, "the other plugin's interface")
    expect(w.link("eth0", "cnt-1") is None, "eth0 is gone", w.host.link_names("cnt-1"))


def _with_capability(w: World, capability: str, value: object, **keys: object) -> Config:
    return w.config(capabilities={capability: True}, runtimeConfig={capability: value}, **keys)
