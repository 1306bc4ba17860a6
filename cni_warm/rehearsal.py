"""A call that changes nothing, run by a worker while it has nothing else to do.

A worker begins with its memory shared with the service, and every page that it writes to (Python counts references) is
copied first: some 800 of them in a call, a millisecond or two. Whoever has run once has most of its own already.
"""

from cni_bridge.__main__ import PLUGIN as BRIDGE
from cni_bridge.attachment import Attachment
from cni_bridge.config import parse_config
from cni_bridge.filters import list_filters
from cni_bridge.plan import make_plan, make_result
from cni_ipam.__main__ import PLUGIN as IPAM
from cni_protocol.document import write_json
from cni_protocol.plugin import answer
from cni_protocol.request import parse_request
from cni_protocol.result import result_to_json

# Documentation addresses (RFC 5737), a directory that is not there, and no IPAM plugin that would be looked for.
_CONFIG = b"""{"cniVersion": "1.1.0", "name": "pycni-rehearsal", "isGateway": true, "ipMasq": true,
 "ipam": {"subnet": "192.0.2.0/24", "dataDir": "/proc/pycni-rehearsal", "routes": [{"dst": "0.0.0.0/0"}]},
 "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "192.0.2.2/24", "gateway": "192.0.2.1"}]}}"""
_ENVIRONMENT = {
    "CNI_COMMAND": "DEL",
    "CNI_CONTAINERID": "pycni-rehearsal",
    "CNI_NETNS": "/proc/pycni-rehearsal",
    "CNI_IFNAME": "eth0",
}


def rehearse() -> None:
    """DEL of a container that nobody has, and what of ADD only computes."""
    for plugin in (BRIDGE, IPAM):
        answer(plugin, _ENVIRONMENT, lambda: _CONFIG)
    request = parse_request(_ENVIRONMENT, _CONFIG)
    config = parse_config(request._replace(config={**request.config, "ipam": {"type": "cni-ipam"}}))
    if config.previous is not None:
        plan = make_plan(config, config.previous)
        list_filters(config, Attachment("net", "container", "eth0"), [entry.address for entry in plan.ips], "")
        write_json(result_to_json(make_result(plan, ()), request.version))
