"""Compiles the state of a cluster to the desired nftables table of one node. Pure.

Pods that the same policies select share a chain, rules with the same peers share a set, and one set has the networks
of all ipBlocks of a rule. So a packet passes the same number of lookups with 5,000 pods as with 50.
Must not: know messages of the kernel, or what stands there.
"""

from collections.abc import Iterable, Iterator

from cni_node.policy.desired import ADDRESSES, NAMED, PAIRS, PENDING, VERDICTS, Desired, Elements, PolicyChain, Set
from cni_node.policy.model import DIRECTIONS, Cluster, Labels, Pod, PodPeer, Policy, PortName, pods_by_address
from cni_node.policy.parts import VERSIONS, Parts, chain_of, pack_service, parts_of
from cni_protocol.address import IP

_Groups = dict[str, dict[Labels, dict[int, list[bytes]]]]  # packed addresses by namespace, labels, IP version


class Compiler:
    """Compiles for one node. Keeps the parts of each policy, since most policies are unchanged the next time."""

    def __init__(self, node: str, *, log: bool = False) -> None:
        """With `log` the names of policies are part of their chains."""
        self._node, self._log = node, log
        self._parts: dict[tuple[int, str], tuple[Policy, Parts]] = {}

    def compile(self, cluster: Cluster, pending: Iterable[IP] = ()) -> Desired:
        """The desired table. `pending` are addresses of pods that are not known yet: nothing passes to or from them."""
        owners = pods_by_address(cluster.pods)
        local = {ip: pod for ip, pod in owners.items() if pod.node == self._node}
        work = _Work(cluster.policies, {pod.namespace for pod in local.values()}, self._parts, log=self._log)
        subjects = {ip: chains for ip, pod in local.items() if (chains := work.chains_of(pod))}
        subjects.update({ip: dict.fromkeys(DIRECTIONS, PENDING) for ip in pending if ip not in local})
        self._parts = work.parts
        sets = dict(_subject_sets(subjects, local))
        groups = _group(owners)
        named: dict[str, tuple[PortName, ...]] = {}
        for _, parts in work.parts.values():
            sets.update(parts.fixed)
            named.update(parts.named)
            for name, peers in parts.peers.items():
                if name not in sets:
                    sets[name] = Set(ADDRESSES, _version(name), _members(peers, groups, cluster, _version(name)))
        sets.update({name: Set(NAMED, _version(name), keys) for name, keys in _named(named, owners)})
        return Desired(work.chains, sets, frozenset(ip.packed for ip in local))


class _Work:
    """The chains of one compilation."""

    def __init__(
        self,
        policies: Iterable[Policy],
        namespaces: set[str],
        known: dict[tuple[int, str], tuple[Policy, Parts]],
        *,
        log: bool,
    ) -> None:
        self.chains: dict[str, PolicyChain] = {}
        self.parts: dict[tuple[int, str], tuple[Policy, Parts]] = {}  # those that are used
        self._known, self._log = known, log
        self._policies: dict[str, list[Policy]] = {}
        for policy in policies:
            if policy.namespace in namespaces:
                self._policies.setdefault(policy.namespace, []).append(policy)
        for own in self._policies.values():
            own.sort(key=lambda policy: policy.name)  # or another start would make other chains of the same policies
        self._by_labels: dict[tuple[str, Labels], dict[str, str]] = {}
        self._by_policies: dict[tuple[str, tuple[int, ...]], str] = {}

    def chains_of(self, pod: Pod) -> dict[str, str]:
        """The names of a pod's chains by direction, where it is isolated."""
        key = (pod.namespace, pod.labels)
        if key not in self._by_labels:
            selecting = [each for each in self._policies.get(pod.namespace, ()) if each.pods.matches(pod.labels)]
            self._by_labels[key] = {}
            for direction in DIRECTIONS:
                isolating = [each for each in selecting if each.rules(direction) is not None]
                if isolating:
                    self._by_labels[key][direction] = self._chain(direction, isolating)
        return self._by_labels[key]

    def _chain(self, direction: str, policies: list[Policy]) -> str:
        key = (direction, tuple(map(id, policies)))
        if key not in self._by_policies:
            parts = [self._parts_of(policy, direction) for policy in policies]
            names = [policy.full_name for policy in policies] if self._log else []
            name, self.chains[name] = chain_of(direction, parts, names)
            self._by_policies[key] = name
        return self._by_policies[key]

    def _parts_of(self, policy: Policy, direction: str) -> Parts:
        key = (id(policy), direction)  # the policy is kept beside its parts: nothing else gets its id meanwhile
        if key not in self.parts:
            self.parts[key] = self._known.get(key) or (policy, parts_of(policy.rules(direction) or ()))
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


def _group(owners: dict[IP, Pod]) -> _Groups:
    """Addresses grouped by namespace and labels, so that a selector is evaluated once for each group."""
    groups: _Groups = {}
    for ip, pod in owners.items():
        own = groups.setdefault(pod.namespace, {}).setdefault(pod.labels, {4: [], 6: []})
        own[ip.version].append(ip.packed)
    return groups


def _members(peers: tuple[PodPeer, ...], groups: _Groups, cluster: Cluster, version: int) -> Elements:
    found: dict[bytes, bytes] = {}
    for peer in peers:
        for namespace in _namespaces(peer, groups, cluster):
            for labels, keys in groups[namespace].items():
                if keys[version] and peer.pods.matches(labels):
                    found.update(dict.fromkeys(keys[version], b""))
    return found


def _namespaces(peer: PodPeer, groups: _Groups, cluster: Cluster) -> list[str]:
    if isinstance(peer.namespaces, str):
        return [peer.namespaces] if peer.namespaces in groups else []
    return [name for name in groups if name in cluster.namespaces and peer.namespaces.matches(cluster.namespaces[name])]


def _named(sets: dict[str, tuple[PortName, ...]], owners: dict[IP, Pod]) -> Iterator[tuple[str, Elements]]:
    """The elements of each set of named ports: every pod that has one of the names."""
    numbers: dict[tuple[int, PortName], list[bytes]] = {}
    wanted = {port for ports in sets.values() for port in ports}
    for ip, pod in owners.items() if wanted else ():
        for port in pod.ports:
            name = PortName(port.protocol, port.name)
            if name in wanted:
                key = ip.packed + pack_service(port.protocol, port.number)
                numbers.setdefault((ip.version, name), []).append(key)
    for set_name, ports in sets.items():
        yield set_name, {key: b"" for port in ports for key in numbers.get((_version(set_name), port), ())}
