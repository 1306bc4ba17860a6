"""Reads files of the kernel and of services: sysctls, counters, sockets, which interfaces others manage.

Must not: write, or treat a missing file as a fault.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_SYS = Path("/proc/sys/net")
_NET = Path("/proc/self/net")
_GLOBAL = (
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "ipv4/conf/all/rp_filter",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
    "ipv4/neigh/default/gc_thresh3",
    "ipv6/neigh/default/gc_thresh3",
    "ipv4/icmp_echo_ignore_all",
    "ipv6/icmp/echo_ignore_all",
)
_OF_INTERFACES = (
    "ipv4/conf/{}/forwarding",
    "ipv4/conf/{}/rp_filter",
    "ipv4/conf/{}/route_localnet",
    "ipv6/conf/{}/accept_ra",
    "ipv6/conf/{}/disable_ipv6",
)
_LATER = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding")
_SYSCTL_DIRS = ("usr/lib/sysctl.d", "run/sysctl.d", "etc/sysctl.d")
_LISTEN = "0A"  # TCP_LISTEN


def read_sysctls(interfaces: Iterable[str]) -> dict[str, str]:
    """Sysctls below net by their path; those of pods' host ends are left out."""
    names = [name for name in interfaces if not name.startswith("veth")]
    wanted = [*_GLOBAL, *(text.format(name) for name in names for text in _OF_INTERFACES)]
    found = {}
    for name in wanted:
        with suppress(OSError):
            found[name] = (_SYS / name).read_text().strip()
    return found


def read_later_sysctls(root: Path) -> dict[str, tuple[str, str]]:
    """The sysctls that sysctl.d sets at the next boot: for each the last value and its file. Raises OSError."""
    files: dict[str, Path] = {}
    for directory in _SYSCTL_DIRS:  # a later directory replaces a file of the same name
        with suppress(FileNotFoundError):
            files.update({path.name: path for path in (root / directory).iterdir() if path.suffix == ".conf"})
    ordered = [path for _, path in sorted(files.items())]
    ordered += [root / "etc/sysctl.conf"] if "99-sysctl.conf" not in files else []
    found = {}
    for path in ordered:
        with suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                key, equals, value = line.partition("=")
                name = key.strip().lstrip("-").replace("/", ".")
                if equals and name in _LATER:
                    found[name] = (value.strip(), str(path))
    return found


def read_counters() -> dict[str, int]:
    """The counters of IP as GROUP.NAME, of this network namespace."""
    found = {}
    for name in ("netstat", "snmp"):
        with suppress(OSError):
            lines = [line.split() for line in (_NET / name).read_text().splitlines()]
            for head, values in zip(lines[::2], lines[1::2], strict=False):
                found.update({f"{head[0]}{key}": int(value) for key, value in zip(head[1:], values[1:], strict=False)})
    return found


def read_moving_counters() -> dict[str, int]:
    """Those of IP, of connection tracking, of processors, of the neighbour table, and of interfaces."""
    found = read_counters()
    for group, name in (("conntrack", "nf_conntrack"), ("arp", "arp_cache")):
        with suppress(OSError):
            head, *rows = (_NET / "stat" / name).read_text().splitlines()
            found.update({f"{group}:{key}": sum(each) for key, *each in _columns(head, rows)})
    with suppress(OSError):  # of each processor: taken, dropped, squeezed, ...
        processors = [line.split() for line in (_NET / "softnet_stat").read_text().splitlines()]
        for column, name in ((1, "dropped"), (2, "squeezed")):
            found[f"softnet:{name}"] = sum(int(each[column], 16) for each in processors)
    with suppress(OSError):
        for line in (_NET / "dev").read_text().splitlines()[2:]:
            interface, _, rest = line.partition(":")
            values = [int(value) for value in rest.split()]
            for name, column in (("rx errors", 2), ("rx dropped", 3), ("tx errors", 10), ("tx dropped", 11)):
                found[f"interface:{interface.strip()}:{name}"] = values[column]
    return found


def _columns(head: str, rows: Iterable[str]) -> Iterator[tuple[str, *tuple[int, ...]]]:
    """The columns of a table in hexadecimal, each behind its name."""
    values = [[int(value, 16) for value in row.split()] for row in rows]
    for number, name in enumerate(head.split()):
        yield name, *(row[number] for row in values if number < len(row))


def read_legacy_tables() -> tuple[str, ...]:
    """The tables of the older iptables that are in use. Raises OSError."""
    found = []
    for name in ("ip_tables_names", "ip6_tables_names"):
        with suppress(FileNotFoundError):
            found += (_NET / name).read_text().split()
    return tuple(dict.fromkeys(found))


def read_listening() -> frozenset[tuple[str, int]]:
    """Protocol and port of each listening socket, except those of the loopback. Raises OSError."""
    found = set()
    for name, protocol in (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")):
        with suppress(FileNotFoundError):
            for line in (_NET / name).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                waits = fields[3] == _LISTEN if protocol == "tcp" else fields[2].endswith(":0000")
                if waits and not _is_loopback(address):
                    found.add((protocol, int(port, 16)))
    return frozenset(found)


def _is_loopback(address: str) -> bool:
    return (len(address) == 8 and address.endswith("7F")) or address == "0" * 24 + "01000000"


def read_managed(root: Path) -> frozenset[int]:
    """The indexes of interfaces that NetworkManager manages."""
    found = set()
    with suppress(OSError):
        for path in (root / "run/NetworkManager/devices").iterdir():
            with suppress(OSError, ValueError):
                if "managed=true" in path.read_text().replace(" ", ""):
                    found.add(int(path.name))
    return frozenset(found)


def removes_foreign_routes(root: Path) -> bool:
    """Whether systemd-networkd runs and removes foreign routes (ManageForeignRoutes is not switched off)."""
    if not (root / "run/systemd/netif/state").exists():
        return False
    files = [root / "etc/systemd/networkd.conf"]
    for directory in ("usr/lib", "run", "etc"):
        with suppress(OSError):
            files += sorted((root / directory / "systemd/networkd.conf.d").iterdir())
    told = True
    for path in files:
        with suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "ManageForeignRoutes":
                    told = value.strip().lower() not in ("no", "false", "0", "off")
    return told


def find_stub_resolver(root: Path) -> str:
    """The resolv.conf that the kubelet gives to pods, where that names a resolver on the loopback; else empty."""
    try:
        lines = (root / "var/lib/kubelet/config.yaml").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    given = [line.partition(":")[2].strip().strip("\"'") for line in lines if line.startswith("resolvConf:")]
    path = (given or ["/etc/resolv.conf"])[0]
    with suppress(OSError):
        for line in (root / path.lstrip("/")).read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["nameserver"] and (words[1:2] == ["::1"] or "".join(words[1:2]).startswith("127.")):
                return path
    return ""
