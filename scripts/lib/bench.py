"""The body of scripts/bench. usage: bench.py BIN_DIR REFERENCE_BIN_DIR [--rounds N | --quick]."""

import argparse
import time
from statistics import median
from typing import Any, NamedTuple

import sandbox

COMMANDS = ("ADD", "CHECK", "DEL", "VERSION")
NETWORKS: dict[str, dict[str, Any]] = {
    "seed": {"isGateway": True, "ipMasq": True},
    "plain": {},
}


class Side(NamedTuple):
    """One of the two that are compared: where its plugins are, and what they are called."""

    name: str
    bin_dir: str
    bridge: str
    ipam: str

    def config(self, network: str, subnet: str) -> dict[str, Any]:
        """The network configuration for this side; both have a bridge and a subnet of their own."""
        return {
            "cniVersion": "1.0.0",
            "name": f"{network}-{self.name}",
            "type": self.bridge,
            "bridge": f"{network}-{self.name}"[:15],
            **NETWORKS[network],
            "ipam": {"type": self.ipam, "subnet": subnet, "routes": [{"dst": "0.0.0.0/0"}]},
        }


def main() -> None:
    """Measure, and print a table for each network."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="medians of plugin calls, beside the reference")
    parser.add_argument("bin_dir", help=argparse.SUPPRESS)
    parser.add_argument("reference_bin_dir", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=20, help="calls of each command and plugin (20)")
    parser.add_argument("--quick", action="store_true", help="2 rounds only")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    if rounds < 1:
        parser.error("--rounds must be 1 or more")
    sides = (
        Side("ours", options.bin_dir, "cni-bridge", "cni-ipam"),
        Side("reference", options.reference_bin_dir, "bridge", "host-local"),
    )
    sandbox.set_up()
    for side in sides:
        sandbox.add_container(side.name)
    print(f"medians of {rounds} calls in ms, starting the process included; ratio: ours / reference\n")
    print(f"{'network':9}{'command':9}{'ours':>9}{'reference':>11}{'ratio':>8}")
    for i, network in enumerate(NETWORKS):
        configs = {side: side.config(network, f"10.{100 + 2 * i + j}.0.0/16") for j, side in enumerate(sides)}
        print_table(network, measure(configs, rounds))


def measure(configs: dict[Side, dict[str, Any]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by side and command. The sides take turns, so that both meet the machine in the same mood."""
    times: dict[str, dict[str, list[float]]] = {side.name: {command: [] for command in COMMANDS} for side in configs}
    for number in range(rounds + 1):
        for side, config in configs.items():
            previous: dict[str, Any] = {}
            for command in COMMANDS:
                begin = time.perf_counter()
                reply = sandbox.call_plugin(command, {**config, **previous}, side.bin_dir, side.name)
                spent = time.perf_counter() - begin
                if reply.status != 0:
                    raise SystemExit(f"{side.name} {command} failed: {reply.document}")
                if command == "ADD":
                    previous = {"prevResult": reply.document}
                if number > 0:  # the first round warms the caches, and makes the bridge
                    times[side.name][command].append(spent)
    return times


def print_table(network: str, times: dict[str, dict[str, list[float]]]) -> None:
    """A line for each command."""
    for command in COMMANDS:
        ours, reference = (1000 * median(times[name][command]) for name in ("ours", "reference"))
        print(f"{network:9}{command:9}{ours:9.1f}{reference:11.1f}{ours / reference:8.2f}")


if __name__ == "__main__":
    main()
