"""What a worker does while it waits changes nothing, and says nothing."""

import os
from collections.abc import Callable

import pytest

from cni_protocol import plugin
from cni_warm import rehearsal
from cni_warm.rehearsal import rehearse
from tests.kit.host import Host

pytestmark = pytest.mark.kernel


@pytest.fixture
def look(host: Host) -> Callable[[], object]:
    """A function that tells what a plugin could have changed."""

    def taken() -> object:
        files = host.run("find", "/var/lib/cni", "/run", "-printf", "%p %T@\n").stdout
        return host.ip("link"), host.nft(), files

    return taken


def test_a_rehearsal_changes_nothing(
    host: Host, look: Callable[[], object], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[int, bytes]] = []
    genuine = plugin.answer

    def record(*arguments: object) -> tuple[int, bytes]:
        answers.append(genuine(*arguments))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr(rehearsal, "answer", record)
    before, descriptors = look(), set(os.listdir("/proc/self/fd"))
    with host.entered():
        rehearse()
    assert look() == before
    assert set(os.listdir("/proc/self/fd")) <= descriptors
    assert answers == [(0, b""), (0, b"")]  # a rehearsal that fails comes to nothing
    assert capfd.readouterr() == ("", "")
