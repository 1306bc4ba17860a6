"""The executable pycni-warm."""

import argparse
import os
import sys

from cni_protocol.warm_client import SOCKET

from . import listening, service

IDLE_SECONDS = 300.0


def main() -> int:
    """Serve until SIGTERM, or, when systemd holds the socket, until nobody has called for a while."""
    parser = argparse.ArgumentParser(
        prog="pycni-warm",
        description="runs the calls of cni-bridge and cni-ipam, which hand them over while this is running (as root)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2 * len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that wait for a call (two per CPU)",
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=IDLE_SECONDS,
        metavar="SECONDS",
        help="end after so long without a call, if systemd holds the socket (300)",
    )
    options = parser.parse_args()
    if options.workers < 1:
        parser.error("--workers must be 1 or more")
    try:
        listener = listening.inherit()
        idle_seconds = options.idle if listener else None
        listener = listener or listening.bind()
    except OSError as error:
        print(f"pycni-warm: {SOCKET}: {error.strerror}", file=sys.stderr)
        return 1
    return service.run(listener, options.workers, idle_seconds)


if __name__ == "__main__":
    raise SystemExit(main())
