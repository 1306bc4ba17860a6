"""Measurements of whole attachments: ADD and DEL by one caller and by many, the small commands, the memory."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmark.calls import Bench, Call, Job, Variant, make_call, run_call, run_calls, with_result
from benchmark.floor import open_floor
from benchmark.rows import Row, Target
from suites import sandbox

SEED: dict[str, Any] = {"isGateway": True, "ipMasq": True}
PLAIN: dict[str, Any] = {}
NO_SERVICE = "no service here"
_INTERPRETER = "/usr/bin/python3"
_MILLI = 1000.0
_MEBI = 1 << 10  # ru_maxrss is in KiB, getrusage(2)
_BURSTS = 3

# The largest resident set of a program and of what it started. It is asked for in a small process of its own: a child
# counts what its parent had in memory at the moment of exec (getrusage(2) of a vfork(2) child).
_PEAK = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
sys.stderr.write(f"{status} {usage.ru_maxrss}")
"""


def measure_seed(bench: Bench) -> list[Row]:
    """ADD and DEL on the network with a gateway and NAT."""
    jobs = _attach_jobs(bench, "seed", SEED, 100)
    targets = {"ADD": (Target(1.5), Target(0.6)), "DEL": (Target(1.0), Target(0.45))}
    return _attach_rows("seed", 'network "seed"', bench.medians(jobs), targets)


def measure_plain(bench: Bench) -> list[Row]:
    """ADD and DEL on a network without, and the same kernel work out of this process, which is warm."""
    floor = open_floor("plain-floor")
    jobs = {**_attach_jobs(bench, "plain", PLAIN, 102), "floor": floor.attach}
    times = bench.medians(jobs)
    both = (Target(3.5), Target(1.1))
    rows = _attach_rows("plain", 'network "plain"', times, {"ADD": both, "DEL": both})
    for command in ("ADD", "DEL"):
        what = f"floor of that: {command} as netlink requests out of one warm process"
        ours, reference = _MILLI * times["floor"][command], _MILLI * times["reference"][command]
        rows.append(Row(f"plain.{command}.floor", what, "ms", ours, reference=reference))
    return rows


def _attach_jobs(bench: Bench, name: str, keys: Mapping[str, Any], subnet: int) -> dict[str, Job]:
    """For each way to call: an ADD and its DEL, in the container of that side."""

    def job(variant: Variant) -> Job:
        place = subnet if variant.side is bench.ours else subnet + 1
        config = variant.side.network(name, f"10.{place}.0.0/16", **keys)

        def attach() -> Mapping[str, float]:
            bench.switch(warm=variant.warm)
            added = run_call(make_call(variant.side, "ADD", config, variant.side.name))
            deleted = run_call(make_call(variant.side, "DEL", with_result(config, added), variant.side.name))
            return {"ADD": added.seconds, "DEL": deleted.seconds}

        return attach

    for side in (bench.ours, bench.reference):
        sandbox.have_container(side.name)
    return {variant.name: job(variant) for variant in bench.variants}


def _attach_rows(
    key: str, what: str, times: Mapping[str, Mapping[str, float]], targets: Mapping[str, tuple[Target, Target]]
) -> list[Row]:
    rows = []
    for command, limits in targets.items():
        for mode, target in zip(("cold", "warm"), limits, strict=True):
            row = Row(f"{key}.{command}.{mode}", f"{what}: {command}, {mode}", "ms", target=target, missing=NO_SERVICE)
            reference = _MILLI * times["reference"][command]
            ours = _MILLI * times[mode][command] if mode in times else None
            rows.append(row._replace(ours=ours, reference=reference))
    return rows


def measure_small(bench: Bench) -> list[Row]:
    """VERSION, STATUS and the DEL of a container that is gone, beside an interpreter that does nothing."""
    programs = {"interpreter": [_INTERPRETER, "-I", "-S", "-c", "pass"], "true": ["/bin/true"]}
    jobs = {name: bench.cold(Call(argv[0], {}, b"", tuple(argv[1:]))) for name, argv in programs.items()}
    first = bench.cold(_status_call(bench, bench.ours.network("first", "10.109.0.0/16", **SEED)))
    times_before = bench.medians({"ours FIRST": first})
    for side in (bench.ours, bench.reference):
        for command, call in _small_calls(bench, side.name).items():
            jobs[f"{side.name} {command}"] = bench.cold(call)
    medians = {**times_before, **bench.medians(jobs)}
    times = {name: _MILLI * figures["seconds"] for name, figures in medians.items()}
    bare = times["interpreter"]
    labels = {
        "VERSION": "VERSION",
        "STATUS": "STATUS",
        "FIRST": "STATUS on a host without any container, where it tries the rules of ipMasq",
        "GONE": "DEL of a container that is gone",
    }
    rows = []
    for command, label in labels.items():
        what = f"{label}, cold, over a bare interpreter"
        row = Row(f"small.{command}", what, "ms", times[f"ours {command}"], bare, target=Target(3.3))
        rows.append(row._replace(reference=times.get(f"reference {command}")))
    rows.append(Row("small.interpreter", "floor of that: python3 -I -S -c pass", "ms", bare))
    rows.append(Row("small.true", "floor of any: /bin/true", "ms", times["true"]))
    return rows


