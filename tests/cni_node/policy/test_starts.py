"""From a pod's first packet on: what pods send and are sent while they start, captured at both ends."""

from pathlib import Path

import pytest

from tests.cni_node.policy.starts import open_starts
from tests.kit.host import Host

pytestmark = pytest.mark.kernel

STARTS = 20


def test_no_packet_passes_before_a_pods_policies(host: Host, bin_dir: str, tmp_path: Path) -> None:
    with open_starts(host, bin_dir, tmp_path) as starts:
        free = starts.run("z", 2)
        assert free.out > 0 and free.into > 0  # the captures see what passes
        isolated = starts.run("x", STARTS)
        assert isolated.sent >= STARTS
        assert (isolated.out, isolated.into) == (0, 0)
