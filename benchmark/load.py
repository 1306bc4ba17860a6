"""Measurements of attachments on a node of a large cluster: many peers, many policies, and none of either.

What the agent would have in the kernel is put there by a batch of `ip`, `bridge` and `nft`: it is not the agent that is
measured here (docs/performance.md has that), but whether the plugins notice it.
"""

import subprocess
from collections.abc import Callable, Mapping

from benchmark.attach import SEED
from benchmark.calls import Bench, Job, Side, make_call, run_call, with_result
from benchmark.rows import Row, Target
from suites import sandbox
from suites.sandbox import COMMAND_BOUND

_MILLI = 1000.0


def measure_load(bench: Bench) -> list[Row]:
    """ADD and DEL on hosts with many peers and with many policies, over one with none."""
    peers, policies = (50, 10) if bench.quick else (5000, 1000)
    loads: dict[str, Callable[[], None]] = {
        "none": lambda: None,
        f"{peers:,} peers": lambda: _add_peers(peers),
        f"{policies:,} policies": lambda: _add_policies(policies),
    }
    jobs = {what: _on_host(bench.ours, f"load{place}", put) for place, (what, put) in enumerate(loads.items())}
    times = bench.medians(jobs)
    rows = []
    for what in list(loads)[1:]:
        for command in ("ADD", "DEL"):
            value, none = (_MILLI * times[name][command] for name in (what, "none"))
            text = f'network "seed": {command} with {what} over none'
            rows.append(Row(f"load.{what.rpartition(' ')[2]}.{command}", text, "ms", value, none, target=Target(1.3)))
    return rows


def _on_host(side: Side, name: str, put: Callable[[], None]) -> Job:
    """A host with one pod, whose ADD made the plugins' own table, and what is put there."""
    host = sandbox.add_container(name)
    pods = sandbox.add_containers([f"{name}-{number}" for number in range(2)])
    config = {**side.network("load", "10.123.0.0/16", **SEED), "name": name}  # the stores are in one place
    with sandbox.entered(host):
        run_call(make_call(side, "ADD", config, pods[1]))
        put()

    def attach() -> Mapping[str, float]:
        with sandbox.entered(host):
            added = run_call(make_call(side, "ADD", config, pods[0]))
            deleted = run_call(make_call(side, "DEL", with_result(config, added), pods[0]))
            return {"ADD": added.seconds, "DEL": deleted.seconds}

    return attach


def _add_peers(count: int) -> None:
    """Of each peer a route over the overlay, a neighbour and a forwarding entry, and two intervals that are exempt."""
    sandbox.run("ip", "link", "add", "overlay", "up", "type", "vxlan", "id", "99", "dstport", "8472", "nolearning")
    numbers = [(64 + place // 256, place % 256) for place in range(count)]
    pods = [f"10.{high}.{low}.0" for high, low in numbers]
    nodes = [f"192.{high}.{low}.1" for high, low in numbers]
    macs = [f"02:00:00:00:{high:02x}:{low:02x}" for high, low in numbers]
    routes = [f"route add {pod}/24 via {pod} dev overlay onlink" for pod in pods]
    neighbours = [
        f"neigh add {pod} lladdr {mac} dev overlay nud permanent" for pod, mac in zip(pods, macs, strict=True)
    ]
    entries = [f"fdb add {mac} dev overlay dst {node}" for node, mac in zip(nodes, macs, strict=True)]
    _run_batch(["ip", "-batch", "-"], routes + neighbours)
    _run_batch(["bridge", "-batch", "-"], entries)
    exempt = ", ".join([*(f"{pod}/25" for pod in pods), *nodes])  # with gaps, so that each is an interval
    _run_batch(["nft", "-f", "-"], [f"add element inet pycni exempt4 {{ {exempt} }}"])


def _add_policies(count: int) -> None:
    """Of each policy a chain with a set of its own, and a pod that is isolated by it; as the agent's table has them."""
    lines = ["add table inet pycni_policy"]
    for direction, end in (("egress", "saddr"), ("ingress", "daddr")):
        lines.append(f"add map inet pycni_policy {direction}4 {{ type ipv4_addr : verdict; }}")
        lines += [f"add chain inet pycni_policy {direction}{number}" for number in range(count)]
        for number in range(count):
            place = f"inet pycni_policy {direction}{number}"
            pods = ", ".join(f"10.200.{number // 250}.{(number + other) % 250 + 1}" for other in range(5))
            lines.append(f"add set {place}-pods {{ type ipv4_addr; elements = {{ {pods} }}; }}")
            lines.append(
                f"add rule {place} ip {'daddr' if end == 'saddr' else 'saddr'} @{direction}{number}-pods accept"
            )
            lines.append(f"add rule {place} counter drop")
        isolated = ", ".join(
            f"10.201.{number // 250}.{number % 250 + 1} : jump {direction}{number}" for number in range(count)
        )
        lines.append(f"add element inet pycni_policy {direction}4 {{ {isolated} }}")
    lines.append("add chain inet pycni_policy forward { type filter hook forward priority filter + 10; }")
    lines.append("add rule inet pycni_policy forward ct state established,related accept")
    lines += [
        f"add rule inet pycni_policy forward ip {end} vmap @{direction}4"
        for direction, end in (("egress", "saddr"), ("ingress", "daddr"))
    ]
    _run_batch(["nft", "-f", "-"], lines)


def _run_batch(command: list[str], lines: list[str]) -> None:
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, timeout=COMMAND_BOUND, check=True)
