"""The environment of a plugin call, and the request that comes of one. Nothing is called here."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cni_protocol.request import Request, parse_request

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # where a plugin finds the programs that it starts


def call_environment(
    command: str,
    container_id: str = "c1",
    netns: str | None = None,
    ifname: str = "eth0",
    *,
    path: Sequence[str] = (),
    args: str = "",
    **others: str,
) -> dict[str, str]:
    """What a runtime sets for a call about an attachment: all variables of the SPEC, the empty ones too.

    `netns` is where `ip netns` puts the container's namespace unless it is given; `path` the directories of CNI_PATH;
    `others` are added, or replace a variable.
    """
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": f"/run/netns/{container_id}" if netns is None else netns,
        "CNI_IFNAME": ifname,
        "CNI_PATH": ":".join(path),
        "CNI_ARGS": args,
        "PATH": PATH,
        **others,
    }


def bare_environment(command: str, path: Sequence[str] = ()) -> dict[str, str]:
    """The least that a runtime may set, which has to do for VERSION, STATUS and GC."""
    return {"CNI_COMMAND": command, "PATH": PATH, **({"CNI_PATH": ":".join(path)} if path else {})}


def make_request(config: Mapping[str, Any], command: str = "ADD", **environment: Any) -> Request:
    """A checked Request; `environment` goes to call_environment. cniVersion and name have a default."""
    document = {"cniVersion": "1.0.0", "name": "mynet", **config}
    return parse_request(call_environment(command, **environment), json.dumps(document).encode())
