"""The cases of NetworkPolicy: a name, the policies, and what they allow. docs/policy.md has the same names.

A line "x/a -> y/b TCP 80: yes" says what is allowed; without protocol and port it is TCP 80. IPv4 unless it ends in 6.
"""

from typing import Any, NamedTuple

from cni_node.policy.model import Cluster, Pod
from tests.cni_node.policy.texts import cluster, pod, policy, selector

IN, OUT = ["Ingress"], ["Egress"]
BOTH = [*IN, *OUT]
A = selector("pod=a")


class Case(NamedTuple):
    """A state of the cluster, and what is expected."""

    name: str
    state: Cluster
    expected: str


def case(name: str, policies: list[Any], expected: str, *more: Pod, drop: tuple[str, ...] = ()) -> Case:
    return Case(name, cluster(policies, *more, drop=drop), expected)


def from_pods(*selectors: dict[str, Any], **more: Any) -> list[Any]:
    """One ingress rule with a podSelector for each."""
    return [{"from": [{"podSelector": each} for each in selectors], **more}]


def let_in(*peers: dict[str, Any], namespace: str = "x", pods: Any = A, **more: Any) -> Any:
    """A policy with one ingress rule."""
    return policy(namespace, "in", podSelector=pods, policyTypes=IN, ingress=[{"from": list(peers), **more}])


def let_out(*peers: dict[str, Any], namespace: str = "x", pods: Any = A, **more: Any) -> Any:
    """A policy with one egress rule."""
    return policy(namespace, "out", podSelector=pods, policyTypes=OUT, egress=[{"to": list(peers), **more}])


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def pods(text: str = "") -> dict[str, Any]:
    return {"podSelector": selector(text)}


def spaces(text: str = "") -> dict[str, Any]:
    return {"namespaceSelector": selector(text)}


def block(cidr: str, *excepted: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, "except": list(excepted)}}


def port(number: Any, protocol: str | None = None, end: int | None = None) -> dict[str, Any]:
    found = {"port": number, "protocol": protocol, "endPort": end}
    return {key: value for key, value in found.items() if value is not None}


DENY_ALL = policy("x", "deny", podSelector={}, policyTypes=BOTH)
DENY_IN = policy("x", "deny-in", podSelector={}, policyTypes=IN)
DENY_OUT = policy("x", "deny-out", podSelector={}, policyTypes=OUT)

ISOLATION = [
    case("1 no policy", [], "x/a -> y/b: yes; y/b -> x/a UDP 9: yes; x/a -> 8.8.8.8: yes"),
    case("2 deny all ingress", [DENY_IN], "y/a -> x/a: no; x/b -> x/a: no; 8.8.8.8 -> x/a: no; x/a -> y/a: yes"),
    case("3 deny all", [DENY_ALL], "y/a -> x/a: no; x/a -> y/a: no; x/a -> 8.8.8.8: no; y/a -> y/b: yes"),
    case("4 deny all egress", [DENY_OUT], "x/a -> y/a: no; x/b -> x/a: no; y/a -> x/a: yes"),
    case(
        "5 deny the egress of some pods",
        [policy("x", "p", podSelector=A, policyTypes=OUT)],
        "x/a -> y/a: no; x/b -> y/a: yes; y/a -> x/a: yes",
    ),
    case(
        "6 allow all ingress",
        [DENY_IN, policy("x", "p", podSelector={}, ingress=[{}])],
        "y/a -> x/a TCP 80: yes; y/a -> x/a TCP 81: yes; 8.8.8.8 -> x/c SCTP 1: yes; y/a -> x/a GRE 0: yes",
    ),
    case("7 egress [] without policyTypes", [policy("x", "p", egress=[])], "x/a -> y/a: yes; y/a -> x/a: no"),
    case("8 an egress rule without policyTypes", [policy("x", "p", egress=[{}])], "x/a -> y/a: yes; y/a -> x/a: no"),
    case(
        "9 ingress rules under policyTypes Egress",
        [policy("x", "p", policyTypes=OUT, ingress=[{"ports": [port(1)]}])],
        "y/a -> x/a: yes; x/a -> y/a: no",
    ),
    *(
        case(f"10 ingress is {name}", [policy("x", "p", podSelector={}, **spec)], "y/a -> x/a: no; x/a -> y/a: yes")
        for name, spec in (("missing", {}), ("null", {"ingress": None}), ("[]", {"ingress": []}))
    ),
    case("11 a rule {}", [policy("x", "p", policyTypes=BOTH, egress=[{}])], "x/a -> y/a: yes; y/a -> x/a: no"),
    case("12 selects no pod", [policy("x", "p", podSelector=selector("pod=none"))], "y/a -> x/a: yes"),
    case("13 its own namespace alone", [let_in()], "y/b -> y/a: yes; y/b -> z/a: yes"),
    case("15 DNS too", [DENY_OUT], "x/a -> y/a UDP 53: no; x/a -> 8.8.8.8 TCP 53: no"),
]

