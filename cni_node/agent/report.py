"""The agent's report about itself, as text for `pycni status`, as JSON, and for Prometheus. Pure.

Must not: read anything; the agent's loop fills it in.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

SHOWN = 10  # lines of one kind on the screen; JSON has all


class Report(NamedTuple):
    """The state of the agent. Times are in seconds of the monotonic clock, `mtu` is in bytes (0: the plugin's choice).

    `policies` has the fields of PolicyState, or none when policies are off. `silent` are the peers that had not
    answered the ping when the node became ready. `strangers` are pods with addresses of a former pod range. `repairs`
    counts, by stage, what other programs had removed and the agent put back. `syncs` counts the runs of stages.
    """

    state: str = "starting"
    ready: bool = False
    node: str = ""
    source: str = ""
    pods: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    peers: int = 0
    overlay: str = ""
    mtu: int = 0
    routes: int = 0
    missing: int = 0
    exempt: int = 0
    configuration: str = ""
    problems: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    policies: Mapping[str, Any] = {}
    repairs: Mapping[str, int] = {}
    last_repair: str = ""
    syncs: int = 0
    changed: float = 0.0
    started: float = 0.0
    pid: int = 0


def to_document(report: Report) -> dict[str, Any]:
    """The report as a JSON object."""
    return dict(report._asdict())


def parse_document(document: Mapping[str, Any]) -> Report:
    """A report from its JSON object. Unknown keys (of a later version) are ignored."""
    known = {key: document[key] for key in Report._fields if key in document}
    lists = {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    return Report(**{**known, **lists})


def render(report: Report, now: float) -> str:
    """The report as one screen of text. `now` is in seconds of the monotonic clock."""
    rows = [
        ("agent", f"{report.state} (pid {report.pid}, up {_span(now - report.started)})"),
        ("node", f"{report.node}: {', '.join(report.pods) or 'no pods'}"),
        ("addresses", ", ".join(report.addresses) or "not told"),
        ("source", f"{report.source}, {report.peers} peers"),
        ("overlay", report.overlay or "none, routes lead to the peers' addresses"),
        ("mtu", str(report.mtu) if report.mtu else "the link's"),
        ("routes", f"{report.routes} to peers, {report.missing} entries refused"),
        ("exempt", f"{report.exempt} networks are not masqueraded towards"),
        ("policies", _policies(report)),
        ("runtime", report.configuration or "not told that this node is ready"),
        ("repairs", _repairs(report)),
    ]
    lines = [f"{name:<10} {value}" for name, value in rows]
    for name, values in (("problem", report.problems), ("silent", report.silent), ("old address", report.strangers)):
        lines += [f"{name + ':':<12} {value}" for value in values[:SHOWN]]
        if len(values) > SHOWN:
            lines.append(f"{name + ':':<12} and {len(values) - SHOWN} more (--json has all)")
    return "\n".join(lines) + "\n"


def _repairs(report: Report) -> str:
    total = sum(report.repairs.values())
    return f"{total}, last {report.last_repair}" if report.last_repair else str(total)


def _policies(report: Report) -> str:
    if not report.policies:
        return "not put in force"
    if not report.policies["ready"]:
        return "not known yet; what was in force stays"
    dropped = sum(report.policies["denied"].values())
    return f"{report.policies['policies']}, {report.policies['isolated']} addresses isolated, {dropped} packets denied"


def to_metrics(report: Report, now: float, cpu: float, memory: int) -> str:
    """The report in Prometheus' text format; `now` and `cpu` in seconds, `memory` in bytes."""
    plain = (
        ("pycni_ready", "gauge", "Whether the runtime is told that this node is ready.", int(report.ready)),
        ("pycni_peers", "gauge", "Other nodes.", report.peers),
        ("pycni_routes", "gauge", "Routes to other nodes' pods that should be there.", report.routes),
        ("pycni_entries_refused", "gauge", "Entries that the kernel refused.", report.missing),
        ("pycni_exempt_networks", "gauge", "Networks that are not masqueraded towards.", report.exempt),
        ("pycni_problems", "gauge", "Sentences under problems in pycni status.", len(report.problems)),
        ("pycni_syncs_total", "counter", "How often the kernel's state was looked at.", report.syncs),
        ("process_cpu_seconds_total", "counter", "CPU time of the agent.", round(cpu, 4)),
        ("process_resident_memory_bytes", "gauge", "Memory of the agent.", memory),
        ("pycni_uptime_seconds", "gauge", "For how long the agent has run.", round(now - report.started, 3)),
    )
    lines = []
    for name, kind, text, value in plain:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
    name = "pycni_repairs_total"
    lines += [f"# HELP {name} What others took away and the agent put back.", f"# TYPE {name} counter"]
    lines += [f'{name}{{stage="{stage}"}} {number}' for stage, number in sorted(report.repairs.items())]
    return "\n".join([*lines, *_policy_metrics(report.policies)]) + "\n"


def _policy_metrics(policies: Mapping[str, Any]) -> list[str]:
    if not policies:
        return []
    lines = []
    for name, kind, text, key in (
        ("pycni_policies", "gauge", "Network policies of the cluster.", "policies"),
        ("pycni_isolated_addresses", "gauge", "Addresses of this node's pods that policies isolate.", "isolated"),
        ("pycni_policy_changes_total", "counter", "Changes of the kernel's table of policies.", "changes"),
        ("pycni_policy_cut_total", "counter", "Established connections that were cut.", "cut"),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {policies[key]}"]
    name = "pycni_policy_denied_packets_total"
    lines += [f"# HELP {name} Packets that were dropped, by why.", f"# TYPE {name} counter"]
    return lines + [f'{name}{{why="{why}"}} {number}' for why, number in sorted(policies["denied"].items())]


def _span(seconds: float) -> str:
    whole = max(int(seconds), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"
