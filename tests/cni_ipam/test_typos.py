"""Keys that the address plugin does not know: a hint on stderr, or, in a strict configuration, an error."""

from typing import Any

import pytest

from cni_protocol.errors import UNSUPPORTED_FIELD
from tests.cni_ipam import Network

SMALL = {"subnet": "10.1.0.0/29"}


@pytest.mark.parametrize(
    ("ipam", "hint"),
    [
        ({**SMALL, "rangeEdn": "10.1.0.5"}, "ipam.rangeEdn is not known; did you mean 'rangeEnd'?"),
        ({**SMALL, "datadir2": "/x"}, "ipam.datadir2 is not known; did you mean 'dataDir'?"),
        (
            {"ranges": [[{**SMALL, "gatway": "10.1.0.6"}]]},
            "ipam.ranges[0][0].gatway is not known; did you mean 'gateway'?",
        ),
        ({**SMALL, "routes": [{"dst": "0.0.0.0/0", "gww": "10.1.0.1"}]}, "ipam.routes[0].gww is not known; did you"),
    ],
    ids=["range", "data-dir", "inner-range", "route"],
)
def test_a_typo_is_named_with_the_key_that_was_meant_and_refused_when_strict(
    ipam: dict[str, Any], hint: str, network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(network.add(ipam)) == 1
    assert f"cni-ipam: {hint}" in capsys.readouterr().err
    error = network.refusal("ADD", ipam, "c2", strict=True)
    assert error.code == UNSUPPORTED_FIELD
    key, value = hint.partition(" ")[0], next(iter(_innermost(ipam).values()))
    assert f"{key}={value}" in error.msg
    assert hint.partition("; ")[2] in error.msg
    assert capsys.readouterr().err == ""
    assert set(network.reserved().values()) == {"c1\r\neth0"}


def _innermost(ipam: dict[str, Any]) -> dict[str, str]:
    """The misspelt key with its value as JSON."""
    places = [ipam, *ipam.get("routes", []), *(entry for pool in ipam.get("ranges", []) for entry in pool)]
    strange = ("rangeEdn", "datadir2", "gatway", "gww")
    return {key: f'"{place[key]}"' for place in places for key in strange if key in place}


def test_keys_of_others_are_passed_over_unless_strict(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    ipam = {**SMALL, "x-note": 1, "example.com/y": 2}
    network.add(ipam, bridge="cni0", isGateway=True)
    assert capsys.readouterr().err == ""
    error = network.refusal("ADD", ipam, "c2", strict=True)
    assert (error.code, "ipam.x-note=1 is not known" in error.msg) == (UNSUPPORTED_FIELD, True)
    assert "example.com" not in error.msg


def test_all_unknown_keys_are_named_at_once(network: Network) -> None:
    error = network.refusal("ADD", {"ranges": [[{**SMALL, "a": 1}]], "b": [2], "c": "x" * 200}, strict=True)
    assert error.code == UNSUPPORTED_FIELD
    for part in ("ipam.ranges[0][0].a=1", "ipam.b=[2]", 'ipam.c="xxx'):
        assert part in error.msg
    assert len(error.msg) < 500
    assert not network.data_dir.exists()


def test_a_strict_configuration_with_every_known_key_passes(network: Network) -> None:
    ranges = [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.1"}]]
    route = {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 7, "scope": 0}
    ipam = {"ranges": ranges, "routes": [route], "resolvConf": ""}
    keys: dict[str, Any] = {"strict": True, "bridge": "cni0", "runtimeConfig": {"ips": ["10.1.0.10"]}, "args": {"x": 1}}
    assert network.add(ipam, **keys) == ["10.1.0.10/24"]
    result = {"ips": [{"address": "10.1.0.10/24"}]}
    assert network.call("CHECK", ipam, prevResult=result, **keys) is None


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_what_is_given_back_does_not_depend_on_keys(command: str, network: Network) -> None:
    network.add(SMALL)
    keys: dict[str, Any] = {"strict": True, "cni.dev/valid-attachments": [], "cniVersion": "1.1.0"}
    network.call(command, {**SMALL, "rangeEdn": "x"}, **keys)
    assert network.reserved() == {}


@pytest.mark.parametrize("command", ["CHECK", "STATUS"])
def test_the_other_commands_are_strict_too(command: str, network: Network) -> None:
    network.add(SMALL)
    error = network.refusal(command, {**SMALL, "rangeEdn": "x"}, strict=True, cniVersion="1.1.0")
    assert error.code == UNSUPPORTED_FIELD
