"""Faults of the packet filter: what drops forwarded packets, rules that are missing, connections. Pure.

Must not: read anything, or guess: a rule that cannot be interpreted gives no finding.
"""

from collections.abc import Iterator

from cni_node.doctor.facts import BREAKS, HINDERS, RISK, Chain, Facts, Finding, Rule
from cni_node.doctor.link_checks import bridges_of
from cni_node.doctor.route_checks import subnets_of
from cni_protocol.attachment import describe_owner

_STOPS = ("drop", "reject")


def check_forward_policy(facts: Facts) -> Iterator[Finding]:
    """Another program's chain drops what is forwarded, and has no rule that accepts pods."""
    subnets = list(subnets_of(facts))
    for chain in facts.chains:
        family = chain.table.partition(" ")[0]
        concerned = [s for s in subnets if family == "inet" or (family == "ip") == (s.version == 4)]
        last = [rule for rule in chain.rules if rule.chain == chain.name][-1:]
        refuses = any(rule.verdict in _STOPS and not rule.matches for rule in last)
        if not concerned or not (chain.drops or refuses) or _may_accept(chain, facts):
            continue
        how = "has the policy drop" if not refuses else "ends in a rule that refuses all"
        bridge = next(iter(bridges_of(facts)), "cni0")
        remedy = f"a rule there that accepts what comes from and goes to {bridge} (docker: in DOCKER-USER)"
        what = f"the chain for forwarded packets {how}, and no rule of it accepts pods"
        yield Finding(BREAKS, "forward-drop", f"{chain.table} {chain.name}", what, remedy)


def _may_accept(chain: Chain, facts: Facts) -> bool:
    """Whether a rule accepts packets of pods, or cannot be interpreted."""
    marks = [link.name.encode() + b"\0" for link, _ in bridges_of(facts).values()]
    marks += [subnet.ip.packed[: max(subnet.prefix // 8, 1)] for subnet in subnets_of(facts)]
    by_chain: dict[str, list[Rule]] = {}
    for rule in chain.rules:
        by_chain.setdefault(rule.chain, []).append(rule)
    waiting: list[tuple[str, bool]] = [(chain.name, False)]
    seen: set[tuple[str, bool]] = set()
    while waiting:
        name, meant = waiting.pop()
        if (name, meant) in seen:
            continue
        seen.add((name, meant))
        for rule in by_chain.get(name, []):
            ours = meant or not rule.matches or any(mark in rule.data for mark in marks)
            if rule.verdict == "jump":
                waiting.append((rule.target, meant or (rule.matches and ours)))
            elif rule.verdict == "accept" and (ours or (rule.opaque and b"ct\0" not in rule.data)):
                return True
    return False


def check_rules(facts: Facts) -> Iterator[Finding]:
    """Running pods lack rules of NAT, of host ports or against spoofing."""
    for pod in facts.pods:
        if pod.missing:
            what = "; ".join(pod.missing)
            yield Finding(HINDERS, "rules-missing", describe_owner(pod.attachment.owner), what, "pycni repair --apply")


def check_mixed_filters(facts: Facts) -> Iterator[Finding]:
    """Both kinds of iptables are in use."""
    newer = sorted(name for family, name in facts.tables if family in ("ip", "ip6") and name in ("filter", "nat"))
    if facts.legacy_tables and newer:
        what = f"iptables-legacy has tables ({', '.join(facts.legacy_tables)}) beside those of iptables-nft"
        remedy = "let all programs use one of them (update-alternatives --config iptables), and flush the other"
        yield Finding(RISK, "iptables-mixed", "packet filter", what, remedy)


def check_services(facts: Facts) -> Iterator[Finding]:
    """A node of Kubernetes without a trace of kube-proxy or of what replaces it."""
    source = str((facts.report or {}).get("source", ""))
    proxies = {"kube-proxy", "nat"} & {name for _, name in facts.tables}
    others = {link.name for link in facts.links} & {"kube-ipvs0", "cilium_host"}
    if source.startswith("kubernetes") and not (proxies or others or "nat" in facts.legacy_tables):
        what = "no program translates the addresses of services: there is no table of kube-proxy"
        yield Finding(HINDERS, "no-service-proxy", "services", what, "start kube-proxy, or look at its log")


def check_host_ports(facts: Facts) -> Iterator[Finding]:
    """A process waits at a host port that leads to a pod, or two pods claim one."""
    holders: dict[tuple[str, int], str] = {}
    for pod in facts.pods:
        for protocol, port in pod.ports:
            owner = pod.attachment.owner
            first = holders.setdefault((protocol, port), owner)
            subject = f"{protocol} port {port}"
            if first.split(",")[:2] != owner.split(",")[:2]:
                what = f"both {describe_owner(first)} and {describe_owner(owner)} have it"
                yield Finding(HINDERS, "host-port-twice", subject, what, "delete one, or choose another port")
            elif (protocol, port) in facts.listening:
                what = f"a process of the node waits there, and {describe_owner(owner)} gets its connections"
                yield Finding(HINDERS, "host-port-taken", subject, what, "end the process, or choose another port")


def check_connections(facts: Facts) -> Iterator[Finding]:
    """The table of connections is full, or nearly."""
    count, limit = facts.number("netfilter/nf_conntrack_count"), facts.number("netfilter/nf_conntrack_max")
    if count is not None and limit and count >= 0.9 * limit:
        what = f"{count} connections are followed, and {limit} are the most: new ones are dropped then"
        remedy = f"sysctl -w net.netfilter.nf_conntrack_max={2 * limit}"
        harm = BREAKS if count >= limit else RISK
        yield Finding(harm, "connections-full", "net.netfilter.nf_conntrack_max", what, remedy)


def check_checksums(facts: Facts) -> Iterator[Finding]:
    """UDP packets arrive with wrong checksums on a node with an overlay."""
    wrong = facts.counters.get("Udp:InCsumErrors", 0)
    overlay = next((link for link in facts.links if link.kind == "vxlan"), None)
    if wrong and overlay is not None:
        what = f"{wrong} UDP packets had a wrong checksum, which a faulty offload of the overlay makes"
        remedy = f"ethtool -K {overlay.name} tx-checksum-ip-generic off, on all nodes"
        yield Finding(RISK, "udp-checksums", overlay.name, what, remedy)
