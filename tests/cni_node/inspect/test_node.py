"""pycni inspect on emulated nodes: real pods, leftovers, half broken nodes, and nothing changes."""

import json
import os
import sys
from pathlib import Path

import pytest

from cni_node.host.entries import Entries
from cni_node.host.exempt import intervals_of
from cni_node.host.exemptions import Exemptions
from cni_node.host.peer_routes import Difference, Entry, Forward, Neighbour, PeerRoute
from cni_node.snapshot import Node as Peer
from cni_protocol.address import parse_cidr, parse_ip
from cni_protocol.attachment import Attachment
from tests.cni_node.inspect.nodes import Node
from tests.conftest import ROOT
from tests.kit.host import Host, wait_until

pytestmark = pytest.mark.kernel

GONE = "No such file or directory"


@pytest.fixture
def node(host: Host, bin_dir: str, tmp_path: Path) -> Node:
    cache = tmp_path / "results"
    cache.mkdir()
    tmp_path.chmod(0o755)
    host.run("sh", "-c", "ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up")
    host.run("ip", "address", "add", "192.0.2.7/24", "dev", "up0")
    host.run("ip", "route", "add", "default", "via", "192.0.2.1")
    return Node(host, bin_dir, cache)


def test_pods_are_shown_with_all_that_is_theirs_and_nothing_changes(node: Node) -> None:
    results = [node.add("c1", 8080), node.add("c2", 8081)]
    before = node.dump()
    said, document = node.inspect(), node.document()
    assert node.dump() == before
    assert (said.returncode, said.stderr) == (0, "")
    assert (document["problems"], document["leftovers"], document["leftoversAreSure"]) == ([], [], True)
    for one, result, name, port in zip(document["attachments"], results, ("c1", "c2"), (8080, 8081), strict=True):
        address = result["ips"][0]["address"]
        assert (one["owner"], one["pod"]) == (f"mynet,{name},eth0", f"shop/{name}-pod")
        assert (one["addresses"], one["reserved"]) == ([address], [address.partition("/")[0]])
        assert (one["bridge"], one["state"], one["netnsState"]) == ("cni0", [], "ok")
        [inner] = node.host.ip("link", "show", "eth0", container=name)
        assert one["containerInterface"]["mac"] == inner["address"]
        assert one["hostInterface"]["name"] in node.host.link_names()
        target = f"{address.partition('/')[0]}:80"
        assert one["hostPorts"] == [{"address": "", "port": port, "protocol": "tcp", "target": target}]
        assert one["rules"] == [f"masquerade {address.partition('/')[0]}", f"only from MAC {inner['address']}"]
        assert f"host port {port}/tcp -> {target}" in said.stdout
    [bridge] = document["bridges"]
    assert (bridge["name"], bridge["addresses"], bridge["up"]) == ("cni0", ["10.1.0.1/16"], True)
    assert document["uplinks"][0]["name"] == "up0"
    assert "─┐── cni0 ── up0 192.0.2.7/24" in said.stdout


def test_what_is_left_over_is_named(node: Node) -> None:
    for number in (1, 2, 3):
        node.add(f"c{number}", 8080 + number)
    (node.cache / "mynet-c1-eth0").unlink()
    node.host.remove_container("c2")
    (node.cache / "mynet-c3-eth0").unlink()
    node.host.remove_container("c3")
    alone = lambda: sum(name.startswith("veth") for name in node.host.link_names()) == 1  # noqa: E731
    assert wait_until(alone)  # the kernel takes the pairs away a little later
    assert {(entry["kind"], entry["why"]) for entry in node.document()["leftovers"]} == {
        ("interface", "no result"),
        ("result", "its namespace /run/netns/c2 is gone"),
        ("reservation", "no attachment"),
        ("rules", "no attachment"),
    }
    assert "left over\n" in node.inspect().stdout


def test_a_half_broken_node_is_shown_all_the_same(node: Node) -> None:
    node.add("c1", 8080)
    node.add("c2", 8081)
    (node.cache / "mynet-c3-eth0").write_text("{")
    node.host.run("nft", "flush", "ruleset")
    node.host.run("ip", "link", "delete", "cni0")
    node.host.run("sh", "-c", "cd /var/lib/cni/networks/mynet; printf '\\377' > 10.1.0.2; touch ../stray")
    node.host.run("sh", "-c", "umount /run/netns/c2; echo > /run/netns/c2")
    said, document = node.inspect(), node.document()
    assert (said.returncode, said.stderr) == (1, "")
    assert document["bridges"] == []
    assert document["attachments"][0]["state"] == ["in no bridge"]
    assert [one["hostPorts"] for one in document["attachments"]] == [[], []]
    problems = "\n".join(document["problems"])
    for each in (
        "mynet-c3-eth0 is no result",
        "10.1.0.2 cannot be read",
        "networks/stray is no",
        "netns/c2 of container",
    ):
        assert each in problems
    assert "could not be read\n" in said.stdout
    assert not document["leftoversAreSure"]


