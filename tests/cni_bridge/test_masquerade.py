"""Source NAT: the rule set by `nft -j`, what it costs, and many processes at once."""

import errno
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_bridge import masquerade, nftables
from cni_bridge.masquerade import chain_of, delete_masquerade, ensure_masquerade, find_missing
from cni_bridge.netlink import NetlinkError
from cni_bridge.nftables import Nftables
from cni_bridge.plan import Attachment
from cni_protocol.address import CIDR, parse_cidr
from cni_protocol.errors import CNIError
from tests.conftest import ROOT
from tests.host import Host

pytestmark = pytest.mark.kernel

V4, V6 = parse_cidr("10.1.0.5/16"), parse_cidr("fd00:1::5/64")
CHAIN4, CHAIN6 = "masquerade-mynet-10.1.0.0/16", "masquerade-mynet-fd00_1__/64"


@pytest.fixture(autouse=True)
def inside(host: Host) -> Iterator[None]:
    """Every test of this file runs inside its host."""
    with host.entered():
        yield


def attachment(container: str = "c1", network: str = "mynet") -> Attachment:
    return Attachment(network, container, "eth0")


def address(number: int) -> CIDR:
    return parse_cidr(f"10.1.{number >> 8}.{number & 255}/16")


def rules(host: Host, chain: str) -> list[Any]:
    return [entry["rule"]["expr"] for entry in host.nft() if entry.get("rule", {}).get("chain") == chain]


def elements(host: Host) -> dict[str, tuple[str, str]]:
    """The chain and the comment of every masqueraded address."""
    found = {}
    for entry in host.nft():
        for key, verdict in entry.get("map", {}).get("elem", []):
            found[key["elem"]["val"]] = (verdict["jump"]["target"], key["elem"]["comment"])
    return found


def chains(host: Host) -> list[str]:
    return sorted(entry["chain"]["name"] for entry in host.nft() if "chain" in entry)


def stay(protocol: str, network: str, prefix: int) -> list[Any]:
    left = {"payload": {"protocol": protocol, "field": "daddr"}}
    return [
        {"match": {"op": "==", "left": left, "right": {"prefix": {"addr": network, "len": prefix}}}},
        {"return": None},
    ]


def look_up(protocol: str, name: str) -> list[Any]:
    return [{"vmap": {"key": {"payload": {"protocol": protocol, "field": "saddr"}}, "data": f"@{name}"}}]


def without_handles(entries: Sequence[dict[str, Any]]) -> list[Any]:
    return [
        {kind: {key: value for key, value in body.items() if key != "handle"}}
        for entry in entries
        for kind, body in entry.items()
    ]


def test_what_leaves_the_subnet_is_masqueraded_but_multicast(host: Host) -> None:
    ensure_masquerade(attachment(), [V4, V6])
    assert elements(host) == {
        "10.1.0.5": (CHAIN4, "mynet/c1/eth0"),
        "fd00:1::5": (CHAIN6, "mynet/c1/eth0"),
    }
    assert rules(host, "postrouting") == [look_up("ip", "masquerade4"), look_up("ip6", "masquerade6")]
    assert rules(host, CHAIN4) == [stay("ip", "10.1.0.0", 16), stay("ip", "224.0.0.0", 4), [{"masquerade": None}]]
    assert rules(host, CHAIN6) == [stay("ip6", "fd00:1::", 64), stay("ip6", "ff00::", 8), [{"masquerade": None}]]
    [base] = [entry["chain"] for entry in host.nft() if entry.get("chain", {}).get("name") == "postrouting"]
    assert (base["type"], base["hook"], base["prio"]) == ("nat", "postrouting", 100)


@pytest.mark.parametrize("addresses", [[V4], [V6], [V4, V6], [V4, address(77)]], ids=["v4", "v6", "both", "two of one"])
def test_ensuring_twice_changes_nothing(host: Host, addresses: list[CIDR]) -> None:
    ensure_masquerade(attachment(), addresses)
    before = without_handles(host.nft())
    ensure_masquerade(attachment(), addresses)
    assert without_handles(host.nft()) == before
    assert find_missing(attachment(), addresses) == []


def test_what_a_human_changed_in_the_chains_is_set_right(host: Host) -> None:
    ensure_masquerade(attachment(), [V4])
    before = without_handles(host.nft())
    host.run("nft", f"flush chain inet pycni postrouting; add rule inet pycni {CHAIN4} counter")
    ensure_masquerade(attachment("c2"), [address(6)])
    host.run("nft", "delete element inet pycni masquerade4 { 10.1.0.6 }")
    assert without_handles(host.nft()) == before


