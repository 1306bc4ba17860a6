"""The body of `scripts/faults --agent`; it is run as root, with what the tests need."""

import sys
from collections import Counter

from tests.faults.agent import kill_at_every_call


def main(bin_dir: str) -> int:
    """Kill the agent everywhere, and print what happened. Returns 0 when all was right again every time, else 1."""
    tried, survived = Counter[str](), Counter[str]()
    for kill in kill_at_every_call(bin_dir):
        tried[kill.calls] += 1
        survived[kill.calls] += not kill.problem
        if kill.problem:
            print(f"FAULT       killed at {kill.calls} {kill.number}: {kill.problem}", flush=True)
        elif kill.number % 10 == 0:
            print(f"{kill.calls}: {kill.number}", flush=True)
    for calls, number in tried.items():
        print(f"agent killed at each {calls}, then started again: {survived[calls]} of {number} survived")
    return 0 if tried and survived == tried else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
