"""The cluster's certificates and the files that clients find it by; made anew for every cluster, by openssl."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kit.kubernetes.command import run

_DAYS = "2"
_BOUND = 60.0  # seconds
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority in a directory, as ca.crt and ca.key; what it issues stands beside them."""

    def __init__(self, directory: Path, server: str) -> None:
        self.directory = directory
        self._server = server  # the API server's URL
        self._req("ca", "/CN=kubernetes-ca")

    def issue(self, name: str, subject: str, hosts: Sequence[str] = ()) -> None:
        """NAME.crt and NAME.key, for a client or a server: "/O=group/CN=user", and names as in "IP:192.0.2.1"."""
        issuer = ["-CA", str(self.directory / "ca.crt"), "-CAkey", str(self.directory / "ca.key")]
        usage = ["-addext", "extendedKeyUsage=clientAuth,serverAuth", "-addext", "basicConstraints=CA:FALSE"]
        named = ["-addext", f"subjectAltName={','.join(hosts)}"] if hosts else []
        self._req(name, subject, *issuer, *usage, *named)

    def issue_client(self, name: str, subject: str, hosts: Sequence[str] = ()) -> None:
        """The same, and a NAME.conf that kubectl and Kubernetes' programs take."""
        self.issue(name, subject, hosts)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "pycni",
                    "cluster": {"server": self._server, "certificate-authority-data": self._data("ca.crt")},
                }
            ],
            "users": [{"name": name, "user": self._user(name)}],
            "contexts": [{"name": "pycni", "context": {"cluster": "pycni", "user": name}}],
            "current-context": "pycni",
        }
        (self.directory / f"{name}.conf").write_text(json.dumps(config))

    def issue_token_key(self) -> None:
        """sa.key and sa.pub, by which tokens of service accounts are signed and checked."""
        private, public = str(self.directory / "sa.key"), str(self.directory / "sa.pub")
        run(["openssl", "genrsa", "-out", private, "2048"], seconds=_BOUND)
        run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], seconds=_BOUND)

    def _user(self, name: str) -> Mapping[str, str]:
        return {"client-certificate-data": self._data(f"{name}.crt"), "client-key-data": self._data(f"{name}.key")}

    def _data(self, name: str) -> str:
        return base64.b64encode((self.directory / name).read_bytes()).decode()

    def _req(self, name: str, subject: str, *options: str) -> None:
        files = ("-keyout", str(self.directory / f"{name}.key"), "-out", str(self.directory / f"{name}.crt"))
        run(["openssl", "req", "-x509", "-subj", subject, "-days", _DAYS, *_KEY, *files, *options], seconds=_BOUND)
