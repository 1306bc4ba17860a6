"""Measurements of attachments on a node that has many, and of one with many port mappings."""

from collections.abc import Mapping
from typing import Any

from benchmark.attach import SEED
from benchmark.calls import Bench, Job, Side, make_call, run_call, run_calls, with_result
from benchmark.rows import Row, Target
from suites import sandbox

_MILLI = 1000.0
_WORKERS = 8


def measure_pods(bench: Bench) -> list[Row]:
    """ADD and DEL on hosts with few, some and many containers, each a network namespace of its own."""
    counts = (1, 2, 3) if bench.quick else (10, 250, 1000)
    jobs: dict[str, Job] = {}
    for count in counts:
        jobs |= _on_host(bench, count)
    times = bench.medians(jobs)
    rows = []
    for command in ("ADD", "DEL"):
        found = {key: _MILLI * value[command] for key, value in times.items()}
        few, theirs_few = (found[f"{side.name} {counts[0]}"] for side in bench.sides)
        for count in counts[1:]:
            what = f'network "seed": {command} with {count:,} pods on the node over {counts[0]}'
            ours, theirs = (found[f"{side.name} {count}"] for side in bench.sides)
            row = Row(f"pods.{command}.{count}", what, "ms", ours, few, target=Target(1.3))
            rows.append(row._replace(reference=theirs, reference_over=theirs_few))
    return rows


def _on_host(bench: Bench, count: int) -> dict[str, Job]:
    """A host with so many containers of ours, and one more that each side attaches to the same bridge."""
    host, name = sandbox.add_container(f"host-{count}"), f"pods{count}"
    containers = sandbox.add_containers([f"{name}-{number}" for number in range(count + 1)])
    configs = {side.name: _on_bridge(side, name) for side in bench.sides}
    with sandbox.entered(host):
        calls = [make_call(bench.ours, "ADD", configs[bench.ours.name], container) for container in containers[1:]]
        run_calls(calls, _WORKERS)

    def job(side: Side) -> Job:
        def attach() -> Mapping[str, float]:
            with sandbox.entered(host):
                return _cycle(side, configs[side.name], containers[0])

        return attach

    return {f"{side.name} {count}": job(side) for side in bench.sides}


def _on_bridge(side: Side, name: str) -> dict[str, Any]:
    """The network of a side on one bridge; each gives addresses out of its own part of the subnet."""
    config = side.network("pods", "10.121.0.0/16", **SEED)
    start = {} if side.bridge == "cni-bridge" else {"rangeStart": "10.121.128.1"}
    ipam = {**config["ipam"], **start}
    return {**config, "name": f"{name}-{side.name}", "bridge": "pods", "ipam": ipam}  # the stores are in one place


def measure_ports(bench: Bench) -> list[Row]:
    """ADD and DEL of one container with many port mappings, over one with a tenth of them: linear is ten."""
    many = 100 if bench.quick else 10_000
    sandbox.have_container(bench.ours.name)
    jobs = {str(count): _with_ports(bench.ours, count) for count in (many // 10, many)}
    times = bench.medians(jobs, 1 if bench.quick else 5)
    rows = []
    for command in ("ADD", "DEL"):
        few, all_of_them = (_MILLI * times[key][command] for key in jobs)
        what = f"{command} with {many:,} port mappings over {many // 10:,}"
        rows.append(Row(f"ports.{command}", what, "ms", all_of_them, few, target=Target(11)))
    return rows


def _with_ports(side: Side, count: int) -> Job:
    mappings = [{"hostPort": 20_000 + number, "containerPort": 80} for number in range(count)]
    network = side.network("ports", "10.122.0.0/16", isGateway=True, runtimeConfig={"portMappings": mappings})
    return lambda: _cycle(side, network, side.name)


def _cycle(side: Side, config: dict[str, Any], container: str) -> dict[str, float]:
    added = run_call(make_call(side, "ADD", config, container))
    deleted = run_call(make_call(side, "DEL", with_result(config, added), container))
    return {"ADD": added.seconds, "DEL": deleted.seconds}
