"""The program `pycni`: reads the command line and calls what it names.

Must not: do anything itself.
"""

import argparse
import sys
from collections.abc import Sequence

from cni_node import plugins

COMMANDS = {"install-plugins": plugins}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of the process unless it is given. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="pycni", description="What a node of a cluster needs beside its CNI plugins.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        said = command.SUMMARY
        command.add_options(commands.add_parser(name, help=said, description=f"{said}.", allow_abbrev=False))
    options = parser.parse_args(arguments)
    status: int = COMMANDS[options.command].run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
