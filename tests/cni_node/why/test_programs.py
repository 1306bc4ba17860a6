"""pycni why beside programs of tc and XDP: it says that they are there, and judges no packet that passes one."""

import ctypes
import os
import platform
import struct
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from cni_node.why.values import PASSES, UNKNOWN
from tests.cni_node.inspect.nodes import Node
from tests.cni_node.why.stacks import world
from tests.cni_node.why.test_ask import ask
from tests.cni_node.why.test_command import document
from tests.kit.host import Host

_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]  # the system call
_PROG_LOAD, _TYPE_XDP, _XDP_PASS = 5, 6, 2
_PASSES = struct.pack("=BBhi", 0xB7, 0, 0, _XDP_PASS) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
_ATTRIBUTES = struct.Struct("=IIQQ104x")  # bpf_attr: type, number of instructions, instructions, licence


def load_xdp() -> int:
    """A program that lets all packets through, as a file descriptor."""
    program, licence = ctypes.create_string_buffer(_PASSES), ctypes.create_string_buffer(b"GPL")
    packed = _ATTRIBUTES.pack(_TYPE_XDP, 2, ctypes.addressof(program), ctypes.addressof(licence))
    attributes = ctypes.create_string_buffer(packed)
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(_BPF, _PROG_LOAD, attributes, _ATTRIBUTES.size))
    assert found >= 0, os.strerror(ctypes.get_errno())
    return found


def test_a_program_on_the_way_leaves_an_answer_open_and_one_beside_it_does_not() -> None:
    there = world(programs={2: ("an XDP program",)})
    met = ask(there, "shop/a", "node2")
    assert (met.status, met.kind) == (UNKNOWN, "program")
    assert met.reason.startswith("node uplink has an XDP program, which is not followed")
    assert ask(there, "shop/a", "shop/b").status == PASSES
    stopped = ask(world(programs={10: ("a tc filter",)}), "shop/a", "10.1.0.9")
    assert stopped.kind == "no-neighbour"
    assert stopped.notes == ("node veth0 has a tc filter, which is not followed",)


@pytest.mark.kernel
def test_real_programs_are_seen(host: Host, tmp_path: Path, bin_dir: str) -> None:
    node = Node(host, bin_dir, tmp_path)
    for number, name in enumerate(("web", "db")):
        node.add(name, 8080 + number)
    assert document(node, "web", "db")["verdict"] == "passes"
    port = next(link["ifname"] for link in host.ip("link") if link.get("ifalias") == "mynet,web,eth0")
    host.run("tc", "qdisc", "add", "dev", port, "clsact")
    assert document(node, "web", "db")["verdict"] == "passes"  # nothing is in it
    host.run("tc", "filter", "add", "dev", port, "egress", "u32", "match", "u32", "0", "0", "flowid", "1:1")
    seen = document(node, "web", "db")
    assert (seen["verdict"], seen["kind"]) == ("cannot tell", "program")
    assert seen["notes"] == [f"node {port} has a tc filter (u32, egress), which is not followed"]
    host.run("tc", "qdisc", "delete", "dev", port, "clsact")
    program = load_xdp()
    with host.entered("db"), IPRoute() as inside:
        inside.link("set", index=inside.link_lookup(ifname="eth0")[0], xdp_fd=program)
    os.close(program)
    assert document(node, "web", "db")["notes"] == ["shop/db-pod eth0 has an XDP program, which is not followed"]
