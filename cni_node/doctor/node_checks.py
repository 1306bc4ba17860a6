"""Faults of files and services: the store, the runtime's configuration, plugins, the agent. Pure.

Must not: read anything.
"""

from collections.abc import Iterator

from cni_node.doctor.facts import BREAKS, HINDERS, RISK, Facts, Finding, Network
from cni_node.doctor.route_checks import peer_routes_of
from cni_protocol.address import parse_ip
from cni_protocol.attachment import Attachment, describe_owner

_LITTLE = 0.02  # of a file system


def check_configurations(facts: Facts) -> Iterator[Finding]:
    """A configuration cannot be read, or another one than ours is taken."""
    if not any(entry.ours for entry in facts.configurations):
        return
    whole = [entry for entry in facts.configurations if not entry.error]
    for entry in facts.configurations:
        if entry.error:
            yield Finding(
                HINDERS, "configuration-broken", entry.path, f"it cannot be read: {entry.error}", "mend or remove it"
            )
    if not whole[0].ours:
        ours = next(entry for entry in whole if entry.ours)
        what = f"it sorts before {ours.path.rpartition('/')[2]}, so the runtime takes it ({', '.join(whole[0].types)})"
        yield Finding(HINDERS, "configuration-shadowed", whole[0].path, what, "remove it, or rename it to sort last")


def check_plugins(facts: Facts) -> Iterator[Finding]:
    """A plugin that a configuration of ours names cannot run."""
    for name, reason in sorted(facts.plugins.items()):
        if reason:
            yield Finding(
                HINDERS, "plugin-unusable", f"plugin {name}", f"no pod can start: {reason}", "install it anew"
            )


def check_rooms(facts: Facts) -> Iterator[Finding]:
    """A file system is full, read-only, or runs no programs."""
    for room in facts.rooms:
        writes = room.path.endswith(("var/lib/cni", "run"))
        if writes and room.read_only:
            yield Finding(HINDERS, "read-only", room.path, "it is read-only: no pod can start", "mount it read-write")
        elif writes and min(room.bytes_free, room.inodes_free) < _LITTLE:
            what = "inodes" if room.inodes_free < _LITTLE else "space"
            share = min(room.bytes_free, room.inodes_free)
            yield Finding(HINDERS, "disk-full", room.path, f"{share:.0%} of its {what} is free", "make room")
        if room.no_exec and room.path.endswith("bin"):
            what = "it is mounted noexec: no plugin can run"
            yield Finding(HINDERS, "noexec", room.path, what, "mount it without noexec")


def check_store(facts: Facts) -> Iterator[Finding]:
    """A reservation says nothing, or is of a pod that has no interface here."""
    names = {link.name for link in facts.links}
    for entry in facts.reservations:
        if entry.error:
            yield Finding(
                RISK, "store-damaged", entry.path, f"the reservation of {entry.ip}: {entry.error}", "remove the file"
            )
        elif entry.ifname and names:
            attachment = Attachment(entry.network, entry.container_id, entry.ifname)
            if attachment.host_name not in names:
                what = f"it is held by {describe_owner(attachment.owner)}, which has no interface here"
                yield Finding(
                    RISK, "reservation-leaked", f"address {entry.ip}", what, "have the runtime send DEL or GC"
                )


def check_unreserved(facts: Facts) -> Iterator[Finding]:
    """A running pod has an address that the store would give to another."""
    stored = {network.name for network in facts.networks if network.store}
    reserved = {(entry.network, entry.ip) for entry in facts.reservations}
    broken = any(text.startswith("the store ") for text in facts.unreadable)
    for pod in facts.pods:
        for ip in pod.addresses:
            network = pod.attachment.network
            if network in stored and not broken and (network, ip) not in reserved:
                what = f"its address {ip} is not reserved, so another pod may get it"
                yield Finding(
                    HINDERS, "address-unreserved", describe_owner(pod.attachment.owner), what, "start it anew"
                )


