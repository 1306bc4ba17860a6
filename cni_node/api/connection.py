"""An HTTP connection with TCP keepalive, so that a dead server is noticed, and TLS with certificates held in memory.

Must not: know which requests are sent over it.
"""

import http.client
import os
import socket
import ssl
from urllib.parse import urlsplit

from cni_node.api.credentials import Access
from cni_protocol.errors import INVALID_CONFIG, CNIError

CONNECT_BOUND = 5.0  # seconds
# Seconds of silence until the first keepalive probe, seconds between probes, and probes without an answer (tcp(7)).
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Connection(http.client.HTTPConnection):
    """http.client.HTTPConnection with the additions above. `timeout` is for answers, in seconds.

    Raises CNIError when the access cannot be used, such as for a damaged certificate.
    """

    def __init__(self, access: Access, timeout: float) -> None:
        host, port, secure = parse_server(access.server)
        super().__init__(host, port, timeout=CONNECT_BOUND)
        self._answer_bound = timeout
        self._context = _context(access) if secure else None
        self._server_name = access.server_name or host
        self.open_socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect, within CONNECT_BOUND seconds each for the connection and for TLS. Raises OSError."""
        super().connect()
        for option, value in KEEPALIVE:
            self.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._server_name)
        self.sock.settimeout(self._answer_bound)
        self.open_socket = self.sock

    def wait_longer(self, seconds: float | None) -> None:
        """Set the timeout of the next reads, in seconds; None is that of an answer."""
        if self.open_socket is not None:
            self.open_socket.settimeout(self._answer_bound if seconds is None else seconds)

    def interrupt(self) -> None:
        """Shut the connection down, so that another thread that waits on it fails."""
        if self.open_socket is not None:
            try:  # the plain socket's shutdown: that of the TLS socket would wait for the server first
                socket.socket.shutdown(self.open_socket, socket.SHUT_RDWR)
            except OSError:
                return  # not connected any more


def parse_server(text: str) -> tuple[str, int, bool]:
    """Parse the URL of a server, without a path, into host, port, and whether it uses TLS. Raises CNIError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is none, or brackets that do not fit
        parts, host, port = urlsplit(""), None, None
    secure = parts.scheme == "https"
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.username:
        raise CNIError(INVALID_CONFIG, f"{text!r} is no address of a server, as in https://192.168.1.10:6443")
    return host, port or (443 if secure else 80), secure


def _context(access: Access) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    named = ", ".join(access.files) or "the access"
    try:
        if access.ca:
            context.load_verify_locations(cadata=access.ca)
        else:
            context.load_default_certs()
    except (ssl.SSLError, ValueError) as error:
        raise CNIError(INVALID_CONFIG, f"the CA's certificate cannot be read ({named}): {_reason(error)}") from None
    if access.certificate or access.key:
        try:
            _load_pair(context, access.certificate, access.key)
        except (ssl.SSLError, ValueError) as error:
            reason = _reason(error)
            raise CNIError(
                INVALID_CONFIG, f"certificate and key do not fit or are damaged ({named}): {reason}"
            ) from None
    return context


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load certificate and key from a file in memory (memfd), since the ssl module reads them from files only."""
    descriptor = os.memfd_create("certificate")
    try:
        with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(f"{certificate}\n{key}\n")
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()
