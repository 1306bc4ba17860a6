"""The credentials for an API: server address, certificates and token, read from a kubeconfig or from single files.

Must not: open a connection.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cni_node.api.yaml_subset import parse_yaml
from cni_protocol.errors import INVALID_CONFIG, CNIError

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Access(NamedTuple):
    """A server's URL and the credentials for it. `ca`, `certificate` and `key` are PEM texts, empty for none.

    Without `ca` the system's CAs are trusted. `files` are the paths that this was read from: when one of them changes,
    all must be read again.
    """

    server: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    server_name: str = ""
    files: tuple[str, ...] = ()


class Kubeconfig(NamedTuple):
    """The current context of a kubeconfig: data still in base64, and files still as paths."""

    server: str
    server_name: str
    ca: tuple[str, str]  # base64, file
    certificate: tuple[str, str]
    key: tuple[str, str]
    token: tuple[str, str]  # text, file


def parse_kubeconfig(text: str) -> Kubeconfig:
    """Parse a kubeconfig, and return its current context. Raises CNIError.

    Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
    """
    document = parse_yaml(text)
    if not isinstance(document, dict):
        raise CNIError(INVALID_CONFIG, "a kubeconfig was expected, a mapping with clusters, users and contexts")
    context = _entry(document, "contexts", "context", _text(document, "current-context", "the document"))
    cluster = _entry(document, "clusters", "cluster", _text(context, "cluster", "the context"))
    user = _entry(document, "users", "user", _text(context, "user", "the context"))
    for key in ("exec", "auth-provider", "username"):
        if user.get(key):
            raise CNIError(INVALID_CONFIG, f"the user's {key!r} is not supported: a token or a certificate is needed")
    if cluster.get("insecure-skip-tls-verify") not in (None, False, "false"):
        raise CNIError(INVALID_CONFIG, "insecure-skip-tls-verify is not supported: give certificate-authority")
    return Kubeconfig(
        _text(cluster, "server", "the cluster"),
        _optional(cluster, "tls-server-name"),
        (_optional(cluster, "certificate-authority-data"), _optional(cluster, "certificate-authority")),
        (_optional(user, "client-certificate-data"), _optional(user, "client-certificate")),
        (_optional(user, "client-key-data"), _optional(user, "client-key")),
        (_optional(user, "token"), _optional(user, "tokenFile")),
    )


def load_kubeconfig(path: str, server: str = "") -> Access:
    """Read a kubeconfig and the files that it names. A `server` that is not empty replaces its own. Raises CNIError."""
    try:
        found = parse_kubeconfig(read_text(path))
    except CNIError as error:
        raise CNIError(error.code, f"kubeconfig {path}: {error.msg}") from None
    files = [path]

    def material(what: str, data: str, file: str) -> str:
        if data:
            return check_pem(_from_base64(data, f"kubeconfig {path}: {what}-data"), f"kubeconfig {path}: {what}-data")
        if not file:
            return ""
        files.append(os.path.join(os.path.dirname(path), file))
        return check_pem(read_text(files[-1]), files[-1])

    token, token_file = found.token
    if token_file:
        files.append(os.path.join(os.path.dirname(path), token_file))
        token = read_text(files[-1]).strip()
    return Access(
        server or found.server,
        material("certificate-authority", *found.ca),
        material("client-certificate", *found.certificate),
        material("client-key", *found.key),
        token,
        found.server_name,
        tuple(files),
    )


def load_service_account(server: str, directory: str = SERVICE_ACCOUNT) -> Access:
    """Read the service account's files that Kubernetes puts into a pod: a token and a CA. Raises CNIError.

    Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
    """
    ca, token = os.path.join(directory, "ca.crt"), os.path.join(directory, "token")
    return Access(server, check_pem(read_text(ca), ca), token=read_text(token).strip(), files=(ca, token))


def load_files(server: str, ca: str = "", certificate: str = "", key: str = "") -> Access:
    """Read certificates and key from files; an empty path is none. Raises CNIError."""
    texts = {path: check_pem(read_text(path), path) for path in (ca, certificate, key) if path}
    return Access(server, texts.get(ca, ""), texts.get(certificate, ""), texts.get(key, ""), files=tuple(texts))


def parse_service_environment(environment: Mapping[str, str]) -> str:
    """The URL of the API server, from the environment of a pod. Raises CNIError."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise CNIError(INVALID_CONFIG, "KUBERNETES_SERVICE_HOST and _PORT are not set: give --kubeconfig, or the URL")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def read_text(path: str) -> str:
    """The text of a file. Raises CNIError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CNIError(INVALID_CONFIG, f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CNIError(INVALID_CONFIG, f"{path} is no text in UTF-8") from None


def check_pem(text: str, origin: str) -> str:
    """Check that a text is PEM, and return it. Raises CNIError naming its `origin`."""
    if "-----BEGIN " not in text:
        raise CNIError(INVALID_CONFIG, f"{origin} is no certificate or key in PEM: -----BEGIN is missing")
    return text


def _from_base64(text: str, origin: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        raise CNIError(INVALID_CONFIG, f"{origin} is no base64") from None


def _entry(document: dict[str, Any], plural: str, singular: str, name: str) -> dict[str, Any]:
    entries = document.get(plural)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(singular)
            return found if isinstance(found, dict) else {}
    raise CNIError(INVALID_CONFIG, f"there is no {singular} {name!r} under {plural!r}")


def _text(document: dict[str, Any], key: str, where: str) -> str:
    found = _optional(document, key)
    if not found:
        raise CNIError(INVALID_CONFIG, f"{where} has no {key!r}")
    return found


def _optional(document: dict[str, Any], key: str) -> str:
    found = document.get(key)
    return found if isinstance(found, str) else ""