PEERS = [
    case("16 podSelector", [let_in(pods("pod=b"))], "x/b -> x/a: yes; x/c -> x/a: no; y/b -> x/a: no"),
    case("17 podSelector {}", [let_in(pods())], "x/b -> x/a: yes; x/c -> x/a: yes; y/b -> x/a: no; 8.8.8.8 -> x/a: no"),
    case("18 namespaceSelector {}", [let_in(spaces())], "x/b -> x/a: yes; y/b -> x/a: yes; 8.8.8.8 -> x/a: no"),
    case("19 namespaceSelector", [let_in(spaces("ns=y"))], "y/b -> x/a: yes; x/b -> x/a: no; z/b -> x/a: no"),
    case(
        "20 both in one entry",
        [let_in({**spaces("ns=y"), **pods("pod=b")})],
        "y/b -> x/a: yes; y/a -> x/a: no; x/b -> x/a: no",
    ),
    case(
        "21 two entries",
        [let_in(spaces("ns=y"), pods("pod=b"))],
        "y/b -> x/a: yes; y/a -> x/a: yes; x/b -> x/a: yes; x/c -> x/a: no; z/b -> x/a: no",
    ),
    case(
        "22 any of several", [let_in(pods("pod=b"), pods("pod=c"))], "x/b -> x/a: yes; x/c -> x/a: yes; y/c -> x/a: no"
    ),
    case("23 In", [let_in({"podSelector": expression("pod", "In", "b", "d")})], "x/b -> x/a: yes; x/c -> x/a: no"),
    case("23 NotIn", [let_in({"podSelector": expression("pod", "NotIn", "b")})], "x/b -> x/a: no; x/c -> x/a: yes"),
    case("23 NotIn without the label", [let_in({"podSelector": expression("q", "NotIn", "b")})], "x/b -> x/a: yes"),
    case("23 Exists", [let_in({"podSelector": expression("q", "Exists")})], "x/b -> x/a: no"),
    case("23 DoesNotExist", [let_in({"namespaceSelector": expression("q", "DoesNotExist")})], "y/b -> x/a: yes"),
    case(
        "24 labels and expressions",
        [let_in({"podSelector": {**selector("pod=b"), **expression("q", "Exists")}})],
        "x/b -> x/a: no; x/d -> x/a: no; x/e -> x/a: yes",
        pod("x/d", "10.0.1.4", metadata={"labels": {"q": "1"}}),
        pod("x/e", "10.0.1.5", metadata={"labels": {"q": "1", "pod": "b"}}),
    ),
    case(
        "25 the name of a namespace",
        [let_in(spaces("kubernetes.io/metadata.name=y"))],
        "y/b -> x/a: yes; x/b -> x/a: no",
    ),
    case(
        "25 any other, egress",
        [let_out({"namespaceSelector": expression("kubernetes.io/metadata.name", "NotIn", "y")})],
        "x/a -> y/b: no; x/a -> z/b: yes; x/a -> x/b: yes; x/a -> 8.8.8.8: no",
    ),
    case("26 one target", [DENY_IN, policy("x", "p", podSelector=A, ingress=[{}])], "y/b -> x/a: yes; y/b -> x/b: no"),
    *(
        case(
            f"27 a peer that has {phase.lower()}",
            [let_in(pods("pod=d"))],
            "10.0.1.4 -> x/a: no",
            pod("x/d", "10.0.1.4", status={"phase": phase}),
        )
        for phase in ("Succeeded", "Failed")
    ),
    case(
        "28 a terminating peer",
        [let_in(pods("pod=d"))],
        "x/d -> x/a: yes",
        pod("x/d", "10.0.1.4", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ),
    case(
        "29 the same address, one finished",
        [let_in(pods("pod=e"))],
        "10.0.1.4 -> x/a: yes",
        pod("x/e", "10.0.1.4"),
        pod("x/d", "10.0.1.4", status={"phase": "Failed"}),
    ),
    case("30 a peer without an address", [let_in(pods("pod=d"))], "10.0.1.4 -> x/a: no", pod("x/d")),
    case(
        "31 a pod of the host's network as subject",
        [DENY_ALL],
        "8.8.8.8 -> 192.0.2.2: yes; x/b -> y/a: no",
        pod("x/h", "192.0.2.2", node="node2", spec={"hostNetwork": True}),
    ),
    case(
        "32 a pod of the host's network as peer",
        [let_in(spaces())],
        "192.0.2.2 -> x/a: no",
        pod("y/h", "192.0.2.2", node="node2", spec={"hostNetwork": True}),
    ),
    case("33 an unknown operator", [let_in({"podSelector": expression("pod", "Like", "b")})], "x/b -> x/a: no"),
]

PORTS = [
    case(
        "34 a port",
        [let_in(spaces("ns=y"), ports=[port(81)])],
        "y/b -> x/a TCP 81: yes; y/b -> x/a: no; z/b -> x/a TCP 81: no",
    ),
    case(
        "35 policies add up",
        [let_in(spaces("ns=y"), ports=[port(81)]), policy("x", "p", podSelector=A, ingress=[{"ports": [port(80)]}])],
        "y/b -> x/a TCP 81: yes; y/b -> x/a TCP 80: yes; z/b -> x/a TCP 81: no; z/b -> x/a TCP 80: yes",
    ),
    case("36 a protocol alone", [let_in(ports=[port(None, "TCP")])], "y/b -> x/a TCP 9: yes; y/b -> x/a UDP 9: no"),
    case("37 UDP alone", [let_in(ports=[port(80, "UDP")])], "y/b -> x/a UDP 80: yes; y/b -> x/a TCP 80: no"),
    case("38 SCTP alone", [let_in(ports=[port(80, "SCTP")])], "y/b -> x/a SCTP 80: yes; y/b -> x/a TCP 80: no"),
    case("39 SCTP isolates", [let_in(ports=[port(81, "SCTP")])], "y/b -> x/a TCP 80: no; y/b -> x/a SCTP 80: no"),
    case(
        "40 UDP and peers",
        [let_in({**spaces("ns=y"), **pods("pod=b")}, ports=[port(80, "UDP")])],
        "y/b -> x/a UDP 80: yes; y/a -> x/a UDP 80: no",
    ),
    case(
        "41 SCTP and peers",
        [let_in({**spaces("ns=y"), **pods("pod=b")}, ports=[port(80, "SCTP")])],
        "y/b -> x/a SCTP 80: yes; y/a -> x/a SCTP 80: no",
    ),
    case(
        "42 endPort",
        [let_in(ports=[port(8000, "TCP", 8005), port(9, end=9)])],
        "y/b -> x/a TCP 8000: yes; y/b -> x/a TCP 8005: yes; y/b -> x/a TCP 7999: no; "
        "y/b -> x/a TCP 8006: no; y/b -> x/a TCP 9: yes; y/b -> x/a TCP 10: no",
    ),
    case(
        "43 a named port for each target",
        [let_in(ports=[port("http")], pods={})],
        "y/b -> x/a TCP 80: yes; y/b -> x/a TCP 8080: no; y/b -> x/d TCP 8080: yes; y/b -> x/d TCP 80: no",
        pod("x/d", "10.0.1.4", ports=("TCP/http/8080",)),
    ),
    case(
        "44 a named port for each destination",
        [let_out(ports=[port("http")])],
        "x/a -> y/b TCP 80: yes; x/a -> y/d TCP 8080: yes; x/a -> y/d TCP 80: no; x/a -> 8.8.8.8 TCP 80: no",
        pod("y/d", "10.0.2.4", ports=("TCP/http/8080",)),
    ),
    case(
        "45 a named port and its protocol",
        [let_in(ports=[port("dns", "UDP"), port("http", "UDP")])],
        "y/b -> x/a UDP 53: yes; y/b -> x/a TCP 53: no; y/b -> x/a UDP 80: no",
    ),
    case(
        "46 a name that a pod gives twice",
        [let_in(ports=[port("web")], pods={})],
        "y/b -> x/d TCP 1: yes; y/b -> x/d TCP 2: yes; y/b -> x/d TCP 3: yes; y/b -> x/d TCP 4: no",
        pod(
            "x/d",
            "10.0.1.4",
            ports=("TCP/web/1", "TCP/web/2"),
            spec={"initContainers": [{"ports": [{"name": "web", "containerPort": 3}]}]},
        ),
    ),
    case(
        "46 a name in an init container alone",
        [let_in(ports=[port("side")], pods={})],
        "y/b -> x/d TCP 3: yes",
        pod("x/d", "10.0.1.4", spec={"initContainers": [{"ports": [{"name": "side", "containerPort": 3}]}]}),
    ),
    case("47 a name that nobody has", [let_in(ports=[port("none")])], "y/b -> x/a TCP 80: no; y/b -> x/b TCP 80: yes"),
    case(
        "48 egress to everybody",
        [let_out(ports=[port(53, "UDP")])],
        "x/a -> 8.8.8.8 UDP 53: yes; x/a -> y/b UDP 53: yes; x/a -> y/b: no",
    ),
    case("49 ICMP by a rule without ports", [let_in(spaces("ns=y"))], "y/b -> x/a ICMP 0: yes; z/b -> x/a ICMP 0: no"),
    case("49 ICMP by a rule with ports", [let_in(ports=[port(None, "TCP")])], "y/b -> x/a ICMP 0: no"),
    case("50 another protocol", [let_in(ports=[port(80)]), let_out()], "y/b -> x/a ESP 0: no; x/a -> y/b ESP 0: yes"),
]

BLOCKS = [
    case("51 one address", [let_out(block("10.0.2.2/32"))], "x/a -> y/b: yes; x/a -> y/a: no; x/a -> 8.8.8.8: no"),
    case(
        "52 all but one",
        [let_out(block("10.0.2.0/24", "10.0.2.2/32"))],
        "x/a -> y/b: no; x/a -> y/a: yes; x/a -> z/a: no",
    ),
    case(
        "53 what another rule allows",
        [let_out(block("10.0.2.0/24", "10.0.2.2/32"), block("10.0.2.2/31"))],
        "x/a -> y/b: yes",
    ),
    case(
        "53 what another policy allows",
        [
            let_out(block("10.0.2.0/24", "10.0.2.2/32")),
            policy("x", "p", policyTypes=OUT, egress=[{"to": [block("10.0.2.2/32")]}]),
        ],
        "x/a -> y/b: yes; x/b -> y/a: no",
    ),
    case(
        "54 0.0.0.0/0", [let_out(block("0.0.0.0/0"))], "x/a -> 8.8.8.8: yes; x/a -> 2001:db8::1: no; x/a -> y/b 6: no"
    ),
    case("54 ::/0", [let_out(block("::/0"))], "x/a -> 8.8.8.8: no; x/a -> 2001:db8::1: yes"),
    case(
        "55 several exceptions",
        [let_out(block("10.0.0.0/8", "10.0.2.0/24", "10.0.2.2/32", "10.0.3.0/25"))],
        "x/a -> y/b: no; x/a -> z/a: no; x/a -> 10.0.3.200: yes",
    ),
    case("55 all excepted", [let_out(block("10.0.2.0/24", "10.0.2.0/24"))], "x/a -> y/b: no"),
    case("56 the address of a pod", [let_in(block("10.0.2.2/32"))], "y/b -> x/a: yes; y/a -> x/a: no"),
    case("57 a client outside", [let_in(block("203.0.113.0/24"))], "203.0.113.9 -> x/a: yes; 203.0.114.9 -> x/a: no"),
    case(
        "58 a client by way of another node, whose address it has there",
        [let_in(block("203.0.113.0/24"))],
        "192.0.2.2 -> x/a: no; 192.0.2.2 -> y/a: yes",
    ),
    case(
        "58 that node by ipBlock",
        [let_in(block("192.0.2.2/32"))],
        "192.0.2.2 -> x/a: yes; 203.0.113.9 -> x/a: no",
    ),
    case(
        "59 the address of a service, which is the endpoint's by then",
        [let_out(block("10.96.0.0/12"))],
        "x/a -> y/a: no; x/a -> 10.96.0.1: yes; x/b -> y/a: yes",
    ),
    case("61 host bits", [let_out(block("10.0.2.77/24"))], "x/a -> y/b: yes; x/a -> z/b: no"),
    case("61 IPv4 in IPv6", [let_out(block("::ffff:10.0.2.0/120"))], "x/a -> y/b: yes; x/a -> z/b: no"),
]

NODES = [
    case("62 the own node", [DENY_IN], "192.0.2.1 -> x/a: yes; 10.0.0.1 -> x/a: yes"),
    case("63 the own node's other address", [DENY_IN], "fd00::1 -> x/a 6: yes"),
    case("64 another node", [DENY_IN], "192.0.2.2 -> x/a: no"),
    case("64 another node by ipBlock", [let_in(block("192.0.2.2/32"))], "192.0.2.2 -> x/a: yes"),
    case(
        "65 a pod of the own node's network",
        [DENY_IN],
        "192.0.2.1 -> x/a: yes",
        pod("y/h", "192.0.2.1", spec={"hostNetwork": True}),
    ),
    case("66 egress to the own node", [DENY_OUT], "x/a -> 192.0.2.1: yes; x/a -> 10.0.0.1: yes"),
    case("67 egress to another node", [DENY_OUT], "x/a -> 192.0.2.2: no"),
    case("68 itself", [DENY_ALL], "x/a -> x/a: yes; x/a -> x/a UDP 9: yes; x/a -> x/b: no"),
]

FAMILIES = [
    case("94 both families", [DENY_IN], "y/a -> x/a: no; y/a -> x/a 6: no"),
    case("94 an IPv4 block", [let_in(block("10.0.0.0/8"))], "y/a -> x/a: yes; y/a -> x/a 6: no"),
    case(
        "95 IPv6",
        [let_in(pods("pod=b"), ports=[port("http")])],
        "x/b -> x/a 6: yes; x/c -> x/a 6: no; x/b -> x/a TCP 81 6: no",
    ),
    case("95 an IPv6 block", [let_in(block("fd00::/64", "fd00::2:0/112"))], "x/b -> x/a 6: yes; y/b -> x/a 6: no"),
    case("96 a peer of one family", [let_in(pods("pod=d"))], "x/d -> x/a: yes", pod("x/d", "10.0.1.4")),
]

CASES = [*ISOLATION, *PEERS, *PORTS, *BLOCKS, *NODES, *FAMILIES]
