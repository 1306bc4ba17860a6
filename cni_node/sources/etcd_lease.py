"""Takes a pod range for this node in etcd and keeps it by a lease.

Must not: overwrite an entry of anybody else's, or give a node that has a range another one. Every write is one
transaction that succeeds only if each of its keys is absent or ours, and unchanged since we have read it.
"""

from contextlib import suppress
from typing import NamedTuple

from cni_node.snapshot import Node
from cni_node.sources.etcd_calls import Etcd, EtcdAccess
from cni_node.sources.etcd_keys import (
    Cluster,
    candidates,
    check_cluster,
    find_owner,
    find_subnet,
    is_part,
    overlap,
    parse_cluster,
    parse_node,
    render_cluster,
    render_node,
    render_owner,
    subnet_key,
)
from cni_node.sources.etcd_messages import Entry
from cni_protocol.address import CIDR, IP, parse_cidr
from cni_protocol.errors import ALREADY_EXISTS, INVALID_CONFIG, NO_ADDRESS, TRY_AGAIN_LATER, CNIError

ATTEMPTS = 10  # at a range that others want at the same moment
WEAVE = Cluster((parse_cidr("10.32.0.0/12"),), (24,))  # the range that Weave has by default
LEASE = 40  # seconds; renewed three times in it. A node that died is gone after it


class EtcdSettings(NamedTuple):
    """This node and its etcd. `mtu` in bytes, 0 is unknown; `wanted` are the ranges that it had before, taken again if
    they are free; `lease` in seconds.
    """

    access: EtcdAccess
    name: str
    addresses: tuple[IP, ...]
    mtu: int = 0
    prefix: str = "/pycni"
    cluster: Cluster = WEAVE
    wanted: tuple[CIDR, ...] = ()
    lease: int = LEASE

    @property
    def nodes(self) -> str:
        """What the keys of nodes begin with."""
        return f"{self.prefix}/nodes/"


class Registration:
    """This node's entries. All methods raise CallError, and CNIError where the range or the name is another's."""

    def __init__(self, etcd: Etcd, settings: EtcdSettings) -> None:
        self._etcd, self._settings = etcd, settings
        self._lease = 0
        self._pods: tuple[CIDR, ...] = ()
        self.remark = ""  # a problem that does not keep us from having a range

    def keep(self, look: bool = False) -> None:
        """Have the entries, and renew the lease. Where it is alive they are only looked at with `look`."""
        alive = bool(self._lease and self._etcd.keep_alive(self._lease))
        if not alive:
            self._lease = 0
        if alive and not look:
            return
        self._take()

    def _take(self) -> None:
        settings = self._settings
        if not settings.name or "/" in settings.name:
            raise CNIError(
                INVALID_CONFIG, f"{settings.name!r} is no name for a node in etcd: one without / is expected"
            )
        if not settings.addresses:
            raise CNIError(INVALID_CONFIG, "this node has no address that others could be told")
        cluster = self._agree()
        for _ in range(ATTEMPTS):
            node_key = settings.nodes + settings.name
            nodes, _ = self._etcd.entries(settings.nodes)
            subnets, _ = self._etcd.entries(f"{settings.prefix}/subnets/")
            mine = next((entry for entry in nodes if entry.key == node_key), None)
            pods = self._choose(cluster, self._pods or self._had(mine), self._taken(nodes, subnets))
            keys = {entry.key: entry for entry in subnets}
            read = {node_key: mine, **{(key := subnet_key(settings.prefix, each)): keys.get(key) for each in pods}}
            if self._lease and all(entry and entry.lease == self._lease for entry in read.values()):
                return
            if self._write(node_key, Node(settings.name, pods, settings.addresses, settings.mtu), read):
                self._pods = pods
                return
        raise CNIError(TRY_AGAIN_LATER, f"{ATTEMPTS} times another node was quicker to take a pod range in etcd")

    def _write(self, node_key: str, node: Node, read: dict[str, Entry | None]) -> bool:
        self._lease = self._lease or self._etcd.grant(self._settings.lease)
        owner = render_owner(node.name)
        values = {key: render_node(node) if key == node_key else owner for key in read}
        return self._etcd.put_if(read, values, self._lease)

    def _agree(self) -> Cluster:
        """The cluster's ranges: whoever comes first says them."""
        settings, key = self._settings, f"{self._settings.prefix}/config"
        check_cluster(settings.cluster)
        entry = self._etcd.get(key)
        if entry is None:
            self._etcd.put_if({key: None}, {key: render_cluster(settings.cluster)}, 0)
            entry = self._etcd.get(key)
        if entry is None:
            raise CNIError(TRY_AGAIN_LATER, f"etcd has lost {key} again")
        try:
            cluster = parse_cluster(entry.value)
        except CNIError as error:
            raise CNIError(error.code, f"{key} in etcd: {error.msg}") from None
        differs = f"etcd's {key} counts, {entry.value}: this node was told {render_cluster(settings.cluster)}"
        self.remark = "" if cluster == settings.cluster else differs
        return cluster

    def _had(self, mine: Entry | None) -> tuple[CIDR, ...]:
        """The ranges of the entry of an earlier life of this node."""
        if mine is None:
            return ()
        name = self._settings.name
        try:
            node = parse_node(name, mine.value)
        except ValueError as error:
            raise CNIError(ALREADY_EXISTS, f"{mine.key} in etcd is not ours: {error}") from None
        if node.addresses != self._settings.addresses:
            theirs, ours = (" ".join(map(str, each)) for each in (node.addresses, self._settings.addresses))
            raise CNIError(
                ALREADY_EXISTS, f"the name {name} is that of another node in etcd, with {theirs}; this one has {ours}"
            )
        return node.pods

    def _taken(self, nodes: list[Entry], subnets: list[Entry]) -> dict[CIDR, str]:
        """The ranges of others, and whose they are: also of a node whose key of a range somebody has deleted."""
        taken: dict[CIDR, str] = {}
        for entry in nodes:
            name = entry.key.removeprefix(self._settings.nodes)
            with suppress(ValueError):  # what makes no sense is told by whoever follows the nodes
                taken.update(dict.fromkeys(parse_node(name, entry.value).pods, name))
        for entry in subnets:
            if cidr := find_subnet(entry.key):
                taken[cidr] = find_owner(entry.value)
        return {cidr: owner for cidr, owner in taken.items() if owner != self._settings.name}

    def _choose(self, cluster: Cluster, before: tuple[CIDR, ...], taken: dict[CIDR, str]) -> tuple[CIDR, ...]:
        name, wanted = self._settings.name, self._settings.wanted
        for other, owner in taken.items():
            if any(overlap(cidr, other) for cidr in before):
                raise CNIError(
                    ALREADY_EXISTS,
                    f"{other}, of the pod range of this node, went to node {owner or 'nobody'} while our lease in etcd "
                    "was lost: its pods stay, and it can have no new ones until it is set up anew",
                )
        if before:
            return before
        if is_part(cluster, wanted) and not any(overlap(cidr, other) for cidr in wanted for other in taken):
            return wanted
        pods = next(candidates(cluster, name, taken), None)
        if pods is None:
            shown = ", ".join(map(str, cluster.networks))
            raise CNIError(NO_ADDRESS, f"all {cluster.parts} parts of {shown} are taken in etcd")
        return pods
