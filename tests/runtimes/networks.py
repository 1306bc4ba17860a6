"""The networks of these tests, as configuration lists for runtimes that know the specification up to 1.0.0."""

from typing import Any

BRIDGE = "cni0"
GATEWAY = "10.244.0.1"


def make_network(*, chained: bool = False, **ipam: Any) -> dict[str, Any]:
    """A network with a gateway and host ports: our own, or those of the portmap plugin behind ours."""
    plugin = {
        # With a fixed address podman replaces the capabilities of the first plugin unless they have "ips" among them.
        "capabilities": {"ips": True, "portMappings": not chained},
        "type": "cni-bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": True,
        "ipam": {"type": "cni-ipam", "ranges": [[{"subnet": "10.244.0.0/16"}]], **ipam},
    }
    if chained:  # portmap knows nothing of the bridge, so the way back into the same port has to be asked for
        portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
        plugins = [{**plugin, "hairpinMode": True}, portmap]
    else:
        plugins = [plugin]
    return {"cniVersion": "1.0.0", "name": "mynet", "plugins": plugins}
