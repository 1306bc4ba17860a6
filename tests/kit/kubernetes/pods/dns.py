"""The cluster's DNS server: names of services, of the pods behind them, and of pods, as the API server has them.

Kubernetes DNS-based service discovery 1.1.0, over UDP and TCP; RFC 1035 for messages, 2782 for SRV. It knows its zone
and the reverse of what is in it, asks nobody else, and must not need anything but the standard library.
Usage: dns.py, in a pod with a service account that may list and watch services and endpoints.
"""

import json
import os
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ZONE = ("local", "cluster")  # labels from the root
TTL = 5  # seconds
TYPES = {"A": 1, "CNAME": 5, "PTR": 12, "AAAA": 28, "SRV": 33, "OPT": 41}
ANY = 255
NXDOMAIN, NOTIMP = 3, 4
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_BOUND = 300  # seconds for one watch
RETRY = 1.0  # seconds

Labels = tuple[str, ...]  # from the root, lower case


class Record(NamedTuple):
    """What a name has: an address for A and AAAA, a name for CNAME and PTR, a port and a name for SRV."""

    kind: str
    value: Any


class Names:
    """What is known: services and endpoints by (namespace, name); found anew by every question."""

    def __init__(self) -> None:
        self.known: dict[str, dict[tuple[str, str], Any]] = {"services": {}, "endpoints": {}}

    def replace(self, kind: str, objects: list[Any]) -> None:
        """These are all."""
        self.known[kind] = {key_of(each): each for each in objects}

    def change(self, kind: str, event: str, changed: Any) -> None:
        """One is new, is another, or is gone."""
        known = dict(self.known[kind])  # another thread may be reading the old one
        if event == "DELETED":
            known.pop(key_of(changed), None)
        else:
            known[key_of(changed)] = changed
        self.known[kind] = known

    def find(self, name: Labels) -> list[Record] | None:
        """All records of a name: none where only names below it have any, None where there is no such name."""
        if name[:2] == ("arpa", "in-addr") and len(name) == 6:
            return self._find_reverse(".".join(name[2:])) or None
        if name[: len(ZONE)] != ZONE:
            return None
        return self._find_below(name[len(ZONE) :])

    def _find_below(self, name: Labels) -> list[Record] | None:
        kind, namespace, *rest = (*name, "", "")[: max(2, len(name))]
        if kind == "pod" and len(name) == 3:
            address = rest[0].replace("-", ".")
            return [Record("A", address)] if is_address(address) else None
        if kind not in ("svc", ""):
            return None
        if len(name) < 3:
            return [] if not namespace or any(key[0] == namespace for key in self.known["services"]) else None
        service = self.known["services"].get((namespace, rest[0]))
        return self._find_of_service(service, tuple(rest[1:])) if service else None

    def _find_of_service(self, service: Any, below: Labels) -> list[Record] | None:
        spec = service["spec"]
        if spec["type"] == "ExternalName":
            return [Record("CNAME", spec["externalName"])] if not below else None
        headless = spec["clusterIP"] == "None"
        if not below:
            addresses = [address for address, _, _ in self._behind(service)] if headless else [spec["clusterIP"]]
            return [Record(kind_of(address), address) for address in addresses]
        if below[0] in ("_tcp", "_udp", "_sctp"):
            if len(below) == 1:
                return []
            return self._find_ports(service, below[0][1:], below[1].removeprefix("_")) or None
        if len(below) > 1 or not headless:
            return None
        return [Record(kind_of(ip), ip) for ip, hostname, _ in self._behind(service) if hostname == below[0]] or None

    def _find_ports(self, service: Any, protocol: str, port: str) -> list[Record]:
        own = name_of(service)
        if service["spec"]["clusterIP"] != "None":
            ports = service["spec"].get("ports", [])
            chosen = [
                each["port"] for each in ports if (each["protocol"].lower(), each.get("name")) == (protocol, port)
            ]
            return [Record("SRV", (number, own)) for number in chosen]
        return [
            Record("SRV", (each["port"], f"{hostname}.{own}"))
            for _, hostname, ports in self._behind(service)
            for each in ports
            if (each["protocol"].lower(), each.get("name")) == (protocol, port)
        ]

    def _find_reverse(self, address: str) -> list[Record]:
        found = []
        for service in self.known["services"].values():
            if service["spec"].get("clusterIP") == address:
                found.append(Record("PTR", name_of(service)))
            elif service["spec"].get("clusterIP") == "None":
                names = [hostname for ip, hostname, _ in self._behind(service) if ip == address]
                found += [Record("PTR", f"{hostname}.{name_of(service)}") for hostname in names]
        return found

    def _behind(self, service: Any) -> Iterator[tuple[str, str, list[Any]]]:
        """The pods of a service: address, name, ports."""
        endpoints = self.known["endpoints"].get(key_of(service), {})
        for subset in endpoints.get("subsets") or []:
            for each in subset.get("addresses") or []:
                yield each["ip"], each.get("hostname") or each["ip"].replace(".", "-"), subset.get("ports") or []


def key_of(described: Any) -> tuple[str, str]:
    """Namespace and name."""
    return described["metadata"]["namespace"], described["metadata"]["name"]


def name_of(service: Any) -> str:
    """A service's name in the zone."""
    return ".".join([*reversed(key_of(service)), "svc", *reversed(ZONE)])


