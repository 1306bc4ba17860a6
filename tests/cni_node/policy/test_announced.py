"""Pods that are about to start: whose an address is by now, and who waits."""

from typing import Any

import pytest

from cni_node.policy.announced import GONE, IN_FORCE, PENDING, Admitter, Announced, admit, parse_announced
from cni_node.policy.model import Pod
from tests.cni_node.policy.cases import DENY_ALL
from tests.cni_node.policy.texts import ips, pod

NEW = ips("10.0.1.9")


def test_a_pod_that_the_api_knows_gets_its_address() -> None:
    new = Announced("x", "a", "", NEW)
    found = admit((pod("x/a"),), [DENY_ALL], [new])
    assert [each.addresses for each in found.pods] == [NEW]
    assert (found.pending, found.answers, found.settled) == ((), {new: IN_FORCE}, ())
    assert admit((pod("x/a", "10.0.1.9"),), [DENY_ALL], [new]).settled == (new,)


def test_whoever_had_the_address_before_has_it_no_longer() -> None:
    old = pod("y/old", "10.0.1.9", "fd00::9")
    found = admit(
        (
            old,
            pod("x/a"),
        ),
        [],
        [Announced("x", "a", "", NEW)],
    )
    assert {each.full_name: each.addresses for each in found.pods} == {"y/old": ips("fd00::9"), "x/a": NEW}
    unknown = admit((old,), [], [Announced("x", "a", "", NEW)])
    assert unknown.pods[0].addresses == ips("fd00::9")


@pytest.mark.parametrize(
    ("namespace", "answer"), [pytest.param("x", PENDING, id="policies"), pytest.param("y", IN_FORCE, id="none")]
)
def test_a_pod_that_the_api_has_not_told_of_waits_where_there_are_policies(namespace: str, answer: str) -> None:
    new = Announced(namespace, "a", "", NEW)
    found = admit((), [DENY_ALL], [new])
    assert found.answers == {new: answer}
    assert found.pending == (NEW if answer == PENDING else ())


def test_a_container_that_is_no_pod_takes_an_address_from_the_pod_that_had_it() -> None:
    went, its = Announced("x", "a", "one", NEW), Announced("-", "c1", "", NEW)
    assert its.replaces(went)
    found = admit((pod("x/a", "10.0.1.9", metadata={"uid": "one"}),), [DENY_ALL], [its])
    assert ([each.addresses for each in found.pods], found.pending, found.answers) == ([()], (), {its: IN_FORCE})


def test_a_pod_of_the_same_name_that_came_before_is_another() -> None:
    before = pod("x/a", "10.0.1.1", metadata={"uid": "one"})
    assert admit((before,), [DENY_ALL], [Announced("x", "a", "two", NEW)]).pending == NEW
    assert admit((before,), [DENY_ALL], [Announced("x", "a", "one", NEW)]).pending == ()


def test_a_pod_that_is_gone_has_its_addresses_no_longer_whatever_the_api_still_says() -> None:
    gone = Announced("x", "a", "one", NEW, gone=True)
    found = admit((pod("x/a", "10.0.1.9", "fd00::9", metadata={"uid": "one"}),), [DENY_ALL], [gone])
    assert found.pods[0].addresses == ips("fd00::9")
    assert (found.pending, found.answers, found.settled) == ((), {gone: GONE}, ())
    assert admit((), [DENY_ALL], [gone]).settled == (gone,)
    next_one = admit((pod("x/a", "10.0.1.9", metadata={"uid": "two"}),), [DENY_ALL], [gone])
    assert (next_one.pods[0].addresses, next_one.settled) == (NEW, (gone,))


def test_a_static_pod_is_known_by_its_own_uid() -> None:
    mirror = pod("x/a", metadata={"uid": "two", "annotations": {"kubernetes.io/config.mirror": "one"}})
    assert admit((mirror,), [DENY_ALL], [Announced("x", "a", "one", NEW)]).pending == ()


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"namespace": "x", "name": "a"}, {"namespace": "x", "name": "a", "addresses": ["10.0.0.0/8"]}],
    ids=str,
)
def test_what_is_no_pod_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_announced(document)


