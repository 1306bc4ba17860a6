"""A rehearsal: a call that changes nothing, which a worker runs while it waits for its real call.

A forked worker shares its memory with the service. The kernel copies each page that the worker writes to, and Python
writes almost everywhere (reference counts): some 800 pages in a call, which takes a millisecond or two. After a
rehearsal the worker has its own copies of most pages.
"""

from cni_bridge.__main__ import PLUGIN as BRIDGE
from cni_bridge.attachment_rules import list_rules
from cni_bridge.config import parse_config
from cni_bridge.plan import make_plan, make_result
from cni_bridge.sync import close_sockets, find_missing
from cni_ipam.__main__ import PLUGIN as IPAM
from cni_kernel.kernel import Kernel
from cni_kernel.rtnetlink import route_body
from cni_protocol.attachment import Attachment
from cni_protocol.light.json_text import write_json
from cni_protocol.plugin import answer
from cni_protocol.request import parse_request
from cni_protocol.result import Interface, result_to_json

# Documentation addresses (RFC 5737), a data directory that does not exist, and no IPAM plugin that would be run.
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
    """Run DEL for a container that does not exist, and the parts of ADD that only read and compute."""
    for plugin in (BRIDGE, IPAM):
        answer(plugin, _ENVIRONMENT, lambda: _CONFIG)
    close_sockets()
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
