"""A call that changes nothing, run by a worker while it has nothing else to do.

A worker begins with its memory shared with the service, and every page that it writes to (Python counts references) is
copied first: some 800 of them in a call, a millisecond or two. Whoever has run once has most of its own already.
"""

from cni_bridge.__main__ import PLUGIN as BRIDGE
from cni_bridge.attachment_rules import list_rules
from cni_bridge.config import parse_config
from cni_bridge.plan import make_plan, make_result
from cni_bridge.sync import find_missing
from cni_ipam.__main__ import PLUGIN as IPAM
from cni_kernel.kernel import Kernel
from cni_kernel.nft_presence import close_socket
from cni_kernel.rtnetlink import route_body
from cni_protocol.attachment import Attachment
from cni_protocol.light.json_text import write_json
from cni_protocol.plugin import answer
from cni_protocol.request import parse_request
from cni_protocol.result import Interface, result_to_json

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
_NOBODY = Attachment("pycni-rehearsal", "pycni-rehearsal", "eth0")


def rehearse() -> None:
    """DEL of a container that nobody has, and what of ADD only reads and computes."""
    for plugin in (BRIDGE, IPAM):
        answer(plugin, _ENVIRONMENT, lambda: _CONFIG)
    close_socket()
    request = parse_request(_ENVIRONMENT, _CONFIG)
    config = parse_config(request._replace(config={**request.config, "ipam": {"type": "cni-ipam"}}))
    assert config.previous is not None
    plan = make_plan(config, config.previous)
    with Kernel() as kernel:
        link = kernel.get_link("lo")
        kernel.list_addresses(link)
        for route in plan.programmed:
            route_body(link, route)
    for rules in list_rules(config, _NOBODY, [entry.address for entry in plan.ips], link.mac):
        find_missing(rules)
    interface = Interface(link.name, link.mac, link.mtu)
    write_json(result_to_json(make_result(plan, (interface,)), request.version))
