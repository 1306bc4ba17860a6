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
    install = commands.add_parser("install-plugins", help="put the plugins of this image on the node")
    load = commands.add_parser("load-module", help="load a module of the kernel, with the node's own modprobe")
    if asked == "install-plugins":
        from cni_node import plugins

        plugins.add_options(install)
        return plugins.run(parser.parse_args(given))
    if asked == "load-module":
        from cni_node import modules

        modules.add_options(load)
        return modules.run(parser.parse_args(given))
    parser.parse_args(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
