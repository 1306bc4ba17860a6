"""What a kubeconfig and a service account give, and what is wrong with others in one sentence."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from cni_node.api.credentials import (
    Access,
    load_files,
    load_kubeconfig,
    load_service_account,
    parse_kubeconfig,
    parse_service_environment,
)
from cni_protocol.errors import CNIError

PEM = "-----BEGIN CERTIFICATE-----\nx\n"
DATA = base64.b64encode(PEM.encode()).decode()


def kubeconfig(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **document: Any) -> str:
    return json.dumps(
        {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://api:6443"} if cluster is None else cluster}],
            "users": [{"name": "u", "user": user or {}}],
            **document,
        }
    )


def test_a_kubeconfig_with_data(tmp_path: Path) -> None:
    cluster = {"server": "https://api:6443", "certificate-authority-data": DATA, "tls-server-name": "other"}
    path = tmp_path / "config"
    path.write_text(kubeconfig(cluster, {"client-certificate-data": DATA, "client-key-data": DATA, "token": "t"}))
    assert load_kubeconfig(str(path)) == Access("https://api:6443", PEM, PEM, PEM, "t", "other", (str(path),))
    assert load_kubeconfig(str(path), "https://10.0.0.1:6443").server == "https://10.0.0.1:6443"


def test_a_kubeconfig_with_files_beside_it(tmp_path: Path) -> None:
    cluster = {"server": "https://api:6443", "certificate-authority": "ca.crt"}
    user = {"client-certificate": "c.pem", "client-key": str(tmp_path / "k.pem"), "token": "old", "tokenFile": "token"}
    for name in ("ca.crt", "c.pem", "k.pem"):
        (tmp_path / name).write_text(PEM + name)
    (tmp_path / "token").write_text("new\n")
    path = tmp_path / "config"
    path.write_text(kubeconfig(cluster, user))
    found = load_kubeconfig(str(path))
    assert (found.ca, found.certificate, found.key, found.token) == (
        PEM + "ca.crt",
        PEM + "c.pem",
        PEM + "k.pem",
        "new",
    )
    names = {str(tmp_path / name) for name in ("config", "ca.crt", "c.pem", "k.pem", "token")}
    assert set(found.files) == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "a kubeconfig was expected"),
        (
            kubeconfig().replace('"current-context": "here"', '"current-context": ""'),
            "the document has no 'current-context'",
        ),
        (
            kubeconfig().replace('"current-context": "here"', '"current-context": "there"'),
            "there is no context 'there' under 'contexts'",
        ),
        (kubeconfig(contexts=[{"name": "here"}]), "the context has no 'cluster'"),
        (kubeconfig(clusters=None), "there is no cluster 'c' under 'clusters'"),
        (kubeconfig(users={}), "there is no user 'u' under 'users'"),
        (kubeconfig({}), "the cluster has no 'server'"),
        (kubeconfig({"server": "s", "insecure-skip-tls-verify": True}), "insecure-skip-tls-verify is not supported"),
        (kubeconfig(user={"exec": {"command": "aws"}}), "the user's 'exec' is not supported"),
        (kubeconfig(user={"auth-provider": {"name": "gcp"}}), "the user's 'auth-provider' is not supported"),
        (kubeconfig(user={"username": "u"}), "the user's 'username' is not supported"),
    ],
)
def test_a_kubeconfig_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_kubeconfig(text)
    assert sentence in caught.value.msg


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        ({"server": "s", "certificate-authority-data": "%"}, "certificate-authority-data is no base64"),
        ({"server": "s", "certificate-authority-data": "eA=="}, "certificate-authority-data is no certificate or key"),
        ({"server": "s", "certificate-authority": "none"}, "none cannot be read: No such file"),
        ({"server": "s", "certificate-authority": "."}, "cannot be read: Is a directory"),
        ({"server": "s", "certificate-authority": "bytes"}, "bytes is no text in UTF-8"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, cluster: dict[str, Any], sentence: str) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    path = tmp_path / "config"
    path.write_text(kubeconfig(cluster))
    with pytest.raises(CNIError) as caught:
        load_kubeconfig(str(path))
    assert sentence in caught.value.msg
    assert str(tmp_path) in caught.value.msg


def test_a_kubeconfig_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a: [")
    with pytest.raises(CNIError) as caught:
        load_kubeconfig(str(tmp_path / "config"))
    assert caught.value.msg.startswith(f"kubeconfig {tmp_path}/config: line 1 cannot be read")


def test_a_service_account(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(PEM)
    (tmp_path / "token").write_text("t\n")
    files = (str(tmp_path / "ca.crt"), str(tmp_path / "token"))
    assert load_service_account("https://api", str(tmp_path)) == Access("https://api", ca=PEM, token="t", files=files)


def test_single_files(tmp_path: Path) -> None:
    for name in ("ca", "c", "k"):
        (tmp_path / name).write_text(PEM + name)
    ca, certificate, key = (str(tmp_path / name) for name in ("ca", "c", "k"))
    assert load_files("s") == Access("s")
    assert load_files("s", ca) == Access("s", ca=PEM + "ca", files=(ca,))
    found = load_files("s", ca, certificate, key)
    assert found == Access("s", PEM + "ca", PEM + "c", PEM + "k", files=(ca, certificate, key))


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443"),
    ],
)
def test_the_service_of_the_api(environment: dict[str, str], url: str) -> None:
    assert parse_service_environment(environment) == url
    with pytest.raises(CNIError):
        parse_service_environment({**environment, "KUBERNETES_SERVICE_PORT": ""})