def check_pools(facts: Facts) -> Iterator[Finding]:
    """A network has no address left, or few."""
    for network in facts.networks:
        gateways = {gateway.ip for gateway in network.gateways}
        held = [entry.ip for entry in facts.reservations if entry.network == network.name]
        for pool in network.pools:
            total = sum(last.value - first.value + 1 for first, last in pool)
            total -= sum(1 for gateway in gateways if any(first <= gateway <= last for first, last in pool))
            count = sum(1 for ip in held if any(first <= ip <= last for first, last in pool))
            if count and total - count <= total * _LITTLE:
                yield _pool_finding(network, count, total)


def _pool_finding(network: Network, count: int, total: int) -> Finding:
    what = f"{count} of {total} addresses are taken" + (": no pod can start" if count >= total else "")
    remedy = "have the runtime send GC; a larger range"
    return Finding(HINDERS if count >= total else RISK, "pool-full", f"network {network.name}", what, remedy)


def check_namespaces(facts: Facts) -> Iterator[Finding]:
    """The runtime's name of a pod's namespace is gone, while its interface is there."""
    for pod in facts.pods:
        if pod.netns_gone:
            what = f"{pod.netns} is gone, and its interface is still there"
            yield Finding(
                RISK, "namespace-gone", describe_owner(pod.attachment.owner), what, "have the runtime delete it"
            )


def check_agent(facts: Facts) -> Iterator[Finding]:
    """The agent that a network needs is away, or names problems itself."""
    report = facts.report
    needed = sorted({network.agent for network in facts.networks if network.agent})
    if report is None:
        for path in needed:
            yield Finding(
                HINDERS, "agent-away", path, "the agent does not answer: nobody follows the cluster here", "pycni agent"
            )
        return
    for problem in report.get("problems") or ():
        yield Finding(HINDERS, "agent-problem", "agent", str(problem), "see the sentence")
    if not report.get("ready") and not report.get("problems"):
        what = f"the node is not ready (state {report.get('state')})"
        yield Finding(HINDERS, "agent-not-ready", "agent", what, "pycni status, and the agent's log")


def check_routes_of_agent(facts: Facts) -> Iterator[Finding]:
    """Routes that the agent has made are not there any more."""
    wanted = int((facts.report or {}).get("routes") or 0)
    there = len({(route.dst, route.metric) for route in peer_routes_of(facts)})
    if facts.links and there < wanted:
        what = f"{wanted - there} of {wanted} routes to other nodes are missing: another program removes them"
        yield Finding(HINDERS, "routes-missing", "agent", what, "pycni status tells who; restart the agent")
    if facts.foreign_routes_removed and (wanted or there):
        what = "when it is restarted it removes the routes to other nodes"
        remedy = "ManageForeignRoutes=no in /etc/systemd/networkd.conf.d"
        yield Finding(RISK, "networkd-routes", "systemd-networkd", what, remedy)


def check_node_address(facts: Facts) -> Iterator[Finding]:
    """The other nodes use an address for this node that it does not have."""
    own = {entry.cidr.ip for entry in facts.addresses}
    for text in (facts.report or {}).get("addresses") or ():
        try:
            ip = parse_ip(str(text))
        except ValueError:
            continue
        if own and ip not in own:
            what = f"the other nodes know this one by {ip}, which it does not have"
            yield Finding(BREAKS, "node-address", "agent", what, "--node-ip of the agent and of the kubelet")


def check_stub_resolver(facts: Facts) -> Iterator[Finding]:
    """Pods get a resolv.conf that names a resolver on the loopback."""
    if facts.stub_resolver:
        what = "it names a resolver on the loopback, which pods do not have: DNS turns in a circle"
        remedy = "resolvConf: /run/systemd/resolve/resolv.conf in the kubelet's configuration"
        yield Finding(HINDERS, "stub-resolver", facts.stub_resolver, what, remedy)


def check_policies(facts: Facts) -> Iterator[Finding]:
    """Policies are to be in force, and their table is gone."""
    policies = (facts.report or {}).get("policies") or {}
    if (
        policies.get("ready")
        and policies.get("isolated")
        and not any(n.startswith("pycni_policy") for _, n in facts.tables)
    ):
        what = "the kernel has no table of policies, though pods are isolated"
        yield Finding(HINDERS, "policies-missing", "policies", what, "restart the agent")