def test_without_rights_it_says_what_it_could_not_read(node: Node) -> None:
    node.add("c1", 8080)
    node.cache.chmod(0o700)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    said = node.inspect("--json", before=nobody)
    assert (said.returncode, said.stderr) == (1, "")
    document = json.loads(said.stdout)
    assert [one["state"] for one in document["attachments"]] == [["no result was read"]]
    problems = "\n".join(document["problems"])
    assert f"{node.cache} cannot be read: Permission denied" in problems
    assert "rules cannot be read: Operation not permitted" in problems
    assert not document["leftoversAreSure"]


def test_an_empty_node_is_shown(node: Node) -> None:
    said = node.inspect()
    assert (said.returncode, said.stderr) == (0, "")
    assert "0 interfaces of pods, 0 bridges, 0 ways to peers, 0 leftovers" in said.stdout


def test_peers_have_names_and_where_their_overlay_delivers(node: Node) -> None:
    mac = "0a:01:02:03:04:05"
    vxlan = "ip link add vxlan.7 type vxlan id 7 dstport 8472 dev up0 nolearning; ip link set vxlan.7 alias pycni, up"
    node.host.run("sh", "-c", vxlan)
    peers = [Peer(f"n{n}", (parse_cidr(f"10.{n}.0.0/24"),), (parse_ip(f"192.0.2.{n}"),)) for n in (20, 21, 22)]
    [device] = node.host.ip("link", "show", "vxlan.7")
    with node.host.entered():
        entries, sets = Entries(), Exemptions()
        sets.ensure(interval for peer in peers for interval in intervals_of(peer))
        index = device["ifindex"]
        far = [parse_ip(f"10.{n}.0.0") for n in (20, 21)]
        wanted: list[Entry] = [
            *(Forward(mac, peers[0].addresses[0]), Neighbour(far[0], mac)),
            *(PeerRoute(peers[n].pods[0], far[n], index, None, 70000) for n in (0, 1)),
            PeerRoute(peers[2].pods[0], peers[2].addresses[0], 0, None, 70000),
        ]
        assert entries.apply(Difference(wanted, []), index) == {}
        entries.close()
        sets.close()
    document = node.document()
    assert [(one["name"], one["device"], one["node"], one["lacks"]) for one in document["peers"]] == [
        ("n20", "vxlan.7", "192.0.2.20", ""),
        ("n21", "vxlan.7", "", "no neighbour entry"),
        ("n22", "", "192.0.2.22", ""),
    ]
    assert document["exemptNetworks"] == 6
    assert [link["name"] for link in document["overlay"]] == ["vxlan.7"]


def test_the_picture_goes_into_a_file(node: Node, tmp_path: Path) -> None:
    node.add("c1", 8080)
    said = node.inspect("--svg", str(tmp_path / "node.svg"))
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert "shop/c1-pod" in (tmp_path / "node.svg").read_text()
    said = node.inspect("--svg", str(tmp_path / "none/node.svg"))
    assert (said.returncode, said.stderr) == (1, f"pycni: {tmp_path}/none/node.svg cannot be written: {GONE}\n")


MEASURED = """
import re, sys, time
from pathlib import Path
from cni_node.__main__ import main
main(sys.argv[1:])
peak = re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]  # ru_maxrss begins with the parent's
print(time.process_time(), peak, file=sys.stderr)
"""


def test_many_pods_and_peers_cost_little(node: Node) -> None:
    """The bound is of processor time: 2 s, and 64 MiB; it takes a tenth of the one and half of the other."""
    pods, peers = 250, 1000
    node.host.add_container("all")
    commands = ["link add cni0 type bridge", "link set cni0 up"]
    for number in range(pods):
        one = Attachment("mynet", f"c{number}", "eth0")
        commands.append(f"link add {one.host_name} type veth peer name eth{number} netns all")
        commands.append(f"link set {one.host_name} master cni0 up alias {one.owner}")
        commands.append(f"route add 10.{100 + number % 100}.{number}.0/24 via 192.0.2.9 proto 80")
        interface = {"name": "eth0", "sandbox": "/run/netns/all"}
        address = {"address": f"10.1.1.{number}/16", "interface": 0}
        node.remember(f"c{number}", {"cniVersion": "1.0.0", "interfaces": [interface], "ips": [address]})
    commands += [f"route add 10.{20 + n // 250}.{n % 250}.0/24 via 192.0.2.9 proto 80" for n in range(peers - pods)]
    node.host.run("ip", "-batch", "-", input="\n".join(commands))
    ran = node.host.run(
        *(sys.executable, "-c", MEASURED, "inspect", "--results", str(node.cache), "--json"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    document = json.loads(ran.stdout)
    assert (len(document["attachments"]), len(document["peers"])) == (pods, peers)
    assert {one["netnsState"] for one in document["attachments"]} == {"ok"}
    seconds, kibibytes = map(float, ran.stderr.split())
    assert seconds < 2
    assert kibibytes < 64 * 1024
