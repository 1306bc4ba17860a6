"""ADD, DEL and CHECK as a whole: undone in full, thorough and forgiving, watchful."""

import errno
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partialmethod
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import bridge, locks, removal, sandbox, sync, wiring
from cni_kernel import conntrack, link_groups, nft_presence, sysctl
from cni_kernel.kernel import Kernel
from cni_kernel.netlink import NetlinkError, NetlinkSocket
from cni_protocol.errors import CNIError
from tests.cni_bridge import Runtime, host_name
from tests.kit.calls import call_environment
from tests.kit.host import Host, Outcome, wait_until

pytestmark = pytest.mark.kernel

V4, V6 = "10.1.0.0/16", "fd00:1::/64"
PORT = host_name("c1")


@pytest.fixture
def runtime(host: Host, bin_dir: str, tmp_path: Path) -> Runtime:
    """A runtime on a host with the containers c0, c1 and c2."""
    for name in ("c0", "c1", "c2"):
        host.add_container(name)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    return Runtime(host, (str(plugins), bin_dir), tmp_path / "networks")


def network(runtime: Runtime, *subnets: str, **keys: Any) -> dict[str, Any]:
    """A network with a gateway, NAT, and addresses of these subnets; layer 2 only without any."""
    base: dict[str, Any] = {"cniVersion": "1.0.0", "name": "mynet", "type": "cni-bridge", "bridge": "cni0"}
    if subnets:
        base.update(isDefaultGateway=True, ipMasq=True, ipam=runtime.ipam(*subnets))
    return {**base, **keys}


def filtered(runtime: Runtime, *, port: int, **keys: Any) -> dict[str, Any]:
    """A network with everything on, and a host port of the container's own."""
    mappings = [{"hostPort": port, "containerPort": 80, "protocol": protocol} for protocol in ("tcp", "udp")]
    return network(runtime, V4, V6, macspoofchk=True, runtimeConfig={"portMappings": mappings}, **keys)


def install_ipam(
    runtime: Runtime, answer: Any = None, *, status: int = 0, delete: str = "exit 0", others: str = "exit 0"
) -> Path:
    """An IPAM plugin `fake` that answers ADD so. Returns the file that lists the commands it was called with."""
    directory = Path(runtime.path[0])
    text = answer if isinstance(answer, str) else json.dumps(answer)
    (directory / "answer").write_text(text)
    script = f"""#!/bin/sh
cat > /dev/null
echo $CNI_COMMAND >> {directory}/calls
case $CNI_COMMAND in
ADD) cat {directory}/answer; exit {status} ;;
DEL) {delete} ;;
*) {others} ;;
esac
"""
    (directory / "fake").write_text(script)
    (directory / "fake").chmod(0o755)
    return directory / "calls"


