"""A pytest plugin: runs the tests that $MUTANTS_PLAN lists, in its order, and notes there which one failed.

A test has to fail twice: the machine may be busy.
"""

import json
import os
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

_ENDED = "Timeout (>"  # what pytest-timeout says: that a test hangs is waited for once


class Chooser:
    """The plan is a file with a JSON array of node ids; the first that fails is noted beside it."""

    def __init__(self, plan: Path) -> None:
        self._turns: dict[str, int] = {name: turn for turn, name in enumerate(json.loads(plan.read_text()))}
        self._failed = plan.with_suffix(".failed")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leaves out what the plan does not have."""
        left_out = [item for item in items if item.nodeid not in self._turns]
        items[:] = sorted((item for item in items if item.nodeid in self._turns), key=lambda x: self._turns[x.nodeid])
        config.hook.pytest_deselected(items=left_out)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Runs a test, and once more if it fails."""
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if any(report.failed and _ENDED not in report.longreprtext for report in reports):
            item._initrequest()  # type: ignore[attr-defined]  # its fixtures anew
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A failure of any part of a test."""
        if report.failed and not self._failed.exists():
            self._failed.write_text(report.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """For -p."""
    config.pluginmanager.register(Chooser(Path(os.environ["MUTANTS_PLAN"])))