def test_an_element_that_a_vanished_container_left_gives_way(host: Host) -> None:
    ensure_masquerade(attachment("gone"), [V4])
    ensure_masquerade(attachment("c1"), [V4])
    assert elements(host) == {"10.1.0.5": (CHAIN4, "mynet/c1/eth0")}
    delete_masquerade(attachment("gone"))
    assert elements(host) == {"10.1.0.5": (CHAIN4, "mynet/c1/eth0")}
    assert find_missing(attachment("c1"), [V4]) == []


def test_deleting_takes_only_ones_own(host: Host) -> None:
    others = [attachment("c2"), attachment("c1", "othernet"), Attachment("mynet", "c1", "eth1")]
    ensure_masquerade(attachment(), [V4, V6])
    for number, other in enumerate(others):
        ensure_masquerade(other, [address(10 + number)])
    delete_masquerade(attachment())
    assert sorted(elements(host)) == ["10.1.0.10", "10.1.0.11", "10.1.0.12"]
    assert chains(host) == sorted([CHAIN4, "masquerade-othernet-10.1.0.0/16", "postrouting"])
    for number, other in enumerate(others):
        assert find_missing(other, [address(10 + number)]) == []


def test_the_table_goes_with_its_last_container(host: Host) -> None:
    for container in ("c1", "c2"):
        ensure_masquerade(attachment(container), [address(int(container[1]))])
    delete_masquerade(attachment("c1"))
    assert chains(host) == [CHAIN4, "postrouting"]
    delete_masquerade(attachment("c2"))
    assert host.nft() == []


def test_deleting_nothing_is_fine_and_makes_nothing(host: Host) -> None:
    delete_masquerade(attachment())
    assert host.nft() == []
    ensure_masquerade(attachment("c2"), [V4])
    before = host.nft()
    delete_masquerade(attachment())
    assert host.nft() == before


