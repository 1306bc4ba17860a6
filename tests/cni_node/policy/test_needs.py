"""Which pods a node has to know."""

import pytest

from cni_node.policy.model import Policy
from cni_node.policy.needs import EVERYWHERE, FEW, MANY, needed_namespaces
from tests.cni_node.policy.cases import DENY_ALL, block, let_in, let_out, pods, port, spaces
from tests.cni_node.policy.texts import namespaces, pod, selector

SPACES = namespaces("x", "y", "z", *(f"n{i}" for i in range(MANY)))


@pytest.mark.parametrize(
    ("policy", "needed"),
    [
        pytest.param(DENY_ALL, set(), id="nobody"),
        pytest.param(let_in(pods("pod=b")), {"x"}, id="its own"),
        pytest.param(let_in(spaces("ns=y"), pods()), {"x", "y"}, id="one by labels"),
        pytest.param(let_in(spaces("ns=none")), set(), id="none by labels"),
        pytest.param(let_in(spaces()), {EVERYWHERE}, id="more than many"),
        pytest.param(let_in(pods=selector("pod=other")), set(), id="of pods elsewhere"),
        pytest.param(let_in(spaces("ns=y"), namespace="y"), set(), id="of another namespace"),
        pytest.param(let_in(block("10.0.0.0/8"), ports=[port("http")]), set(), id="the own pods name the port"),
        pytest.param(let_out(block("10.0.0.0/8"), ports=[port(80)]), set(), id="a block"),
        pytest.param(let_out(block("10.0.0.0/8"), ports=[port("http")]), {EVERYWHERE}, id="a block, a named port"),
        pytest.param(let_out(ports=[port("http")]), {EVERYWHERE}, id="everybody, a named port"),
        pytest.param(let_out(spaces("ns=z"), ports=[port("http")]), {"z"}, id="some, a named port"),
    ],
)
def test_pods_of_these_namespaces_are_needed(policy: Policy, needed: set[str]) -> None:
    local = [pod("x/a", "10.0.1.1")]
    assert needed_namespaces([policy], local, SPACES) == needed
    assert needed_namespaces([policy], [], SPACES) == set()


def test_of_all_pods_it_turns_to_some_when_the_namespaces_are_few() -> None:
    local = [pod("x/a", "10.0.1.1")]
    for number, before, needed in ((MANY, {}, MANY), (FEW + 1, {EVERYWHERE}, 1), (FEW, {EVERYWHERE}, FEW)):
        spaces_now = namespaces(*(f"n{i}" for i in range(number)))
        assert len(needed_namespaces([let_in(spaces())], local, spaces_now, before)) == needed
