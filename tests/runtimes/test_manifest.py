"""conf/pycni.yaml: what it says is what the code needs, and its containers run with the rights that it gives them."""

import argparse
import configparser
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni_ipam.data_dir import DEFAULT_DATA_DIR
from cni_node import plugins, settings
from cni_node.api.credentials import SERVICE_ACCOUNT
from cni_node.host import modules
from cni_node.sources.kubernetes import KubernetesSettings
from tests.conftest import ROOT
from tests.kit.api_server import ApiServer
from tests.kit.api_server import node as describe
from tests.kit.calls import bare_environment
from tests.kit.certificates import make_ca, sign
from tests.kit.containerd import Containerd
from tests.kit.host import wait_until
from tests.kit.node import CONF_DIR, PLUGIN_DIR, Node
from tests.runtimes.test_image import NAME, image

__all__ = ["image"]

READY_BOUND = 30.0  # seconds

DOCUMENTS = list(yaml.safe_load_all((ROOT / "conf/pycni.yaml").read_text("utf-8")))
ACCOUNT, ROLE, BINDING, DAEMONS = DOCUMENTS
POD = DAEMONS["spec"]["template"]["spec"]
INSTALL, LOAD = POD["initContainers"]
(AGENT,) = POD["containers"]
VOLUMES = {volume["name"]: volume["hostPath"]["path"] for volume in POD["volumes"]}


def mounts_of(container: dict[str, Any]) -> dict[str, str]:
    """Which directory of the node is where in the container."""
    return {mount["mountPath"]: VOLUMES[mount["name"]] for mount in container["volumeMounts"]}


