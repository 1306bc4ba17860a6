"""Real etcds on a host of the test's own: on its loopback, or on a machine on it."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.kit.certificates import Pair
from tests.kit.host import Host, wait_until

START_BOUND = 30.0  # seconds
PASSWORD = "secret"


class Tls(NamedTuple):
    """With it etcd speaks TLS and asks for a client's certificate."""

    ca: Path
    server: Pair
    client: Pair


class Member:
    """One etcd. Its data is on the host's own tmpfs, so it stays while the process does not."""

    def __init__(self, host: Host, container: str | None, url: str, arguments: list[str]) -> None:
        self.url = url
        self.data = f"/run/etcd{url.rpartition(':')[2]}"
        self._host, self._container, self._arguments = host, container, arguments
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; it may take a moment until it serves."""
        command = ["etcd", "--data-dir", self.data, *self._arguments]
        silence = subprocess.DEVNULL
        self._process = self._host.start(*command, container=self._container, stdout=silence, stderr=silence)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(START_BOUND)

    def freeze(self) -> None:
        """Have it keep its connections and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete its data."""
        self._host.run("rm", "-r", self.data)


class EtcdCluster:
    """Members that serve. They end with the host.

    `place` is a container of the host, None for itself, with its address, and the first port at which they serve there.
    """

    def __init__(
        self,
        host: Host,
        count: int = 1,
        *,
        tls: Tls | None = None,
        more: tuple[str, ...] = (),
        place: tuple[str | None, str, int] = (None, "127.0.0.1", 23790),
    ) -> None:
        self._host, self._tls = host, tls
        self._container, address, port = place
        self.user = ""
        scheme = "https" if tls else "http"
        names = [f"m{index}=http://127.0.0.1:{23890 + index}" for index in range(count)]
        self.members = []
        for index, name in enumerate(names):
            client, peer = f"{scheme}://{address}:{port + index}", name.partition("=")[2]
            arguments = [
                *("--name", f"m{index}", "--initial-cluster", ",".join(names), "--initial-advertise-peer-urls", peer),
                *("--listen-peer-urls", peer, "--listen-client-urls", client, "--advertise-client-urls", client),
                *("--heartbeat-interval", "50", "--election-timeout", "500", *more),
            ]
            if tls:
                arguments += ["--cert-file", str(tls.server.certificate), "--key-file", str(tls.server.key)]
                arguments += ["--trusted-ca-file", str(tls.ca), "--client-cert-auth"]
            self.members.append(Member(host, self._container, client, arguments))
        for member in self.members:
            member.start()
        self.wait_until_it_serves()

    @property
    def urls(self) -> tuple[str, ...]:
        """The members' addresses for clients."""
        return tuple(member.url for member in self.members)

    def wait_until_it_serves(self) -> None:
        """Wait for a leader."""
        served = wait_until(lambda: self._ctl("get", "x").returncode == 0, START_BOUND)
        assert served, self._ctl("get", "x").stderr

    def ctl(self, *arguments: str) -> str:
        """What etcdctl says."""
        result = self._ctl(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    @property
    def leader(self) -> int:
        """Which of the members leads the others."""
        told = json.loads(self.ctl("endpoint", "status", "--write-out", "json"))
        leads = [each["Endpoint"] for each in told if each["Status"]["leader"] == each["Status"]["header"]["member_id"]]
        return self.urls.index(leads[0])

    def keys(self, prefix: str) -> dict[str, Any]:
        """The values below a prefix, by their keys."""
        lines = self.ctl("get", "--prefix", prefix).splitlines()
        return {key: json.loads(value) for key, value in zip(lines[::2], lines[1::2], strict=True)}

    def require_passwords(self, prefix: str) -> None:
        """From now on there is a user `pycni` who may read and write below a prefix, and a user `nobody`."""
        for name in ("root", "pycni", "nobody"):
            self.ctl("user", "add", f"{name}:{PASSWORD}")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("role", "add", "nodes")
        self.ctl("role", "grant-permission", "nodes", "--prefix=true", "readwrite", f"{prefix}/")
        self.ctl("user", "grant-role", "pycni", "nodes")
        self.ctl("auth", "enable")
        self.user = f"root:{PASSWORD}"

    def _ctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        tls = []
        if self._tls:
            pair = self._tls.client
            tls = ["--cacert", str(self._tls.ca), "--cert", str(pair.certificate), "--key", str(pair.key)]
        user = ["--user", self.user] if self.user else []
        command = ["etcdctl", "--endpoints", ",".join(self.urls), "--command-timeout=2s", *tls, *user, *arguments]
        environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
        return self._host.run(*command, container=self._container, check=False, env=environment)
