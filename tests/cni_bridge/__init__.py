"""What several tests of the bridge share: requests, and the plugin called in this process inside a throw-away host."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cni_bridge.__main__ import PLUGIN
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import Namespace, open_namespace
from cni_protocol import plugin
from cni_protocol.attachment import Attachment
from cni_protocol.request import Request
from tests.kit import calls
from tests.kit.host import Host, Outcome

# Link flags that follow by themselves, some time after the fact, from what is on the other end.
_PASSING_FLAGS = {"LOWER_UP", "NO-CARRIER", "RUNNING"}


def make_request(command: str = "ADD", *, cni_args: str = "", **keys: Any) -> Request:
    """A request for container c1, eth0, with these keys in its configuration."""
    return calls.make_request({"type": "cni-bridge", **keys}, command, path=["/opt/cni/bin"], args=cni_args)


def netns_path(host: Host, container: str) -> str:
    """A container's namespace as a process outside the host's mount namespace sees it."""
    return f"/proc/{host.pid}/root/run/netns/{container}"


def open_kernel(host: Host, container: str | None = None) -> Kernel:
    """A Kernel that speaks to the host, or to a container on it; the caller closes it."""
    with host.entered(container):
        return Kernel()


def open_container(host: Host, container: str) -> Namespace:
    """A container's namespace as the plugin opens it; the caller closes it."""
    return open_namespace(netns_path(host, container))


class Runtime(NamedTuple):
    """A runtime that calls the bridge plugin in this very process, in the network namespace of a host."""

    host: Host
    path: tuple[str, ...]
    data_dir: Path

    def call(
        self,
        command: str,
        config: Mapping[str, Any],
        container: str = "c1",
        *,
        netns: str | None = None,
        ifname: str = "eth0",
    ) -> Outcome:
        """Call the plugin for a container of that name and id. stderr stays the test's own."""
        there = netns_path(self.host, container) if netns is None else netns
        env = calls.call_environment(command, container, there, ifname, path=self.path)
        with self.host.entered():
            status, output = plugin.answer(PLUGIN, env, lambda: json.dumps(config).encode())
        return Outcome(status, json.loads(output) if output else None, output.decode(), "")

    def add(self, config: Mapping[str, Any], container: str = "c1", **options: Any) -> Any:
        """A successful ADD for a container. Returns its result."""
        outcome = self.call("ADD", config, container, **options)
        assert outcome.status == 0, outcome.stdout
        return outcome.document

    def ipam(self, *subnets: str, **keys: Any) -> dict[str, Any]:
        """The ipam object for one address out of each subnet, with its reservations in the test's own directory."""
        ranges = [[{"subnet": subnet}] for subnet in subnets]
        return {"type": "cni-ipam", "dataDir": str(self.data_dir), "ranges": ranges, **keys}

    def state(self, *containers: str) -> dict[str, Any]:
        """All that an ADD may change on the host and in these containers."""
        return {
            "links": _links(self.host, None),
            "addresses": _addresses(self.host, None),
            "routes": _routes(self.host),
            "rules": _without_handles(self.host.nft()),
            "reservations": sorted(
                path.name
                for path in self.data_dir.rglob("*")  # addresses, and the records of whose they are
                if path.is_file()
                and path.name not in ("lock", "index", "origin")
                and not path.name.startswith("last_reserved_ip.")
            ),
            **{name: (_links(self.host, name), _addresses(self.host, name)) for name in containers},
        }


def host_name(container: str, network: str = "mynet", ifname: str = "eth0") -> str:
    """The name of the host's end of a container's veth pair."""
    return Attachment(network, container, ifname).host_name


def _links(host: Host, container: str | None) -> list[Any]:
    return [
        (
            link["ifname"],
            sorted(set(link["flags"]) - _PASSING_FLAGS),
            link.get("linkinfo", {}).get("info_kind"),
            [link.get("linkinfo", {}).get("info_slave_data", {}).get(key) for key in ("hairpin", "isolated")],
            [link.get(key) for key in ("mtu", "address", "master", "ifalias", "promiscuity")],
        )
        for link in host.ip("link", container=container)
    ]


def _addresses(host: Host, container: str | None) -> list[Any]:
    return [
        (link["ifname"], entry["local"], entry["prefixlen"])
        for link in host.ip("address", container=container)
        for entry in link.get("addr_info", [])
        if entry["scope"] != "link"  # the kernel makes those by itself, a while after a link came up
    ]


def _routes(host: Host) -> list[Any]:
    routes = host.ip("-4", "route", "show", "table", "all") + host.ip("-6", "route", "show", "table", "all")
    return [
        [route.get(key) for key in ("type", "dst", "gateway", "dev", "table")]
        for route in routes
        if not route["dst"].startswith(("fe80", "ff00", "multicast"))  # made by the kernel, like those addresses
        and not (":" in route["dst"] and route.get("type") in ("local", "anycast"))  # ... a while after an address came
    ]


def _without_handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_handles(entry) for key, entry in value.items() if key != "handle"}
    return [_without_handles(entry) for entry in value] if isinstance(value, list) else value
