"""When the enforcer's loop turns: for an event, some time after a refusal, and else not at all."""

from typing import Any

import pytest
from pytest_mock import MockerFixture

from cni_kernel.errors import KernelError
from cni_node.policy import enforcer
from cni_node.policy.enforcer import GATHER, RETRY, Enforcer


class Waits:
    """A condition that nobody notifies. Notes for how long it is waited, and ends the loop after some waits."""

    def __init__(self, of: Enforcer, most: int) -> None:
        self._of, self._most = of, most
        self.bounds: list[float | None] = []

    def __enter__(self) -> None:
        """Nobody else is there."""

    def __exit__(self, *_: object) -> None:
        """Nobody else is there."""

    def notify_all(self) -> None:
        """Nobody waits."""

    def wait_for(self, _: Any, bound: float | None) -> None:
        """Return at once."""
        self.bounds.append(bound)
        if len(self.bounds) >= self._most:
            self._of._ended = True


@pytest.fixture
def made(mocker: MockerFixture) -> Enforcer:
    """Not started; the time is 1000 s."""
    for name in ("PolicyTable", "Flows", "Compiler"):
        mocker.patch.object(enforcer, name)
    mocker.patch.object(enforcer, "time").monotonic.return_value = 1000.0
    return Enforcer(mocker.Mock(node_name="node1"), list, log=False, cut=True)


@pytest.mark.parametrize(
    ("failure", "bounds", "said"),
    [
        pytest.param(None, [None, GATHER, None, GATHER], (), id="well"),
        pytest.param(
            KernelError(1, "the table"),
            [None, GATHER, RETRY, GATHER],
            ("the table: Operation not permitted",),
            id="refused",
        ),
        pytest.param(
            ValueError("x"),
            [None, GATHER, RETRY, GATHER],
            ("internal error while policies are put in force: ValueError('x')",),
            id="a fault of ours",
        ),
    ],
)
def test_after_a_turn_it_waits(
    made: Enforcer, mocker: MockerFixture, failure: Exception | None, bounds: list[float | None], said: tuple[str, ...]
) -> None:
    waits = Waits(made, 4)
    mocker.patch.object(made, "_woken", waits)
    turn = mocker.patch.object(made, "_turn", side_effect=failure)
    made._run()
    assert (waits.bounds, turn.call_count, made._state.problems) == (bounds, 2, said)


def test_a_disturbance_is_looked_at_once(made: Enforcer, mocker: MockerFixture) -> None:
    mocker.patch.object(made, "_woken", Waits(made, 4))
    turn = mocker.patch.object(made, "_turn")
    made.disturb()
    made._run()
    assert [call.kwargs for call in turn.call_args_list] == [{"disturbed": True}, {"disturbed": False}]
