"""Parameters, errors, exit status, stdout: what holds for every command of every plugin."""

import os
import subprocess

from tests.conformance.registry import (
    ALL,
    BRIDGE,
    EACH,
    IPAM,
    PAIR,
    WITH_CHECK,
    WITH_STATUS_AND_GC,
    case,
    expect,
    expect_equal,
)
from tests.conformance.world import World, outcome_of, refuse, succeed, told
from tests.kit.host import RUN_BOUND, Outcome

# SPEC.md, section "Error"; 100 and above are the plugin's own.
DEFINED_CODES = (1, 2, 3, 4, 5, 6, 7, 11, 50, 51)


@case(1, "A network name has a letter or digit first, then also `_`, `.`, `-`; `../x` gives code 7.", needs=EACH)
def network_name(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        for name in ("../x", "a/b", "-a", "a b", "", ".a"):
            outcome = w.call("ADD", w.config_for(role, name=name), role=role)
            refuse(outcome, f"{role}: ADD with the name {name!r}", codes=[7])
        expect_equal(w.interfaces(), [], "interfaces after refused names")
        good = w.config_for(role, name="a_B.9-c")
        succeed(w.call("ADD", good, role=role), f"{role}: ADD with the name 'a_B.9-c'")
        succeed(w.call("DEL", good, role=role), f"{role}: DEL with the name 'a_B.9-c'")


@case(2, "`ipMasq`, `ipam` and `dns` have their standard effect.")
def standard_keys(w: World) -> None:
    w.connect_outside()
    dns = {"nameservers": ["10.1.0.53"], "domain": "example.org"}
    plain = w.config(dns=dns)
    result = w.add(plain)
    addresses = w.host.addresses("eth0", "cnt-1")
    expect(len(addresses) == 1 and addresses[0].startswith("10.1.0."), "an address from ipam's subnet", addresses)
    expect_equal(result.get("dns"), dns, "dns of the result")
    expect_equal(w.source_seen_outside("cnt-1"), addresses[0].partition("/")[0], "source outside without ipMasq")
    masked = w.config(ipMasq=True, name="masked")
    w.delete(plain)
    w.add(masked, "cnt-2")
    expect_equal(w.source_seen_outside("cnt-2"), "192.0.2.1", "source outside with ipMasq")


@case(
    3,
    "A `type` with a path separator, also that of `ipam`, is an error, and nothing is executed.",
    needs=frozenset({BRIDGE}),
)
def plugin_type(w: World) -> None:
    stub = w.stub()
    for number, kind in enumerate(("../front/stand-in", str(stub.directory / "stand-in"), "./stand-in")):
        w.container(f"cnt-{number}")
        outcome = w.call("ADD", w.stub_config(ipam={"type": kind}), name=f"cnt-{number}")
        refuse(outcome, "ADD with a path in ipam.type")
        expect_equal(stub.calls, [], "calls of the plugin at that path")
    w.container("cnt-9")
    refuse(w.call("ADD", w.stub_config(type="a/b"), name="cnt-9"), "ADD with the type 'a/b'")
    expect_equal(stub.calls, [], "calls of the IPAM plugin for a network with the type 'a/b'")


@case(4, "CNI_CONTAINERID that is empty, `-a` or `a/b`: code 4.", needs=EACH)
def container_id(w: World) -> None:
    netns = w.container()
    for role in w.pair.roles():
        for command in ("ADD", "DEL"):
            for value in ("", "-a", "a/b", None):
                env = {"CNI_CONTAINERID": value, "CNI_NETNS": netns}
                refuse(
                    w.call(command, w.config_for(role), role=role, env=env),
                    f"{role}: {command} with CNI_CONTAINERID={value}",
                    codes=[4],
                )
    expect_equal(w.interfaces(), [], "interfaces afterwards")


@case(5, "CNI_IFNAME that is empty, `.`, `..`, longer than 15, or has `/`, `:` or a space: code 4.", needs=EACH)
def interface_name(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        for value in ("", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteencharslong", None):
            outcome = w.call("ADD", w.config_for(role), role=role, env={"CNI_IFNAME": value})
            refuse(outcome, f"{role}: ADD with CNI_IFNAME={value}", codes=[4])
    expect_equal(w.interfaces(), [], "interfaces afterwards")


@case(6, "The exit status is 0 on success and another on failure, always.", needs=EACH)
def exit_status(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        config = w.config_for(role)
        for command in ("VERSION", "ADD", "DEL"):
            succeed(w.call(command, config, role=role), f"{role}: {command}")
        for what, outcome in failures(w, role).items():
            expect(outcome.status != 0, f"{role}: {what}: an exit status other than 0", told(outcome))


@case(7, "An error is an object on stdout with cniVersion, code, msg, and details.", needs=EACH, versions=ALL)
def error_object(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        for what, outcome in failures(w, role).items():
            error = refuse(outcome, f"{role}: {what}")
            expect_equal(error.get("cniVersion"), w.version, f"{role}: {what}: cniVersion of the error object")
            expect(isinstance(error.get("details", ""), str), f"{role}: {what}: details is text", error.get("details"))


@case(8, "An unsupported field gives code 2, with its key and value in the message.", needs=frozenset({BRIDGE}))
def unsupported_field(w: World) -> None:
    w.stub()
    w.container()
    for key, value, beside in (
        ("ipMasqBackend", "no-such-backend", {"ipMasq": True}),
        ("noSuchKey", "no-such-value", {"strict": True}),
    ):
        outcome = w.call("ADD", w.stub_config(**{key: value}, **beside))
        if outcome.status == 0:  # a key that a plugin does not know may be for somebody else
            w.delete(w.stub_config())
            continue
        refuse(outcome, f"ADD with {key}", codes=[2], naming=[key, value])


@case(9, "A missing or invalid variable gives code 4, and the message names every one of them.", needs=EACH)
def missing_variables(w: World) -> None:
    needed: tuple[str, ...]
    for role in w.pair.roles():
        config = w.config_for(role)
        for command, needed in (
            ("ADD", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
            ("DEL", ("CNI_CONTAINERID", "CNI_IFNAME")),
        ):
            outcome = w.call(command, config, role=role, env=dict.fromkeys(needed))
            refuse(outcome, f"{role}: {command} without variables", codes=[4], naming=needed)
        outcome = w.call("ADD", config, role=role, env={"CNI_COMMAND": "SUBTRACT"})
        refuse(outcome, f"{role}: an unknown command", codes=[4], naming=["CNI_COMMAND"])
        env = {"CNI_CONTAINERID": "-a", "CNI_IFNAME": "a/b"}
        outcome = w.call("ADD", config, role=role, env=env)
        refuse(outcome, f"{role}: ADD with invalid variables", codes=[4], naming=list(env))
        outcome = w.call("ADD", config, role=role, env={"CNI_COMMAND": None})
        refuse(outcome, f"{role}: no command", codes=[4], naming=["CNI_COMMAND"])


@case(10, "Codes below 100 are only those that the specification defines.", needs=EACH)
def error_codes(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        for what, outcome in failures(w, role).items():
            code = refuse(outcome, f"{role}: {what}")["code"]
            expect(code in DEFINED_CODES or code >= 100, f"{role}: {what}: a defined code, or 100 and above", code)


@case(11, "stdout is one JSON document or empty, also with debug logging on; logs go to stderr.", needs=EACH)
def standard_output(w: World) -> None:
    debug = dict.fromkeys(("LOG_LEVEL", "CNI_LOG_LEVEL", "LOGLEVEL"), "debug")
    debug |= dict.fromkeys(("DEBUG", "CNI_DEBUG", "VERBOSE", "PYTHONVERBOSE"), "1")
    w.container()
    for role in w.pair.roles():
        config = w.config_for(role, debug=True, logLevel="debug")
        added = succeed(w.call("ADD", config, role=role, env=debug), f"{role}: ADD")
        expect(isinstance(added.document, dict), f"{role}: ADD: one JSON object on stdout", told(added))
        if w.version in WITH_CHECK:
            config["prevResult"] = added.document
            succeed(w.call("CHECK", config, role=role, env=debug), f"{role}: CHECK", silent=True)
        succeed(w.call("DEL", config, role=role, env=debug), f"{role}: DEL", silent=True)
        for what, outcome in failures(w, role).items():  # an answer that is no JSON does not come this far
            expect(isinstance(outcome.document, dict), f"{role}: {what}: one JSON object on stdout", told(outcome))


@case(12, "Results are JSON on stdout.", needs=EACH)
def results(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        for command in ("ADD", "VERSION"):
            outcome = succeed(w.call(command, w.config_for(role), role=role), f"{role}: {command}")
            expect(isinstance(outcome.document, dict), f"{role}: {command}: a JSON object on stdout", told(outcome))
            expect("cniVersion" in outcome.document, f"{role}: {command}: cniVersion on stdout", told(outcome))
        succeed(w.call("DEL", w.config_for(role), role=role), f"{role}: DEL", silent=True)


@case(13, "stdin that cannot be read gives code 5, one that is no JSON 6, an invalid configuration 7.", needs=EACH)
def bad_input(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        refuse(_with_unreadable_stdin(w, role), f"{role}: ADD with a stdin that is open for writing", codes=[5])
        for text in (b"{", b"no JSON", b"\xff\xfe", b""):
            refuse(w.call("ADD", text, role=role), f"{role}: ADD with {text!r} on stdin", codes=[6])
        config = w.config_for(role)
        del config["name"]
        refuse(w.call("ADD", config, role=role), f"{role}: ADD without a name", codes=[7])
    if IPAM in w.pair.roles():
        outcome = w.call(
            "ADD",
            w.config(ipam=w.ipam_config(ranges=[[{"subnet": "10.1.0.0/31", "exclude": ["10.1.0.0/31"]}]])),
            role=IPAM,
        )
        refuse(outcome, "ipam: ADD with a subnet that has no room", codes=[7])


@case(
    14,
    "A cniVersion that is not supported gives code 1; so do CHECK below 0.4.0, GC and STATUS below 1.1.0.",
    needs=EACH,
    versions=ALL,
)
def unsupported_version(w: World) -> None:
    w.container()
    # A plugin that speaks no version with a command may also say that it does not know that command.
    codes = [1] if WITH_STATUS_AND_GC[0] in w.spoken else [1, 4]
    for role in w.pair.roles():
        for command in ("ADD", "DEL"):
            outcome = w.call(command, w.config_for(role, cniVersion="9.9.9"), role=role)
            refuse(outcome, f"{role}: {command} with cniVersion 9.9.9", codes=[1])
        config = w.config_for(role)
        if w.version not in WITH_CHECK:
            refuse(w.call("CHECK", {**config, "prevResult": {}}, role=role), f"{role}: CHECK", codes=[1])
        if w.version not in WITH_STATUS_AND_GC:
            for command in ("STATUS", "GC"):
                refuse(w.call(command, config, role=role), f"{role}: {command}", codes=codes)


def failures(w: World, role: str) -> dict[str, Outcome]:
    """Calls that cannot succeed, of several kinds."""
    config = w.config_for(role)
    calls = {
        "an unknown command": w.call("SUBTRACT", config, role=role),
        "ADD without an interface name": w.call("ADD", config, role=role, env={"CNI_IFNAME": None}),
        "ADD with a name that is none": w.call("ADD", {**config, "name": "../x"}, role=role),
    }
    if role == BRIDGE:
        gone = {"CNI_NETNS": "/run/netns/not-there"}
        calls["ADD in a namespace that is not there"] = w.call("ADD", config, env=gone)
        missing = {**config, "ipam": {"type": "not-there"}}
        calls["ADD with an IPAM plugin that is not there"] = w.call("ADD", missing)
    else:
        none = w.config(ipam=w.ipam_config(ranges=[[{"subnet": "10.1.0.0/31", "exclude": ["10.1.0.0/31"]}]]))
        calls["ADD with a subnet that has no room"] = w.call("ADD", none, role=role)
    if w.pair.roles() == sorted(PAIR) and role == IPAM:
        full = w.config(ipam=w.pool(1), name="full")
        succeed(w.call("ADD", full, role=role, name="cnt-8"), "ipam: ADD of the only address")
        calls["ADD when all addresses are taken"] = w.call("ADD", full, role=role, name="cnt-9")
        succeed(w.call("DEL", full, role=role, name="cnt-8"), "ipam: DEL of the only address")
    return calls


def _with_unreadable_stdin(w: World, role: str) -> Outcome:
    """read(2) of a descriptor that is open for writing only fails, with EBADF."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        result = subprocess.run(
            w.host.argv(w.pair.executable(role)),
            stdin=descriptor,
            env=w.variables("ADD"),
            capture_output=True,
            timeout=RUN_BOUND,
            check=False,
        )
    finally:
        os.close(descriptor)
    return outcome_of(result, "ADD")
