"""What the system tests drive: the executables as a runtime calls them, and libcni's client."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REFERENCE_DIR
from tests.kit.host import Host
from tests.kit.runtime import Runtime

LIBCNI_SOURCE = Path(__file__).parent / "libcni"
_BUILD_BOUND = 300  # seconds; the first build compiles Go's standard library
# Links, addresses, routes, bridge ports, and the sysctls that plugins set; without what the kernel itself changes a
# little after a link came up (its carrier, addresses of the link-local scope and their routes) or got an IPv6 address
# (the route to the address itself, from a work queue: addrconf_dad_work in net/ipv6/addrconf.c).
_TELL = """
{ ip -o link; bridge -d -o link; ip -o address show scope global; ip route show table all; ip -6 route show table all
} | sed -E '/ (fe80|ff00|multicast)|fe80::|^(local|anycast) [0-9a-f]*:/d
            s/,?LOWER_UP|NO-CARRIER,?|,?M-DOWN| linkdown| tentative| state [a-zA-Z]+//g'
cd /proc/sys/net && grep . ipv4/ip_forward ipv6/conf/*/forwarding ipv6/conf/*/accept_ra ipv6/conf/*/disable_ipv6
"""


@pytest.fixture
def bridge(host: Host, bin_dir: str) -> Runtime:
    """cni-bridge on the test's host, cni-ipam beside it, Debian's plugins behind it in CNI_PATH."""
    return Runtime(host, f"{bin_dir}/cni-bridge", (bin_dir, REFERENCE_DIR))


@pytest.fixture
def reference(host: Host, bin_dir: str) -> Runtime:
    """Debian's bridge plugin on the same host, with the same CNI_PATH."""
    return Runtime(host, f"{REFERENCE_DIR}/bridge", (bin_dir, REFERENCE_DIR))


@pytest.fixture
def ipam(host: Host, bin_dir: str) -> Runtime:
    """cni-ipam called directly, as a bridge of somebody else's would."""
    return Runtime(host, f"{bin_dir}/cni-ipam", (bin_dir,))


@pytest.fixture
def snapshot(host: Host) -> Callable[[], dict[str, object]]:
    """A function that tells all of the host that a plugin could change."""

    def take() -> dict[str, object]:
        containers = host.run("ls", "/run/netns").stdout.split()
        inside = {name: host.run("sh", "-c", _TELL, container=name).stdout for name in containers}
        files = host.run("find", "/var/lib/cni", "-type", "d", "-print", "-o", "-printf", "%p %y %s\n").stdout
        return {
            "host": host.run("sh", "-c", _TELL).stdout,
            "containers": inside,
            "nft": host.nft(),
            "files": sorted(files.splitlines()),
        }

    return take


@pytest.fixture(scope="session")
def libcni_client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The client, built from Debian's Go packages; nothing is fetched."""
    target = tmp_path_factory.mktemp("libcni")
    variables = {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "GOCACHE": str(target / "cache"),
    }
    command = ["/usr/bin/go", "build", "-o", str(target / "libcni-client"), "."]
    subprocess.run(command, cwd=LIBCNI_SOURCE, env={**os.environ, **variables}, check=True, timeout=_BUILD_BOUND)
    return str(target / "libcni-client")
