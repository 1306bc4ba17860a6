"""Keys that nobody knows: a likely typo is named, and in a strict configuration every one is an error."""

from typing import Any

import pytest

from tests.kit.runtime import Runtime
from tests.system.networks import layer_2, network, refused

pytestmark = pytest.mark.kernel


def with_ipam(**keys: Any) -> dict[str, Any]:
    return network(1, ipam={"type": "cni-ipam", "subnet": "10.1.0.0/16", **keys})


TYPOS = [
    (network(1, isGatway=True), "isGatway", "isGateway"),
    (network(1, ipmask=True), "ipmask", "ipMasq"),
    (network(1, hairpin_mode=True), "hairpin_mode", "hairpinMode"),
    (network(1, vlanTrnk=[]), "vlanTrnk", "vlanTrunk"),
    (network(1, macspoofcheck=True), "macspoofcheck", "macspoofchk"),
    (network(1, dns={"nameserver": ["192.0.2.53"]}), "dns.nameserver", "nameservers"),
    (with_ipam(rangeSart="10.1.0.9"), "ipam.rangeSart", "rangeStart"),
    (with_ipam(ranges=[[{"subnet": "10.9.0.0/16", "gatway": "10.9.0.9"}]]), "ipam.ranges[0][0].gatway", "gateway"),
    (with_ipam(routes=[{"dst": "192.0.2.0/24", "prioriti": 5}]), "ipam.routes[0].prioriti", "priority"),
    (with_ipam(dataDri="/tmp/x"), "ipam.dataDri", "dataDir"),
]


@pytest.mark.parametrize(("config", "typo", "meant"), TYPOS, ids=[typo for _, typo, _ in TYPOS])
def test_typo_is_named_on_stderr_with_the_likely_key(
    bridge: Runtime, config: dict[str, Any], typo: str, meant: str
) -> None:
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", config)
    assert outcome.status == 0
    assert f"{typo}=" in outcome.stderr or f"{typo} " in outcome.stderr
    assert f"did you mean {meant!r}?" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize(("config", "typo", "meant"), TYPOS, ids=[typo for _, typo, _ in TYPOS])
def test_typo_in_a_strict_configuration_is_an_error(
    bridge: Runtime, config: dict[str, Any], typo: str, meant: str
) -> None:
    bridge.host.add_container("c1")
    error = refused(bridge, "ADD", "c1", {**config, "strict": True})
    assert error["code"] == 2
    assert f"{typo}=" in error["msg"]
    assert f"did you mean {meant!r}?" in error["msg"]
    assert bridge.host.link_names() == bridge.host.link_names("c1") == []
    assert bridge.host.reservations("net1") == []


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize(
    "keys",
    [
        {"capabilities": {"portMappings": True, "bandwidth": True}},
        {"cniVersions": ["1.0.0", "1.1.0"]},
        {"disableCheck": True},
        {"args": {"cni": {"anything": 1}, "others": {}}},
        {"runtimeConfig": {"bandwidth": {"ingressRate": 1}, "mac": "02:00:00:00:00:05"}},
        {"cni.dev/anything": 5, "example.com/key": 6},
        {"ipMasqBackend": "nftables"},
        {"ipMasqBackend": ""},
        {"ISGATEWAY": True},
        {"dns": {"nameservers": ["192.0.2.53"], "domain": "d", "search": [], "options": []}},
    ],
    ids=lambda keys: "+".join(keys),
)
def test_known_keys_and_those_of_others_are_no_typos(bridge: Runtime, keys: dict[str, Any], strict: bool) -> None:
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", network(1, **keys, strict=strict))
    assert (outcome.status, outcome.stderr) == (0, ""), outcome


def test_unknown_key_that_resembles_nothing_passes_in_silence(bridge: Runtime) -> None:
    bridge.host.add_container("c1")
    outcome = bridge.call("ADD", "c1", network(1, somebodyElses={"deep": 1}))
    assert (outcome.status, outcome.stderr) == (0, "")


def test_strict_configuration_names_every_unknown_key_with_its_value(bridge: Runtime) -> None:
    bridge.host.add_container("c1")
    error = refused(bridge, "ADD", "c1", layer_2(strict=True, isGatway=True, somebodyElses={"deep": 1}))
    assert error["code"] == 2
    assert "isGatway=true" in error["msg"]
    assert 'somebodyElses={"deep": 1}' in error["msg"]


@pytest.mark.parametrize("backend", ["iptables", "ebtables", "NFTABLES"])
@pytest.mark.parametrize("masquerade", [True, False], ids=["ipMasq", "plain"])
def test_other_backend_is_an_error_with_key_and_value(bridge: Runtime, backend: str, masquerade: bool) -> None:
    bridge.host.add_container("c1")
    error = refused(bridge, "ADD", "c1", network(1, ipMasq=masquerade, ipMasqBackend=backend))
    assert error["code"] == 2
    assert f"ipMasqBackend={backend!r}" in error["msg"]
    assert bridge.host.link_names() == []


@pytest.mark.parametrize("keys", [{"strict": True, "isGatway": True}, {"ipMasqBackend": "iptables"}], ids=str)
def test_delete_works_whatever_add_refused(bridge: Runtime, keys: dict[str, Any]) -> None:
    bridge.add("c1", network(1))
    assert bridge.call("DEL", "c1", network(1, **keys)).status == 0
    assert bridge.host.link_names("c1") == []
    assert bridge.host.reservations("net1") == []
