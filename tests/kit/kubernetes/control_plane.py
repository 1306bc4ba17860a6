"""The control plane on a machine of its own, which is no node: etcd, API server, controller manager, scheduler."""

import shutil
from pathlib import Path

from tests.kit.kubernetes.machine import PROGRAMS, SETTINGS, Machine, await_ready
from tests.kit.kubernetes.pki import Authority

ADDRESS, PORT = "192.168.1.10", 6443
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/12"
API, NAMES = "10.96.0.1", "10.96.0.10"  # addresses of services: the first is Kubernetes', the other is custom
SERVER = f"https://{ADDRESS}:{PORT}"
_READY_BOUND = 180.0  # seconds
_ETCD = "http://127.0.0.1:2379"
_API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
# Controllers would take their time: by default each of them may ask the API server twenty times a second.
_HASTE = ("--kube-api-qps=200", "--kube-api-burst=400", "--leader-elect=false", "--bind-address=127.0.0.1")
_RANGES = "-ranges"  # the end of a daemon's name, and not of its program's
_MANAGER = (f"--kubeconfig={SETTINGS}/kube-controller-manager.conf", "--use-service-account-credentials=true", *_HASTE)


class ControlPlane(Machine):
    """The machine; boot it, then start it. `authority` is the cluster's."""

    authority: Authority

    def prepare(self, directory: Path) -> None:
        """Make the cluster's certificates in a directory, and have them on the machine."""
        self.authority = Authority(directory, SERVER)
        api_hosts = [f"IP:{address}" for address in (ADDRESS, "127.0.0.1", API)]
        self.authority.issue("apiserver", "/CN=kube-apiserver", [*api_hosts, *(f"DNS:{name}" for name in _API_NAMES)])
        self.authority.issue("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        self.authority.issue("front-proxy", "/CN=front-proxy-client")
        self.authority.issue_client("admin", "/O=system:masters/CN=admin")
        for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            self.authority.issue_client(user, f"/CN=system:{user}")
        self.authority.issue_token_key()
        shutil.copytree(directory, self.path(SETTINGS), dirs_exist_ok=True)

    def start_api(self) -> None:
        """Start etcd and the API server, which may need some seconds more."""
        self._start("etcd", "etcd")
        self._start("kube-apiserver")

    def start_control_plane(self) -> None:
        """Start what does not run, and wait until the API server is ready; controllers give up after ten seconds."""
        self.start_api()
        ready = ("kubectl", f"--kubeconfig={SETTINGS}/admin.conf", "get", "--raw=/readyz")
        await_ready("the API server is ready", lambda: not self.run(*ready, check=False).returncode, _READY_BOUND, self)
        for name in _OPTIONS:
            self._start(name)

    def end_control_plane(self) -> None:
        """End all but etcd, whose data are in memory here."""
        for name in reversed(_OPTIONS):
            if name != "etcd":
                self.end_daemon(name)

    def _start(self, name: str, program: str = "") -> None:
        if name not in self.daemons():
            self.start_daemon(name, program or f"{PROGRAMS}/{name.removesuffix(_RANGES)}", *_OPTIONS[name])


_OPTIONS: dict[str, tuple[str, ...]] = {
    # on a tmpfs: it waits for the disk after every change
    "etcd": (
        "--data-dir=/run/etcd",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--log-level=warn",
    ),
    "kube-apiserver": (
        *(f"--advertise-address={ADDRESS}", f"--secure-port={PORT}", f"--etcd-servers={_ETCD}"),
        f"--client-ca-file={SETTINGS}/ca.crt",
        *(f"--tls-cert-file={SETTINGS}/apiserver.crt", f"--tls-private-key-file={SETTINGS}/apiserver.key"),
        f"--kubelet-client-certificate={SETTINGS}/kubelet-client.crt",
        *(f"--kubelet-client-key={SETTINGS}/kubelet-client.key", "--kubelet-preferred-address-types=InternalIP"),
        *(
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={SERVICES}",
        ),
        f"--service-account-key-file={SETTINGS}/sa.pub",
        f"--service-account-signing-key-file={SETTINGS}/sa.key",
        *(f"--requestheader-client-ca-file={SETTINGS}/ca.crt", "--requestheader-allowed-names=front-proxy-client"),
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={SETTINGS}/front-proxy.crt",
        f"--proxy-client-key-file={SETTINGS}/front-proxy.key",
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"),
    ),
    "kube-controller-manager": (
        *_MANAGER,
        "--controllers=*,-nodeipam",
        *(f"--service-cluster-ip-range={SERVICES}", f"--root-ca-file={SETTINGS}/ca.crt"),
        f"--service-account-private-key-file={SETTINGS}/sa.key",
        *(f"--cluster-signing-cert-file={SETTINGS}/ca.crt", f"--cluster-signing-key-file={SETTINGS}/ca.key"),
    ),
    # the nodes' ranges by a process of their own: this controller first waits ten seconds, and the others for it
    f"kube-controller-manager{_RANGES}": (
        *_MANAGER,
        *("--controllers=nodeipam", "--secure-port=0", "--port=0"),
        *("--allocate-node-cidrs=true", f"--cluster-cidr={PODS}", "--node-cidr-mask-size=24"),
    ),
    "kube-scheduler": (f"--kubeconfig={SETTINGS}/kube-scheduler.conf", *_HASTE),
}
