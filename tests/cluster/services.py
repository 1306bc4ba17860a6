"""Services as kube-proxy has them: on every node the same rules, in its iptables and in its nftables manner. Pure.

What a client connects to is an address that nobody has, or a port of any node; the rules of the node where the
connection begins (or enters) choose a pod. Where the answer would else go past that node, its source is rewritten.
"""

from collections.abc import Sequence
from typing import NamedTuple

PODS = "10.240.0.0/16"  # of the whole cluster: who is in it needs no rewriting
MARK = 0x4000
AFFINITY = 10800  # seconds


class Service(NamedTuple):
    """A service and the pods behind it."""

    name: str
    address: str
    port: int
    node_port: int
    pods: tuple[str, ...]  # addresses
    pod_port: int
    affinity: bool = False  # a client comes to the pod that it came to before


def iptables_rules(services: Sequence[Service]) -> str:
    """For iptables-restore."""
    lines = [
        "*nat",
        ":KUBE-SERVICES -",
        ":KUBE-NODEPORTS -",
        ":KUBE-MARK-MASQ -",
        ":KUBE-POSTROUTING -",
        *(f":{chain} -" for service in services for chain in _iptables_chains(service)),
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        f"-A KUBE-MARK-MASQ -j MARK --or-mark {MARK:#x}",
        f"-A KUBE-POSTROUTING -m mark ! --mark {MARK:#x}/{MARK:#x} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --xor-mark {MARK:#x}",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        *(line for service in services for line in _iptables_service(service)),
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def _iptables_chains(service: Service) -> list[str]:
    """Those of the service, of its node port, and of each pod."""
    name = service.name.upper()
    return [f"KUBE-SVC-{name}", f"KUBE-EXT-{name}", *(f"KUBE-SEP-{name}{index}" for index in range(len(service.pods)))]


def _iptables_service(service: Service) -> list[str]:
    chain, external, *pods = _iptables_chains(service)
    to_address = f"-d {service.address}/32 -p tcp -m tcp --dport {service.port}"
    lines = [
        f"-A KUBE-SERVICES {to_address} -j {chain}",
        f"-A KUBE-NODEPORTS -p tcp -m tcp --dport {service.node_port} -j {external}",
        f"-A {external} -j KUBE-MARK-MASQ",
        f"-A {external} -j {chain}",
        f"-A {chain} ! -s {PODS} {to_address} -j KUBE-MARK-MASQ",
    ]
    if service.affinity:
        seen = f"--rcheck --seconds {AFFINITY} --reap"
        lines += [f"-A {chain} -m recent --name {pod} {seen} -j {pod}" for pod in pods]
    for index, pod in enumerate(pods):
        left = len(pods) - index
        chosen = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        lines.append(f"-A {chain} {chosen}-j {pod}")
    for pod, address in zip(pods, service.pods, strict=True):
        remember = f"-m recent --name {pod} --set " if service.affinity else ""
        lines.append(f"-A {pod} -s {address}/32 -j KUBE-MARK-MASQ")
        lines.append(f"-A {pod} -p tcp {remember}-m tcp -j DNAT --to-destination {address}:{service.pod_port}")
    return lines


def nftables_rules(services: Sequence[Service]) -> str:
    """For nft -f."""
    by_address = ", ".join(f"{each.address} . tcp . {each.port} : goto service-{each.name}" for each in services)
    by_port = ", ".join(f"tcp . {each.node_port} : goto external-{each.name}" for each in services)
    return f"""
table ip kube-proxy {{
    chain mark-for-masquerade {{ meta mark set meta mark or {MARK:#x}; }}
    chain masquerading {{
        meta mark and {MARK:#x} == 0 return
        meta mark set meta mark xor {MARK:#x}
        masquerade fully-random
    }}
{"".join(map(_nftables_service, services))}
    map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {by_address} }}; }}
    map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ {by_port} }}; }}
    chain services {{
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports
    }}
    chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
    chain nat-output {{ type nat hook output priority -100; jump services; }}
    chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
}}
"""


def _nftables_service(service: Service) -> str:
    name = service.name
    pods = [f"{name}-{index}" for index in range(len(service.pods))]
    lines = []
    for pod, address in zip(pods, service.pods, strict=True):
        remember = f"update @affinity-{pod} {{ ip saddr }};" if service.affinity else ""
        if service.affinity:
            lines.append(f"set affinity-{pod} {{ type ipv4_addr; flags dynamic,timeout; timeout {AFFINITY}s; }}")
        hairpin = f"ip saddr {address} jump mark-for-masquerade"
        to_pod = f"meta l4proto tcp dnat to {address}:{service.pod_port}"
        lines.append(f"chain endpoint-{pod} {{ {hairpin}; {remember} {to_pod}; }}")
    choice = ", ".join(f"{index} : goto endpoint-{pod}" for index, pod in enumerate(pods))
    known = [f"ip saddr @affinity-{pod} goto endpoint-{pod};" for pod in pods] if service.affinity else []
    outside = f"ip daddr {service.address} tcp dport {service.port} ip saddr != {PODS} jump mark-for-masquerade;"
    choose = f"numgen random mod {len(pods)} vmap {{ {choice} }};"
    lines.append(f"chain service-{name} {{ {' '.join([outside, *known, choose])} }}")
    lines.append(f"chain external-{name} {{ jump mark-for-masquerade; goto service-{name}; }}")
    return "".join(f"    {line}\n" for line in lines)
