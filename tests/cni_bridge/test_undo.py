"""The undo stack: reverse order, every step is tried, nothing happens on success."""

import pytest

from cni_bridge.undo import Undo
from cni_protocol.errors import CNIError


def test_success_undoes_nothing() -> None:
    undone: list[str] = []
    with Undo() as undo:
        undo.on_failure(undone.append, "a")
    assert undone == []


@pytest.mark.parametrize("error", [CNIError(7, "no"), ValueError("no"), KeyboardInterrupt()], ids=lambda e: repr(e))
def test_a_failure_undoes_in_reverse_and_goes_on_up(error: BaseException) -> None:
    undone: list[str] = []
    with pytest.raises(type(error)) as caught, Undo() as undo:
        undo.on_failure(undone.append, "first")
        undo.on_failure(undone.append, "second")
        raise error
    assert caught.value is error
    assert undone == ["second", "first"]


def test_every_step_is_tried_and_the_first_error_stays(capsys: pytest.CaptureFixture[str]) -> None:
    undone: list[str] = []

    def fail(why: Exception) -> None:
        raise why

    with pytest.raises(CNIError, match="the reason") as caught, Undo() as undo:
        undo.on_failure(undone.append, "last")
        undo.on_failure(fail, CNIError(100, "busy"))
        undo.on_failure(undone.append, "middle")
        undo.on_failure(fail, ValueError("odd"))
        raise CNIError(7, "the reason")
    assert caught.value.code == 7
    assert undone == ["middle", "last"]
    stderr = capsys.readouterr().err
    assert "busy" in stderr
    assert "odd" in stderr


def test_a_step_gets_all_its_arguments() -> None:
    calls: list[tuple[object, ...]] = []

    def note(*arguments: object) -> None:
        calls.append(arguments)

    with pytest.raises(ValueError), Undo() as undo:
        undo.on_failure(note, 1, "two")
        raise ValueError
    assert calls == [(1, "two")]
