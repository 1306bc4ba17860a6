"""Certificates for tests, made by openssl: a CA, and what it has signed."""

import subprocess
from pathlib import Path
from typing import NamedTuple

BOUND = 60  # seconds for one call of openssl


class Pair(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: Path
    key: Path


def make_ca(directory: Path, name: str = "ca") -> Pair:
    """A certificate authority of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    pair = Pair(directory / f"{name}.crt", directory / f"{name}.key")
    _openssl("req", "-x509", *_new_key(pair), "-subj", f"/CN={name}", "-days", "2")
    return pair


def sign(ca: Pair, name: str, subject: str = "/O=pycni", hosts: str = "IP:127.0.0.1") -> Pair:
    """A certificate of that CA, for a server or a client, beside it. Without a CN, as etcd's gateway wants it."""
    directory = ca.certificate.parent
    pair = Pair(directory / f"{name}.crt", directory / f"{name}.key")
    request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName={hosts}\n")
    _openssl("req", *_new_key(Pair(request, pair.key)), "-subj", subject)
    authority = ("-CA", str(ca.certificate), "-CAkey", str(ca.key), "-CAcreateserial", "-extfile", str(extensions))
    _openssl("x509", "-req", "-in", str(request), "-out", str(pair.certificate), *authority, "-days", "2")
    return pair


def _new_key(pair: Pair) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    return (*curve, "-keyout", str(pair.key), "-out", str(pair.certificate))


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=BOUND)
