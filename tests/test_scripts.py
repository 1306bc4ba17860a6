"""The commands of scripts/, and the facts of the documentation: what README.md says is what is so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import cni_bridge.__main__
import cni_bridge.config
import cni_ipam.__main__
import cni_ipam.config
from cni_protocol import errors
from cni_protocol.fields import Fields
from tests.conftest import ROOT
from tests.kit.calls import make_request
from tests.kit.pages import code_blocks, machine_network, normalized

README = (ROOT / "README.md").read_text("utf-8")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text("utf-8")
ERRORS = (ROOT / "docs/errors.md").read_text("utf-8")
FIRST_NETWORK = (ROOT / "docs/first-network.md").read_text("utf-8")
PERFORMANCE = (ROOT / "docs/performance.md").read_text("utf-8")
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
RUN_BOUND = 100  # seconds for a script
BENCH_ROWS = (
    *(f"{network}.{command}" for network in ("seed", "dual", "plain") for command in ("ADD", "DEL")),
    *("plain.ADD.floor", "plain.DEL.floor"),
    *(f"small.{name}" for name in ("VERSION", "STATUS", "FIRST", "GONE", "CHECK", "interpreter", "true")),
    *("ipam.ADD", "ipam.DEL", "ipam.DEL again", "ipam.first"),
    *("full.ipam", "full.network", *(f"burst.{part}" for part in ("both", "ADD", "DEL"))),
    *(f"pods.{command}.{count}" for command in ("ADD", "DEL") for count in (2, 3)),
    *("ports.ADD", "ports.DEL"),
    *(f"load.{what}.{command}" for what in ("peers", "policies") for command in ("ADD", "DEL")),
    *("nat", "memory.ADD"),
)

# Every key that holds an object or a list, so that what is below is read too.
RICH: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "cni-bridge",
    "vlanTrunk": [{"id": 5}],
    "isGateway": True,
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
    "ipam": {
        "type": "cni-ipam",
        "subnet": "10.1.0.0/16",
        "ranges": [[{"subnet": "10.2.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    },
}


def run_script(*command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_BOUND, check=False, **options)


def left_behind(tmp_path: Path) -> list[str]:
    return [str(path) for path in tmp_path.iterdir()]


@pytest.mark.kernel
def test_demo_is_green_and_leaves_nothing_on_the_machine(tmp_path: Path) -> None:
    before = machine_network()
    result = run_script("scripts/demo", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.rstrip().endswith("All is as it should be.")
    assert "FAIL" not in result.stdout
    assert "\x1b" not in result.stdout
    for line in ("c1 -> c2", "c2 -> c1", "the outside saw 192.0.2.1", "CHECK c2", "nftables is empty"):
        assert line in result.stdout
    assert machine_network() == before
    assert left_behind(tmp_path) == []


@pytest.mark.kernel
def test_demo_fails_with_a_plugin_that_fails(tmp_path: Path) -> None:
    for name in ("cni-bridge", "cni-ipam"):
        plugin = tmp_path / name
        plugin.write_text(
            '#!/bin/sh\necho \'{"cniVersion": "1.0.0", "code": 100, "msg": "broken on purpose"}\'; exit 1\n'
        )
        plugin.chmod(0o755)
    body = ("/usr/bin/python3", "-Bm", "suites.demo", str(tmp_path), "conf/10-mynet.conflist")
    result = run_script("unshare", "--net", "--mount", "--propagation", "private", *body)
    assert result.returncode == 1
    assert "FAIL  ADD c1" in result.stdout
    assert "broken on purpose" in result.stdout


@pytest.mark.kernel
def test_bench_measures_every_row_and_writes_what_it_is_asked_to(tmp_path: Path) -> None:
    before = machine_network()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    figures, plot, page = tmp_path / "figures.json", tmp_path / "plot.svg", tmp_path / "page.md"
    page.write_text(re.sub(r"(?s)(<!-- table: .*? -->).*?(<!-- end of table -->)", r"\1\nold\n\2", PERFORMANCE))
    options = ("--json", str(figures), "--plot", str(plot), "--document", str(page))
    result = run_script("scripts/bench", "--quick", *options, env={**os.environ, "TMPDIR": str(scratch)})
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads(figures.read_text())
    check_figures(document)
    for row in document["rows"]:
        assert row["what"] in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path != scratch) == sorted(
        [figures.name, plot.name, page.name, "page.svg"]
    )
    check_page(page.read_text(), document)
    assert plot.read_text() == (tmp_path / "page.svg").read_text()
    check_plot(plot, document["curve"])
    assert machine_network() == before
    assert left_behind(scratch) == []


def check_figures(document: dict[str, Any]) -> None:
    """Every row is there, and has a value that can be, and a verdict where it has a target."""
    rows = {row["key"]: row for row in document["rows"]}
    assert tuple(rows) == BENCH_ROWS
    for key, row in rows.items():
        assert row["ours"] > 0, key
        assert row["result"] in (("PASS", "FAIL") if row["target"] else ("",)), key
    assert {point["side"] for point in document["curve"]} == {"ours", "reference"}
    calls = [part["call"] for part in document["profile"]]
    subjects = ("cni-ipam", "cni-bridge", "cni-bridge, ipMasq")
    assert calls == [f"{command}, {name}" for name in subjects for command in ("VERSION", "ADD", "DEL")]
    # which is longer is not said: in quick mode each was looked at once, on a machine that is busy with other tests
    assert all(min(part["modules"], part["whole"], part["interpreter"]) > 0 for part in document["profile"])


def check_page(text: str, document: dict[str, Any]) -> None:
    """The figures stand between the markers, and the words around them are as they were."""
    assert document["machine"] in text
    written = re.findall(r"(?s)<!-- \w+: written by scripts/bench -->\n(.*?)<!-- end", text)
    lines = sum(part.count("\n| ") for part in written)
    assert lines == len(document["rows"]) + len(document["profile"]) + 2
    assert "\nold\n" not in text
    assert words_of(text) == words_of(PERFORMANCE)


def words_of(page: str) -> str:
    """What the script does not write: all but what stands between a marker and its end."""
    return re.sub(r"(?s)(<!-- (?!end)[^>]*-->\n).*?(?=<!-- end)", r"\1", page)


def check_plot(path: Path, curve: list[dict[str, Any]]) -> None:
    """Well-formed, and a line for each command of each side, through all its points."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert sorted(line.attrib["class"] for line in lines) == [
        f"line {side} {command}" for side in ("ours", "reference") for command in ("ADD", "DEL")
    ]
    for line in lines:
        assert 2 * len(line.attrib["points"].split()) == len(curve)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--rounds", "0"), "1 or more"),
        (("--document", "README.md", "--only", "seed"), "needs all rows"),
        (("--document", "README.md"), "no markers for: machine, table, parts"),
        (("--plot", "plot.svg", "--only", "nat"), "draws what ipam measures"),
        (("--only", "seeds"), "invalid choice"),
    ],
    ids=["no rounds", "a part of the document", "a document without markers", "a plot of nothing", "unknown rows"],
)
def test_bench_refuses_what_cannot_be_before_it_measures(options: tuple[str, ...], complaint: str) -> None:
    result = run_script("/usr/bin/python3", "-Bm", "benchmark", "/bin", "/reference", *options)
    assert result.returncode != 0
    assert complaint in result.stderr


