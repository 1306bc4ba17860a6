"""DEL: as before ADD, and never in the way of a runtime that cleans up.

What a plugin sets up once for a network (the bridge, empty chains) may stay. So each case has one container come and
go first, and compares what was there then with what is there after the next one has gone.
"""

from tests.conformance.registry import EACH, IPAM, WITH_CHECK, case, expect, expect_equal
from tests.conformance.world import NETWORK_BRIDGE, Config, World, succeed
from tests.kit.host import wait_until


@case(27, "Links, addresses, NAT and filter rules and reservations are as before ADD.")
def as_before(w: World) -> None:
    config, before = _warmed_up(w)
    result = w.add(config)
    w.delete({**config, "prevResult": result})
    _judge_gone(w, config, before)


@case(28, "DEL needs no prevResult.")
def without_previous_result(w: World) -> None:
    config, before = _warmed_up(w)
    w.add(config)
    w.delete(config)
    _judge_gone(w, config, before)


@case(29, "With namespace, interface, bridge or store gone, DEL exits with 0.")
def things_are_gone(w: World) -> None:
    config = _config(w)
    for what, command in (
        ("the namespace", ("ip", "netns", "delete", "cnt-1")),
        ("the interface", ("ip", "-n", "cnt-1", "link", "delete", "eth0")),
        ("the bridge", ("ip", "link", "delete", NETWORK_BRIDGE)),
        ("the store", ("rm", "-rf", "/var/lib/cni/networks")),
    ):
        result = w.add(config)
        w.host.run(*command)
        outcome = w.call("DEL", {**config, "prevResult": result})
        succeed(outcome, f"DEL with {what} gone", silent=True)


@case(30, "With the namespace gone, the plugin still removes its own host-side resources.")
def host_side(w: World) -> None:
    config, before = _warmed_up(w)
    cases: tuple[dict[str, str | None], ...] = ({}, {"CNI_NETNS": ""})
    for env in cases:
        w.add(config)
        w.host.remove_container("cnt-1")
        succeed(w.call("DEL", config, env=env), "DEL with the namespace gone", silent=True)
        _judge_gone(w, config, before)


@case(31, "DEL three times exits with 0 each time.", needs=EACH)
def again_and_again(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        config = w.config_for(role)
        succeed(w.call("ADD", config, role=role), f"{role}: ADD")
        for number in (1, 2, 3):
            succeed(w.call("DEL", config, role=role), f"{role}: DEL number {number}", silent=True)


@case(32, "With CNI_NETNS absent or empty, DEL exits with 0.", needs=EACH)
def without_namespace(w: World) -> None:
    w.container()
    for role in w.pair.roles():
        config = w.config_for(role)
        for value in ("", None):
            succeed(w.call("ADD", config, role=role), f"{role}: ADD")
            outcome = w.call("DEL", config, role=role, env={"CNI_NETNS": value})
            succeed(outcome, f"{role}: DEL with CNI_NETNS {'absent' if value is None else 'empty'}", silent=True)
            if role == IPAM:
                expect_equal(w.mentions("cnt-1"), [], "reservations afterwards")
            succeed(w.call("DEL", config, role=role), f"{role}: DEL")


def _config(w: World) -> Config:
    """A network with NAT, and with room for one container: one that keeps its address keeps all others out."""
    return w.config(ipMasq=True, ipam=w.pool(1))


def _warmed_up(w: World) -> tuple[Config, dict[str, object]]:
    config = _config(w)
    result = w.add(config, "cnt-0")
    w.delete({**config, "prevResult": result} if w.version in WITH_CHECK else config, "cnt-0")
    expect_equal(w.interfaces(), [], "interfaces after the first container")
    return config, w.state()


def _judge_gone(w: World, config: Config, before: dict[str, object]) -> None:
    wait_until(lambda: not w.interfaces(), 10.0)  # a veth goes with its namespace, a little later
    after = w.state()
    for key, wanted in before.items():
        expect(after[key] == wanted, f"{key} as before: {wanted}", after[key])
    expect_equal(w.mentions("cnt-1"), [], "reservations of the container")
    outcome = w.call("ADD", config, role=IPAM, name="cnt-9")
    succeed(outcome, "ADD: the address is free for another container")
    succeed(w.call("DEL", config, role=IPAM, name="cnt-9"), "DEL of the other container")
