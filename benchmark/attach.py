"""Measurements of whole attachments: ADD and DEL by one caller and by many, the small commands, the memory."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmark.calls import Bench, Call, Job, Side, make_call, run_call, run_calls, timed, with_result
from benchmark.floor import open_floor
from benchmark.rows import Row, Target
from suites import sandbox

SEED: dict[str, Any] = {"isGateway": True, "ipMasq": True}
PLAIN: dict[str, Any] = {}
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
    times = bench.medians(_attach_jobs(bench, "seed", SEED, 100))
    return _attach_rows("seed", times, {"ADD": Target(0.8), "DEL": Target(0.35)})


def measure_dual(bench: Bench) -> list[Row]:
    """ADD and DEL on such a network with both IP versions."""
    times = bench.medians(_attach_jobs(bench, "dual", SEED, 114))
    return _attach_rows("dual", times, {"ADD": Target(0.55), "DEL": Target(0.3)})


def measure_plain(bench: Bench) -> list[Row]:
    """ADD and DEL on a network without, and the same kernel work out of this process, which is there already."""
    floor = open_floor("plain-floor")
    times = bench.medians({**_attach_jobs(bench, "plain", PLAIN, 102), "floor": floor.attach})
    rows = _attach_rows("plain", times, {"ADD": Target(1.5), "DEL": Target(0.85)})
    for command in ("ADD", "DEL"):
        what = f"floor of that: {command} as netlink requests out of one process that is there already"
        ours, reference = _MILLI * times["floor"][command], _MILLI * times["reference"][command]
        rows.append(Row(f"plain.{command}.floor", what, "ms", ours, reference=reference))
    return rows


def _attach_jobs(bench: Bench, name: str, keys: Mapping[str, Any], subnet: int) -> dict[str, Job]:
    """For each side: an ADD and its DEL, in a container of its own; `subnet` is the first of two."""

    def job(side: Side, place: int) -> Job:
        config = side.network(name, f"10.{place}.0.0/16", **keys)
        if name == "dual":
            ranges = [[{"subnet": f"10.{place}.0.0/16"}], [{"subnet": f"fd00:{place}::/64"}]]
            config["ipam"] = {"type": side.ipam, "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}

        def attach() -> Mapping[str, float]:
            added = run_call(make_call(side, "ADD", config, side.name))
            deleted = run_call(make_call(side, "DEL", with_result(config, added), side.name))
            return {"ADD": added.seconds, "DEL": deleted.seconds}

        return attach

    for side in bench.sides:
        sandbox.have_container(side.name)
    return {side.name: job(side, subnet + number) for number, side in enumerate(bench.sides)}


def _attach_rows(key: str, times: Mapping[str, Mapping[str, float]], targets: Mapping[str, Target]) -> list[Row]:
    rows = []
    for command, target in targets.items():
        ours, reference = (_MILLI * times[side][command] for side in ("ours", "reference"))
        rows.append(Row(f"{key}.{command}", f'network "{key}": {command}', "ms", ours, None, reference, target=target))
    return rows


def measure_small(bench: Bench) -> list[Row]:
    """VERSION, STATUS and the DEL of a container that is gone, beside an interpreter that does nothing."""
    programs = {"interpreter": [_INTERPRETER, "-I", "-S", "-c", "pass"], "true": ["/bin/true"]}
    jobs = {name: timed(Call(argv[0], {}, b"", tuple(argv[1:]))) for name, argv in programs.items()}
    first = timed(_status_call(bench, bench.ours.network("first", "10.109.0.0/16", **SEED)))
    times_before = bench.medians({"ours FIRST": first})
    for side in (bench.ours, bench.reference):
        for command, call in _small_calls(bench, side.name).items():
            jobs[f"{side.name} {command}"] = timed(call)
    medians = {**times_before, **bench.medians(jobs)}
    times = {name: _MILLI * figures["seconds"] for name, figures in medians.items()}
    bare = times["interpreter"]
    labels = {
        "VERSION": "VERSION",
        "STATUS": "STATUS",
        "FIRST": "STATUS on a host without any container, where it tries the rules of ipMasq",
        "GONE": "DEL of a container that is gone",
        "CHECK": "CHECK",
    }
    usual = Target(3.3)
    targets = {"VERSION": Target(1.3), "CHECK": Target(1.9)}
    rows = []
    for command, label in labels.items():
        what = f"{label}, over a bare interpreter"
        row = Row(f"small.{command}", what, "ms", times[f"ours {command}"], bare, target=targets.get(command, usual))
        rows.append(row._replace(reference=times.get(f"reference {command}")))
    rows.append(Row("small.interpreter", "floor of that: python3 -I -S -c pass", "ms", bare))
    rows.append(Row("small.true", "floor of any: /bin/true", "ms", times["true"]))
    return rows


def _small_calls(bench: Bench, name: str) -> dict[str, Call]:
    """The calls of a side, after a container was added, deleted and taken away."""
    side, place = (bench.ours, 104) if name == bench.ours.name else (bench.reference, 105)
    config = side.network("small", f"10.{place}.0.0/16", **SEED)
    container = sandbox.add_container(f"gone-{name}").rpartition("/")[2]
    added = run_call(make_call(side, "ADD", config, container))
    delete = make_call(side, "DEL", with_result(config, added), container)
    run_call(delete)
    sandbox.run("ip", "netns", "delete", container)
    calls = {"VERSION": make_call(side, "VERSION", config, ""), "GONE": delete}
    if side is bench.ours:  # Debian's version knows no STATUS
        calls["STATUS"] = _status_call(bench, config)
        stays = sandbox.add_container("stays").rpartition("/")[2]
        there = run_call(make_call(side, "ADD", config, stays))
        calls["CHECK"] = make_call(side, "CHECK", with_result(config, there), stays)
    return calls


def _status_call(bench: Bench, config: dict[str, Any]) -> Call:
    return make_call(bench.ours, "STATUS", {**config, "cniVersion": "1.1.0"}, "")


def measure_burst(bench: Bench) -> list[Row]:
    """Many ADDs by many callers, then all the DELs."""
    count, workers = (4, 2) if bench.quick else (300, 32)
    containers = sandbox.add_containers([f"burst{number}" for number in range(count)])

    def job(side: Side, place: int) -> Job:
        config = side.network("burst", f"10.{place}.0.0/16", **SEED)

        def burst() -> Mapping[str, float]:
            adding, added = run_calls([make_call(side, "ADD", config, name) for name in containers], workers)
            pairs = zip(containers, added, strict=True)
            deletes = [make_call(side, "DEL", with_result(config, answer), name) for name, answer in pairs]
            deleting, _ = run_calls(deletes, workers)
            return {"ADD": adding, "DEL": deleting, "both": adding + deleting}

        return burst

    jobs = {side.name: job(side, 106 + number) for number, side in enumerate(bench.sides)}
    times = bench.medians(jobs, 1 if bench.quick else _BURSTS, unseen=0)
    rows = []
    for part, target in (("both", Target(0.3)), ("ADD", None), ("DEL", None)):
        what = f"{count} ADDs by {workers} callers, then {count} DELs" if target else f"of which the {part}s"
        ours, reference = times["ours"][part], times["reference"][part]
        rows.append(Row(f"burst.{part}", what, "s", ours, None, reference, target=target))
    return rows


def measure_memory(bench: Bench) -> list[Row]:
    """The largest resident set of one ADD, over all its processes."""
    peaks = {}
    for side, place in ((bench.ours, 108), (bench.reference, 109)):
        sandbox.have_container(side.name)
        config = side.network("memory", f"10.{place}.0.0/16", **SEED)
        peaks[side.name] = _peak(make_call(side, "ADD", config, side.name))
        run_call(make_call(side, "DEL", config, side.name))
    row = Row("memory.ADD", 'peak memory of one ADD, network "seed"', "MiB", target=Target(11, of_value=True))
    return [row._replace(ours=peaks["ours"], reference=peaks["reference"])]


def _peak(call: Call) -> float:
    argv = [sys.executable, "-I", "-S", "-c", _PEAK, call.executable]
    done = subprocess.run(argv, input=call.stdin, env=call.env, capture_output=True, check=True, timeout=60)
    status, peak = done.stderr.split()[-2:]
    if status != b"0":
        raise RuntimeError(f"ADD failed: {done.stdout.decode()}")
    return int(peak) / _MEBI