def test_a_pod_as_the_plugin_tells_of_it() -> None:
    told = {"namespace": "x", "name": "a", "uid": None, "addresses": ["10.0.1.9"]}
    assert parse_announced(told) == Announced("x", "a", "", NEW)
    assert parse_announced({**told, "gone": True}).gone
    newer = parse_announced({**told, "containerId": "c", "ifname": "eth0"})
    assert (newer.container_id, newer.ifname) == ("c", "eth0")


def test_a_second_network_of_a_pod_takes_nothing_from_the_first() -> None:
    """The API tells of the first network alone."""
    second = Announced("x", "a", "", ips("192.168.9.3"), container_id="c", ifname="net1")
    found = admit((pod("x/a", "10.0.1.9"),), [DENY_ALL], [second])
    assert found.pods[0].addresses == (*NEW, *ips("192.168.9.3"))
    first = Announced("x", "a", "", NEW, container_id="c", ifname="eth0")
    assert admit((pod("x/a"),), [DENY_ALL], [first, second]).pods[0].addresses == (*NEW, *ips("192.168.9.3"))


FIRST = Announced("x", "a", "one", NEW, container_id="c", ifname="eth0")


@pytest.mark.parametrize(
    ("later", "replaces"),
    [
        pytest.param({}, True, id="the same interface"),
        pytest.param({"ifname": "net1"}, False, id="another interface"),
        pytest.param({"ifname": "net1", "container_id": "d"}, True, id="another sandbox of the pod"),
        pytest.param({"uid": "two"}, False, id="another pod of that name"),
        pytest.param({"uid": "two", "addresses": NEW}, True, id="another pod with the address"),
        pytest.param({"gone": True}, False, id="one that goes"),
        pytest.param({"gone": True, "addresses": NEW}, True, id="one that goes with the address"),
        pytest.param({"ifname": "", "container_id": ""}, False, id="an older plugin"),
    ],
)
def test_what_was_announced_is_over_when_the_same_interface_has_other_addresses(
    later: dict[str, Any], replaces: bool
) -> None:
    assert FIRST._replace(**{"addresses": ips("10.0.1.8"), **later}).replaces(FIRST) == replaces


@pytest.mark.parametrize(
    ("there", "settled"),
    [
        pytest.param(pod("x/job", "10.0.1.9"), False, id="it still has the address"),
        pytest.param(pod("x/job", "10.0.1.9", status={"phase": "Succeeded"}), True, id="it has finished"),
        pytest.param(pod("x/job", "10.0.1.8"), True, id="it has another address"),
        pytest.param(pod("x/job"), False, id="the API may be late"),
    ],
)
def test_what_is_gone_is_remembered_until_the_api_says_the_same(there: Pod, settled: bool) -> None:
    gone = Announced("x", "job", "", NEW, gone=True)
    found = admit((there,), [DENY_ALL], [gone])
    assert found.settled == ((gone,) if settled else ())
    assert found.answers == {gone: GONE}


def test_as_long_as_nothing_changes_the_pods_are_the_same() -> None:
    pods = (pod("x/a", "10.0.1.1"), pod("x/job"))
    assert admit(pods, [DENY_ALL], [Announced("x", "job", "", NEW, gone=True)]).pods is pods
    admitter, second = Admitter(), Announced("x", "a", "", NEW)
    found = admitter.admit(pods, [DENY_ALL], [second])
    assert found.pods[0].addresses == (*ips("10.0.1.1"), *NEW)
    assert admitter.admit(pods, [DENY_ALL], [second]) is found
    assert admitter.admit(pods, [DENY_ALL], []).pods is pods
    unknown = Announced("x", "new", "", NEW)
    assert admitter.admit(pods, [], [unknown]).answers == {unknown: IN_FORCE}
    assert admitter.admit(pods, [DENY_ALL], [unknown]).answers == {unknown: PENDING}
