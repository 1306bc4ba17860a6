"""A network without a free address: nothing is made that would have to be taken away again."""

import select
import subprocess
from typing import Any

import pytest

from tests.kit.host import Host, wait_until
from tests.kit.runtime import Runtime

pytestmark = pytest.mark.kernel


def network(bridge: str, ipam: str) -> dict[str, Any]:
    """A network with room for one container; its addresses are the same whatever the bridge is called."""
    return {
        "cniVersion": "1.0.0",
        "name": "small",
        "type": "cni-bridge",
        "bridge": bridge,
        "ipam": {"type": ipam, "subnet": "10.1.0.0/30"},
    }


def tells(host: Host, monitor: Any) -> bool:
    """Whether a monitor that has been started tells of a link already."""
    host.run("ip", "link", "add", "begin", "type", "bridge")
    host.run("ip", "link", "delete", "begin")
    return bool(select.select([monitor], [], [], 0)[0])


@pytest.mark.parametrize(("ipam", "made"), [("cni-ipam", False), ("host-local", True)], ids=["ours", "another"])
def test_without_an_address_no_interface_is_made(bridge: Runtime, ipam: str, made: bool) -> None:
    host = bridge.host
    bridge.add("c1", network("br1", ipam))
    host.add_container("c2")
    watch = host.start("ip", "-o", "monitor", "link", stdout=subprocess.PIPE)
    assert watch.stdout is not None
    assert wait_until(lambda: tells(host, watch.stdout))
    outcome = bridge.call("ADD", "c2", network("br2", ipam))
    assert outcome.status == 1
    assert "no IP addresses available in range set" in outcome.document["msg"]
    host.run("ip", "link", "add", "end", "type", "bridge")  # what the monitor tells last
    seen = ""
    while "end:" not in seen:
        seen += watch.stdout.readline()
    watch.terminate()
    watch.wait(10)
    assert ("br2" in seen) is made
    assert "br2" not in host.link_names()
    assert wait_until(lambda: host.link_names("c2") == [])
    assert host.reservations("small") == ["10.1.0.2"]
