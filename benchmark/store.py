"""Measurements of the address plugins over the number of reservations, and with none left to give."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.calls import Bench, Job, Side, make_call, run_call, with_result
from benchmark.rows import Row, Target
from suites import sandbox

_DATA = Path("/var/lib/bench")
_COUNTS = (0, 1000, 4000, 16000, 32000, 60000)
_QUICK_COUNTS = (0, 50, 200)
_FIRSTS = 3
_MILLI = 1000.0
_COMMANDS = ("ADD", "DEL", "DEL again")
_NO_ADDRESS = 1  # the exit status of an ADD that fails


class Point(NamedTuple):
    """Milliseconds of the commands of a side, with so many reservations."""

    side: str
    reservations: int
    times: dict[str, float]


def measure_ipam(bench: Bench) -> tuple[list[Row], list[Point]]:
    """ADD, DEL and a repeated DEL of the address plugins over the number of reservations: the rows and the curve."""
    counts = _QUICK_COUNTS if bench.quick else _COUNTS
    jobs = {}
    for side in (bench.ours, bench.reference):
        for count in counts:
            config = _filled(side, f"n{count}", "10.0.0.0/16", count)
            _cycle(side, config)  # the first command after another plugin wrote there has a row of its own
            jobs[f"{side.name} {count}"] = _job(side, config)
    found = bench.medians(jobs, max(1, bench.rounds // 2))
    points = []
    for name, times in found.items():
        side_name, count_text = name.split()
        points.append(Point(side_name, int(count_text), {key: _MILLI * value for key, value in times.items()}))
    rows = [_flat_row(command, points, counts[-1]) for command in _COMMANDS]
    shutil.rmtree(_DATA)
    return [*rows, _first_row(bench, counts[-1])], points


def _first_row(bench: Bench, count: int) -> Row:
    """The first ADD after another plugin wrote there: ours has to take note of it all."""
    number = iter(range(2 * len(bench.sides) * _FIRSTS))

    def job(side: Side) -> Job:
        return lambda: {"ADD": _cycle(side, _filled(side, f"first{next(number)}", "10.0.0.0/16", count))["ADD"]}

    found = bench.medians({side.name: job(side) for side in bench.sides}, _FIRSTS, unseen=0)
    shutil.rmtree(_DATA)
    ours, theirs = (_MILLI * found[side.name]["ADD"] for side in bench.sides)
    what = f"IPAM ADD, the first one after {count:,} foreign files were put there"
    return Row("ipam.first", what, "ms", ours, reference=theirs, target=Target(1.2))


def measure_full(bench: Bench) -> list[Row]:
    """ADD into a pool that is full: the time to the error."""
    subnet, count = ("10.0.0.0/24", 253) if bench.quick else ("10.0.0.0/16", 65533)
    jobs = {}
    for side in (bench.ours, bench.reference):
        for name, size in (("full", count), ("empty", 0)):
            config = _filled(side, name, subnet, size)
            status = _NO_ADDRESS if size else 0
            run_call(make_call(side, "ADD", config, "first"), status)
            jobs[f"{side.name} {name}"] = _add_job(side, config, status)
            if side is bench.ours:  # the reference does not clean up after an ADD that fails
                sandbox.have_container(side.name)
                network = side.network(name, subnet)
                network["ipam"] = config["ipam"]
                jobs[f"network {name}"] = _add_job(side, {**network, "name": config["name"]}, status)
    times = {name: _MILLI * found["ADD"] for name, found in bench.medians(jobs, max(1, bench.rounds // 2)).items()}
    shutil.rmtree(_DATA)
    over = f"into a full /{subnet.rpartition('/')[2]}, over an empty one"
    alone = Row("full.ipam", f"IPAM ADD {over}", "ms", times["ours full"], times["ours empty"], target=Target(1.5))
    whole = Row("full.network", f"ADD {over}", "ms", times["network full"], times["network empty"], target=Target(1.5))
    return [alone._replace(reference=times["reference full"], reference_over=times["reference empty"]), whole]


def _flat_row(command: str, points: list[Point], most: int) -> Row:
    found = {(point.side, point.reservations): point.times[command] for point in points}
    what = f"IPAM {command}, {most:,} reservations over none"
    row = Row(f"ipam.{command}", what, "ms", found["ours", most], found["ours", 0], target=Target(1.3))
    return row._replace(reference=found["reference", most], reference_over=found["reference", 0])


def _job(side: Side, config: dict[str, Any]) -> Job:
    return lambda: _cycle(side, config)


def _cycle(side: Side, config: dict[str, Any]) -> dict[str, float]:
    added = run_call(make_call(side, "ADD", config, "measured"))
    delete = make_call(side, "DEL", with_result(config, added), "measured")
    return {"ADD": added.seconds, "DEL": run_call(delete).seconds, "DEL again": run_call(delete).seconds}


def _add_job(side: Side, config: dict[str, Any], status: int) -> Job:
    def job() -> Mapping[str, float]:
        added = run_call(make_call(side, "ADD", config, side.name), status)
        if status == 0:
            run_call(make_call(side, "DEL", with_result(config, added), side.name))
        return {"ADD": added.seconds}

    return job


def _filled(side: Side, name: str, subnet: str, count: int) -> dict[str, Any]:
    """The configuration of a network in which so many addresses are taken, as host-local writes that down."""
    data_dir = _DATA / side.name
    directory = data_dir / name
    directory.mkdir(parents=True)
    for number in range(2, count + 2):  # .0 is the network and .1 the gateway
        path = f"{directory}/10.0.{number >> 8}.{number & 255}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, f"container-{number:05}\r\neth0".encode())
        os.close(descriptor)
    return side.store(name, subnet, str(data_dir))
