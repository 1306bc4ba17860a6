"""The options of `pycni agent`, and parsing them to Settings; one error names all problems. Pure.

Must not: look at the node, or read a file.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cni_node.host.overlay import Overlay
from cni_node.snapshot import Node
from cni_node.sources.etcd_calls import EtcdAccess
from cni_node.sources.etcd_keys import Cluster, check_cluster
from cni_node.sources.etcd_lease import LEASE, EtcdSettings
from cni_node.sources.kubernetes import KubernetesSettings, parse_api_server
from cni_node.sources.static import StaticSettings, arrange, parse_peer
from cni_protocol.address import CIDR, IP, parse_cidr, parse_ip
from cni_protocol.errors import CNIError

SOCKET = Path("/run/pycni/agent.sock")
OFF, KEEP, RECHECK = "off", "keep", "recheck"  # --policies: none; established connections go on; are cut if denied
VXLAN_PORT = 4789  # IANA's
MIN_MTU = 68  # ETH_MIN_MTU; for IPv6 1280, RFC 8200 section 5
MAX_MTU = 65535
MAX_VNI = (1 << 24) - 1  # RFC 7348


SourceSettings = StaticSettings | KubernetesSettings | EtcdSettings
_STATIC = ("nodes_file", "pod_cidr", "pod_cidr6", "node_index", "peer", "once")  # options of only one source
_KUBERNETES = ("kubeconfig", "api_server", "policies", "log_denied")
_ETCD = ("etcd", "etcd_prefix", "etcd_ca", "etcd_cert", "etcd_key", "etcd_user", "etcd_password_file", "lease")


class Settings(NamedTuple):
    """The settings of an agent. `mtu` is in bytes; 0 is that of the overlay, or without one the plugin's choice.

    `metrics` is the TCP port of 127.0.0.1 for metrics, 0 for none.
    """

    source: SourceSettings
    overlay: Overlay | None = None
    mtu: int = 0
    conf_dir: str = "/etc/cni/net.d"
    bin_dir: str = "/opt/cni/bin"
    root: Path = Path("/")
    socket: Path = SOCKET
    metrics: int = 0
    once: bool = False
    policies: str = OFF
    log_denied: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that parse_settings reads."""
    option = parser.add_argument
    option("--source", choices=["static", "kubernetes", "etcd"], default="static", help="who knows the nodes [static]")
    option("--node-name", metavar="NAME", default="", help="of this node, as the source has it [the host's name]")
    option("--once", action="store_true", help="set the node up and end (static source): nobody repairs then")
    _add_static_options(parser)
    option("--kubeconfig", metavar="FILE", default="", help="kubernetes: how to reach the API [the service account]")
    words = "kubernetes: instead of the kubeconfig's server, or of KUBERNETES_SERVICE_HOST and _PORT without one"
    option("--api-server", metavar="URL", default="", help=words)
    words = "kubernetes: network policies are put in force, and established connections looked at again, or kept"
    option("--policies", choices=[RECHECK, KEEP, OFF], help=f"{words} [{RECHECK}]")
    option("--log-denied", action="store_true", help="kubernetes: packets that policies deny, some per second")
    add_etcd_options(parser)
    _add_network_options(parser)
    option("--conf-dir", metavar="DIR", default="/etc/cni/net.d", help="of the runtime [/etc/cni/net.d]")
    option("--bin-dir", metavar="DIR", default="/opt/cni/bin", help="with the plugins [/opt/cni/bin]")
    option("--root", metavar="DIR", type=Path, default=Path("/"), help="the node's root directory [/]")
    option("--socket", metavar="FILE", type=Path, default=SOCKET, help=f"for pycni status [{SOCKET}]")
    option("--metrics-port", metavar="N", type=int, default=0, help="metrics at 127.0.0.1, too [nowhere]")


def _add_static_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--nodes-file", metavar="FILE", default="", help="static: a line for each node, watched")
    option("--pod-cidr", metavar="CIDR", help="static: the pods of this node, IPv4, as in 10.244.1.0/24")
    option("--pod-cidr6", metavar="CIDR", help="static: the same, IPv6")
    option("--cluster-cidr", metavar="CIDR", action="append", default=[], help="static, etcd: the pods of all nodes")
    option("--node-bits", metavar="N", type=int, help="static, etcd: bits that tell nodes apart: 10.32.0.0/12, 12: /24")
    option("--node-index", metavar="N", type=int, help="static: which part of it is this node's, counted from 0")
    option("--peer", metavar="CIDR=ADDRESS", action="append", default=[], help="static: another node: pods, address")
    option("--node-ip", metavar="ADDRESS", action="append", default=[], help="static, etcd: of this node")


