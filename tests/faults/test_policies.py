"""A sample of the faults of policies that scripts/faults does in full."""

from pathlib import Path

import pytest

from tests.faults.handovers import HANDOVERS, Struck
from tests.faults.policies import DAMAGES, strike_all

pytestmark = pytest.mark.kernel


def test_a_sample_of_faults_of_policies_is_survived(tmp_path: Path) -> None:
    told: list[Struck] = []
    found = strike_all(tmp_path, told.append, step=6)
    assert told == found
    assert len(found) > len(DAMAGES) + len(HANDOVERS) + 2
    assert [each for each in found if each.problem] == []