def _small_calls(bench: Bench, name: str) -> dict[str, Call]:
    """The calls of a side, after a container was added, deleted and taken away."""
    side, place = (bench.ours, 104) if name == bench.ours.name else (bench.reference, 105)
    config = side.network("small", f"10.{place}.0.0/16", **SEED)
    container = sandbox.add_container(f"gone-{name}").rpartition("/")[2]
    bench.switch(warm=False)
    added = run_call(make_call(side, "ADD", config, container))
    delete = make_call(side, "DEL", with_result(config, added), container)
    run_call(delete)
    sandbox.run("ip", "netns", "delete", container)
    calls = {"VERSION": make_call(side, "VERSION", config, ""), "GONE": delete}
    if side is bench.ours:  # Debian's version knows no STATUS
        calls["STATUS"] = _status_call(bench, config)
        run_call(make_call(side, "ADD", config, sandbox.add_container("stays").rpartition("/")[2]))
    return calls


def _status_call(bench: Bench, config: dict[str, Any]) -> Call:
    return make_call(bench.ours, "STATUS", {**config, "cniVersion": "1.1.0"}, "")


def measure_burst(bench: Bench) -> list[Row]:
    """Many ADDs by many callers, then all the DELs."""
    count, workers = (4, 2) if bench.quick else (300, 32)
    containers = sandbox.add_containers([f"burst{number}" for number in range(count)])

    def job(variant: Variant) -> Job:
        side, place = variant.side, 106 if variant.side is bench.ours else 107
        config = side.network("burst", f"10.{place}.0.0/16", **SEED)

        def burst() -> Mapping[str, float]:
            bench.switch(warm=variant.warm)
            adding, added = run_calls([make_call(side, "ADD", config, name) for name in containers], workers)
            pairs = zip(containers, added, strict=True)
            deletes = [make_call(side, "DEL", with_result(config, answer), name) for name, answer in pairs]
            deleting, _ = run_calls(deletes, workers)
            return {"ADD": adding, "DEL": deleting, "both": adding + deleting}

        return burst

    jobs = {variant.name: job(variant) for variant in bench.variants}
    times = bench.medians(jobs, 1 if bench.quick else _BURSTS, unseen=0)
    rows = []
    for mode, target in (("cold", Target(1.0)), ("warm", Target(0.6))):
        for part, limit in (("both", target), ("ADD", None), ("DEL", None)):
            what = f"{count} ADDs by {workers} callers, then {count} DELs" if limit else f"of which the {part}s"
            row = Row(f"burst.{part}.{mode}", f"{what}, {mode}", "s", target=limit, missing=NO_SERVICE)
            ours = times[mode][part] if mode in times else None
            rows.append(row._replace(ours=ours, reference=times["reference"][part]))
    return rows


def measure_memory(bench: Bench) -> list[Row]:
    """The largest resident set of one ADD, cold, over all its processes."""
    peaks = {}
    for side, place in ((bench.ours, 108), (bench.reference, 109)):
        sandbox.have_container(side.name)
        config = side.network("memory", f"10.{place}.0.0/16", **SEED)
        bench.switch(warm=False)
        peaks[side.name] = _peak(make_call(side, "ADD", config, side.name))
        run_call(make_call(side, "DEL", config, side.name))
    row = Row("memory.ADD", 'peak memory of one ADD, network "seed", cold', "MiB", target=Target(40, of_value=True))
    return [row._replace(ours=peaks["ours"], reference=peaks["reference"])]


def _peak(call: Call) -> float:
    argv = [sys.executable, "-I", "-S", "-c", _PEAK, call.executable]
    done = subprocess.run(argv, input=call.stdin, env=call.env, capture_output=True, check=True, timeout=60)
    status, peak = done.stderr.split()[-2:]
    if status != b"0":
        raise RuntimeError(f"ADD failed: {done.stdout.decode()}")
    return int(peak) / _MEBI