def add_etcd_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how to reach etcd."""
    option = parser.add_argument
    option("--etcd", metavar="URL", action="append", default=[], help="etcd: a member, as in https://192.168.1.10:2379")
    option("--etcd-prefix", metavar="KEY", default="", help="etcd: what our keys begin with [/pycni]")
    option("--etcd-ca", metavar="FILE", default="", help="etcd: certificate of its authority")
    option("--etcd-cert", metavar="FILE", default="", help="etcd: this node's certificate")
    option("--etcd-key", metavar="FILE", default="", help="etcd: its key")
    option("--etcd-user", metavar="NAME", default="", help="etcd: the user, with a password")
    option("--etcd-password-file", metavar="FILE", default="", help="etcd: the password")
    option("--lease", metavar="SECONDS", type=int, default=0, help=f"etcd: how long a dead node is kept [{LEASE}]")


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--mtu", metavar="N", type=int, default=0, help="of the pods' interfaces, in bytes [found]")
    option("--overlay", choices=["vxlan"], help="to nodes that are not on one link")
    option("--direct", action="store_true", help="reach peers on a link of this node without the overlay")
    option("--vni", metavar="N", type=int, default=1, help="of the overlay [1]")
    option("--port", metavar="N", type=int, default=VXLAN_PORT, help=f"of the overlay, UDP [{VXLAN_PORT}]")
    option("--device", metavar="NAME", default="", help="the interface that the overlay goes out by [the route's]")


def parse_settings(options: argparse.Namespace, hostname: str, environment: Mapping[str, str]) -> Settings:
    """Parse the options; `environment` is that of the process. Raises ValueError with a line for each problem."""
    problems: list[str] = []
    name = options.node_name or hostname
    _refuse_others(options, problems)
    source: SourceSettings
    if options.source == "kubernetes":
        source = KubernetesSettings(name, options.kubeconfig)
        try:
            source = source._replace(server=parse_api_server(options.api_server, options.kubeconfig, environment))
        except CNIError as error:
            problems.append(f"--api-server: {error.msg}")
    elif options.source == "etcd":
        source = _parse_etcd(options, name, problems)
    else:
        source = _parse_static(options, name, problems)
    _check_numbers(options, source, problems)
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    overlay = Overlay(options.vni, options.port, options.device, options.direct) if options.overlay else None
    return Settings(
        source,
        overlay,
        options.mtu,
        options.conf_dir,
        options.bin_dir,
        options.root,
        options.socket,
        options.metrics_port,
        options.once,
        (options.policies or RECHECK) if options.source == "kubernetes" else OFF,
        options.log_denied,
    )


def node_range(cluster: CIDR, bits: int, index: int) -> CIDR:
    """The part of a cluster's range that belongs to a node: index 3 of 10.32.0.0/12 with 12 bits is 10.32.3.0/24.

    Raises ValueError.
    """
    prefix = cluster.prefix + bits
    longest = cluster.ip.bits - 2  # a gateway and a pod
    if bits < 1 or prefix > longest:
        raise ValueError(f"--node-bits {bits}: {cluster} leaves 1 to {longest - cluster.prefix} bits for nodes")
    if not 0 <= index < 1 << bits:
        raise ValueError(f"--node-index {index}: with {bits} bits nodes are counted from 0 to {(1 << bits) - 1}")
    return CIDR(IP(cluster.version, cluster.first.value + (index << (cluster.ip.bits - prefix))), prefix)


def _refuse_others(options: argparse.Namespace, problems: list[str]) -> None:
    """Note a problem for options of other sources, since they would have no effect."""
    own = {"static": _STATIC, "kubernetes": _KUBERNETES, "etcd": _ETCD}
    shared = {"static": ("cluster_cidr", "node_bits", "node_ip"), "etcd": ("cluster_cidr", "node_bits", "node_ip")}
    allowed = {*own[options.source], *shared.get(options.source, ())}
    known = [*_STATIC, *_KUBERNETES, *_ETCD, *shared["etcd"]]
    given = [name for name in known if name not in allowed and getattr(options, name) not in ("", None, False, 0, [])]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        problems.append(f"{names}: not for --source {options.source}")


def _parse_etcd(options: argparse.Namespace, name: str, problems: list[str]) -> EtcdSettings:
    if not options.etcd:
        problems.append("--source etcd needs --etcd, as in https://192.168.1.10:2379")
    networks = [_parse_network("--cluster-cidr", text, problems) for text in options.cluster_cidr]
    ranges = tuple(sorted(cidr for cidr in networks if cidr is not None))
    addresses = tuple(_parse_own_addresses(options, problems))
    settings = EtcdSettings(etcd_access(options), name, addresses, options.mtu)
    if options.etcd_prefix:
        settings = settings._replace(prefix=options.etcd_prefix)
    if options.lease:
        settings = settings._replace(lease=options.lease)
    if bool(ranges) != (options.node_bits is not None):
        problems.append("--cluster-cidr and --node-bits come together")
    elif ranges and not problems:
        cluster = Cluster(ranges, tuple(cidr.prefix + options.node_bits for cidr in ranges))
        try:
            settings = settings._replace(cluster=check_cluster(cluster))
        except CNIError as error:
            problems.append(f"--node-bits {options.node_bits}: {error.msg}")
    return settings


def etcd_access(options: argparse.Namespace) -> EtcdAccess:
    """The options of add_etcd_options as EtcdAccess."""
    files = (options.etcd_ca, options.etcd_cert, options.etcd_key)
    return EtcdAccess(tuple(options.etcd), *files, options.etcd_user, options.etcd_password_file)


def _parse_own_addresses(options: argparse.Namespace, problems: list[str]) -> list[IP]:
    addresses = sorted(ip for text in options.node_ip if (ip := _parse_address("--node-ip", text, problems)))
    if len({ip.version for ip in addresses}) < len(addresses):
        problems.append(f"--node-ip: two addresses of one family: {', '.join(map(str, addresses))}")
    return addresses


def _parse_static(options: argparse.Namespace, name: str, problems: list[str]) -> StaticSettings:
    pods = sorted([*_parse_pods(options, problems), *_parse_part(options, problems)])
    if not pods and not options.nodes_file and not options.peer and not problems:
        problems.append("one of --pod-cidr, --pod-cidr6, --cluster-cidr, --nodes-file and --peer has to be given")
    if len({cidr.version for cidr in pods}) < len(pods):
        problems.append(f"two pod ranges of one family: {', '.join(map(str, pods))}")
    addresses = _parse_own_addresses(options, problems)
    peers = []
    for text in options.peer:
        try:
            peers.append(parse_peer(text))
        except CNIError as error:
            problems.append(f"--peer: {error.msg}")
    own = Node(name, tuple(pods), tuple(addresses), options.mtu)
    if not problems:
        try:
            arrange(own, peers)
        except CNIError as error:
            problems.append(f"--peer: {error.msg}")
    return StaticSettings(own, tuple(peers), options.nodes_file)


def _parse_pods(options: argparse.Namespace, problems: list[str]) -> list[CIDR]:
    found = []
    for name, text, version in (("--pod-cidr", options.pod_cidr, 4), ("--pod-cidr6", options.pod_cidr6, 6)):
        cidr = _parse_network(name, text, problems) if text else None
        if cidr is None:
            continue
        if cidr.version != version:
            other = f"--pod-cidr{'6' if version == 4 else ''}"
            problems.append(f"{name} {text} is IPv{cidr.version}; that is said by {other}")
        elif cidr.prefix > cidr.ip.bits - 2:
            problems.append(f"{name} {text} has no room for a gateway and a pod; at most /{cidr.ip.bits - 2}")
        found.append(cidr)
    return found


def _parse_part(options: argparse.Namespace, problems: list[str]) -> list[CIDR]:
    given = (options.cluster_cidr or None, options.node_index, options.node_bits)
    if all(value is None for value in given):
        return []
    if any(value is None for value in given):
        problems.append("--cluster-cidr, --node-index and --node-bits come together")
        return []
    found = []
    for text in options.cluster_cidr:
        cluster = _parse_network("--cluster-cidr", text, problems)
        if cluster is not None:
            try:
                found.append(node_range(cluster, options.node_bits, options.node_index))
            except ValueError as error:
                problems.append(str(error))
    return found


def _parse_network(name: str, text: str, problems: list[str]) -> CIDR | None:
    try:
        cidr = parse_cidr(text)
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None
    if cidr != cidr.network:
        problems.append(f"{name} {text} has host bits set; the network is {cidr.network}")
        return None
    return cidr


def _parse_address(name: str, text: str, problems: list[str]) -> IP | None:
    try:
        return parse_ip(text)
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None


def _check_numbers(options: argparse.Namespace, source: SourceSettings, problems: list[str]) -> None:
    ipv6 = isinstance(source, StaticSettings) and any(cidr.version == 6 for cidr in source.own.pods)
    least = 1280 if ipv6 else MIN_MTU
    for name, value, low, high in (
        ("--mtu", options.mtu or least, least, MAX_MTU),
        ("--vni", options.vni, 1, MAX_VNI),
        ("--port", options.port, 1, 65535),
        ("--metrics-port", options.metrics_port, 0, 65535),
    ):
        if not low <= value <= high:
            problems.append(f"{name} {value} is not in {low} to {high}")
    for name, value in (("--device", options.device), ("--direct", options.direct)):
        if value and not options.overlay:
            problems.append(f"{name} is for --overlay")
