"""What the agent's options say, and every problem in one sentence."""

import argparse
import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cni_node.host.overlay import Overlay
from cni_node.settings import Settings, add_options, node_range, parse_settings
from cni_node.sources.etcd_lease import EtcdSettings
from cni_node.sources.kubernetes import KubernetesSettings
from cni_node.sources.static import StaticSettings
from cni_protocol.address import parse_cidr
from tests.conftest import ROOT

PODS = "--pod-cidr=10.240.1.0/24"


SERVICE = {"KUBERNETES_SERVICE_HOST": "fd00:10:96::1", "KUBERNETES_SERVICE_PORT": "443"}


def parse(*options: str, environment: Mapping[str, str] = SERVICE) -> Settings:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parse_settings(parser.parse_args(options), "host1", environment)


def test_a_static_node() -> None:
    source = parse(PODS, "--pod-cidr6=fd00::/64", "--peer=10.240.2.0/24=192.168.1.12", "--mtu=1400").source
    assert isinstance(source, StaticSettings)
    assert (source.own.name, list(map(str, source.own.pods))) == ("host1", ["10.240.1.0/24", "fd00::/64"])
    assert [str(peer.addresses[0]) for peer in source.peers] == ["192.168.1.12"]


def test_a_part_of_the_clusters_range() -> None:
    source = parse("--cluster-cidr=10.32.0.0/12", "--node-bits=12", "--node-index=3").source
    assert isinstance(source, StaticSettings)
    assert list(map(str, source.own.pods)) == ["10.32.3.0/24"]
    assert str(node_range(parse_cidr("fd00::/48"), 16, 255)) == "fd00:0:0:ff::/64"


def test_other_sources() -> None:
    kubernetes = parse("--source=kubernetes", "--node-name=n", "--kubeconfig=/k", "--api-server=https://a")
    assert kubernetes.source == KubernetesSettings("n", "/k", "https://a")
    assert (kubernetes.policies, kubernetes.log_denied) == ("recheck", False)
    assert parse("--source=kubernetes", "--policies=keep", "--log-denied")[-2:] == ("keep", True)
    assert parse(PODS).policies == "off"
    etcd = parse("--source=etcd", "--etcd=http://a:1", "--cluster-cidr=10.0.0.0/8", "--node-bits=16").source
    assert isinstance(etcd, EtcdSettings)
    assert (etcd.name, etcd.access.endpoints, etcd.cluster.node_prefixes) == ("host1", ("http://a:1",), (24,))


@pytest.mark.parametrize(
    ("options", "server"),
    [
        ([], "https://[fd00:10:96::1]:443"),
        (["--api-server=https://a:6443"], "https://a:6443"),
        (["--kubeconfig=/k"], ""),
    ],
    ids=["the service", "another", "the kubeconfig's"],
)
def test_the_server_of_the_api(options: list[str], server: str) -> None:
    source = parse("--source=kubernetes", *options).source
    assert isinstance(source, KubernetesSettings)
    assert source.server == server


def test_without_a_server_of_the_api_there_is_no_agent() -> None:
    with pytest.raises(ValueError, match=r"^--api-server: KUBERNETES_SERVICE_HOST and _PORT are not set: give --kube"):
        parse("--source=kubernetes", environment={})


def test_options_of_etcd_have_defaults() -> None:
    plain = parse("--source=etcd", "--etcd=http://a:1").source
    other = parse("--source=etcd", "--etcd=http://a:1", "--etcd-prefix=/site", "--lease=9").source
    assert isinstance(plain, EtcdSettings)
    assert isinstance(other, EtcdSettings)
    assert (plain.prefix, other.prefix) == ("/pycni", "/site")
    assert (plain.lease, other.lease) == (EtcdSettings._field_defaults["lease"], 9)


@pytest.mark.parametrize(
    ("cluster", "most"), [("10.0.0.0/24", 6), ("fd00::/112", 14)], ids=["down to a /30", "down to a /126"]
)
def test_a_nodes_part_has_room_for_a_gateway_and_a_pod(cluster: str, most: int) -> None:
    assert node_range(parse_cidr(cluster), most, 1).first.value == parse_cidr(cluster).first.value + 4
    for bits in (0, most + 1):
        with pytest.raises(ValueError, match=f"--node-bits {bits}: {cluster} leaves 1 to {most} bits for nodes"):
            node_range(parse_cidr(cluster), bits, 1)


