"""Compiles the state of a cluster to the desired nftables table of one node. Pure.

Pods that the same policies select share a chain, rules with the same peers share a set, and one set has the networks
of all ipBlocks of a rule. So a packet passes the same number of lookups with 5,000 pods as with 50.
Must not: know messages of the kernel, or what stands there.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import is_

from cni_node.policy.desired import ADDRESSES, NAMED, PAIRS, PENDING, VERDICTS, Desired, PolicyChain, Set
from cni_node.policy.model import DIRECTIONS, Cluster, Labels, Pod, PodPeer, Policy, PortName, Selector, pods_by_address
from cni_node.policy.parts import VERSIONS, Parts, chain_of, pack_service, parts_of
from cni_protocol.address import IP

_Group = dict[Labels, dict[int, list[bytes]]]  # packed addresses of a namespace by labels, IP version


class Compiler:
    """Compiles for one node. Keeps what policies and pods came to, since most of it is the same the next time."""

    def __init__(self, node: str, *, log: bool = False) -> None:
        """With `log` the names of policies are part of their chains."""
        self._node, self._log = node, log
        self._work = _Work((), set(), None, log=log)
        self._pods: tuple[Pod, ...] = ()
        self.owners: dict[IP, Pod] = {}  # whose an address is, of the pods compiled last
        self._groups: dict[str, _Group] = {}
        self._local: dict[IP, Pod] = {}  # those of them that are this node's
        self.isolated: dict[IP, Pod] = {}  # those of them that a policy isolates
        self._numbers: dict[tuple[int, PortName], list[bytes]] | None = None
        self._named: dict[str, Set] = {}  # sets of named ports
        self._members: dict[str, tuple[list[_Group], Set]] = {}  # sets of pods, and what they are of

    def compile(self, cluster: Cluster, pending: Iterable[IP] = ()) -> Desired:
        """The table. Of the pods with `pending` addresses nothing is known: nothing passes to or from them."""
        self._take(cluster.pods)
        local = self._local
        work = _Work(cluster.policies, {pod.namespace for pod in local.values()}, self._work, log=self._log)
        subjects = {ip: chains for ip, pod in local.items() if (chains := work.chains_of(pod, ip.version))}
        self.isolated = {ip: local[ip] for ip in subjects}
        subjects.update({ip: dict.fromkeys(DIRECTIONS, PENDING) for ip in pending if ip not in local})
        self._work = work.without_predecessor()
        sets = dict(_subject_sets(subjects, local))
        named: dict[str, tuple[PortName, ...]] = {}
        peers: dict[str, tuple[PodPeer, ...]] = {}
        for _, parts in work.parts.values():
            sets.update(parts.fixed)
            named.update(parts.named)
            peers.update(parts.peers)
        meant = _Meant(self._groups, cluster.namespaces)
        self._members = {name: self._peer_set(name, each, meant) for name, each in peers.items()}
        sets.update({name: entry for name, (_, entry) in self._members.items()})
        self._named = {name: self._named.get(name) or self._named_set(name, ports) for name, ports in named.items()}
        sets.update(self._named)
        return Desired(work.chains, sets, frozenset(ip.packed for ip in local))

    def _take(self, pods: tuple[Pod, ...]) -> None:
        """Take other pods; the group of a namespace that has not changed stays the same object."""
        if pods is self._pods:
            return
        self._pods, self.owners = pods, pods_by_address(pods, self._node)
        self._local = {ip: pod for ip, pod in self.owners.items() if pod.node == self._node}
        groups = _group(self.owners)
        self._groups = {name: same if (same := self._groups.get(name)) == own else own for name, own in groups.items()}
        self._numbers, self._named = None, {}

    def _peer_set(self, name: str, peers: tuple[PodPeer, ...], meant: "_Meant") -> tuple[list[_Group], Set]:
        found = [(peer, group) for peer in peers for group in meant.by(peer)]
        groups = [group for _, group in found]
        known = self._members.get(name)
        if known is not None and len(known[0]) == len(groups) and all(map(is_, known[0], groups)):
            return known
        version = _version(name)
        keys = [keys[version] for peer, group in found for labels, keys in group.items() if peer.pods.matches(labels)]
        return groups, Set(ADDRESSES, version, {key: b"" for each in keys for key in each})

    def _named_set(self, name: str, ports: tuple[PortName, ...]) -> Set:
        """Every pod that has one of the names, with the number that it gives it."""
        if self._numbers is None:
            self._numbers = {}
            for ip, pod in self.owners.items():
                for port in pod.ports:
                    key = ip.packed + pack_service(port.protocol, port.number)
                    self._numbers.setdefault((ip.version, PortName(port.protocol, port.name)), []).append(key)
        version = _version(name)
        return Set(NAMED, version, {key: b"" for port in ports for key in self._numbers.get((version, port), ())})


class _Work:
    """The chains of one compilation."""

    def __init__(
        self,
        policies: Iterable[Policy],
        namespaces: set[str],
        before: "_Work | None",
        *,
        log: bool,
    ) -> None:
        self.chains: dict[str, PolicyChain] = {}
        self.parts: dict[tuple[int, str], tuple[Policy, Parts]] = {}  # those that are used
        self._before, self._log = before, log
        self._policies: dict[str, list[Policy]] = {}
        for policy in policies:
            if policy.namespace in namespaces:
                self._policies.setdefault(policy.namespace, []).append(policy)
        for own in self._policies.values():
            own.sort(key=lambda policy: policy.name)  # or another start would make other chains of the same policies
        self._by_labels: dict[tuple[str, Labels, int], dict[str, str]] = {}
        self._by_policies: dict[tuple[str, int, tuple[int, ...]], tuple[str, PolicyChain]] = {}

    def chains_of(self, pod: Pod, version: int) -> dict[str, str]:
        """The names of the chains for a pod's addresses of an IP version, by direction, where it is isolated."""
        key = (pod.namespace, pod.labels, version)
        if key not in self._by_labels:
            selecting = [each for each in self._policies.get(pod.namespace, ()) if each.pods.matches(pod.labels)]
            self._by_labels[key] = {}
            for direction in DIRECTIONS:
                isolating = [each for each in selecting if each.rules(direction) is not None]
                if isolating:
                    self._by_labels[key][direction] = self._chain(direction, version, isolating)
        return self._by_labels[key]

    def without_predecessor(self) -> "_Work":
        """Itself, once its predecessor is no longer needed."""
        self._before = None
        return self

    def _chain(self, direction: str, version: int, policies: list[Policy]) -> str:
        key = (direction, version, tuple(map(id, policies)))
        if key not in self._by_policies:
            parts = [self._parts_of(policy, direction) for policy in policies]
            names = [policy.full_name for policy in policies] if self._log else []
            known = self._before._by_policies.get(key) if self._before else None
            self._by_policies[key] = known or chain_of(direction, version, parts, names)
        name, self.chains[name] = self._by_policies[key]
        return name

    def _parts_of(self, policy: Policy, direction: str) -> Parts:
        key = (id(policy), direction)  # the policy is kept beside its parts: nothing else gets its id meanwhile
        if key not in self.parts:
            known = self._before.parts.get(key) if self._before else None
            self.parts[key] = known or (policy, parts_of(policy.rules(direction) or ()))
        return self.parts[key][1]