def kind_of(address: str) -> str:
    """The type of an address's record."""
    return "AAAA" if ":" in address else "A"


def is_address(text: str) -> bool:
    """Whether that is an IPv4 address, written in full."""
    try:
        return text.count(".") == 3 and bool(socket.inet_aton(text))
    except OSError:
        return False


def answer(names: Names, query: bytes, limit: int | None) -> bytes:
    """The answer to a message, cut off where it is longer than a limit that the client has not raised."""
    identity, flags, _, _, _, further = struct.unpack_from("!6H", query)
    name, end = read_question(query)
    asked = struct.unpack_from("!H", query, end - 4)[0]
    if flags & 0x7800:  # no question
        return struct.pack("!6H", identity, 0x8000 | flags & 0x7900 | NOTIMP, 0, 0, 0, 0)
    if limit and further and query[end] == 0:
        kind, size = struct.unpack_from("!HH", query, end + 1)
        limit = max(limit, size) if kind == TYPES["OPT"] else limit
    found = names.find(name)
    records = [write_record(owner, record) for owner, record in resolve(names, found or [], asked)]
    status = 0x8480 | flags & 0x0100 | (NXDOMAIN if found is None else 0)
    if limit and end + sum(map(len, records)) > limit:
        status, records = status | 0x0200, []
    return struct.pack("!6H", identity, status, 1, len(records), 0, 0) + query[12:end] + b"".join(records)


def resolve(names: Names, found: list[Record], asked: int) -> Iterator[tuple[bytes, Record]]:
    """The records that were asked for; an alias with what is behind it, where that is ours."""
    for record in found:
        if record.kind == "CNAME":
            yield b"\xc0\x0c", record
            if asked != TYPES["CNAME"]:
                behind = names.find(tuple(reversed(record.value.lower().split(".")))) or []
                yield from ((write_name(record.value), each) for each in behind if TYPES[each.kind] == asked)
        elif asked in (TYPES[record.kind], ANY):
            yield b"\xc0\x0c", record  # the name of the question


def read_question(query: bytes) -> tuple[Labels, int]:
    """The name of the first question, from the root, and where the question ends."""
    position, labels = 12, []
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace").lower())
        position += 1 + length
    return tuple(reversed(labels)), position + 5


def write_record(owner: bytes, record: Record) -> bytes:
    """A record of the class IN."""
    if record.kind == "A":
        data = socket.inet_aton(record.value)
    elif record.kind == "AAAA":
        data = socket.inet_pton(socket.AF_INET6, record.value)
    elif record.kind == "SRV":
        data = struct.pack("!HHH", 0, 100, record.value[0]) + write_name(record.value[1])
    else:
        data = write_name(record.value)
    return owner + struct.pack("!HHIH", TYPES[record.kind], 1, TTL, len(data)) + data


def write_name(name: str) -> bytes:
    """A name, uncompressed."""
    labels = [label.encode() for label in name.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def follow(names: Names, kind: str, seen: threading.Event) -> None:
    """Keep what is known of a kind as the API server has it, for ever."""
    while True:
        try:
            listed = json.load(open_api(f"/api/v1/{kind}"))
            names.replace(kind, listed["items"])
            seen.set()
            version = listed["metadata"]["resourceVersion"]
            for line in open_api(f"/api/v1/{kind}?watch=1&resourceVersion={version}&timeoutSeconds={WATCH_BOUND}"):
                event = json.loads(line)
                if event["type"] == "ERROR":  # what came in the meantime is not known any more
                    break
                names.change(kind, event["type"], event["object"])
        except (OSError, ValueError) as error:
            print(f"dns: {kind}: {error}", file=sys.stderr, flush=True)
            time.sleep(RETRY)


def open_api(path: str) -> Any:
    """A GET as this pod's service account, at the address that the kubelet tells every pod."""
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    token = (ACCOUNT / "token").read_text()
    request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {token}"})
    return urllib.request.urlopen(request, timeout=WATCH_BOUND + 10, context=context)


class Datagram(socketserver.BaseRequestHandler):
    """A question by UDP."""

    def handle(self) -> None:
        """Answer it; what is no question gets none."""
        query, port = self.request
        try:
            port.sendto(answer(NAMES, query, 512), self.client_address)
        except (IndexError, struct.error):
            return


class Stream(socketserver.StreamRequestHandler):
    """Questions by TCP, one after another."""

    timeout = 10.0

    def handle(self) -> None:
        """Answer until the client has no more."""
        while len(header := self.rfile.read(2)) == 2:
            said = answer(NAMES, self.rfile.read(int.from_bytes(header)), None)
            self.wfile.write(len(said).to_bytes(2) + said)


class Listener(socketserver.ThreadingTCPServer):
    """With room for who comes while all are busy."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 64


NAMES = Names()


def main() -> None:
    """Serve, from when both kinds are known: it is not ready before."""
    events = [threading.Event(), threading.Event()]
    for kind, event in zip(("services", "endpoints"), events, strict=True):
        threading.Thread(target=follow, args=(NAMES, kind, event), daemon=True).start()
    for event in events:
        event.wait()
    stream = Listener(("", 53), Stream)
    threading.Thread(target=stream.serve_forever, daemon=True).start()
    socketserver.UDPServer(("", 53), Datagram).serve_forever()


if __name__ == "__main__":
    main()