@pytest.mark.kernel
def test_demo_and_bench_bodies_refuse_to_work_on_the_machine_itself() -> None:
    for body, places in (
        ("suites.demo", ["/nonexistent", "conf/10-mynet.conflist"]),
        ("benchmark", ["/nonexistent"] * 2),
    ):
        result = run_script("/usr/bin/python3", "-Bm", body, *places)
        assert result.returncode != 0
        assert "namespaces of the caller" in result.stderr


@pytest.mark.parametrize(
    "script", ["test", "demo", "bench", "faults", "mutants", "conformance", "cluster", "kubernetes"]
)
def test_script_without_root_says_how_to_call_it(script: str, tmp_path: Path) -> None:
    stand_in = tmp_path / "id"  # a real other user may be kept from reading the checkout
    stand_in.write_text("#!/bin/sh\necho 1000\n")
    stand_in.chmod(0o755)
    result = run_script(f"{ROOT}/scripts/{script}", env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert result.returncode == 1
    assert f"sudo scripts/{script}" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "source",
    ["def test_it():\n    pytest.skip('why')\n", "pytest.skip('why', allow_module_level=True)\n"],
    ids=["a test", "a module"],
)
def test_skipping_counts_as_failed_in_scripts_test(tmp_path: Path, source: str) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\n{source}")
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "suites.no_skips"]
    result = run_script(*command, str(tmp_path), env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode in (1, 2)
    assert "must not skip here" in result.stdout


def test_ci_runs_the_test_script() -> None:
    text = (ROOT / ".ci/run").read_text("utf-8")
    assert text.endswith("exec scripts/test\n")


# --- README.md


README_LINES = 130


def test_the_readme_fits_a_few_screens() -> None:
    assert len(README.splitlines()) <= README_LINES


def first_columns(text: str) -> list[str]:
    """What stands in backticks in the first cell of each line of the tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("script", ["bench", "conformance", "faults", "kubernetes"])
def test_what_a_script_runs_can_be_imported_by_the_python_that_it_takes(script: str) -> None:
    result = subprocess.run([ROOT / "scripts" / script, "--help"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout[:6]) == (0, "usage:"), result.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_json_blocks_parse(document: str) -> None:
    for language, body in code_blocks((ROOT / document).read_text("utf-8")):
        if language == "json":
            json.loads(body)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_within_the_repository_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text("utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        assert not heading or heading in headings_of(path), target


def headings_of(page: Path) -> set[str]:
    """What a link names a page's headings by."""
    found = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in found}


