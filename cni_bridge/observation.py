"""What the kernel holds of an attachment, for CHECK.

Must not: change anything, or judge what it finds.
"""

from cni_kernel.kernel import Kernel
from cni_kernel.values import Link
from cni_protocol.address import CIDR

from .plan import gateway_interface
from .verify import Observed
from .wiring import Site, find_other_end


def observe(site: Site, missing_rules: list[str]) -> Observed:
    """What the kernel holds of an attachment."""
    host, inside, config, attachment = site.host, site.inside, site.config, site.attachment
    bridge, container = host.find_link(config.bridge), inside.find_link(attachment.ifname)
    port = host.find_link_at(container.peer) if container is not None and container.peer else None
    gateway = host.find_link(gateway_interface(config))
    return Observed(
        bridge=bridge,
        host=port,
        container=container,
        addresses=_cidrs(inside, container),
        routes=inside.list_routes(container) if container is not None else [],
        gateways=_cidrs(host, gateway),
        gateway=gateway,
        gateway_port=find_other_end(host, gateway) if gateway is not None else None,
        vlans=host.list_all_vlans() if config.wants_vlans else {},
        missing_rules=missing_rules,
    )


def _cidrs(kernel: Kernel, link: Link | None) -> list[CIDR]:
    return [entry.cidr for entry in kernel.list_addresses(link)] if link is not None else []
