"""What is read out of libcni's cache."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from cni_node.results import list_attachments

PLUGIN = {"type": "cni-bridge"}


def write(directory: Path, result: Any, *plugins: Any, **keys: Any) -> None:
    conflist = {"cniVersion": "1.0.0", "name": "mynet", "plugins": plugins or [PLUGIN]}
    document = {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "ifName": "eth0",
        "networkName": "mynet",
        "config": base64.b64encode(json.dumps(conflist).encode()).decode(),
        "result": result,
    }
    (directory / "mynet-c1-eth0").write_text(json.dumps({**document, **keys}))


@pytest.mark.parametrize(
    ("interfaces", "netns"),
    [
        ([], ""),
        ([{"name": "eth0"}], ""),
        ([{"name": "eth0"}, {"name": "eth0", "sandbox": "/run/netns/c1"}], "/run/netns/c1"),
        ([{"name": "other", "sandbox": "/x"}, {"name": "eth0", "sandbox": "/run/netns/c1"}], "/run/netns/c1"),
    ],
    ids=["none", "on the host", "one of the name on the host", "another in the sandbox"],
)
def test_the_sandbox_is_that_of_the_containers_interface(interfaces: Any, netns: str, tmp_path: Path) -> None:
    write(tmp_path, {"cniVersion": "0.4.0", "interfaces": interfaces})
    [found], problems = list_attachments(tmp_path)
    assert (found.network, found.container_id, found.ifname, found.netns) == ("mynet", "c1", "eth0", netns)
    assert (found.config["name"], found.config["cniVersion"], problems) == ("mynet", "0.4.0", [])


def test_the_version_is_the_configurations_where_the_result_has_none(tmp_path: Path) -> None:
    write(tmp_path, {})
    [found], _ = list_attachments(tmp_path)
    assert (found.config["cniVersion"], "runtimeConfig" in found.config) == ("1.0.0", False)


def test_capabilities_that_the_plugin_claims_are_handed_on(tmp_path: Path) -> None:
    own = {**PLUGIN, "capabilities": {"portMappings": True, "mac": False}}
    write(tmp_path, {}, {"type": "other"}, own, capabilityArgs={"portMappings": [], "mac": "x", "dns": {}})
    [found], _ = list_attachments(tmp_path)
    assert found.config["runtimeConfig"] == {"portMappings": []}


def test_what_is_no_cache_of_ours_is_passed_over_or_named(tmp_path: Path) -> None:
    assert list_attachments(tmp_path / "missing") == ([], [])
    write(tmp_path, {}, kind="another")
    assert list_attachments(tmp_path) == ([], [])
    write(tmp_path, {}, {"type": "other"})
    assert list_attachments(tmp_path) == ([], [])
    write(tmp_path, None)
    found, [problem] = list_attachments(tmp_path)
    assert (found, problem.startswith(f"{tmp_path}/mynet-c1-eth0 is no result of libcni: ")) == ([], True)
