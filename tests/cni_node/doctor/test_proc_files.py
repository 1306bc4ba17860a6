"""Files of the kernel and of services, read from trees that are made up."""

from pathlib import Path

import pytest

from cni_node.doctor import proc_files


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        write(root, name, text)


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /proc/self/net and for /proc/sys/net."""
    monkeypatch.setattr(proc_files, "_NET", tmp_path)
    monkeypatch.setattr(proc_files, "_SYS", tmp_path)
    return tmp_path


SYSCTLS = (
    *("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"),
    *("bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"),
    *("netfilter/nf_conntrack_count", "netfilter/nf_conntrack_max"),
    *("ipv4/neigh/default/gc_thresh3", "ipv6/neigh/default/gc_thresh3"),
    *("ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"),
    *("ipv4/conf/cni0/forwarding", "ipv4/conf/cni0/rp_filter", "ipv4/conf/cni0/route_localnet"),
    *("ipv6/conf/cni0/accept_ra", "ipv6/conf/cni0/disable_ipv6"),
)


def test_sysctls_are_those_of_all_and_of_interfaces_but_pods(net: Path) -> None:
    for number, name in enumerate((*SYSCTLS, "ipv4/conf/veth7/forwarding", "ipv4/tcp_rmem")):
        write(net, name, f"{number}\n")
    assert proc_files.read_sysctls(["cni0", "veth7"]) == {name: str(number) for number, name in enumerate(SYSCTLS)}


def test_sysctls_that_are_not_there_are_left_out(net: Path) -> None:
    assert proc_files.read_sysctls(["cni0"]) == {}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({"etc/sysctl.conf": "net.ipv4.ip_forward=0"}, {"net.ipv4.ip_forward": ("0", "etc/sysctl.conf")}),
        ({"etc/sysctl.d/a.txt": "net.ipv4.ip_forward=0"}, {}),
        ({"etc/sysctl.d/a.conf": "net.ipv4.tcp_rmem=0\n# net.ipv4.ip_forward=0\nnet.ipv4.ip_forward"}, {}),
        (
            {"usr/lib/sysctl.d/a.conf": "-net/ipv4/conf/all/forwarding = 0 \nnet.ipv6.conf.all.forwarding=1"},
            {
                "net.ipv4.conf.all.forwarding": ("0", "usr/lib/sysctl.d/a.conf"),
                "net.ipv6.conf.all.forwarding": ("1", "usr/lib/sysctl.d/a.conf"),
            },
        ),
        (
            {"usr/lib/sysctl.d/a.conf": "net.ipv4.ip_forward=0", "etc/sysctl.d/a.conf": ""},
            {},
        ),
        (
            {"run/sysctl.d/b.conf": "net.ipv4.ip_forward=0", "etc/sysctl.d/a.conf": "net.ipv4.ip_forward=1"},
            {"net.ipv4.ip_forward": ("0", "run/sysctl.d/b.conf")},
        ),
        (
            {"etc/sysctl.d/99-sysctl.conf": "net.ipv4.ip_forward=1", "etc/sysctl.conf": "net.ipv4.ip_forward=0"},
            {"net.ipv4.ip_forward": ("1", "etc/sysctl.d/99-sysctl.conf")},
        ),
    ],
)
def test_what_the_next_boot_sets(tmp_path: Path, files: dict[str, str], expected: dict[str, tuple[str, str]]) -> None:
    put(tmp_path, **files)
    found = proc_files.read_later_sysctls(tmp_path)
    assert found == {name: (value, str(tmp_path / file)) for name, (value, file) in expected.items()}


def test_counters(net: Path) -> None:
    put(net, snmp="Ip: Forwarding InReceives\nIp: 1 7\nUdp: InErrors\nUdp: 3\n", netstat="TcpExt: A B\nTcpExt: 4 5\n")
    few = {"Ip:Forwarding": 1, "Ip:InReceives": 7, "Udp:InErrors": 3, "TcpExt:A": 4, "TcpExt:B": 5}
    assert proc_files.read_counters() == few
    assert proc_files.read_moving_counters() == few
    write(net, "stat/nf_conntrack", "entries drop\n0000000a 1\n0000000a 0f\n")
    write(net, "stat/arp_cache", "entries table_fulls\n0a 0\n")
    put(net, softnet_stat="ff 1 2 0\nff 0f 1 0\n", dev="head\nhead\neth0: 1 2 3 4 5 6 7 8 9 10 11 12 13\n")
    assert proc_files.read_moving_counters() == {
        **few,
        "conntrack:entries": 20,
        "conntrack:drop": 16,
        "arp:entries": 10,
        "arp:table_fulls": 0,
        "softnet:dropped": 16,
        "softnet:squeezed": 3,
        "interface:eth0:rx errors": 3,
        "interface:eth0:rx dropped": 4,
        "interface:eth0:tx errors": 11,
        "interface:eth0:tx dropped": 12,
    }


def test_tables_of_the_older_iptables(net: Path) -> None:
    assert proc_files.read_legacy_tables() == ()
    put(net, ip_tables_names="nat\nfilter\n", ip6_tables_names="filter\n")
    assert proc_files.read_legacy_tables() == ("nat", "filter")


SOCKETS = {
    "tcp": ["00000000:0050 00000000:0000 0A", "0100007F:0051 00000000:0000 0A", "00000000:0052 00000000:0000 01"],
    "tcp6": [f"{'0' * 32}:0053 {'0' * 32}:0000 0A", f"{'0' * 24}01000000:0054 {'0' * 32}:0000 0A"],
    "udp": ["00000000:0035 00000000:0000 07", "0A01A8C0:0036 0A01A8C0:0050 01"],
    "udp6": [f"{'0' * 32}:0037 {'0' * 32}:0000 07"],
}


def test_who_listens(net: Path) -> None:
    assert proc_files.read_listening() == frozenset()
    for name, lines in SOCKETS.items():
        write(net, name, "\n".join(["head", *(f"{number}: {line}" for number, line in enumerate(lines))]))
    assert proc_files.read_listening() == {("tcp", 80), ("tcp", 83), ("udp", 53), ("udp", 55)}


def test_interfaces_of_networkmanager(tmp_path: Path) -> None:
    assert proc_files.read_managed(tmp_path) == frozenset()
    devices = {"7": "[device]\nmanaged = true\n", "8": "[device]\nmanaged=false\n", "lo": "managed=true"}
    put(tmp_path, **{f"run/NetworkManager/devices/{name}": text for name, text in devices.items()})
    assert proc_files.read_managed(tmp_path) == {7}


DROP_IN = "systemd/networkd.conf.d/a.conf"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        *(({"etc/systemd/networkd.conf": f"[Network]\nManageForeignRoutes = {no}\n"}, False) for no in ("no", "0")),
        *(({"etc/systemd/networkd.conf": f"ManageForeignRoutes={no}"}, False) for no in ("False", "off")),
        ({"etc/systemd/networkd.conf": "ManageForeignRoutes=yes\n#ManageForeignRoutes=no"}, True),
        *(({f"{place}/{DROP_IN}": "ManageForeignRoutes=no"}, False) for place in ("usr/lib", "run", "etc")),
        (
            {"etc/systemd/networkd.conf": "ManageForeignRoutes=no", f"usr/lib/{DROP_IN}": "ManageForeignRoutes=yes"},
            True,
        ),
        ({f"usr/lib/{DROP_IN}": "ManageForeignRoutes=no", f"etc/{DROP_IN}": "ManageForeignRoutes=yes"}, True),
    ],
)
def test_whether_networkd_removes_routes(tmp_path: Path, files: dict[str, str], *, expected: bool) -> None:
    put(tmp_path, **files)
    assert not proc_files.removes_foreign_routes(tmp_path)  # it does not run
    write(tmp_path, "run/systemd/netif/state", "")
    assert proc_files.removes_foreign_routes(tmp_path) is expected


@pytest.mark.parametrize(
    ("kubelet", "resolv", "expected"),
    [
        ("", {"etc/resolv.conf": "nameserver 127.0.0.53"}, "/etc/resolv.conf"),
        ("", {"etc/resolv.conf": "# nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver\n"}, ""),
        ("", {"etc/resolv.conf": "nameserver 192.0.2.1\nnameserver ::1"}, "/etc/resolv.conf"),
        ("", {"etc/resolv.conf": "search 127.0.0.53\nnameserver ::11"}, ""),
        ('resolvConf: "/run/r.conf"\n', {"etc/resolv.conf": "nameserver 127.0.0.53"}, ""),
        ("resolvConf: '/run/r.conf'\n", {"run/r.conf": "nameserver 127.0.0.53"}, "/run/r.conf"),
        ("  resolvConf: /run/r.conf\n", {"run/r.conf": "nameserver 127.0.0.53"}, ""),
    ],
)
def test_a_resolver_on_the_loopback(tmp_path: Path, kubelet: str, resolv: dict[str, str], expected: str) -> None:
    put(tmp_path, **resolv)
    assert proc_files.find_stub_resolver(tmp_path) == ""  # no kubelet
    write(tmp_path, "var/lib/kubelet/config.yaml", f"kind: KubeletConfiguration\n{kubelet}")
    assert proc_files.find_stub_resolver(tmp_path) == expected