def test_an_overlay() -> None:
    options = ("--overlay=vxlan", "--vni=7", "--port=8472", "--device=eth1", "--direct")
    assert parse(PODS, *options).overlay == Overlay(7, 8472, "eth1", True)
    assert parse(PODS).overlay is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param([], "one of --pod-cidr, --pod-cidr6, --cluster-cidr, --nodes-file and --peer", id="nothing"),
        pytest.param(["--pod-cidr=10.1.2.3/24"], "has host bits set; the network is 10.1.2.0/24", id="host bits"),
        pytest.param(["--pod-cidr=nonsense"], "--pod-cidr: 'nonsense'", id="no range"),
        pytest.param(["--pod-cidr=10.1.2.0/31"], "no room for a gateway and a pod", id="too small"),
        pytest.param(["--pod-cidr=fd00::/64"], "is IPv6; that is said by --pod-cidr6", id="family"),
        pytest.param([PODS, "--peer=10.240.1.0/25=192.168.1.9"], "--peer: ", id="overlap"),
        pytest.param([PODS, "--peer=10.2.0.0/24"], "is no peer", id="peer without address"),
        pytest.param([PODS, "--node-ip=x"], "--node-ip: 'x' is no IP address", id="address"),
        pytest.param([PODS, "--node-ip=1.2.3.4", "--node-ip=1.2.3.5"], "two addresses of one family", id="addresses"),
        pytest.param(["--cluster-cidr=10.0.0.0/8", "--node-bits=16"], "come together", id="half a part"),
        pytest.param(
            ["--cluster-cidr=10.0.0.0/8", "--node-bits=2", "--node-index=4"], "counted from 0 to 3", id="index"
        ),
        pytest.param([PODS, "--mtu=67"], "--mtu 67 is not in 68 to 65535", id="MTU"),
        pytest.param(["--pod-cidr6=fd00::/64", "--mtu=1279"], "--mtu 1279 is not in 1280", id="MTU of IPv6"),
        pytest.param([PODS, "--overlay=vxlan", "--vni=0"], "--vni 0 is not in 1", id="VNI"),
        pytest.param([PODS, "--port=65536"], "--port 65536 is not in 1 to 65535", id="port"),
        pytest.param([PODS, "--device=eth0"], "--device is for --overlay", id="device"),
        pytest.param([PODS, "--direct"], "--direct is for --overlay", id="direct"),
        pytest.param(["--policies=keep", PODS], "--policies: not for --source static", id="policies without an API"),
        pytest.param(["--source=kubernetes", PODS], "--pod-cidr: not for --source kubernetes", id="two sources"),
        pytest.param([PODS, "--etcd=http://x"], "--etcd: not for --source static", id="etcd beside static"),
        pytest.param(
            ["--source=kubernetes", "--api-server=https://fd00:10:96::1:443"],
            "--api-server: 'https://fd00:10:96::1:443' is no address of a server, as in https://192.168.1.10:6443",
            id="IPv6 without brackets",
        ),
        pytest.param(["--source=etcd"], "--source etcd needs --etcd", id="no member"),
        pytest.param(
            ["--source=etcd", "--etcd=http://x", "--cluster-cidr=10.0.0.0/8"], "--node-bits come together", id="bits"
        ),
    ],
)
def test_what_makes_no_sense_is_a_sentence(options: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(*options)
    assert problem in str(caught.value)


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse("--pod-cidr=x", "--vni=0", "--port=0")
    assert len(str(caught.value).splitlines()) == 3


def test_the_defaults_are_those_of_a_node() -> None:
    settings: Any = parse(PODS)
    assert (settings.conf_dir, settings.bin_dir, str(settings.root)) == ("/etc/cni/net.d", "/opt/cni/bin", "/")


def test_the_unit_for_systemd_starts_what_there_is() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "conf/pycni-agent.service")
    service = unit["Service"]
    assert (service["Type"], service["WatchdogSec"], service["RuntimeDirectory"]) == ("notify", "30", "pycni")
    program, command, options = service["ExecStart"].split()
    assert (Path(program).name, command, options) == ("pycni", "agent", "$PYCNI_AGENT")
    example = (ROOT / "conf/pycni-agent.service").read_text().split("PYCNI_AGENT=", 1)[1].splitlines()[0]
    assert isinstance(parse(*example.split()).source, StaticSettings)


def test_the_page_of_the_agent_names_options_that_there_are() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    page = (ROOT / "docs/agent.md").read_text()
    of_other_commands = {"--json", "--apply", "--agent"}  # pycni status, repair, and scripts/faults
    assert set(re.findall(r"--[a-z][a-z-]+", page)) - of_other_commands <= known
