"""docs/conformance.md: the pair of this repository beside Debian's containernetworking-plugins."""

from collections.abc import Sequence

from tests.conformance.registry import Case
from tests.conformance.runner import Report
from tests.conformance.table import count, to_markdown
from tests.conformance.world import Pair

OURS, REFERENCE = "pycni", "containernetworking-plugins 1.1.1"
REFERENCE_PATH = ("/usr/lib/cni",)
_CAPABILITIES = frozenset({"ips", "ipRanges", "mac"})

_HEAD = """\
# Conformance

What the CNI specification (1.1.0) and its conventions ask of a bridge and an IPAM plugin, case by case, and what two
pairs of plugins do: `cni-bridge` with `cni-ipam`, and `bridge` with `host-local` as Debian 12 has them
(containernetworking-plugins 1.1.1, which speaks the versions up to 1.0.0). The cases are black boxes: they drive the
executables by environment and stdin, and judge by stdout, exit status and the kernel. Where a case depends on the
version of the configuration, it is run for each version that the plugins speak, and the verdict names those that fail;
what came with a version is demanded of all. The reference is not asked for port mappings (62, 63), which it leaves to
a plugin of their own.

Made by `sudo scripts/conformance --document docs/conformance.md`; do not edit. For another pair of plugins:
`sudo scripts/conformance --cni-path DIR[:DIR] --bridge TYPE --ipam TYPE`.

| | passed | of |
|---|--:|--:|
"""


def our_pair(bin_dir: str) -> Pair:
    """The pair of this repository, installed in a directory."""
    return Pair((bin_dir,), "cni-bridge", "cni-ipam", _CAPABILITIES | {"portMappings"})


def reference_pair() -> Pair:
    """Debian's plugins."""
    return Pair(REFERENCE_PATH, "bridge", "host-local", _CAPABILITIES)


def write_document(cases: Sequence[Case], ours: Report, reference: Report) -> str:
    """The text of docs/conformance.md."""
    reports = {OURS: ours, REFERENCE: reference}
    counts = [f"| {name} | {count(report)[0]} | {count(report)[1]} |" for name, report in reports.items()]
    return _HEAD + "\n".join(counts) + "\n\n" + to_markdown(cases, reports)
