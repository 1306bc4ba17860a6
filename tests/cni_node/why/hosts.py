"""Hosts for pycni why: two networks with pods, a service, a machine outside; and faults by chance."""

import base64
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cni_node.policy.compiler import Compiler
from cni_node.policy.table import PolicyTable
from cni_protocol.address import parse_ip
from tests.cni_node.policy.texts import pod
from tests.cni_node.policy.worlds import Chance
from tests.conftest import ROOT
from tests.kit.host import Host
from tests.kit.runtime import Runtime

CACHE = "/var/lib/cni/results"
OUTSIDE = ("203.0.113.7", "2001:db8::7")
NODE = ("203.0.113.1", "2001:db8::1")
GATEWAYS = ("10.1.0.1", "10.2.0.1")
SERVICES = ("10.96.0.10", "10.96.0.11")  # to one pod; to two by chance
PODS = {"a": 1, "b": 1, "c": 1, "d": 2}  # and the network of each
HOST_PORT = 8080  # of a
_SWITCHES = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class WhyHost:
    """A host with pods that a runtime remembers."""

    def __init__(self, host: Host, bin_dir: str, chance: random.Random) -> None:
        self.host, self.chance = host, chance
        self.addresses: dict[str, list[str]] = {}
        self.ports: dict[str, str] = {}
        self._runtime = Runtime(host, f"{bin_dir}/cni-bridge", [bin_dir])
        self.host.run("mkdir", CACHE)
        self._masquerades = {number: chance.random() < 0.7 for number in (1, 2)}
        for name, number in PODS.items():
            self._add(name, number)
        self._wire()
        self._serve()
        self._asking = host.start(
            *(sys.executable, "-m", "tests.cni_node.why.answering"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )

    def close(self) -> None:
        """End the process that answers."""
        assert self._asking.stdin is not None
        assert self._asking.stdout is not None
        self._asking.stdin.close()
        self._asking.wait(timeout=60)
        self._asking.stdout.close()

    def ask(self, questions: Sequence[tuple[str, str, str]]) -> list[tuple[int, Any]]:
        """What why says."""
        assert self._asking.stdin is not None
        assert self._asking.stdout is not None
        self._asking.stdin.write(json.dumps(questions) + "\n")
        self._asking.stdin.flush()
        return [(status, document) for status, document in json.loads(self._asking.stdout.readline())]

    def sh(self, script: str) -> None:
        """Run a script on the host."""
        self.host.run("sh", "-ec", script)

    def forget(self) -> None:
        """Have all neighbours be asked for anew."""
        names = "".join(f"ip -n {name} neigh flush all nud all; " for name in (*PODS, "outside"))
        self.sh(f"{names} ip neigh flush all nud all")

    def _add(self, name: str, number: int) -> None:
        network = {
            "cniVersion": "1.0.0",
            "name": f"net{number}",
            "type": "cni-bridge",
            "bridge": f"cni{number}",
            "isGateway": True,
            "ipMasq": self._masquerades[number],
            "hairpinMode": True,
            "capabilities": {"portMappings": True},
            "macspoofchk": True,
            "ipam": {
                "type": "cni-ipam",
                "ranges": [[{"subnet": f"10.{number}.0.0/16"}], [{"subnet": f"fd00:{number}::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }
        ports = [{"hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp"}] if name == "a" else []
        result = self._runtime.add(name, {**network, "runtimeConfig": {"portMappings": ports}})
        self.addresses[name] = [entry["address"].partition("/")[0] for entry in result["ips"]]
        self.ports[name] = next(each["name"] for each in result["interfaces"] if each["name"].startswith("veth"))
        conflist = json.dumps({"cniVersion": "1.0.0", "name": f"net{number}", "plugins": [network]})
        document = {
            "kind": "cniCacheV1",
            "containerId": name,
            "config": base64.b64encode(conflist.encode()).decode(),
            "ifName": "eth0",
            "networkName": f"net{number}",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name]],
            "capabilityArgs": {"portMappings": ports},
            "result": result,
        }
        self.host.run("sh", "-c", f"cat >{CACHE}/net{number}-{name}-eth0", input=json.dumps(document))

    def _wire(self) -> None:
        self.host.add_container("outside")
        bridged = self.chance.choice((0, 1, 1))
        self.sh(f"""
        ip link add uplink type veth peer name eth0 netns outside
        echo 0 >/proc/sys/net/ipv6/conf/uplink/accept_dad
        ip netns exec outside sh -c 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'
        ip address add {NODE[0]}/24 dev uplink; ip address add {NODE[1]}/64 dev uplink nodad
        ip -n outside address add {OUTSIDE[0]}/24 dev eth0; ip -n outside address add {OUTSIDE[1]}/64 dev eth0 nodad
        ip link set uplink up; ip -n outside link set eth0 up
        for n in 1 2; do
            ip -n outside route add 10.$n.0.0/16 via {NODE[0]}; ip -n outside route add fd00:$n::/64 via {NODE[1]}
        done
        ip -n outside route add 10.96.0.0/24 via {NODE[0]}
        ip route add default via {OUTSIDE[0]}
        for name in {" ".join(_SWITCHES)}; do echo 1 >/proc/sys/net/$name; done
        for name in iptables ip6tables; do echo {bridged} >/proc/sys/net/bridge/bridge-nf-call-$name; done
        """)

    def _serve(self) -> None:
        """Two services, by rules as kube-proxy makes them for iptables or for nftables."""
        one, two = self.addresses["b"][0], self.addresses["c"][0]
        if self.chance.random() < 0.5:
            self.sh(f"""
            iptables -w -t nat -N KUBE-SERVICES
            iptables -w -t nat -A PREROUTING -m comment --comment "service portals" -j KUBE-SERVICES
            iptables -w -t nat -A OUTPUT -j KUBE-SERVICES
            iptables -w -t nat -A KUBE-SERVICES -d {SERVICES[0]}/32 -p tcp -m comment \\
                --comment "shop/one:http cluster IP" -m tcp --dport 80 -j DNAT --to-destination {one}:80
            iptables -w -t nat -N KUBE-SVC-TWO
            iptables -w -t nat -A KUBE-SERVICES -d {SERVICES[1]}/32 -p tcp --dport 80 -j KUBE-SVC-TWO
            iptables -w -t nat -A KUBE-SVC-TWO -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to {one}:80
            iptables -w -t nat -A KUBE-SVC-TWO -p tcp -j DNAT --to-destination {two}:80
            iptables -w -t nat -A KUBE-SERVICES ! -s 10.1.0.0/16 -d {SERVICES[0]}/32 -j MARK --set-xmark 0x4000/0x4000
            iptables -w -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
            """)
            return
        self.nft(f"""
        table ip kube-proxy {{
          map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict
            elements = {{ {SERVICES[0]} . tcp . 80 : goto service-AAAA-shop/one/tcp/http,
                          {SERVICES[1]} . tcp . 80 : goto service-BBBB-shop/two/tcp/http }} }}
          chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips }}
          chain service-AAAA-shop/one/tcp/http {{ ip saddr != 10.1.0.0/16 meta mark set meta mark | 0x4000
            meta l4proto tcp dnat to {one}:80 }}
          chain service-BBBB-shop/two/tcp/http {{ numgen random mod 2 vmap {{ 0 : goto e0, 1 : goto e1 }} }}
          chain e0 {{ meta l4proto tcp dnat to {one}:80 }}
          chain e1 {{ meta l4proto tcp dnat to {two}:80 }}
          chain pre {{ type nat hook prerouting priority dstnat; jump services }}
          chain out {{ type nat hook output priority -100; jump services }}
          chain post {{ type nat hook postrouting priority srcnat; meta mark & 0x4000 != 0 masquerade }}
        }}""")

    def nft(self, script: str) -> None:
        """Have nft(8) make rules."""
        self.host.run("nft", "-f", "-", input=in_lines(script))


Fault = Callable[[WhyHost], None]


def script(text: str) -> Fault:
    """A fault that a script makes; {port} is the host's end of a pod by chance, {pod} its name, {ip} its address."""

    def make(host: WhyHost) -> None:
        pod, other = host.chance.sample(sorted(PODS), 2)
        number = PODS[pod]
        host.sh(
            text.format(
                pod=pod,
                port=host.ports[pod],
                other=host.ports[other],
                ip=host.addresses[pod][0],
                ip6=host.addresses[pod][1],
                n=number,
                dport=host.chance.choice((53, 80, 8080)),
                proto=host.chance.choice(("tcp", "udp")),
                hook=host.chance.choice(("forward", "input", "output", "prerouting", "postrouting")),
            )
        )

    return make


def in_lines(text: str) -> str:
    """Rules with the line feeds that nft(8) asks for behind each of them."""
    return re.sub(r"\} (chain|set|map) ", r"}\n\1 ", text.replace(" }", "\n}"))


def rules(text: str) -> Fault:
    """Foreign rules for nft(8); what a script has in braces stands in « » there."""
    doubled = in_lines(text).replace("{", "{{").replace("}", "}}").replace("«", "{").replace("»", "}")
    return script(f"nft -f - <<'END'\n{doubled}\nEND")


def policies(host: WhyHost) -> None:
    """Policies by chance for the pods, in the kernel."""
    chance = Chance(host.chance.randrange(1 << 30))
    spaces = dict(zip(PODS, "xxyz", strict=True))
    pods = [pod(f"{spaces[name]}/{name}", *host.addresses[name], ports=("TCP/http/80",)) for name in PODS]
    nodes = {"node1": tuple(map(parse_ip, (*NODE, *GATEWAYS)))}
    with host.host.entered():
        table = PolicyTable()
        try:
            table.ensure(Compiler("node1").compile(chance.cluster(pods, nodes, 5)))
        finally:
            table.close()


FAULTS: dict[str, Fault] = {
    "port down": script("ip link set {port} down"),
    "pod's end down": script("ip -n {pod} link set eth0 down"),
    "bridge down": script("ip link set cni{n} down"),
    "uplink down": script("ip link set uplink down"),
    "no carrier": script("ip -n outside link set eth0 down"),
    "detached": script("ip link set {port} nomaster"),
    "isolated": script(
        "ip link set {port} type bridge_slave isolated on || :; ip link set {other} type bridge_slave isolated on || :"
    ),
    "hairpin": script("ip link set {port} type bridge_slave hairpin off || :"),
    "blocked": script("ip link set {port} type bridge_slave state 1 || :"),
    "not forwarding": script("echo 0 >/proc/sys/net/ipv4/ip_forward"),
    "not forwarding IPv6": script("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"),
    "not forwarding there": script("echo 0 >/proc/sys/net/ipv4/conf/cni{n}/forwarding"),
    "no echo": script("echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all"),
    "bridged": script("echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables"),
    "pod without route": script("ip -n {pod} route delete default || :"),
    "blackhole": script("ip route replace blackhole {ip}/32"),
    "unreachable": script("ip -6 route add unreachable {ip6}/128 || :"),
    "own route": script("ip route delete 10.{n}.0.0/16 dev cni{n} || :"),
    "default route": script("ip route delete default || :"),
    "no gateway": script("ip address delete 10.{n}.0.1/16 dev cni{n} || :"),
    "routing rule": script("ip rule add from {ip} lookup 100; ip route replace blackhole default table 100"),
    "routing rule to": script(
        "ip rule add to {ip} lookup 100 pref 50; ip route replace 10.0.0.0/8 dev uplink table 100 || :"
    ),
    "strict": script("echo 1 >/proc/sys/net/ipv4/conf/cni{n}/rp_filter; ip route replace {ip}/32 dev uplink || :"),
    "neighbour": script("ip neighbour replace {ip} lladdr 02:00:00:00:00:99 nud permanent dev cni{n} || :"),
    "policy drop": rules(
        "table inet strict { chain c { type filter hook «hook» priority 0; policy drop; "
        "ct state established accept; ip saddr «ip» accept; «proto» dport «dport» accept; } }"
    ),
    "drop by address": rules(
        "table ip one { chain c { type filter hook «hook» priority -10; ip daddr «ip» counter "
        "limit rate 100/second drop; ip saddr «ip» «proto» dport «dport» counter drop; } }"
    ),
    "drop by set": rules(
        "table inet two { set s { type ipv4_addr; flags interval; elements = { 10.1.0.0/30, "
        "203.0.113.0/24 } } set p { type inet_proto . inet_service; elements = { tcp . 80, udp . 53 } }"
        " chain c { type filter hook «hook» priority 5; ip saddr @s meta l4proto . th dport @p drop; } }"
    ),
    "drop by map": rules(
        'table inet three { map m { type ifname : verdict; elements = { "cni«n»" : jump j, '
        '"uplink" : goto k } } chain j { meta l4proto icmp drop; } chain k { ip saddr 203.0.113.7 '
        "tcp dport { 80, 8080-8090 } return; meta nfproto ipv6 drop; } "
        "chain c { type filter hook forward priority 1; iifname vmap @m; oifname vmap @m; } }"
    ),
    "ranges": rules(
        "table inet four { set r { type ipv4_addr . inet_service; flags interval; elements = { "
        "10.1.0.0/16 . 50-90, 10.2.0.0-10.2.0.9 . 8080 } } chain c { type filter hook «hook» priority 3; "
        "meta l4proto { tcp, udp } ip daddr . th dport @r drop; } }"
    ),
    "marks": rules(
        "table inet five { chain a { type filter hook prerouting priority -150; ip saddr «ip» meta mark set "
        "0x77; } chain c { type filter hook forward priority 0; meta mark & 0xff == 0x77 ct state new drop; } }"
    ),
    "macs": rules(
        'table bridge six { chain c { type filter hook prerouting priority 0; iifname "«port»" '
        "ether type ip ip protocol udp drop; } }"
    ),
    "reverse path": rules(
        "table inet seven { chain c { type filter hook prerouting priority 0; fib saddr . iif oif missing drop; } }"
    ),
    "docker": script("""
        iptables -w -P FORWARD DROP; iptables -w -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -w -A FORWARD -i cni{n} -j ACCEPT"""),
    "iptables": script("""
        iptables -w -N MINE; iptables -w -I FORWARD -j MINE; iptables -w -I INPUT -j MINE
        iptables -w -A MINE -p tcp -m multiport --dports 80,8000:8090 -d {ip} -j REJECT
        iptables -w -A MINE ! -i uplink -p udp -m udp --dport 53 -s {ip} -j DROP
        iptables -w -A MINE -m addrtype --dst-type LOCAL -p tcp --dport {dport} -j DROP"""),
    "policies": policies,
    "policies of others": policies,
    "in the pod": script("ip netns exec {pod} iptables -w -A INPUT -p {proto} --dport {dport} -j DROP"),
}