def test_the_rules_of_others_stay(host: Host) -> None:
    host.run("nft", "add table ip nat; add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }")
    host.run("nft", "add rule ip nat POSTROUTING ip saddr 10.9.0.0/16 masquerade; add table inet mine")
    before = host.nft()
    ensure_masquerade(attachment(), [V4, V6])
    delete_masquerade(attachment())
    assert host.nft() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("flush chain inet pycni postrouting", ["chain postrouting"]),
        (f"flush chain inet pycni {CHAIN4}", [f"chain {CHAIN4}"]),
        (f"flush chain inet pycni {CHAIN6}", [f"chain {CHAIN6}"]),
        (f"add rule inet pycni {CHAIN4} accept", [f"chain {CHAIN4}"]),
        ("delete element inet pycni masquerade4 { 10.1.0.5 }", ["10.1.0.5 is not in map masquerade4"]),
        ("delete element inet pycni masquerade6 { fd00:1::5 }", ["fd00:1::5 is not in map masquerade6"]),
        ("flush map inet pycni masquerade4", ["10.1.0.5 is not in map masquerade4"]),
        (
            "flush ruleset",
            [
                "chain postrouting",
                "10.1.0.5 is not in map masquerade4",
                f"chain {CHAIN4}",
                "fd00:1::5 is not in map masquerade6",
                f"chain {CHAIN6}",
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_is_found(host: Host, change: str, words: list[str]) -> None:
    ensure_masquerade(attachment(), [V4, V6])
    assert find_missing(attachment(), [V4, V6]) == []
    host.run("nft", change)
    missing = find_missing(attachment(), [V4, V6])
    assert len(missing) == len(words)
    assert all(word in text for word, text in zip(words, missing, strict=True))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_deleted_rule_of_a_subnet_s_chain_is_found(host: Host, number: int) -> None:
    ensure_masquerade(attachment(), [V4])
    handles = [e["rule"]["handle"] for e in host.nft() if e.get("rule", {}).get("chain") == CHAIN4]
    host.run("nft", f"delete rule inet pycni {CHAIN4} handle {handles[number - 1]}")
    assert find_missing(attachment(), [V4]) == [f"chain {CHAIN4} of table pycni has not the rules that masquerade"]


def test_an_element_of_another_container_does_not_count(host: Host) -> None:
    ensure_masquerade(attachment("c2"), [V4])
    assert find_missing(attachment("c1"), [V4]) == ["10.1.0.5 is not in map masquerade4 of table pycni"]


def test_a_connection_costs_the_same_with_fifty_containers(host: Host) -> None:
    def walked() -> tuple[int, int, int]:
        return len(rules(host, "postrouting")), len(rules(host, CHAIN4)), len(chains(host))

    ensure_masquerade(attachment("c0"), [address(10)])
    with_one = walked()
    for number in range(1, 50):
        ensure_masquerade(attachment(f"c{number}"), [address(10 + number)])
    assert len(elements(host)) == 50
    assert walked() == with_one == (2, 3, 2)


@pytest.mark.parametrize(
    ("network", "cidr", "expected"),
    [
        ("mynet", "10.1.0.5/16", CHAIN4),
        ("mynet", "fd00:1::5/64", CHAIN6),
        ("a.b-c_d", "10.1.0.5/30", "masquerade-a.b-c_d-10.1.0.4/30"),
    ],
)
def test_the_chain_of_a_subnet(network: str, cidr: str, expected: str) -> None:
    assert chain_of(network, parse_cidr(cidr)) == expected


def test_long_names_fit_and_can_be_read_by_nft(host: Host) -> None:
    long = Attachment("n" * 300, "c" * 300, "fifteen-bytes-x")
    addresses = [V4, parse_cidr("fd00:1234:5678:9abc:def0:1234:5678:9abc/126")]
    ensure_masquerade(long, addresses)
    assert [comment for _, comment in elements(host).values()] == [long.owner] * 2
    assert find_missing(long, addresses) == []
    delete_masquerade(long)
    assert host.nft() == []


CHURN = """
import sys
from cni_bridge.masquerade import delete_masquerade, ensure_masquerade, find_missing
from cni_bridge.plan import Attachment
from cni_protocol.address import parse_cidr

number = int(sys.argv[1])
addresses = [parse_cidr(f"10.{number % 3}.0.{number + 2}/16"), parse_cidr(f"fd00:{number % 3}::{number + 2}/64")]
for round in range(5):
    own = Attachment("mynet", f"c{number}-{round}", "eth0")
    ensure_masquerade(own, addresses)
    missing = find_missing(own, addresses)
    assert missing == [], missing
    delete_masquerade(own)
"""


def test_sixteen_processes_at_once_leave_no_rule(host: Host) -> None:
    command = [sys.executable, "-c", CHURN]
    env = {"PYTHONPATH": str(ROOT)}
    running = [
        host.start(*command, str(number), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for number in range(16)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert outputs == [""] * 16
    assert [process.returncode for process in running] == [0] * 16
    assert host.nft() == []


def refuse(mocker: MockerFixture, number: int) -> Any:
    return mocker.patch.object(Nftables, "commit", side_effect=NetlinkError(number, "", 1))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EPERM, "run the plugin as root"), (errno.EOPNOTSUPP, "this kernel lacks nf_tables"), (errno.EINVAL, "")],
    ids=["no right", "no nf_tables", "anything else"],
)
def test_a_refusal_says_what_was_done_and_what_may_help(mocker: MockerFixture, number: int, remedy: str) -> None:
    refuse(mocker, number)
    with pytest.raises(CNIError) as caught:
        ensure_masquerade(attachment(), [V4])
    assert caught.value.code == 100
    assert caught.value.msg.startswith("masquerading cannot be set up: ")
    assert remedy in caught.value.msg


def test_a_deletion_that_is_refused_says_so(mocker: MockerFixture) -> None:
    ensure_masquerade(attachment(), [V4])
    refuse(mocker, errno.EINVAL)
    with pytest.raises(CNIError, match="masquerading cannot be removed") as caught:
        delete_masquerade(attachment())
    assert caught.value.code == 100


def test_a_change_that_somebody_came_in_between_of_is_tried_again_but_not_for_ever(mocker: MockerFixture) -> None:
    commit = refuse(mocker, errno.EEXIST)
    with pytest.raises(CNIError, match="keeps changing"):
        ensure_masquerade(attachment(), [V4])
    assert commit.call_count == 5


def test_a_kernel_without_nfnetlink_is_named(mocker: MockerFixture) -> None:
    mocker.patch.object(masquerade, "Nftables", side_effect=OSError(errno.EPROTONOSUPPORT, "Protocol not supported"))
    with pytest.raises(CNIError, match="modules nf_tables"):
        find_missing(attachment(), [V4])


def test_a_table_that_another_container_comes_into_meanwhile_stays(host: Host, mocker: MockerFixture) -> None:
    ensure_masquerade(attachment("c1"), [V4])
    genuine = Nftables.list_chains

    def come_in_behind(nft: Nftables) -> set[str]:
        mocker.stop(patched)
        chains = genuine(nft)
        ensure_masquerade(attachment("c2"), [address(6)])
        return chains

    patched = mocker.patch.object(nftables.Nftables, "list_chains", come_in_behind)
    delete_masquerade(attachment("c1"))
    assert elements(host) == {"10.1.0.6": (CHAIN4, "mynet/c2/eth0")}
    assert find_missing(attachment("c2"), [address(6)]) == []
