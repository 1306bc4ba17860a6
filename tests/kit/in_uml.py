"""A pytest plugin: tests marked `uml` run in user-mode Linux, all in one boot by a pytest inside, each with its result.

The pytest outside has no more to do for such a test than to have the executables installed, and to tell what came of
it: no other fixture is made there.
"""

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.kit.uml import SHARED, run_in_uml

BOUND = 600.0  # seconds for one boot with all tests; 25 are usual on an idle machine, 200 on a busy one
_REPORTS = "reports"
_INSTALLED = "bin_dir"  # the fixture of the executables


def register(config: pytest.Config) -> None:
    """Add the plugin, the half of it for this side."""
    shared = os.environ.get(SHARED)
    config.pluginmanager.register(_Inside(Path(shared)) if shared else _Outside())


class _Inside:
    """Tells the other side what came of each step of each test, a line of JSON for each."""

    def __init__(self, shared: Path) -> None:
        self._path = shared / _REPORTS

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        with self._path.open("a") as file:
            print(json.dumps([report.nodeid, report.when, report.outcome, report.longreprtext]), file=file)


class _Outside:
    """Boots for the first test that is marked, and has the results of all of them."""

    def __init__(self) -> None:
        self._steps: dict[str, list[tuple[str, str, str]]] | None = None
        self._failure = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if _is_marked(item) and isinstance(item, pytest.Function):
            # filled, so no fixture is asked for; but the plugins are installed here, since inside there is no network
            item.funcargs.update(dict.fromkeys(set(item.fixturenames) - {_INSTALLED}))

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Any:
        if not _is_marked(pyfuncitem):
            return None
        if self._steps is None:
            self._steps = self._run(pyfuncitem.session, str(pyfuncitem.funcargs[_INSTALLED]))
        steps = self._steps.get(pyfuncitem.nodeid, [])
        for when, outcome, text in steps:
            if outcome != "passed":
                pytest.fail(f"{outcome} in user-mode Linux, {when}:\n{text}", pytrace=False)
        if [when for when, _, _ in steps] != ["setup", "call", "teardown"]:
            pytest.fail(self._failure, pytrace=False)
        return True

    def _run(self, session: pytest.Session, bin_dir: str) -> dict[str, list[tuple[str, str, str]]]:
        root = session.config.rootpath
        tests = [item.nodeid for item in session.items if _is_marked(item)]
        command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "--color=no", *tests]
        done = run_in_uml(command, root, {"PYTHONDONTWRITEBYTECODE": "1", "PYCNI_BIN": bin_dir}, BOUND)
        self._failure = f"no result; pytest ended with {done.status}:\n{done.output}\n{done.console}"
        steps = defaultdict(list)
        for line in done.files.get(_REPORTS, "").splitlines():
            nodeid, when, outcome, text = json.loads(line)
            steps[nodeid].append((when, outcome, text))
        return steps


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker("uml") is not None
