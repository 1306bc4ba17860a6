"""A node as a JSON document. Pure.

Must not: leave anything out; that is the text's.
"""

from typing import Any

from cni_kernel.values import Link
from cni_node.inspect.values import Attached, Bridge, View


def document_of(view: View) -> dict[str, Any]:
    """All of it, as lists and objects."""
    return {
        "node": view.node,
        "uplinks": view.uplinks,
        "overlay": [_link(link) for link in view.overlay],
        "networks": [network._asdict() for network in view.networks],
        "bridges": [_bridge(bridge) for bridge in view.bridges],
        "attachments": [_attached(one) for one in view.attached],
        "peers": [peer._asdict() for peer in view.peers],
        "exemptNetworks": view.exempt,
        "policies": view.policies._asdict() if view.policies is not None else None,
        "leftovers": [entry._asdict() for entry in view.leftovers],
        "leftoversAreSure": view.sure,
        "problems": view.problems,
    }


def _link(link: Link) -> dict[str, Any]:
    return {"name": link.name, "kind": link.kind, "mac": link.mac, "mtu": link.mtu, "up": link.up}


def _bridge(bridge: Bridge) -> dict[str, Any]:
    return {
        **_link(bridge.link),
        "addresses": list(bridge.addresses),
        "owners": list(bridge.owners),
        "otherPorts": list(bridge.others),
    }


def _attached(one: Attached) -> dict[str, Any]:
    return {
        "owner": one.owner,
        "network": one.network,
        "containerID": one.container_id,
        "ifname": one.ifname,
        "pod": one.pod,
        "netns": one.netns,
        "netnsState": one.inside.netns,
        "bridge": one.bridge,
        "hostInterface": _link(one.host) if one.host is not None else None,
        "containerInterface": _link(one.inside.link) if one.inside.link is not None else None,
        "addresses": list(one.addresses),
        "reserved": list(one.reserved),
        "hostPorts": [port._asdict() for port in one.ports],
        "rules": list(one.rules),
        "state": list(one.state),
    }
