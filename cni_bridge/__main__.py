"""The executable cni-bridge."""

from cni_protocol import plugin

from . import commands

PLUGIN = plugin.Plugin(
    name="cni-bridge",
    what="connects a container to a Linux bridge",
    commands={
        "ADD": commands.add,
        "DEL": commands.delete,
        "CHECK": commands.check,
        "STATUS": commands.status,
        "GC": commands.collect,
    },
)


def main() -> int:
    """Serve one call. Returns the exit status."""
    return plugin.main(PLUGIN)


if __name__ == "__main__":
    raise SystemExit(main())
