"""GC: what belongs to no valid attachment goes, all else stays."""

from tests.conformance.registry import BRIDGE, EACH, IPAM, WITH_STATUS_AND_GC, case, expect, expect_equal
from tests.conformance.world import Config, World, refuse, succeed
from tests.kit.host import Outcome, wait_until

ONLY_BRIDGE = frozenset({BRIDGE})
_BARE: dict[str, str | None] = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"))
_DEMANDED = WITH_STATUS_AND_GC


@case(48, "Stale reservations, rules and host interfaces are removed.", versions=_DEMANDED, demanded=True)
def stale(w: World) -> None:
    config = w.config(ipMasq=True, ipam=w.pool(2))
    w.add(config, "cnt-1")
    one_there = w.state()
    w.add(config, "cnt-2")
    end = w.host_end("cnt-2")
    succeed(_collect(w, config, "cnt-1"), "GC", silent=True)
    wait_until(lambda: end not in w.interfaces(), 3.0)
    after = w.state()
    for key, wanted in one_there.items():
        expect(after[key] == wanted, f"{key} as with the valid attachment alone: {wanted}", after[key])
    expect_equal(w.mentions("cnt-2"), [], "reservations of the stale attachment")
    succeed(w.call("ADD", config, role=IPAM, name="cnt-3"), "the address is free for another container")


@case(49, "What belongs to valid attachments is untouched, byte for byte.", versions=_DEMANDED, demanded=True)
def valid(w: World) -> None:
    config = w.config(ipMasq=True)
    result = w.add(config, "cnt-1")
    w.add(config, "cnt-2")
    before, files = w.state(), w.files()
    succeed(_collect(w, config, "cnt-1", "cnt-2"), "GC with all attachments valid", silent=True)
    expect_equal(w.files(), files, "files after GC with all attachments valid")
    expect_equal(w.state(), before, "the host after GC with all attachments valid")
    mine = {path: text for path, text in files.items() if path in w.mentions("cnt-1")}
    expect(bool(mine), "a reservation of the valid attachment", sorted(files))
    succeed(_collect(w, config, "cnt-1"), "GC with one attachment valid", silent=True)
    expect_equal({path: w.files().get(path) for path in mine}, mine, "files of the valid attachment")
    succeed(w.check(config, result), "CHECK of the valid attachment", silent=True)
    expect(w.host.ping("10.1.0.1", "cnt-1"), "the valid attachment reaches its gateway", "no answer")


@case(
    50,
    "An error does not stop the rest, and is reported at the end.",
    needs=ONLY_BRIDGE,
    versions=_DEMANDED,
    demanded=True,
)
def errors(w: World) -> None:
    stub = w.stub()
    config = w.stub_config()
    w.add(config)
    msg = stub.fail("GC", w.version)
    refuse(_collect(w, config), "GC when that of the IPAM plugin fails", naming=[msg])
    wait_until(lambda: not w.interfaces(), 3.0)
    expect_equal(w.interfaces(), [], "stale interfaces after a GC with an error")


@case(
    51,
    "GC is forwarded to the IPAM plugin, with the list of valid attachments.",
    needs=ONLY_BRIDGE,
    versions=_DEMANDED,
    demanded=True,
)
def forwarded(w: World) -> None:
    stub = w.stub()
    succeed(_collect(w, w.stub_config(), "cnt-7"), "GC", silent=True)
    expect_equal(stub.calls, ["GC"], "calls of the IPAM plugin")
    expect(b'"cnt-7"' in stub.stdin("GC"), "the valid attachments on its stdin", stub.stdin("GC")[:200])


@case(
    52,
    "CNI_COMMAND and CNI_PATH suffice; nothing is on stdout on success.",
    needs=EACH,
    versions=_DEMANDED,
    demanded=True,
)
def bare_gc(w: World) -> None:
    for role in w.pair.roles():
        config = {**w.config_for(role), "cni.dev/valid-attachments": []}
        succeed(w.call("GC", config, role=role, env=_BARE), f"{role}: GC", silent=True)


def _collect(w: World, config: Config, *names: str) -> Outcome:
    valid_ones = [{"containerID": name, "ifname": "eth0"} for name in names]
    return w.call("GC", {**config, "cni.dev/valid-attachments": valid_ones}, env=_BARE)
