"""What a node's counters say that move while they are watched: packets lost, and where. Pure.

Must not: read anything; what stood still says nothing, however large it is.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cni_node.doctor.facts import BREAKS, HINDERS, RISK, Finding

_SHARE = 0.01  # of segments that are sent again
_ENOUGH = 20  # of these, before a share means anything


class Counter(NamedTuple):
    """A counter: the finding that its growth is, with how bad it is, what it means and what to do about it."""

    name: str
    kind: str
    harm: int
    what: str
    remedy: str


_CONNECTIONS = "raise net.netfilter.nf_conntrack_max, or find who opens so many connections (conntrack -S)"
_BACKLOG = "raise net.core.netdev_max_backlog and net.core.netdev_budget, or spread interrupts over the processors"
COUNTERS = (
    Counter("conntrack:drop", "connections-dropped", BREAKS, "packets of new connections were dropped", _CONNECTIONS),
    Counter(
        "conntrack:early_drop", "connections-dropped", HINDERS, "connections were given up for new ones", _CONNECTIONS
    ),
    Counter(
        "conntrack:insert_failed",
        "connections-clash",
        HINDERS,
        "packets were dropped since two of one connection came at once (DNS queries over UDP)",
        "a DNS cache on the node; single-request-reopen in the pods' resolv.conf",
    ),
    Counter(
        "softnet:dropped", "backlog-full", HINDERS, "packets were dropped before any processor took them", _BACKLOG
    ),
    Counter("softnet:squeezed", "backlog-late", RISK, "times a processor had no time left for packets", _BACKLOG),
    Counter(
        "arp:table_fulls",
        "neighbours-overflow",
        HINDERS,
        "neighbours found no place in the table (of all of this machine's namespaces)",
        "raise net.ipv4.neigh.default.gc_thresh3",
    ),
    Counter(
        "TcpExt:ListenOverflows",
        "listen-overflow",
        HINDERS,
        "connections to processes of the node found a full queue",
        "see which with ss -ltn (Recv-Q at Send-Q); a larger backlog, and net.core.somaxconn",
    ),
    Counter(
        "TcpExt:IPReversePathFilter",
        "reverse-path-drops",
        HINDERS,
        "packets came in by another interface than their source leads to",
        "rp_filter 2 or 0 on the interface that pycni doctor names",
    ),
    Counter(
        "Ip:InAddrErrors", "martians", RISK, "packets came for addresses that nobody here has", "look for a wrong route"
    ),
    Counter(
        "Ip:OutNoRoutes",
        "no-route-drops",
        RISK,
        "packets of the node had no route",
        "pycni why node ADDRESS says which",
    ),
    Counter(
        "Ip:FragFails",
        "too-large",
        RISK,
        "packets were too large for the next interface",
        "the same MTU on pods, overlay and uplink; let ICMP through",
    ),
    Counter(
        "Udp:RcvbufErrors",
        "udp-overflow",
        HINDERS,
        "UDP packets found a full buffer",
        "the process is too slow, or net.core.rmem_default too small",
    ),
    Counter(
        "Udp:InCsumErrors",
        "udp-checksums-moving",
        HINDERS,
        "UDP packets had a wrong checksum",
        "ethtool -K DEVICE tx-checksum-ip-generic off on the overlay, on all nodes",
    ),
)
# Of an interface, by /proc/net/dev: errors are always wrong; what is dropped may be of a protocol that nobody wants.
_OF_INTERFACES = (
    ("rx errors", 1, HINDERS, "ethtool -S tells more; cable, port and driver"),
    ("tx errors", 1, HINDERS, "ethtool -S tells more; cable, port and driver"),
    ("rx dropped", 10, RISK, "ethtool -S and dropwatch tell why"),
    ("tx dropped", 10, HINDERS, "is its other end up, and its queue (tc -s qdisc) long enough?"),
)


def compare(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> list[Finding]:
    """What grew within some seconds, the worst first; a counter that was not there before says nothing."""
    grown = {name: value - before[name] for name, value in after.items() if value > before.get(name, value)}
    found = [*_plain(grown, seconds), *_retransmissions(grown, seconds), *_interfaces(grown, seconds)]
    found += _denied(grown, seconds)
    return sorted(found, key=lambda finding: finding[:3])


def _plain(grown: Mapping[str, int], seconds: float) -> Iterator[Finding]:
    for counter in COUNTERS:
        if counter.name in grown:
            what = f"{grown[counter.name]} {counter.what} {_within(seconds)}"
            yield Finding(counter.harm, counter.kind, counter.name, what, counter.remedy)


def _retransmissions(grown: Mapping[str, int], seconds: float) -> Iterator[Finding]:
    again, sent = grown.get("Tcp:RetransSegs", 0), grown.get("Tcp:OutSegs", 0)
    if again >= _ENOUGH and again > _SHARE * sent:
        what = f"{again} of {sent} segments of the node's own TCP were sent again {_within(seconds)}"
        yield Finding(
            HINDERS, "retransmissions", "Tcp:RetransSegs", what, "packets are lost on the way: pycni why, MTUs"
        )


def _interfaces(grown: Mapping[str, int], seconds: float) -> Iterator[Finding]:
    for name, number in grown.items():
        _, _, rest = name.partition("interface:")
        interface, _, what = rest.rpartition(":")
        for counted, least, harm, remedy in _OF_INTERFACES:
            if counted == what and number >= least:
                kind = "interface-errors" if what.endswith("errors") else "interface-drops"
                yield Finding(harm, kind, interface, f"{number} {what} {_within(seconds)}", remedy)


def _denied(grown: Mapping[str, int], seconds: float) -> Iterator[Finding]:
    denied = {name.partition(":")[2]: number for name, number in grown.items() if name.startswith("policy:")}
    if denied:
        counts = ", ".join(f"{number} by {why}" for why, number in sorted(denied.items()))
        what = f"network policies denied packets {_within(seconds)}: {counts}"
        yield Finding(RISK, "policy-denials", "policies", what, "--log-denied on the agent; pycni why names the policy")


def _within(seconds: float) -> str:
    return f"in {seconds:.0f} s" if seconds >= 1 else "in less than 1 s"
