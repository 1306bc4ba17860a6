"""A client in a pod, or on any machine that has Python: asks many at once, and prints what came back as JSON.

It must not need anything but the standard library. Each line of stdin is [QUESTION...], and becomes a line of stdout
with the answers. A question is a list:
    ["http", URL]                  what serve.py answers, or the text; with a third element, headers
    ["https", ADDRESS, NAME, PORT] the certificate that a server shows to who asks for a name, its status, its text
    ["udp", ADDRESS, PORT]         what serve.py answers
    ["name", NAME, FAMILY]         the addresses that a name resolves to, by the resolver; FAMILY 4 or 6
    ["dns", SERVER, NAME, TYPE]    what a server answers: {"rcode": ..., "answers": [[name, type, value]...]}
    ["load", URLS, SECONDS]        how many requests, by turns and one after another, were answered; what the others met
The answer to a question that failed is {"error": TEXT}.
"""

import http.client
import json
import socket
import ssl
import struct
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BOUND = 4.0  # seconds for one answer
_AT_ONCE = 32  # questions: one that is dropped takes all of its bound, and the others need not wait for it
PAUSE = 0.02  # seconds between two requests of a load: it is to notice gaps, and not to take the processor
TYPES = {"A": 1, "CNAME": 5, "PTR": 12, "AAAA": 28, "SRV": 33}


def ask_http(url: str, headers: dict[str, str] | None = None) -> Any:
    """A GET, without following the environment's proxies."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=BOUND) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    try:
        return json.loads(text)
    except ValueError:
        return text


def ask_https(address: str, name: str, port: int) -> Any:
    """What a server shows and says to who asks for a name; nothing is verified."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection((address, port), timeout=BOUND)
    with context.wrap_socket(raw, server_hostname=name) as secure:
        certificate = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(secure)
        answer.begin()
        return {"certificate": certificate, "status": answer.status, "text": answer.read().decode()}


def ask_udp(address: str, port: int) -> Any:
    """One datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(BOUND)
        asking.connect((address, port))
        asking.send(b"who?")
        return json.loads(asking.recv(2048))


def ask_name(name: str, family: int) -> list[str]:
    """By /etc/resolv.conf, search domains and all."""
    wanted = socket.AF_INET if family == 4 else socket.AF_INET6
    return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, 80, wanted, socket.SOCK_STREAM)})


def ask_dns(server: str, name: str, kind: str) -> Any:
    """One question to one server, by UDP."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + question + struct.pack("!BHH", 0, TYPES[kind], 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(BOUND)
        asking.connect((server, 53))
        asking.send(query)
        return read_answer(asking.recv(4096))


def read_answer(data: bytes) -> dict[str, Any]:
    """The status and the answers of a message that repeats its one question."""
    flags, count = struct.unpack_from("!2xH2xH", data)
    position, answers = read_name(data, 12)[1] + 4, []
    for _ in range(count):
        owner, position = read_name(data, position)
        type_, length = struct.unpack_from("!H6xH", data, position)
        position += 10
        answers.append([owner, *read_value(data, position, type_, length)])
        position += length
    return {"rcode": flags & 15, "answers": answers}


def read_value(data: bytes, position: int, type_: int, length: int) -> tuple[str, Any]:
    """A record's type and its value as text."""
    kind = next((name for name, number in TYPES.items() if number == type_), str(type_))
    if kind == "A":
        return kind, socket.inet_ntoa(data[position : position + length])
    if kind == "AAAA":
        return kind, socket.inet_ntop(socket.AF_INET6, data[position : position + length])
    if kind == "SRV":
        return kind, [struct.unpack_from("!H", data, position + 4)[0], read_name(data, position + 6)[0]]
    return kind, read_name(data, position)[0]


def read_name(data: bytes, position: int) -> tuple[str, int]:
    """A name, and where it ends (RFC 1035, 4.1.4)."""
    labels = []
    while length := data[position]:
        if length >= 0xC0:
            (there,) = struct.unpack_from("!H", data, position)
            labels.append(read_name(data, there & 0x3FFF)[0])
            return ".".join(labels), position + 2
        labels.append(data[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels), position + 1


def load(urls: list[str], seconds: float) -> Any:
    """Requests one after another for a time."""
    until, answered, failures = time.monotonic() + seconds, 0, []
    while time.monotonic() < until:
        for url in urls:
            try:
                ask_http(url)
                answered += 1
            except OSError as error:
                failures.append(f"{url}: {error}")
            time.sleep(PAUSE)
    return {"answered": answered, "failures": failures}


KINDS: dict[str, Callable[..., Any]] = {
    "http": ask_http,
    "https": ask_https,
    "udp": ask_udp,
    "name": ask_name,
    "dns": ask_dns,
    "load": load,
}


def answer(question: list[Any]) -> Any:
    """One question; what failed says how."""
    kind, *rest = question
    try:
        return KINDS[kind](*rest)
    except (OSError, http.client.HTTPException) as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for line in sys.stdin:
            print(json.dumps(list(pool.map(answer, json.loads(line)))), flush=True)
