"""The executable `pycni`: a table of subcommands. Each is a module with add_options() and run().

Must not: import a subcommand's module before it is needed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

AddOptions = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


def _agent() -> tuple[AddOptions, Run]:
    from cni_node import settings
    from cni_node.agent import run

    return settings.add_options, run.run


def _status() -> tuple[AddOptions, Run]:
    from cni_node.agent import status

    return status.add_options, status.run


def _cluster() -> tuple[AddOptions, Run]:
    from cni_node import cluster

    return cluster.add_options, cluster.run


def _inspect() -> tuple[AddOptions, Run]:
    from cni_node.inspect import command

    return command.add_options, command.run


def _repair() -> tuple[AddOptions, Run]:
    from cni_node.repair import command as repair

    return repair.add_options, repair.run


def _doctor() -> tuple[AddOptions, Run]:
    from cni_node.doctor import command

    return command.add_options, command.run


def _why() -> tuple[AddOptions, Run]:
    from cni_node.why import command

    return command.add_options, command.run


def _install_plugins() -> tuple[AddOptions, Run]:
    from cni_node import plugins

    return plugins.add_options, plugins.run


def _load_module() -> tuple[AddOptions, Run]:
    from cni_node.host import modules

    return modules.add_options, modules.run


def _manual() -> tuple[AddOptions, Run]:
    from cni_node import manual

    return manual.add_manual_options, lambda _: manual.print_manual(all_parsers())


def _completion() -> tuple[AddOptions, Run]:
    from cni_node import manual

    return manual.add_completion_options, lambda _: manual.print_completion(all_parsers())


COMMANDS: dict[str, tuple[str, Callable[[], tuple[AddOptions, Run]]]] = {
    "agent": ("keep this node's pod network equal to what the cluster says", _agent),
    "status": ("how the agent of this node is, in one screen", _status),
    "cluster": ("which node has which pod range, as etcd has it", _cluster),
    "inspect": ("this node's network as it is: pods, bridges, peers, what is left over", _inspect),
    "repair": ("put back the rules, routes and sysctls of what runs", _repair),
    "doctor": ("what is wrong with this node, and what to do about it", _doctor),
    "why": ("whether one reaches another, by which way, and what stops it", _why),
    "install-plugins": ("put the plugins of this image on the node", _install_plugins),
    "load-module": ("load a module of the kernel, with the node's own modprobe", _load_module),
    "manual": ("the manual page, for man(1)", _manual),
    "completion": ("what a shell completes, to be sourced by it", _completion),
}


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each subcommand, with its options."""
    parsers = {}
    for name, (what, load) in COMMANDS.items():
        parsers[name] = argparse.ArgumentParser(prog=f"pycni {name}", description=what, allow_abbrev=False)
        load()[0](parsers[name])
    return parsers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="pycni", description="The node program of pycni.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    given = list(sys.argv[1:] if arguments is None else arguments)
    run: Run = lambda _: 0  # noqa: E731  # without a command argparse ends the process
    for name, (what, load) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        if given[:1] == [name]:
            add_options, run = load()
            add_options(command)
    return run(parser.parse_args(given))


if __name__ == "__main__":
    sys.exit(main())