def _version(name: str) -> int:
    return int(name[1])


def _subject_sets(subjects: dict[IP, dict[str, str]], local: dict[IP, Pod]) -> Iterator[tuple[str, Set]]:
    """The verdict maps, and the sets of the addresses in them. They exist even when they are empty."""
    for version in VERSIONS:
        own = {ip: chains for ip, chains in subjects.items() if ip.version == version}
        for direction in DIRECTIONS:
            verdicts = {ip.packed: chains[direction] for ip, chains in own.items() if direction in chains}
            yield f"{direction}{version}", Set(VERDICTS, version, verdicts)
        pairs = {
            ip.packed + other.packed: b""
            for ip in own
            for other in (local[ip].addresses if ip in local else (ip,))
            if other.version == version and local.get(other) is local.get(ip)
        }
        yield f"self{version}", Set(PAIRS, version, pairs)
        yield f"iso{version}", Set(ADDRESSES, version, dict.fromkeys((ip.packed for ip in own), b""))


def _group(owners: dict[IP, Pod]) -> dict[str, _Group]:
    """A selector is asked once for all pods with the same labels."""
    groups: dict[str, _Group] = {}
    for ip, pod in owners.items():
        own = groups.setdefault(pod.namespace, {}).setdefault(pod.labels, {4: [], 6: []})
        own[ip.version].append(ip.packed)
    return groups


class _Meant:
    """Which namespaces selectors mean; each selector is asked once."""

    def __init__(self, groups: dict[str, _Group], namespaces: Mapping[str, Labels]) -> None:
        self._groups, self._namespaces = groups, namespaces
        self._found: dict[Selector | str, list[_Group]] = {}

    def by(self, peer: PodPeer) -> list[_Group]:
        """The pods of the namespaces that a peer means."""
        which = peer.namespaces
        if which not in self._found:
            if isinstance(which, str):
                names = [which] if which in self._groups else []
            else:
                known = self._namespaces
                names = [name for name in self._groups if name in known and which.matches(known[name])]
            self._found[which] = [self._groups[name] for name in names]
        return self._found[which]
