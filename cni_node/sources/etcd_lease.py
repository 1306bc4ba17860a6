"""Takes a pod range for this node in etcd, and keeps it with a lease.

Must not: overwrite another node's entry, or change the pod range of a node that has one. Every write is one
transaction, which succeeds only if each of its keys is absent or ours, and unchanged since it was read.
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

ATTEMPTS = 10  # to take a range, when other nodes take one at the same moment
WEAVE = Cluster((parse_cidr("10.32.0.0/12"),), (24,))  # the default, as Weave has it
LEASE = 40  # seconds; renewed three times in this time. The entries of a dead node are removed after it


class EtcdSettings(NamedTuple):
    """This node and its etcd. `mtu` is in bytes, 0 for unknown; `lease` is in seconds.

    `fixed`: the addresses are an option's, so they stay if the node has other ones by now.
    `wanted` are the pod ranges that this node had before: it takes them again if they are free.
    """

    access: EtcdAccess
    name: str
    addresses: tuple[IP, ...]
    mtu: int = 0
    prefix: str = "/pycni"
    cluster: Cluster = WEAVE
    wanted: tuple[CIDR, ...] = ()
    lease: int = LEASE
    fixed: bool = False

    @property
    def nodes(self) -> str:
        """The prefix of the keys of all nodes."""
        return f"{self.prefix}/nodes/"


class Registration:
    """This node's entries in etcd. Methods raise CallError; CNIError when another node has the range or the name."""

    def __init__(self, etcd: Etcd, settings: EtcdSettings) -> None:
        self._etcd, self._settings = etcd, settings
        self._lease = 0
        self._pods: tuple[CIDR, ...] = ()
        self._told: tuple[IP, ...] = ()  # the addresses in our entry
        self.remark = ""  # a problem that does not prevent taking a range, "" for none

    @property
    def lease(self) -> int:
        """The id of the lease of our entries, 0 for none. For any thread."""
        return self._lease

    def move(self, addresses: tuple[IP, ...]) -> None:
        """This node has other addresses by now: the next `keep` writes them."""
        self._settings = self._settings._replace(addresses=addresses)

    def keep(self, look: bool = False) -> None:
        """Renew the lease; if it has ended, take a range again. With `look`, check the entries in any case."""
        alive = bool(self._lease and self._etcd.keep_alive(self._lease))
        if not alive:
            self._lease = 0
        if alive and not look and self._told == self._settings.addresses:
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
            kept = self._lease and all(entry and entry.lease == self._lease for entry in read.values())
            if kept and self._told == settings.addresses:
                return
            if self._write(node_key, Node(settings.name, pods, settings.addresses, settings.mtu), read):
                self._pods, self._told = pods, settings.addresses
                return
        raise CNIError(TRY_AGAIN_LATER, f"{ATTEMPTS} times another node was quicker to take a pod range in etcd")

    def _write(self, node_key: str, node: Node, read: dict[str, Entry | None]) -> bool:
        self._lease = self._lease or self._etcd.grant(self._settings.lease)
        owner = render_owner(node.name)
        values = {key: render_node(node) if key == node_key else owner for key in read}
        return self._etcd.put_if(read, values, self._lease)

    def _agree(self) -> Cluster:
        """The cluster's pod networks as PREFIX/config has them. The first node writes its own settings there."""
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
        differs = f"{key} in etcd has {entry.value}, and not {render_cluster(settings.cluster)} as this node's options"
        self.remark = "" if cluster == settings.cluster else differs
        return cluster

    def _had(self, mine: Entry | None) -> tuple[CIDR, ...]:
        """The pod ranges in the entry that this node has left before a restart. Raises CNIError for another node's."""
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
        """The pod ranges of other nodes, with their names.

        Both kinds of keys are read, so that a range counts even if someone has deleted its key below subnets/.
        """
        taken: dict[CIDR, str] = {}
        for entry in nodes:
            name = entry.key.removeprefix(self._settings.nodes)
            with suppress(ValueError):  # EtcdSource reports invalid entries
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
