"""The executable `pycni`: a table of subcommands, each a module with its options and its work.

Must not: load a subcommand's module before it is asked for.
"""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="pycni", description="The node program of pycni.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = given[0] if given else ""
    agent = commands.add_parser("agent", help="keep this node's pod network equal to what the cluster says")
    status = commands.add_parser("status", help="how the agent of this node is, in one screen")
    cluster = commands.add_parser("cluster", help="which node has which pod range, as etcd has it")
    if asked == "agent":
        from cni_node import run, settings

        settings.add_options(agent)
        return run.run(parser.parse_args(given))
    if asked == "cluster":
        from cni_node import cluster as listing

        listing.add_options(cluster)
        return listing.run(parser.parse_args(given))
    if asked == "status":
        from cni_node import status as asking

        asking.add_options(status)
        return asking.run(parser.parse_args(given))
    parser.parse_args(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
