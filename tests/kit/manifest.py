"""The containers of conf/pycni.yaml, as command lines of containerd's client: what a kubelet would have started."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from cni_node.api.credentials import SERVICE_ACCOUNT

CONTAINERD_DEFAULT = (  # what containerd gives a container that names none
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)


class Manifest(NamedTuple):
    """The containers of the DaemonSet, and the node's directories by the names of their volumes."""

    install: dict[str, Any]
    load: dict[str, Any]
    agent: dict[str, Any]
    volumes: dict[str, str]

    def mounts_of(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Which directory of the node is where in the container."""
        return {mount["mountPath"]: self.volumes[mount["name"]] for mount in container["volumeMounts"]}

    def init_options(self, container: Mapping[str, Any], root: str) -> list[str]:
        """The options of `ctr run` for an init container; `root` is a directory that stands for the node's root."""
        capabilities = container["securityContext"]["capabilities"]
        options = [f"--cap-drop=CAP_{name}" for name in CONTAINERD_DEFAULT if name not in capabilities.get("add", [])]
        options += [f"--cap-add=CAP_{name}" for name in capabilities.get("add", [])]
        for mount in container["volumeMounts"]:
            source = root if mount["name"] == "root" else self.volumes[mount["name"]]
            options.append(_mount(source, mount["mountPath"], "ro" if mount.get("readOnly") else "rw"))
        return [*options, "--read-only", "--seccomp"]

    def agent_options(self, account: str, variables: Mapping[str, Any]) -> list[str]:
        """Those for the agent, privileged and in the node's network, with variables in its environment.

        `account` has the files of a service account.
        """
        assert self.agent["securityContext"] == {"privileged": True, "readOnlyRootFilesystem": True}
        mounts = [_mount(outside, inside, "rw") for inside, outside in self.mounts_of(self.agent).items()]
        environment = [f"--env={name}={value}" for name, value in variables.items()]
        mounts.append(_mount(account, SERVICE_ACCOUNT, "ro"))
        return ["--read-only", "--privileged", "--net-host", *mounts, *environment]

    def agent_arguments(self, variables: Mapping[str, Any]) -> list[str]:
        """The agent's arguments, with the values of variables put in."""
        arguments: list[str] = self.agent["args"]
        for name, value in variables.items():
            arguments = [argument.replace(f"$({name})", str(value)) for argument in arguments]
        return arguments


def parse_manifest(text: str) -> Manifest:
    """What a kubelet does not need is passed over."""
    [daemons] = [document for document in yaml.safe_load_all(text) if document["kind"] == "DaemonSet"]
    pod = daemons["spec"]["template"]["spec"]
    install, load = pod["initContainers"]
    (agent,) = pod["containers"]
    volumes = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    return Manifest(install, load, agent, volumes)


def _mount(source: str, target: str, mode: str) -> str:
    return f"--mount=type=bind,src={source},dst={target},options=rbind:{mode}"
