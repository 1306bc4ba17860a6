"""STATUS: whether ADD can work, and why not."""

from tests.conformance.registry import BRIDGE, EACH, IPAM, WITH_STATUS_AND_GC, case, expect, expect_equal
from tests.conformance.world import NETWORK_BRIDGE, World, addresses_of, refuse, succeed

ONLY_BRIDGE = frozenset({BRIDGE})
NOT_READY = (50, 51)
_BARE: dict[str, str | None] = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"))


@case(
    40,
    "STATUS exits with 0 when the plugin is ready, otherwise with another status and an error object.",
    needs=EACH,
    versions=WITH_STATUS_AND_GC,
    demanded=True,
)
def readiness(w: World) -> None:
    for role in w.pair.roles():
        succeed(w.call("STATUS", w.config_for(role), role=role), f"{role}: STATUS", silent=True)
    expect_equal(w.host.link_names(), [], "interfaces after STATUS")
    if BRIDGE in w.pair.roles():
        refuse(w.call("STATUS", w.stub_config()), "bridge: STATUS without its IPAM plugin")


@case(
    41,
    "An exhausted pool, a missing IPAM plugin, an unusable store or kernel gives code 50 or 51.",
    versions=WITH_STATUS_AND_GC,
    demanded=True,
)
def reasons(w: World) -> None:
    full = w.config(ipam=w.pool(1))
    succeed(w.call("STATUS", full), "STATUS with one address free", silent=True)
    succeed(w.call("ADD", full, role=IPAM), "ADD of the only address")
    for role in (BRIDGE, IPAM):
        refuse(w.call("STATUS", full, role=role), f"{role}: STATUS with all addresses taken", NOT_READY)
    refuse(w.call("STATUS", w.stub_config()), "STATUS without the IPAM plugin", NOT_READY)
    w.host.run("touch", "/var/lib/cni/a-file")
    blocked = w.config(ipam=w.ipam_config(dataDir="/var/lib/cni/a-file/networks"))
    refuse(w.call("STATUS", blocked, role=IPAM), "STATUS with a file where the store should be", NOT_READY)
    w.host.run("ip", "link", "add", NETWORK_BRIDGE, "type", "veth", "peer", "name", "other")
    refuse(w.call("STATUS", w.config()), "STATUS with another kind of link in the bridge's place", NOT_READY)


@case(42, "Nothing depends on STATUS having been called.")
def not_needed(w: World) -> None:
    result = w.add(w.config())
    expect_equal(w.host.addresses("eth0", "cnt-1"), addresses_of(result), "addresses")
    w.delete(w.config())


@case(43, "Other commands work while STATUS fails.", versions=WITH_STATUS_AND_GC, demanded=True)
def beside_status(w: World) -> None:
    config = w.config(ipam=w.pool(1))
    result = w.add(config)
    refuse(w.call("STATUS", config), "STATUS with all addresses taken")
    succeed(w.check(config, result), "CHECK while STATUS fails", silent=True)
    succeed(w.call("VERSION", config), "VERSION while STATUS fails")
    valid = [{"containerID": "cnt-1", "ifname": "eth0"}]
    succeed(w.call("GC", {**config, "cni.dev/valid-attachments": valid}), "GC while STATUS fails", silent=True)
    w.delete(config)
    succeed(w.call("STATUS", config), "STATUS after DEL", silent=True)


@case(
    44,
    "The IPAM plugin's STATUS is run, and its error passed on.",
    needs=ONLY_BRIDGE,
    versions=WITH_STATUS_AND_GC,
    demanded=True,
)
def ipam_status(w: World) -> None:
    stub = w.stub()
    succeed(w.call("STATUS", w.stub_config(), env=_BARE), "STATUS", silent=True)
    expect_equal(stub.calls, ["STATUS"], "calls of the IPAM plugin")
    msg = stub.fail("STATUS", w.version, code=51)
    refuse(w.call("STATUS", w.stub_config(), env=_BARE), "STATUS when that of the IPAM plugin fails", [51], [msg])


@case(
    45,
    "STATUS demands no variable but CNI_COMMAND, and CNI_PATH where an IPAM plugin has to be found.",
    needs=EACH,
    versions=WITH_STATUS_AND_GC,
    demanded=True,
)
def bare_status(w: World) -> None:
    for role in w.pair.roles():
        succeed(w.call("STATUS", w.config_for(role), role=role, env=_BARE), f"{role}: STATUS", silent=True)
        config = w.layer2_config() if role == BRIDGE else w.config()
        outcome = w.call("STATUS", config, role=role, env={**_BARE, "CNI_PATH": None})
        succeed(outcome, f"{role}: STATUS without CNI_PATH", silent=True)
    expect(w.rules() == [], "no packet filter rules after STATUS", w.rules())
