"""A node of the cluster: containerd, kubelet and kube-proxy, in the order in which systemd would start them."""

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path

from tests.cluster.fabric import Fabric, Port, bare, run_in
from tests.kit.containerd import CONFIG, SOCKET, START_BOUND
from tests.kit.image import NAME as CRI_PAUSE
from tests.kit.kubernetes.control_plane import NAMES, PODS
from tests.kit.kubernetes.images import PAUSE
from tests.kit.kubernetes.machine import PROGRAMS, SETTINGS, Machine, await_ready
from tests.kit.kubernetes.pki import Authority
from tests.kit.node import CGROUPS

_CGROUP = "pycni-kubernetes-"
# The kernel's own, for all machines at once, and none of a cluster's business: the kubelet sees files in their places
# that say already what it would write there (kubelet, "protectKernelDefaults").
_TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
# The table's size is one for all machines, too, so kube-proxy is not to set it; the timeouts are each machine's own.
_CONNTRACK = ("--conntrack-max-per-core=0",)
_FURNISH = """
[ -e dev/kmsg ] || mknod -m 600 dev/kmsg c 1 11 # the kubelet looks there for processes that ran out of memory
mkdir -p $disk/kubelet var/lib/kubelet run/tunables
mount --bind $disk/kubelet var/lib/kubelet
mount --make-shared var/lib/kubelet # containers see volumes that are mounted later
: >etc/resolv.conf
"""
_FURNISH += "".join(
    f"echo {value} >run/tunables/{key.replace('/', '.')}\n"
    f"[ ! -e proc/sys/{key} ] || mount --bind run/tunables/{key.replace('/', '.')} proc/sys/{key}\n"
    for key, value in _TUNABLES.items()
)


class Worker(Machine):
    """A node, switched off at first."""

    def __init__(self, fabric: Fabric, tree: Path, programs: Path, name: str, port: Port) -> None:
        super().__init__(fabric, tree, programs, name, port)
        self.cgroup = f"/{_CGROUP}{uuid.uuid4().hex[:12]}"
        self.furnish += _FURNISH

    @property
    def address(self) -> str:
        """The node's own."""
        return bare(self.port.addresses)[0]

    def boot(self) -> None:
        """New namespaces over the old disk, and the cgroup that is the node's root of all."""
        super().boot()
        # where a cloud's kubelet would look for credentials; an answer, and not a silence of seconds
        run_in(self.netns, "ip", "route", "add", "unreachable", "169.254.169.254")
        _make_cgroup(self.cgroup, self.pid)

    def issue(self, authority: Authority) -> None:
        """Have the certificates and the settings of this node on it."""
        hosts = [f"IP:{self.address}", f"DNS:{self.name}"]
        authority.issue_client(self.name, f"/O=system:nodes/CN=system:node:{self.name}", hosts)
        settings = self.path(SETTINGS)
        settings.mkdir(exist_ok=True)
        for name in ("ca.crt", "kube-proxy.conf", *(f"{self.name}.{kind}" for kind in ("crt", "key", "conf"))):
            (settings / name).write_bytes((authority.directory / name).read_bytes())
        (settings / "kubelet.json").write_text(json.dumps(self._kubelet_settings()))
        config = CONFIG.replace(CRI_PAUSE, PAUSE) % {"root": "/var/lib/containerd"}
        self.path("/etc/containerd/config.toml").write_text(config)

    def start_runtime(self) -> None:
        """Start containerd, and wait until it answers."""
        self.start_daemon("containerd", "containerd")
        ready = lambda: self.run("ctr", "version", check=False).returncode == 0  # noqa: E731
        await_ready(f"containerd on {self.name} answers", ready, START_BOUND, self)

    def import_image(self, archive: Path) -> None:
        """Have the images of an archive in containerd."""
        with archive.open("rb") as image:
            self.run("ctr", "--namespace", "k8s.io", "images", "import", "-", stdin=image)

    def start_kubernetes(self) -> None:
        """Start the kubelet and kube-proxy; the node registers itself."""
        self.start_kubelet()
        settings = (
            f"--kubeconfig={SETTINGS}/kube-proxy.conf",
            f"--hostname-override={self.name}",
            f"--cluster-cidr={PODS}",
        )
        manner = ("--proxy-mode=iptables", "--iptables-min-sync-period=1s", "--oom-score-adj=0", *_CONNTRACK)
        self.start_daemon("kube-proxy", f"{PROGRAMS}/kube-proxy", *settings, *manner)

    def start_kubelet(self) -> None:
        """The kubelet alone."""
        settings = (f"--config={SETTINGS}/kubelet.json", f"--kubeconfig={SETTINGS}/{self.name}.conf")
        runtime = ("--container-runtime=remote", f"--container-runtime-endpoint=unix://{SOCKET}")
        own = (f"--node-ip={self.address}", f"--hostname-override={self.name}", f"--pod-infra-container-image={PAUSE}")
        self.start_daemon("kubelet", f"{PROGRAMS}/kubelet", *settings, *runtime, *own)

    def _kubelet_settings(self) -> dict[str, object]:
        """A KubeletConfiguration."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{SETTINGS}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{SETTINGS}/{self.name}.crt",
            "tlsPrivateKeyFile": f"{SETTINGS}/{self.name}.key",
            "clusterDNS": [NAMES],
            "clusterDomain": "cluster.local",
            "resolvConf": "/etc/resolv.conf",
            "cgroupDriver": "cgroupfs",
            # without cgroups for classes of pods the kubelet ignores its root, and all would stand in the machine's own
            "cgroupsPerQOS": True,
            "cgroupRoot": self.cgroup,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            # root of a machine that is a container itself may neither lower a score nor raise a limit
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 200,
            # it looks every second whether it is ready, and reports every ten that nothing has changed
            "nodeStatusUpdateFrequency": "1s",
            "nodeStatusReportFrequency": "10s",
            "syncFrequency": "10s",
        }


def remove_stale_cgroups() -> None:
    """Take away what clusters left whose run was killed: cgroups of our name that no process is in."""
    tops = [*CGROUPS.glob(f"{_CGROUP}*"), *CGROUPS.glob(f"*/{_CGROUP}*")]
    living = {top.name for top in tops if any(listing.read_text() for listing in top.rglob("cgroup.procs"))}
    for top in tops:
        if top.name not in living:
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)


def _make_cgroup(name: str, pid: int) -> None:
    """Have a cgroup in every hierarchy, as the kubelet wants of its root, and in it a process that tells it lives."""
    tops = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else [*CGROUPS.glob("*/")]
    for top in tops:
        directory = top / name.lstrip("/") / "init"
        if top.name == "unified":
            continue
        directory.mkdir(parents=True, exist_ok=True)
        for key in ("cpuset.cpus", "cpuset.mems"):  # empty in a new one of version 1, and then no process may enter
            for each in (directory.parent, directory):
                if (top / key).exists() and top != CGROUPS:
                    (each / key).write_text((top / key).read_text())
        (directory / "cgroup.procs").write_text(str(pid))