def parse(command: Any, arguments: list[str]) -> argparse.Namespace:
    """The options of a subcommand as its module reads them."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_options(parser)
    return parser.parse_args(arguments)


def test_the_account_may_read_nodes_and_nothing_else() -> None:
    assert [document["kind"] for document in DOCUMENTS] == [
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet")
    ]
    assert ROLE["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
    ]
    assert BINDING["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": ROLE["metadata"]["name"],
    }
    account = {"kind": "ServiceAccount", **ACCOUNT["metadata"]}
    assert BINDING["subjects"] == [account]
    assert (POD["serviceAccountName"], DAEMONS["metadata"]["namespace"]) == (account["name"], account["namespace"])


def test_the_pod_runs_on_every_node_before_there_is_a_network() -> None:
    assert POD["hostNetwork"] is True
    assert POD["tolerations"] == [{"operator": "Exists"}]
    assert POD["priorityClassName"] == "system-node-critical"
    assert DAEMONS["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}
    assert DAEMONS["spec"]["selector"]["matchLabels"] == DAEMONS["spec"]["template"]["metadata"]["labels"]


def test_the_image_is_the_one_that_this_checkout_makes() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    for container in (INSTALL, LOAD, AGENT):
        assert container["image"] == f"pycni:{config['metadata']['version']}"
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert "command" not in container, "the image's own program takes the arguments"


def test_every_volume_is_mounted_and_every_mount_has_one() -> None:
    mounted = [mount["name"] for container in (INSTALL, LOAD, AGENT) for mount in container["volumeMounts"]]
    assert sorted(mounted) == sorted(VOLUMES)


def test_plugins_go_where_the_program_puts_them() -> None:
    name, *arguments = INSTALL["args"]
    root = parse(plugins, arguments).root
    assert name == "install-plugins"
    assert mounts_of(INSTALL) == {str(root / path): f"/{path}" for path in (plugins.BIN, plugins.LIBRARY)}


def test_the_module_is_loaded_from_the_nodes_root() -> None:
    name, *arguments = LOAD["args"]
    options = parse(modules, arguments)
    assert (name, options.name) == ("load-module", "br_netfilter")
    assert mounts_of(LOAD) == {str(options.root): "/"}
    assert LOAD["volumeMounts"][0]["readOnly"] is True


def test_the_agent_finds_the_nodes_directories_where_the_node_has_them() -> None:
    mounts = mounts_of(AGENT)
    assert all(inside == outside for inside, outside in mounts.items())
    assert {CONF_DIR, str(Path(DEFAULT_DATA_DIR).parent), "/run/pycni"} == set(mounts)


def test_the_agent_is_told_its_node_and_probed_where_it_answers() -> None:
    options = dict(argument.removeprefix("--").split("=", 1) for argument in AGENT["args"][1:])
    assert AGENT["args"][0] == "agent"
    assert options["node-name"] == "$(NODE_NAME)"
    assert AGENT["env"] == [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert AGENT[probe]["httpGet"] == {"host": "127.0.0.1", "port": int(options["metrics-port"]), "path": path}


def test_each_container_has_the_rights_that_it_needs_and_a_bound() -> None:
    for container in (INSTALL, LOAD, AGENT):
        assert container["resources"]["requests"] == {"cpu": "50m", "memory": "50Mi"}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for container, added in ((INSTALL, None), (LOAD, ["SYS_CHROOT", "SYS_MODULE"])):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"], **({"add": added} if added else {})}


# --- the containers of the manifest, as a kubelet would have them started

_DEFAULT = (  # what containerd gives a container that names none
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)


def run_as_written(node: Node, daemon: Containerd, container: dict[str, Any]) -> tuple[int, str]:
    """Run an init container of the manifest. Returns its exit status and what it said."""
    capabilities = container["securityContext"]["capabilities"]
    options = [f"--cap-drop=CAP_{name}" for name in _DEFAULT if name not in capabilities.get("add", [])]
    options += [f"--cap-add=CAP_{name}" for name in capabilities.get("add", [])]
    for mount in container["volumeMounts"]:
        mode = "ro" if mount.get("readOnly") else "rw"
        source = VOLUMES[mount["name"]] if mount["name"] != "root" else "/run/another-root"
        node.path(source).mkdir(parents=True, exist_ok=True)
        options.append(f"--mount=type=bind,src={source},dst={mount['mountPath']},options=rbind:{mode}")
    command = ("run", "--rm", "--read-only", "--seccomp", "--cgroup", f"{node.cgroup}/pycni", *options)
    done = node.host.run(*daemon.ctr(*command, NAME, "pycni", "pycni", *container["args"]), check=False)
    return done.returncode, done.stderr


@pytest.fixture
def daemon(node: Node, image: Path, start_containerd: Callable[[], Containerd]) -> Containerd:
    started = start_containerd()
    node.host.run(*started.ctr("images", "import", str(image)))
    return started


@pytest.mark.kernel
def test_plugins_are_installed_without_any_capability(node: Node, daemon: Containerd) -> None:
    status, said = run_as_written(node, daemon, INSTALL)
    assert (status, "pycni: /host/opt/cni/bin/cni-bridge is written" in said) == (0, True), said
    done = node.host.run(f"{PLUGIN_DIR}/cni-bridge", env=bare_environment("VERSION"), input="{}")
    assert "supportedVersions" in done.stdout


@pytest.mark.kernel
def test_the_nodes_modprobe_is_run_with_the_capability_for_it(node: Node, daemon: Containerd) -> None:
    """On a root of the test's own: the machine's modules are not for a test to load."""
    root = node.path("/run/another-root")
    for name in ("bin", "sbin", "proc"):
        (root / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin" / "sh")
    (root / "sbin/modprobe").write_text('#!/bin/sh\necho "asked for $*" >&2; exit 1')
    os.chmod(root / "sbin/modprobe", 0o755)
    status, said = run_as_written(node, daemon, LOAD)
    assert status == 0
    assert "pycni: the module br_netfilter is not loaded: asked for br_netfilter" in said


def test_the_agent_takes_its_arguments() -> None:
    parser = argparse.ArgumentParser()
    settings.add_options(parser)
    service = {"KUBERNETES_SERVICE_HOST": "fd00:10:96::1", "KUBERNETES_SERVICE_PORT": "443"}
    told = settings.parse_settings(parser.parse_args(AGENT["args"][1:]), "host", service)
    assert told.source == KubernetesSettings("$(NODE_NAME)", server="https://[fd00:10:96::1]:443")
    assert (told.conf_dir, told.bin_dir, str(told.socket.parent)) == (CONF_DIR, f"/{plugins.BIN}", "/run/pycni")


@pytest.mark.kernel
def test_the_agent_gets_a_node_ready_with_the_rights_of_the_manifest(
    node: Node, daemon: Containerd, tmp_path: Path
) -> None:
    """An API server on the node's loopback, and the service account's files where a kubelet mounts them."""
    ca = make_ca(tmp_path)
    account = tmp_path / "account"
    account.mkdir()
    shutil.copy(ca.certificate, account / "ca.crt")
    (account / "token").write_text("secret")
    node.host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    with node.host.entered():
        server = ApiServer(sign(ca, "server"))
    with server:
        server.put(describe("here", "10.244.1.0/24", "192.0.2.1"))
        variables = {
            "NODE_NAME": "here",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": server.port,
        }
        client = start_as_written(node, daemon, AGENT, variables, account)
        try:
            assert wait_until(lambda: probe(node, "readinessProbe") == 200, READY_BOUND), daemon.log()
            assert probe(node, "livenessProbe") == 200
            conflist = json.loads(node.path(f"{CONF_DIR}/10-pycni.conflist").read_text())
            assert conflist["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]
            assert node.host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"
            status = daemon.ctr("tasks", "exec", "--exec-id", "status", "pycni", "pycni", "status")
            assert "10.244.1.0/24" in node.host.run(*status, check=False).stdout
        finally:
            node.host.run(*daemon.ctr("tasks", "kill", "--signal", "SIGTERM", "pycni"))
            client.wait(timeout=READY_BOUND)


def start_as_written(
    node: Node, daemon: Containerd, container: dict[str, Any], variables: dict[str, Any], account: Path
) -> "subprocess.Popen[str]":
    """Start the agent of the manifest, privileged and in the node's network."""
    assert container["securityContext"] == {"privileged": True, "readOnlyRootFilesystem": True}
    arguments = container["args"]
    for name, value in variables.items():
        arguments = [argument.replace(f"$({name})", str(value)) for argument in arguments]
    options = [f"--env={name}={value}" for name, value in variables.items()]
    options.append(f"--mount=type=bind,src={account},dst={SERVICE_ACCOUNT},options=rbind:ro")
    for inside, outside in mounts_of(container).items():
        node.path(outside).mkdir(parents=True, exist_ok=True)
        options.append(f"--mount=type=bind,src={outside},dst={inside},options=rbind:rw")
    command = ("run", "--rm", "--read-only", "--privileged", "--net-host", "--cgroup", f"{node.cgroup}/pycni", *options)
    with node.path("/run/agent.log").open("w") as log:
        return node.host.start(*daemon.ctr(*command, NAME, "pycni", "pycni", *arguments), stdout=log, stderr=log)


def probe(node: Node, name: str) -> int:
    """The HTTP status of a probe of the manifest, 0 without an answer."""
    where = AGENT[name]["httpGet"]
    with node.host.entered():
        connection = http.client.HTTPConnection(where["host"], where["port"], timeout=5)
        try:
            connection.request("GET", where["path"])
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()