def fail_at(mocker: MockerFixture, owner: Any, name: str, when: str, number: int = 1) -> Callable[[], bool]:
    """Have the `number`th call of a function fail before or after it did its work. Returns whether it came to that."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = count(1)
    failed: list[str] = []

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) != number:
            return original(*arguments, **options)
        failed.append(name)
        if when == "after":
            original(*arguments, **options)
        raise CNIError(100, f"{name} was made to fail")

    mocker.patch.object(owner, name, failing)
    return lambda: bool(failed)


def assert_refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.status == 1
    assert outcome.document["code"] == code, outcome.stdout
    for word in words:
        assert word in outcome.document["msg"]


STEPS = [
    (sandbox, "open_inside", "before", 1),
    (wiring, "require_absent", "before", 1),
    (wiring, "connect", "before", 1),
    (Kernel, "create_bridge", "before", 1),
    (bridge, "get_bridge", "before", 1),
    (sysctl, "ignore_router_advertisements", "before", 1),
    (Kernel, "set_flags", "before", 1),
    (Kernel, "set_flags", "after", 1),
    (Kernel, "create_veth", "before", 1),
    (Kernel, "create_veth", "after", 1),
    (wiring, "connect", "after", 1),
    (wiring, "configure_container", "before", 1),
    (sysctl, "own_interface", "before", 1),
    (Kernel, "configure", "before", 1),
    (Kernel, "configure", "after", 1),
    (wiring, "configure_container", "after", 1),
    (wiring, "configure_host", "before", 1),
    (Kernel, "add_addresses", "before", 1),
    (Kernel, "add_addresses", "after", 1),
    (Kernel, "add_addresses", "after", 2),
    (Kernel, "set_mac", "before", 1),
    (sysctl, "ensure_forwarding", "before", 1),
    (sysctl, "ensure_forwarding", "after", 2),
    (sync, "ensure_rules", "before", 1),
    (sync, "ensure_rules", "after", 1),
    (wiring, "list_interfaces", "before", 1),
    (wiring, "go_live", "before", 1),
    (wiring, "wait_for_port", "after", 1),
    (wiring, "go_live", "after", 1),
]
FILTERS: dict[str, Any] = {
    "macspoofchk": True,
    "runtimeConfig": {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
        ]
    },
}
STEPS_WITH_FILTERS = [
    (sync, "ensure_rules", "before", 2),
    (sync, "ensure_rules", "after", 2),
    (sync, "ensure_rules", "before", 3),
    (sync, "ensure_rules", "after", 3),
    (conntrack, "forget_flows", "before", 1),
    (conntrack, "forget_flows", "after", 1),
    (wiring, "go_live", "before", 1),
    (wiring, "configure_host", "before", 1),
    (wiring, "configure_host", "after", 1),
]


def name_of(value: Any) -> str:
    return str(value) if isinstance(value, int | str) else str(value.__name__).split(".")[-1]


def assert_undone(runtime: Runtime, config: dict[str, Any], mocker: MockerFixture, step: tuple[Any, ...]) -> None:
    """An ADD that fails at a step leaves all as it was, a DEL finds nothing to do, and the next ADD succeeds."""
    owner, name, when, number = step
    before = runtime.state("c1")
    failed = fail_at(mocker, owner, name, when, number)
    assert_refused(runtime.call("ADD", config), 100, f"{name} was made to fail")
    assert failed()
    assert runtime.state("c1") == before
    assert runtime.call("DEL", config).status == 0  # as runtimes do after a failed ADD
    assert runtime.state("c1") == before
    runtime.add(config)


@pytest.mark.parametrize(("owner", "name", "when", "number"), STEPS, ids=name_of)
def test_an_add_that_fails_is_undone_in_full(
    runtime: Runtime, mocker: MockerFixture, owner: Any, name: str, when: str, number: int
) -> None:
    config = network(runtime, V4, V6, promiscMode=True)
    assert_undone(runtime, config, mocker, (owner, name, when, number))


@pytest.mark.parametrize(("owner", "name", "when", "number"), STEPS_WITH_FILTERS, ids=name_of)
def test_an_add_with_filters_that_fails_is_undone_in_full(
    runtime: Runtime, mocker: MockerFixture, owner: Any, name: str, when: str, number: int
) -> None:
    assert_undone(runtime, network(runtime, V4, V6, **FILTERS), mocker, (owner, name, when, number))


@pytest.mark.parametrize("flags", [("down",), ("up",), ("up", "promisc", "on")], ids=["down", "up", "promiscuous"])
def test_a_bridge_that_was_there_is_after_a_failure_as_it_was(
    runtime: Runtime, mocker: MockerFixture, flags: tuple[str, ...]
) -> None:
    runtime.host.run("ip", "link", "add", "cni0", "type", "bridge")
    runtime.host.run("ip", "link", "set", "cni0", *flags)
    before = runtime.state("c1")
    fail_at(mocker, wiring, "go_live", "before")
    config = network(runtime, V4, V6, promiscMode=True)
    assert_refused(runtime.call("ADD", config), 100, "go_live was made to fail")
    assert runtime.state("c1") == before


@pytest.mark.parametrize("neighbour", ["none", "same network", "layer 2", "bridge that is down"])
@pytest.mark.parametrize("keys", [{}, FILTERS], ids=["NAT", "NAT, port mappings and macspoofchk"])
def test_an_add_is_undone_whatever_request_the_kernel_refuses(
    runtime: Runtime, mocker: MockerFixture, neighbour: str, keys: dict[str, Any]
) -> None:
    config = network(runtime, V4, V6, **keys)
    if neighbour == "bridge that is down":
        runtime.host.run("ip", "link", "add", "cni0", "address", "02:00:00:00:00:01", "type", "bridge")
    elif neighbour != "none":
        beside = filtered(runtime, port=9090) if keys else network(runtime, V4, V6)
        runtime.add(beside if neighbour == "same network" else network(runtime), "c0")
    before = runtime.state("c0", "c1")
    genuine = {name: getattr(NetlinkSocket, name) for name in ("send", "ask")}
    for number in count(1):
        requests = count(1)

        def request(
            sock: NetlinkSocket, name: str, *arguments: Any, requests: Any = requests, number: int = number
        ) -> Any:
            if next(requests) == number:
                raise NetlinkError(errno.EIO, "", 0)
            return genuine[name](sock, *arguments)

        patched = [mocker.patch.object(NetlinkSocket, name, partialmethod(request, name)) for name in genuine]
        outcome = runtime.call("ADD", config)
        for each in patched:
            mocker.stop(each)
        if outcome.status == 0:
            break
        assert_refused(outcome, 100, "Input/output error")
        assert runtime.state("c0", "c1") == before, f"request {number}"
    assert number > 12
    assert runtime.call("DEL", config).status == 0


RESULT: dict[str, Any] = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]}


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        ({"code": 101, "msg": "none left", "details": ""}, 1, 101, ["fake ADD: none left"]),
        ("", 1, 104, ["fake ADD exited with status 1"]),
        ("rubbish", 0, 104, ["fake ADD printed no JSON"]),
        ("", 0, 6, ["result of fake"]),
        ({"cniVersion": "1.0.0"}, 0, 104, ["gave no address"]),
        ({"cniVersion": "9.9.9"}, 0, 1, ["9.9.9"]),
        ({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5"}]}, 0, 6, ["result of fake.ips[0].address"]),
        ({**RESULT, "ips": RESULT["ips"] * 2}, 0, 102, ["10.1.0.5/16", "gave it twice"]),
        (
            {**RESULT, "routes": [{"dst": "10.9.0.0/16", "gw": "192.168.7.1"}]},
            0,
            100,
            ["route 10.9.0.0/16 via 192.168.7.1 cannot be added", "correct routes and gateway in ipam"],
        ),
    ],
    ids=[
        "its own error",
        "no error object",
        "no JSON",
        "no output",
        "no address",
        "unknown version",
        "no prefix",
        "an address twice",
        "unreachable gateway of a route",
    ],
)
def test_what_the_ipam_plugin_gives_may_be_no_use(
    runtime: Runtime, answer: Any, status: int, code: int, words: list[str]
) -> None:
    calls = install_ipam(runtime, answer, status=status)
    before = runtime.state("c1")
    outcome = runtime.call("ADD", network(runtime, V4, ipam={"type": "fake"}))
    assert_refused(outcome, code, *words)
    assert runtime.state("c1") == before
    assert calls.read_text().split() == ["ADD", "DEL"]


@pytest.mark.parametrize(
    ("keys", "netns", "code", "words"),
    [
        ({"ipam": {"type": "none-such"}}, None, 7, ["none-such"]),
        ({"bridge": "there"}, None, 7, ["interface there is there and is of kind veth"]),
        ({"mtu": 67}, None, 7, ["mtu: 67 is less than 68"]),
        ({"bridge": "br0"}, None, 7, ["bridge br0 has address 10.7.0.1/16", "forceAddress"]),
        ({}, "/run/netns/none-such", 4, ["/run/netns/none-such"]),
        ({}, "/dev/null", 4, ["not a network namespace"]),
        ({}, "/proc/self/ns/net", 4, ["namespace of the host itself"]),
        ({"mtu": "big", "hairpinMode": 1}, None, 7, ["mtu", "hairpinMode"]),
    ],
    ids=[
        "no such IPAM plugin",
        "not a bridge",
        "mtu too small",
        "another gateway address",
        "vanished namespace",
        "no namespace",
        "own namespace",
        "wrong types",
    ],
)
def test_bad_input_leaves_the_host_as_it_was(
    runtime: Runtime, keys: dict[str, Any], netns: str | None, code: int, words: list[str]
) -> None:
    runtime.host.run("ip", "link", "add", "there", "type", "veth", "peer", "name", "other")
    runtime.host.run("ip", "link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge")
    runtime.host.run("ip", "link", "set", "br0", "up")
    runtime.host.run("ip", "address", "add", "10.7.0.1/16", "dev", "br0")
    before = runtime.state("c1")
    assert_refused(runtime.call("ADD", network(runtime, V4, **keys), netns=netns), code, *words)
    assert runtime.state("c1") == before


@pytest.mark.parametrize("step", ["configure_container", "go_live", "configure_host"])
def test_a_failing_add_keeps_what_another_container_came_to_use(
    runtime: Runtime, mocker: MockerFixture, step: str
) -> None:
    config = network(runtime, V4, V6)

    def let_another_one_in(*arguments: Any) -> None:
        mocker.stop(patched)
        runtime.add(config, "c2")
        raise CNIError(100, "too late")

    patched = mocker.patch.object(wiring, step, let_another_one_in)
    assert_refused(runtime.call("ADD", config), 100, "too late")
    assert_connected(runtime, config, "c2")


def test_an_add_beside_one_whose_gateway_is_taken_back_gets_its_own(runtime: Runtime, mocker: MockerFixture) -> None:
    config = network(runtime, V4, V6)
    variables = call_environment("ADD", "c2", path=runtime.path[-1:])
    executable = f"{runtime.path[-1]}/cni-bridge"
    others = []

    def let_another_one_come(version: int) -> None:
        assert runtime.host.addresses("cni0") == ["10.1.0.1/16", "fd00:1::1/64"]
        other = runtime.host.start(executable, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        others.append(other)
        assert other.stdin is not None
        other.stdin.write(json.dumps(config))
        other.stdin.close()
        assert not wait_until(lambda: other.poll() is not None, 1.0), "it did not wait for the host's lock"
        raise CNIError(100, "too late")

    mocker.patch.object(sysctl, "ensure_forwarding", let_another_one_come)
    assert_refused(runtime.call("ADD", config), 100, "too late")
    assert others[0].wait(timeout=30) == 0
    assert_connected(runtime, config, "c2")


def assert_connected(runtime: Runtime, config: dict[str, Any], container: str) -> None:
    """That container alone is on the bridge, and has all that it needs."""
    assert set(runtime.host.link_names()) == {"cni0", host_name(container)}
    assert runtime.host.addresses("cni0") == ["10.1.0.1/16", "fd00:1::1/64"]
    assert runtime.host.ping("10.1.0.1", container)
    assert runtime.host.ping("fd00:1::1", container)
    document = {**config, "prevResult": previous_of(runtime, config, container)}
    assert runtime.call("CHECK", document, container).status == 0


def previous_of(runtime: Runtime, config: dict[str, Any], container: str) -> dict[str, Any]:
    """A prevResult made of what `ip` sees: that of an ADD whose answer the test did not keep."""
    [eth0] = runtime.host.ip("link", "show", "dev", "eth0", container=container)
    sandbox = f"/proc/{runtime.host.pid}/root/run/netns/{container}"
    return {
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": "eth0", "mac": eth0["address"], "sandbox": sandbox}],
        "ips": [{"address": text, "interface": 0} for text in runtime.host.addresses("eth0", container)],
    }


@pytest.mark.parametrize("used", [False, True], ids=["unused bridge", "bridge in use"])
def test_force_address_replaces_and_a_failure_restores(runtime: Runtime, mocker: MockerFixture, used: bool) -> None:
    config = network(runtime, "10.2.0.0/16", forceAddress=True)
    old = network(runtime, V4, name="oldnet")
    runtime.add(old, "c0")
    if not used:
        runtime.call("DEL", old, "c0")
    assert runtime.host.addresses("cni0") == ["10.1.0.1/16"]
    before = runtime.state("c0", "c1")
    with runtime.host.entered():
        sysctl.stop_forwarding(4)
    fail_at(mocker, sysctl, "ensure_forwarding", "after")
    assert_refused(runtime.call("ADD", config), 100, "ensure_forwarding was made to fail")
    assert runtime.state("c0", "c1") == before
    runtime.add(config)
    assert runtime.host.addresses("cni0") == ["10.2.0.1/16"]


KINDS = {"IPv4": (V4,), "IPv6": (V6,), "dual stack": (V4, V6), "layer 2": ()}


@pytest.mark.parametrize("subnets", KINDS.values(), ids=KINDS.keys())
def test_add_check_and_delete(runtime: Runtime, subnets: tuple[str, ...]) -> None:
    config = network(runtime, *subnets, mtu=1400, hairpinMode=True)
    before = runtime.state("c1")
    result = runtime.add(config)
    assert [entry["name"] for entry in result["interfaces"]] == ["cni0", PORT, "eth0"]
    assert [link["address"] for link in runtime.host.ip("link", container="c1")][1:] == [result["interfaces"][2]["mac"]]
    assert [entry["address"] for entry in result.get("ips", [])] == runtime.host.addresses("eth0", "c1")
    assert {entry["interface"] for entry in result.get("ips", [])} <= {2}
    assert runtime.host.addresses("cni0") == [{V4: "10.1.0.1/16", V6: "fd00:1::1/64"}[subnet] for subnet in subnets]
    check = runtime.call("CHECK", {**config, "prevResult": result})
    assert (check.status, check.stdout) == (0, "")
    delete = runtime.call("DEL", {**config, "prevResult": result})
    assert (delete.status, delete.stdout) == (0, "")
    assert runtime.host.link_names() == ["cni0"]
    runtime.host.run("ip", "link", "delete", "cni0")
    assert runtime.state("c1") == before


def test_a_second_add_is_refused_and_changes_nothing(runtime: Runtime) -> None:
    config = network(runtime, V4, V6)
    runtime.add(config)
    before = runtime.state("c1")
    assert_refused(runtime.call("ADD", config), 102, "eth0 exists already", "send DEL first")
    assert runtime.state("c1") == before


def test_a_second_interface_of_a_container_is_its_own(runtime: Runtime) -> None:
    config = network(runtime, V4)
    runtime.add(config)
    runtime.add({**config, "isDefaultGateway": False, "isGateway": True}, ifname="eth1")
    assert runtime.host.link_names("c1") == ["eth0", "eth1"]
    assert runtime.call("DEL", config).status == 0
    assert runtime.host.link_names("c1") == ["eth1"]
    assert runtime.host.link_names() == ["cni0", host_name("c1", ifname="eth1")]
    assert len(list((runtime.data_dir / "mynet").glob("10.*"))) == 1


def test_a_result_of_an_earlier_plugin_is_passed_on(runtime: Runtime) -> None:
    earlier = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0"}],
        "ips": [{"address": "192.168.9.9/32", "interface": 0}],
    }
    result = runtime.add(network(runtime, V4, prevResult=earlier))
    assert [entry["name"] for entry in result["interfaces"]] == ["dummy0", "cni0", PORT, "eth0"]
    assert [(entry["address"], entry["interface"]) for entry in result["ips"]] == [
        ("192.168.9.9/32", 0),
        ("10.1.0.2/16", 3),
    ]


def test_the_mac_that_was_asked_for_is_in_the_container_and_in_the_result(runtime: Runtime) -> None:
    result = runtime.add(network(runtime, V4, runtimeConfig={"mac": "0A-58-0A-F4-00-02"}))
    assert result["interfaces"][2]["mac"] == "0a:58:0a:f4:00:02"
    assert runtime.host.ip("link", "show", "dev", "eth0", container="c1")[0]["address"] == "0a:58:0a:f4:00:02"


DAMAGES = {
    "nothing is missing": "true",
    "no interface in the container": "ip -n c1 link delete eth0",
    "no host end": f"ip link delete {PORT}",
    "no bridge": "ip link delete cni0",
    "no port": f"ip link set {PORT} nomaster",
    "no rules": "nft flush ruleset",
    "no namespace": "ip netns delete c1",
    "nothing at all": "ip netns delete c1; ip link delete cni0; nft flush ruleset",
}


@pytest.mark.parametrize("netns", [None, "", "/run/netns/none-such"], ids=["path", "empty", "dead path"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_delete_removes_what_there_is_three_times(runtime: Runtime, damage: str, netns: str | None) -> None:
    config = network(runtime, V4, V6)
    result = runtime.add(config)
    runtime.host.run("sh", "-c", damage)
    for document in ({**config, "prevResult": result}, config, config):
        outcome = runtime.call("DEL", document, netns=netns)
        assert (outcome.status, outcome.stdout) == (0, "")
        assert [name for name in runtime.host.link_names() if name != "cni0"] == []
        assert runtime.host.nft() == []
        assert list((runtime.data_dir / "mynet").glob("[1f]*")) == []


def test_delete_without_a_store_or_an_add_is_fine(runtime: Runtime) -> None:
    config = network(runtime, V4)
    before = runtime.state("c1")
    assert runtime.call("DEL", config).status == 0
    assert runtime.state("c1") == before
    assert not runtime.data_dir.exists()
    runtime.add(config)
    shutil.rmtree(runtime.data_dir)
    assert runtime.call("DEL", config).status == 0
    assert runtime.host.link_names() == ["cni0"]


@pytest.mark.parametrize(
    "keys",
    [{"mtu": "big"}, {"hairpinMode": True, "promiscMode": True}, {"prevResult": 7}, {"isGateway": 1}],
    ids=["mtu", "contradiction", "prevResult", "wrong type"],
)
def test_delete_works_with_a_configuration_that_add_refuses(runtime: Runtime, keys: dict[str, Any]) -> None:
    config = network(runtime, V4)
    runtime.add(config)
    assert runtime.call("DEL", {**config, **keys}).status == 0
    assert runtime.host.link_names() == ["cni0"]
    assert runtime.host.nft() == []


def test_delete_removes_nat_that_was_on_when_the_container_was_added(runtime: Runtime) -> None:
    config = network(runtime, V4)
    runtime.add(config)
    assert runtime.call("DEL", {**config, "ipMasq": False}).status == 0
    assert runtime.host.nft() == []


@pytest.mark.parametrize(("ip_masq", "status"), [(False, 0), (True, 1)], ids=["without NAT", "with NAT"])
def test_a_kernel_without_nftables_matters_only_with_nat(
    runtime: Runtime, mocker: MockerFixture, ip_masq: bool, status: int
) -> None:
    absent = OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
    mocker.patch.object(sync, "Nftables", side_effect=absent)
    mocker.patch.object(nft_presence, "NetlinkSocket", side_effect=absent)
    config = network(runtime, V4, ipMasq=ip_masq)
    assert runtime.call("ADD", config).status == status
    assert runtime.call("DEL", config).status == status
    assert [name for name in runtime.host.link_names() if name != "cni0"] == []


STUBBORN = {
    "the link": [(removal, "remove_link")],
    "the rules": [(sync, "delete_rules")],
    "the address": [],
    "link and rules": [(removal, "remove_link"), (sync, "delete_rules")],
}


@pytest.mark.parametrize("stubborn", STUBBORN.values(), ids=STUBBORN.keys())
def test_delete_goes_on_past_what_it_cannot_remove(
    runtime: Runtime, mocker: MockerFixture, stubborn: list[tuple[Any, str]]
) -> None:
    refuse = "" if stubborn else """echo '{"code": 5, "msg": "disk on fire"}'; exit 1"""
    calls = install_ipam(runtime, RESULT, delete=refuse or "exit 0")
    config = network(runtime, V4, ipam={"type": "fake"})
    runtime.add(config)
    for owner, name in stubborn:
        fail_at(mocker, owner, name, "before")
    outcome = runtime.call("DEL", config)
    if not stubborn:
        assert_refused(outcome, 5, "fake DEL: disk on fire")
    else:
        code = 100 if len(stubborn) == 1 else 105
        assert_refused(outcome, code, *(f"{name} was made to fail" for _, name in stubborn))
    assert calls.read_text().split() == ["ADD", "DEL"]
    names = [name for _, name in stubborn]
    assert (PORT in runtime.host.link_names()) == ("remove_link" in names)
    assert bool(runtime.host.nft()) == ("delete_rules" in names)
    mocker.stopall()
    install_ipam(runtime)
    assert runtime.call("DEL", config).status == 0
    assert runtime.host.link_names() == ["cni0"]
    assert runtime.host.nft() == []


def test_delete_leaves_a_foreign_interface_of_the_same_name_alone(runtime: Runtime) -> None:
    runtime.host.run("ip", "link", "add", "cni0", "type", "bridge")
    runtime.host.run("ip", "link", "add", "other", "type", "bridge")
    peer = ("peer", "name", "eth0", "netns", "c1")
    runtime.host.run("ip", "link", "add", "v0", "master", "other", "type", "veth", *peer)
    runtime.host.run("ip", "-n", "c2", "link", "add", "eth0", "type", "bridge")
    before = runtime.state("c1", "c2")
    for container in ("c1", "c2"):
        assert runtime.call("DEL", network(runtime, V4), container).status == 0
    assert runtime.state("c1", "c2") == before


def test_delete_touches_no_other_container(runtime: Runtime) -> None:
    config = network(runtime, V4, V6)
    runtime.add(config, "c2")
    before = runtime.state("c1", "c2")
    runtime.add(config)
    assert runtime.call("DEL", config).status == 0
    assert runtime.state("c1", "c2") == before
    assert runtime.host.ping("10.1.0.1", "c2")


CHANGES_OF_OTHERS = {
    "further address": "ip -n c1 address add 10.99.0.1/32 dev eth0",
    "further route": "ip -n c1 route add 10.98.0.0/16 via 10.1.0.1",
    "default route of another table": "ip -n c1 route add default via 10.1.0.1 table 100",
    "another MAC": "ip -n c1 link set eth0 address 02:00:00:00:00:77",
    "further interface": "ip -n c1 link add extra type bridge",
    "further bridge address": "ip address add 10.97.0.1/16 dev cni0",
    "rules of others": "nft add table inet mine; nft add chain inet pycni mine",
}


@pytest.mark.parametrize("change", CHANGES_OF_OTHERS.values(), ids=CHANGES_OF_OTHERS.keys())
def test_check_tolerates_what_later_plugins_may_do(runtime: Runtime, change: str) -> None:
    config = network(runtime, V4, V6)
    result = runtime.add(config)
    runtime.host.run("sh", "-ec", change)
    outcome = runtime.call("CHECK", {**config, "prevResult": result})
    assert outcome.status == 0, outcome.stdout


CHAIN4 = "masquerade-mynet-10.1.0.0/16"
BREAKAGES = {
    "container link down": ("ip -n c1 link set eth0 down", "interface eth0 is down in the container"),
    "host link down": (f"ip link set {PORT} down", f"{PORT}, the host's end of eth0, is down"),
    "bridge down": ("ip link set cni0 down", "bridge cni0 is down"),
    "bridge gone": ("ip link delete cni0", "bridge cni0 is missing"),
    "interface gone": ("ip -n c1 link delete eth0", "interface eth0 is missing in the container"),
    "address removed": ("ip -n c1 address delete 10.1.0.2/16 dev eth0", "address 10.1.0.2/16 of prevResult is missing"),
    "address removed (IPv6)": (
        "ip -n c1 address delete fd00:1::2/64 dev eth0",
        "address fd00:1::2/64 of prevResult is missing",
    ),
    "route removed": ("ip -n c1 route delete default", "route 0.0.0.0/0 via 10.1.0.1 of prevResult is missing"),
    "route removed (IPv6)": (
        "ip -n c1 -6 route delete default",
        "route ::/0 via fd00:1::1 of prevResult is missing",
    ),
    "gateway address removed": ("ip address delete 10.1.0.1/16 dev cni0", "gateway address 10.1.0.1/16 is missing"),
    "port detached": (f"ip link set {PORT} nomaster", f"{PORT} is not a port of bridge cni0"),
    "port on another bridge": (
        f"ip link add other type bridge; ip link set {PORT} master other",
        f"{PORT} is not a port of bridge cni0",
    ),
    "mtu of the container": ("ip -n c1 link set eth0 mtu 1500", "mtu of eth0 is 1500, more than 1400"),
    "mtu of the host end": (f"ip link set {PORT} mtu 1300", f"mtu of {PORT} is 1300, not 1400"),
    "hairpin": (f"bridge link set dev {PORT} hairpin off", f"port {PORT}: hairpin is off, not on"),
    "rules flushed": ("nft flush ruleset", "map masquerade4 of nftables table pycni lacks the element"),
    "element deleted": (
        "nft delete element inet pycni masquerade4 { cni0 . 10.1.0.2 }",
        "map masquerade4 of nftables table pycni lacks the element",
    ),
    "chain flushed": ("nft flush chain inet pycni postrouting", "chain postrouting of nftables table pycni"),
    "subnet's chain flushed": (f"nft flush chain inet pycni {CHAIN4}", f"chain {CHAIN4} of nftables table pycni"),
}


@pytest.mark.parametrize(("damage", "words"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_check_finds_each_breakage(runtime: Runtime, damage: str, words: str) -> None:
    config = network(runtime, V4, V6, mtu=1400, hairpinMode=True)
    result = runtime.add(config)
    document = {**config, "prevResult": result}
    assert runtime.call("CHECK", document).status == 0
    runtime.host.run("sh", "-ec", damage)
    before = runtime.state()
    assert_refused(runtime.call("CHECK", document), 103, words)
    assert runtime.state() == before  # CHECK changes nothing


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("ip -n c1 link set eth0 down", "interface eth0 is down"),
        (f"ip link set {PORT} nomaster", "is not a port"),
        ("ip link set cni0 down", "bridge cni0 is down"),
        ("ip link set cni0 promisc off", "promiscMode is on"),
    ],
    ids=["link", "port", "bridge", "promisc"],
)
def test_check_looks_at_a_network_of_layer_2_too(runtime: Runtime, damage: str, words: str) -> None:
    config = network(runtime, promiscMode=True)
    document = {**config, "prevResult": runtime.add(config)}
    assert runtime.call("CHECK", document).status == 0
    runtime.host.run("sh", "-ec", damage)
    assert_refused(runtime.call("CHECK", document), 103, words)


def test_check_asks_the_ipam_plugin_for_the_reservation(runtime: Runtime) -> None:
    config = network(runtime, V4)
    result = runtime.add(config)
    (runtime.data_dir / "mynet" / "10.1.0.2").unlink()
    assert_refused(runtime.call("CHECK", {**config, "prevResult": result}), 103, "has no reservation of 10.1.0.2")


def test_check_without_prev_result_is_an_error(runtime: Runtime) -> None:
    config = network(runtime, V4)
    runtime.add(config)
    assert_refused(runtime.call("CHECK", config), 7, "prevResult")


def test_check_of_a_vanished_namespace_is_an_error(runtime: Runtime) -> None:
    config = network(runtime, V4)
    result = runtime.add(config)
    runtime.host.remove_container("c1")
    assert_refused(runtime.call("CHECK", {**config, "prevResult": result}), 4, "cannot be opened")


FILTER_BREAKAGES = {
    "host ports": ("nft flush map inet pycni portmap_any4", "map portmap_any4 of nftables table pycni lacks"),
    "way back": ("nft flush chain inet pycni portmap_postrouting", "chain portmap_postrouting of nftables"),
    "bridge table": ("nft delete table bridge pycni", "map guarded of nftables table pycni lacks"),
    "genuine MAC": ("nft flush set bridge pycni genuine", "map genuine of nftables table pycni lacks"),
    "isolation": (f"bridge link set dev {PORT} isolated off", f"port {PORT}: isolation is off, portIsolation on"),
    "hairpin": (f"bridge link set dev {PORT} hairpin off", f"port {PORT}: hairpin is off, not on"),
}


@pytest.mark.parametrize(("damage", "words"), FILTER_BREAKAGES.values(), ids=FILTER_BREAKAGES.keys())
def test_check_finds_each_breakage_of_filters(runtime: Runtime, damage: str, words: str) -> None:
    config = filtered(runtime, port=8080, portIsolation=True)
    document = {**config, "prevResult": runtime.add(config)}
    assert runtime.call("CHECK", document).status == 0
    runtime.host.run("sh", "-ec", damage)
    before = runtime.state()
    assert_refused(runtime.call("CHECK", document), 103, words)
    assert runtime.state() == before


def test_a_host_port_that_is_taken_names_its_holder_and_leaves_no_trace(runtime: Runtime) -> None:
    runtime.add(filtered(runtime, port=8080), "c0")
    before = runtime.state("c0", "c1")
    outcome = runtime.call("ADD", filtered(runtime, port=8080))
    assert_refused(outcome, 102, "host port 8080/tcp is taken by container c0 interface eth0 of network mynet")
    assert runtime.state("c0", "c1") == before
    runtime.add(filtered(runtime, port=8081))


def test_delete_removes_filters_without_their_configuration(runtime: Runtime) -> None:
    runtime.add(filtered(runtime, port=8080), "c2")
    before = runtime.state("c1", "c2")
    runtime.add(filtered(runtime, port=8081))
    assert runtime.call("DEL", network(runtime, V4, V6, ipMasq=False)).status == 0
    assert runtime.state("c1", "c2") == before
    assert runtime.call("DEL", network(runtime, V4, V6), "c2").status == 0
    assert runtime.host.nft() == []


def gc(config: dict[str, Any], *containers: str) -> dict[str, Any]:
    """A configuration of GC in which eth0 of these containers is valid."""
    valid = [{"containerID": container, "ifname": "eth0"} for container in containers]
    return {**config, "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}


def test_gc_removes_what_is_stale_and_leaves_the_rest_as_it_was(runtime: Runtime) -> None:
    config = filtered(runtime, port=8080)
    runtime.add(config, "c2")
    runtime.add(network(runtime, "10.2.0.0/16", name="othernet", bridge="cni1"), "c0")
    before = runtime.state("c0", "c1", "c2")
    runtime.add(filtered(runtime, port=8081), "c1")
    runtime.add(network(runtime, V4, V6, isDefaultGateway=False, isGateway=True), "c0", ifname="eth1")
    outcome = runtime.call("GC", gc(config, "c2"), netns="")
    assert (outcome.status, outcome.stdout) == (0, "")
    assert runtime.state("c0", "c1", "c2") == before


def test_gc_with_an_empty_list_removes_everything_of_the_network(runtime: Runtime) -> None:
    config = filtered(runtime, port=8080)
    runtime.add(config)
    assert runtime.call("GC", gc(config), netns="").status == 0
    assert runtime.host.link_names() == ["cni0"]
    assert runtime.host.nft() == []
    assert runtime.state()["reservations"] == []


def test_gc_without_a_list_removes_nothing_and_says_so(runtime: Runtime, capfd: pytest.CaptureFixture[str]) -> None:
    config = network(runtime, V4, V6)
    runtime.add(config)
    before = runtime.state("c1")
    outcome = runtime.call("GC", {**config, "cniVersion": "1.1.0"}, netns="")
    assert (outcome.status, outcome.stdout) == (0, "")
    assert runtime.state("c1") == before
    assert "cni-bridge: GC without a list of valid attachments: nothing was removed" in capfd.readouterr().err


@pytest.mark.parametrize(
    "valid", [7, [7], [{}], [{"containerID": "c1"}], [{"containerID": "c1", "ifname": ""}]], ids=str
)
def test_gc_with_a_malformed_list_removes_nothing(runtime: Runtime, valid: Any) -> None:
    calls = install_ipam(runtime, RESULT)
    config = network(runtime, V4, ipam={"type": "fake"})
    runtime.add(config)
    before = runtime.state("c1")
    document = {**config, "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    assert_refused(runtime.call("GC", document, netns=""), 7, "nothing was removed", "cni.dev/valid-attachments")
    assert runtime.state("c1") == before
    assert calls.read_text().split() == ["ADD"]


COLLECTING = {
    "the address": [],
    "the link": [(link_groups, "delete_links")],
    "the rules": [(sync, "delete_rules")],
    "link and rules": [(link_groups, "delete_links"), (sync, "delete_rules")],
}


@pytest.mark.parametrize("stubborn", COLLECTING.values(), ids=COLLECTING.keys())
def test_gc_goes_on_past_errors_and_reports_them_all(
    runtime: Runtime, mocker: MockerFixture, stubborn: list[tuple[Any, str]]
) -> None:
    calls = install_ipam(runtime, RESULT, others="""echo '{"code": 5, "msg": "disk on fire"}'; exit 1""")
    config = network(runtime, V4, ipam={"type": "fake"})
    runtime.add(config)
    for owner, name in stubborn:
        fail_at(mocker, owner, name, "before")
    names = [name for _, name in stubborn]
    words = ["fake GC: disk on fire", *(f"{name} was made to fail" for name in names)]
    assert_refused(runtime.call("GC", gc(config), netns=""), 105 if stubborn else 5, *words)
    assert calls.read_text().split() == ["ADD", "GC"]
    assert (PORT in runtime.host.link_names()) == ("delete_links" in names)
    assert bool(runtime.host.nft()) == ("delete_rules" in names)


@pytest.mark.parametrize(("command", "exclusive"), [("ADD", False), ("GC", True)])
def test_add_and_gc_hold_each_other_off(runtime: Runtime, mocker: MockerFixture, command: str, exclusive: bool) -> None:
    config = network(runtime, V4)
    mocker.patch.object(locks, "LOCK_BOUND", 0.05)
    before = runtime.state("c1")
    with runtime.host.entered(), locks.activity_lock(exclusive=not exclusive):
        assert_refused(runtime.call(command, gc(config)), 11, "a GC or ADD of pycni is under way")
    assert runtime.state("c1") == before
    assert runtime.call(command, gc(config)).status == 0


def status_of(runtime: Runtime, config: dict[str, Any]) -> Outcome:
    return runtime.call("STATUS", {**config, "cniVersion": "1.1.0"}, netns="")


@pytest.mark.parametrize("there", [False, True], ids=["empty host", "in use"])
def test_status_of_a_host_that_works_is_silent_and_changes_nothing(runtime: Runtime, there: bool) -> None:
    config = filtered(runtime, port=8080)
    if there:
        runtime.add(config)
    before = runtime.state("c1")
    outcome = status_of(runtime, config)
    assert (outcome.status, outcome.stdout) == (0, "")
    assert runtime.state("c1") == before


@pytest.mark.parametrize(
    ("code", "expected"), [(50, 50), (51, 51), (7, 50), (101, 50)], ids=["50", "51", "7 is 50", "101 is 50"]
)
def test_status_passes_the_ipam_plugin_s_answer_on(runtime: Runtime, code: int, expected: int) -> None:
    calls = install_ipam(runtime, others=f"""echo '{{"code": {code}, "msg": "no more"}}'; exit 1""")
    assert_refused(status_of(runtime, network(runtime, V4, ipam={"type": "fake"})), expected, "fake STATUS: no more")
    assert calls.read_text().split() == ["STATUS"]


def test_status_of_a_missing_ipam_plugin_is_not_available(runtime: Runtime) -> None:
    assert_refused(status_of(runtime, network(runtime, V4, ipam={"type": "none-such"})), 50, "none-such")


def test_status_finds_a_bridge_that_went_down_and_other_commands_still_work(runtime: Runtime) -> None:
    config = network(runtime, V4)
    runtime.add(config)
    runtime.host.run("ip", "link", "set", "cni0", "down")
    assert_refused(status_of(runtime, config), 51, "bridge cni0 is down")
    runtime.add(config, "c2")
    assert status_of(runtime, config).status == 0


def test_an_add_after_one_that_died_gets_an_address_again(runtime: Runtime) -> None:
    directory = Path(runtime.path[0])
    calls = install_ipam(runtime, RESULT)
    taken = """echo '{"code": 102, "msg": "has an address already"}'; exit 1"""
    script = (
        (directory / "fake").read_text().replace("ADD) cat", f"ADD) [ -e {directory}/freed ] || {{ {taken}; }}; cat")
    )
    (directory / "fake").write_text(script.replace("DEL) exit 0", f"DEL) touch {directory}/freed; exit 0"))
    runtime.add(network(runtime, V4, ipam={"type": "fake"}))
    assert calls.read_text().split() == ["ADD", "DEL", "ADD"]
