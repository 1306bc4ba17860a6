"""The body of scripts/cluster, with a part of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suites.cluster import MARKERS, with_rows
from tests.conftest import ROOT
from tests.kit.pages import machine_network

pytestmark = pytest.mark.kernel


def run_body(tree: Path, chosen: str) -> "subprocess.CompletedProcess[str]":
    """On the tree that is there already."""
    command = [sys.executable, "-m", "suites.cluster", "-k", chosen]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYCNI_NODE_TREE": str(tree)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_part_that_passes_is_printed_as_a_topology_a_matrix_and_measures(tree: Path) -> None:
    before = machine_network()
    done = run_body(tree, "test_an_outsider_sees_the_address_of_the_node")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["node2", "192.168.1.12/24"] in lines
    assert [line for line in lines if line[:2] == ["pod", "pod3a"] and line[2].startswith("10.240.3.")]
    assert ["pod1a", "192.168.1.11", "192.168.1.11"] in lines
    assert "PASS  three nodes ready with pods" in done.stdout
    assert done.stdout.rstrip().endswith("All is as it should be.")
    assert machine_network() == before


def test_without_a_test_that_ran_it_fails(tree: Path) -> None:
    done = run_body(tree, "no_test_of_this_name")
    assert done.returncode == 1
    assert done.stdout.rstrip().endswith("Not all is as it should be.")


@pytest.mark.parametrize("table", ["agent", "policies"])
def test_what_was_measured_goes_between_the_markers(table: str) -> None:
    begin, end = (marker.format(table) for marker in MARKERS)
    rows = {table: [("memory", "32 MiB; target <= 45 MiB", True), ("one rule", "0.98", None)]}
    text = with_rows(f"before\n{begin}old\n{end}\nafter\n", rows)
    assert text.splitlines() == [
        "before",
        begin.strip(),
        "",
        "| what | found | target | result |",
        "|---|---|---|---|",
        "| memory | 32 MiB | <= 45 MiB | PASS |",
        "| one rule | 0.98 |  |  |",
        "",
        end,
        "after",
    ]
    assert with_rows(text, rows) == text
    with pytest.raises(SystemExit, match="no markers for: agent, policies"):
        with_rows("nothing", {})