def keys_read(parse: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every key that a parser of a configuration looks at, objects and lists left out for what is in them."""
    seen: set[str] = set()

    class Arguments(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(f"CNI_ARGS {key}")
            return super().get(key, default)

    raw = Fields.raw

    def record(self: Fields, key: str) -> Any:
        seen.add(re.sub(r"\[\d+\]", "[]", self.path(key)))
        return raw(self, key)

    monkeypatch.setattr(Fields, "raw", record)
    parse(make_request(RICH)._replace(args=Arguments()))
    return {key for key in seen if not any(other.startswith((f"{key}.", f"{key}[")) for other in seen)}


def test_key_tables_name_exactly_the_keys_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = keys_read(cni_bridge.config.parse_config, monkeypatch) | keys_read(cni_ipam.config.parse_config, monkeypatch)
    named = first_columns(CONFIGURATION)
    assert sorted(named) == sorted(read)


def test_table_of_errors_is_that_of_the_code() -> None:
    named = re.findall(r"^\| (\d+) \| `(\w+)` \|", ERRORS, re.MULTILINE)
    defined = [(str(value), name) for name, value in vars(errors).items() if isinstance(value, int)]
    assert named == defined


def test_errors_that_are_called_unused_are_unused() -> None:
    unused = re.findall(r"`(\w+)` \|[^|]*not used so far", ERRORS)
    sources = [
        path.read_text("utf-8")
        for package in ("cni_protocol", "cni_kernel", "cni_bridge", "cni_ipam")
        for path in (ROOT / package).glob("*.py")
    ]
    counts = {
        name: sum(len(re.findall(rf"\b{name}\b", text)) for text in sources) for name in vars(errors) if name.isupper()
    }
    assert [name for name, count in counts.items() if count == 1] == unused


def test_table_of_configurations_names_the_files_in_conf() -> None:
    named = re.findall(r"^\| \[([\w.-]+)\]\(conf/", README, re.MULTILINE)
    assert named == sorted(path.name for path in (ROOT / "conf").iterdir())


# --- the first network, word for word


@pytest.mark.kernel
def test_first_network_runs_as_written_and_prints_what_it_shows(cnitool: Path, tmp_path: Path) -> None:
    """All commands go to one shell through a pipe, as if typed; the shell of `unshare ... bash` reads on from there."""
    before = machine_network()
    blocks = code_blocks(FIRST_NETWORK)
    assert [language for language, _ in blocks].count("sh") >= 5
    script = "".join(body if language == "sh" else "echo END OF OUTPUT\n" for language, body in blocks)
    options = "errexit:pipefail"  # inherited by the shell inside: the first failure ends both
    path = f"{cnitool.parent}:{os.environ['PATH']}"
    result = run_script(
        "bash", input=script, env={**os.environ, "SHELLOPTS": options, "TMPDIR": str(tmp_path), "PATH": path}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    shown = [normalized(body) for language, body in blocks if language != "sh"]
    printed = [normalized(part) for part in result.stdout.split("END OF OUTPUT\n")]
    assert printed == [*shown, ""]
    assert machine_network() == before
    assert left_behind(tmp_path) == []


# Private to the commands: what an installation writes to, and namespaces with names.
IN_A_HOST_OF_ITS_OWN = """
for place in /opt/cni /run /var/lib; do mkdir -p $place; mount -t tmpfs tmpfs $place; done
ip link set lo up
cp -r . /run/checkout
cd /run/checkout
"""


@pytest.mark.kernel
def test_the_first_network_in_five_commands(wheel_dir: Path) -> None:
    before = machine_network()
    [script] = [body for language, body in code_blocks(README) if language == "sh"]
    look = "ip -n c1 -4 -brief address show eth0\n"
    host = ("unshare", "--net", "--mount", "--propagation", "private", "bash", "-euo", "pipefail")
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel_dir)}  # that host has no way out
    result = run_script(*host, input=IN_A_HOST_OF_ITS_OWN + script + look, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    assert '"address": "10.244.0.2/16"' in result.stdout
    assert result.stdout.splitlines()[-1].split()[-1] == "10.244.0.2/16"
    assert machine_network() == before
