"""A pytest plugin: a test that skips counts as failed. For scripts/test, where every test has what it needs."""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test."""
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"must not skip here: {report.longreprtext}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a whole module."""
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"must not skip here: {report.longreprtext}"
    return report
