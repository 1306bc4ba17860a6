"""Tests of cni_protocol, and the one way in which pure tests come by a Request."""

import json
from collections.abc import Mapping
from typing import Any

from cni_protocol.request import Request, parse_request

ENV = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
}


def make_request(config: Mapping[str, Any], command: str = "ADD", **variables: str) -> Request:
    """A checked Request; `variables` are added to the environment. cniVersion and name have a default."""
    env = {"CNI_COMMAND": command, **ENV, **variables}
    return parse_request(env, json.dumps({"cniVersion": "1.0.0", "name": "mynet", **config}).encode())
