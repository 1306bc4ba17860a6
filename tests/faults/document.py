"""docs/reliability.md: what was tried on the plugins of this repository, and on Debian's."""

from collections.abc import Sequence

from tests.faults.campaign import Row, total

_HEAD = """\
# Reliability

Addresses that stay reserved, rules and interfaces that nobody owns, pools that fill up: what plugins leave behind when
they are interrupted. This page shows what was tried to make `cni-bridge` and `cni-ipam` do so, and what came of it.

Made by `sudo scripts/faults --document docs/reliability.md`; do not edit.

## What is tried

strace(1) first records the system calls of an undisturbed ADD and DEL, in both processes. Then, on a fresh host for
each trial (namespaces of its own), one fault strikes at one call, in the process that makes it.

- **killed**: SIGKILL instead of a call that changes something (netlink requests other than queries; files made,
  linked, written, removed; namespaces entered; locks; processes started, awaited and ended). Then one remedy alone has
  to put everything right: a DEL with the namespace there, or a DEL without CNI_NETNS after the namespace is gone, or GC
  alone while the namespace is there, or the next ADD of the same container in a new namespace. Afterwards there is no
  reservation, no interface on the host but the bridge, none in the container, no rule; ADD of the same container
  succeeds, and DEL leaves nothing again. With the first remedy another container is added before it, and must not be
  given an address that is in use.
- **the child that waits is killed**, at each of its system calls: DEL succeeds all the same, and nothing is left.
- **disk**: ENOSPC and EIO from every call on the store. ADD fails with code 5, names the path and leaves nothing (not
  even a bridge that it made), or succeeds and CHECK agrees. DEL says what failed unless it succeeds, and another DEL
  leaves nothing.
- **kernel**: ENOMEM and EPERM from every netlink request, judged alike.
- **SIGTERM, SIGINT** at every call of ADD that changes something: it is undone in whole before the process ends, with
  an error object on stdout, or ADD succeeds.

The network `seed` has a gateway and ipMasq, on a host where nothing is there yet. The network `full` has two address
families, ipMasq, port mappings and macspoofchk, and a neighbour: what belongs to it is to stay as it is, and when it
leaves nothing at all is to be left.

A trial is survived when all of this is so. *leaks*: trials after which something was left, or something of the
neighbour was gone. *duplicates*: an address was given twice. *others*: a command failed that had to succeed, or the
answer was wrong. *not struck*: the call did not come up again in three tries; the number of some calls varies from run
to run.
"""
_REFERENCE = """
The reference is `bridge` with `host-local` as Debian 12 has them (containernetworking-plugins 1.1.1), on the network
`seed`, by a sample that is spread evenly over all its points. It does not know GC. It shows that the trials
find faults.
"""


def write_document(ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    """The text of the page, from the figures of both."""
    summary = ["", "| | trials | survived | leaks | duplicates | others |", "|---|--:|--:|--:|--:|--:|"]
    for name, rows in (("pycni", ours), ("containernetworking-plugins 1.1.1", theirs)):
        row = total(rows)
        cells = (row.tried, row.survived, row.leaks, row.duplicates, row.others)
        summary.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    parts = [_HEAD, "\n## Result\n", "\n".join(summary), "\n\n### pycni\n", _table(ours)]
    parts += ["\n### The reference\n", _REFERENCE, _table(theirs)]
    return "".join(parts)


def _table(rows: Sequence[Row]) -> str:
    head = "| fault | network | command | points | trials | survived | leaks | duplicates | others | not struck |"
    lines = ["", head, "|---|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"
