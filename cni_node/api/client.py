"""A client of a JSON API over HTTP: calls with a timeout, and streams of JSON lines.

Must not: know which API it is, or wait between attempts.
"""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cni_node.api.connection import Connection
from cni_node.api.credentials import Access
from cni_protocol.errors import CNIError

ANSWER_BOUND = 10.0  # seconds; etcd without a leader takes 7 to say so
LARGEST = 64 << 20  # bytes of one answer or one line
SILENCE = 150.0  # seconds without a line after which a stream is over
PIECE = 1 << 16  # bytes
LONGEST_WAIT = 60.0  # seconds that a server may ask us to wait
LONGEST_QUOTE = 200  # characters of a server's own words that are passed on


class CallError(Exception):
    """A call failed. Its text is one sentence.

    `status` is the HTTP status, 0 without an answer, 200 for an answer that is not what the API defines. `body` is the
    decoded body of an error answer, None without one. `retry_after` is the server's Retry-After, in seconds from 0 to
    LONGEST_WAIT.
    """

    def __init__(self, sentence: str, status: int = 0, body: Any = None, retry_after: float = 0.0) -> None:
        super().__init__(sentence)
        self.status, self.body, self.retry_after = status, body, retry_after


class _Request(NamedTuple):
    method: str
    path: str
    body: Any
    headers: Mapping[str, str]


class Client:
    """A client with one connection, which is kept open. One thread uses it; `close` and `interrupt` are for any thread.

    `load` reads server and credentials. It is called again when one of its files has changed; that is checked before
    each request, and when the server answers 401. If it fails then (a file is being replaced), the last ones stay in
    use.
    """

    def __init__(self, load: Callable[[], Access], timeout: float = ANSWER_BOUND) -> None:
        self._load, self._timeout = load, timeout
        self._access: Access | None = None
        self._stamps: list[tuple[int, int, int] | None] = []
        self._connection: Connection | None = None
        self._closed = False

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request, with `body` as JSON. Returns the decoded answer. Raises CallError."""
        response = self._request(_Request(method, path, body, headers or {}))
        return self._document(self._read(response))

    def stream(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, silence: float = SILENCE
    ) -> Iterator[Any]:
        """Send a request whose answer is a stream of JSON documents, one a line. Returns once the answer has begun.

        The iterator yields the documents. It ends with the answer, or after `silence` seconds without data. A request
        with a body is a POST, otherwise a GET. Both the call and the iterator raise CallError.
        """
        response = self._request(_Request("GET" if body is None else "POST", path, body, headers or {}))
        return self._follow(response, silence)

    def _follow(self, response: http.client.HTTPResponse, silence: float) -> Iterator[Any]:
        ended = False
        try:
            if self._connection:
                self._connection.wait_longer(silence)
            yield from self._lines(response)
            ended = not response.will_close
        except TimeoutError:
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._no_answer(error) from None
        finally:
            if ended and self._connection:
                self._connection.wait_longer(None)
            else:
                self._drop()

    def interrupt(self) -> None:
        """Make the call or stream in progress fail. For any thread."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def close(self) -> None:
        """Make the call in progress and every later one fail. For any thread."""
        self._closed = True
        self.interrupt()

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[Any]:
        pending = bytearray()
        while data := response.read1(PIECE):
            pending += data
            if b"\n" in data:
                *lines, rest = bytes(pending).split(b"\n")
                pending = bytearray(rest)
                yield from (self._document(line) for line in lines if line.strip())
            elif len(pending) > LARGEST:
                raise CallError(f"{self._server} sends a line of more than {LARGEST >> 20} MiB")
        if pending.strip():  # etcd sends no line feed after its last message
            yield self._document(bytes(pending))

    def _request(self, request: _Request, again: bool = True) -> http.client.HTTPResponse:
        """Send a request. Returns an answer with status 200 whose body is not read yet."""
        access = self._refresh()
        response = self._exchange(request, access.token)
        if response.status == 200:
            return response
        text = self._read(response)
        if response.status == 401 and again and self._refresh() != access:
            return self._request(request, again=False)
        raise self._refusal(response, request, text)

    def _exchange(self, request: _Request, token: str) -> http.client.HTTPResponse:
        """Send a request. If that fails on a kept connection, which the server may have closed, try a new one once."""
        headers = {"Accept": "application/json", "User-Agent": "pycni", **request.headers}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if request.body is None else json.dumps(request.body).encode()
        while True:
            kept = self._connection is not None
            try:
                connection = self._connection or self._connect()
                connection.request(request.method, request.path, data, headers)
                return connection.getresponse()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._drop()
                if not kept or isinstance(error, TimeoutError) or self._closed:
                    raise self._no_answer(error) from None

    def _connect(self) -> Connection:
        assert self._access is not None
        try:
            connection = Connection(self._access, self._timeout)
        except CNIError as error:
            raise CallError(error.msg) from None
        self._connection = connection
        connection.connect()
        if self._closed:  # another thread called close() before there was a socket to shut down
            raise ConnectionAbortedError
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            if connection.open_socket is not None:
                connection.open_socket.close()

    def _refresh(self) -> Access:
        """Server and credentials, read again if their files have changed."""
        if self._closed:
            raise CallError(f"{self._server} is not asked any more")
        if self._access is not None and self._stamps == [_stamp(path) for path in self._access.files]:
            return self._access
        try:
            access = self._load()
        except CNIError as error:
            if self._access is None:
                raise CallError(error.msg) from None
            return self._access
        if self._access is not None and access._replace(token="") != self._access._replace(token=""):
            self._drop()
        self._access = access
        self._stamps = [_stamp(path) for path in access.files]
        return access

    @property
    def _server(self) -> str:
        return self._access.server if self._access else "the server"

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            data = response.read(LARGEST + 1)
            if len(data) <= LARGEST:
                if response.length:  # read(n) of http.client does not report an incomplete body
                    raise http.client.IncompleteRead(data, response.length)
                return data
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._no_answer(error) from None
        self._drop()
        raise CallError(f"{self._server} sends an answer of more than {LARGEST >> 20} MiB")

    def _document(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            said = data[:60].decode(errors="replace")
            raise CallError(f"{self._server} answers no JSON, but {said!r}", 200) from None

    def _refusal(self, response: http.client.HTTPResponse, request: _Request, text: bytes) -> CallError:
        """The error for an answer with another status than 200."""
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        words = body.get("message") or body.get("error") if isinstance(body, dict) else None
        words = str(words or response.reason or "no reason given")[:LONGEST_QUOTE]
        after = response.getheader("Retry-After", "")
        wait = min(float(after), LONGEST_WAIT) if after.isascii() and after.isdigit() else 0.0
        what = f"{request.method} {request.path.partition('?')[0]}"
        return CallError(f"{self._server} refuses {what}: {response.status}, {words}", response.status, body, wait)

    def _no_answer(self, error: Exception) -> CallError:
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate is not accepted ({error.verify_message.rstrip('.')})"
        elif isinstance(error, ssl.SSLError):
            reason = f"TLS fails ({str(error.reason or error).replace('_', ' ').lower()})"
        elif isinstance(error, TimeoutError):
            reason = "no answer in time"
        elif isinstance(error, socket.gaierror):
            reason = f"the name cannot be resolved ({error.strerror})"
        elif isinstance(error, http.client.IncompleteRead):
            reason = "it has ended in the middle of an answer"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        else:
            reason = str(error) or type(error).__name__
        return CallError(f"{self._server} does not answer: {reason}")


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
