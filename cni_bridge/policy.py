"""Announces a pod to the node's agent, so that its policies are in force before its first packet (docs/policy.md).

Must not: fail an ADD because the agent does not answer unless policies are required; wait for more than a second.
"""

import sys
import time

from cni_protocol.address import CIDR
from cni_protocol.errors import TRY_AGAIN_LATER, CNIError
from cni_protocol.light.json_text import parse_json, write_json
from cni_protocol.light.standard import Iterable, socket
from cni_protocol.request import Request

BOUND = 1.0  # seconds in all
_LARGEST = 1 << 12  # bytes of an answer; it has a hundred
_SAFE_STATES = ("in force", "pending")  # an agent that does not enforce policies answers "off"


def announce_pod(path: str, request: Request, addresses: Iterable[CIDR], *, required: bool) -> None:
    """Announce a pod with these addresses to the agent whose socket is at `path`; only one of Kubernetes.

    If the policies are not in force afterwards, prints a warning; with `required`, raises CNIError (code 11) instead,
    and the runtime tries again.
    """
    name, namespace = request.args.get("K8S_POD_NAME", ""), request.args.get("K8S_POD_NAMESPACE", "")
    texts = [str(address.ip) for address in addresses]
    if not path or not name or not namespace or not texts:
        return
    pod = {"namespace": namespace, "name": name, "uid": request.args.get("K8S_POD_UID", ""), "addresses": texts}
    try:
        state = _ask(path, write_json(pod).encode())
    except (OSError, ValueError) as error:
        state = f"the agent at {path} does not answer: {error}"
    if state in _SAFE_STATES or (state == "off" and not required):
        return
    if required:
        raise CNIError(TRY_AGAIN_LATER, f"policies of pod {namespace}/{name} are required and not in force: {state}")
    print(f"cni-bridge: warning: policies of pod {namespace}/{name} may come late: {state}", file=sys.stderr)


def _ask(path: str, body: bytes) -> str:
    """Send the announcement. Returns the state in the agent's answer. Raises OSError; ValueError for another answer."""
    deadline = time.monotonic() + BOUND
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        caller.settimeout(BOUND)
        caller.connect(path)
        head = f"POST /pods HTTP/1.0\r\nHost: agent\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body)
        answer = b""
        while len(answer) < _LARGEST:
            caller.settimeout(max(deadline - time.monotonic(), 0.001))
            part = caller.recv(_LARGEST)
            if not part:
                break
            answer += part
    finally:
        caller.close()
    status, _, document = answer.partition(b"\r\n\r\n")
    if b" 200 " not in status.split(b"\r\n")[0]:
        raise ValueError(status.split(b"\r\n")[0].decode("utf-8", "replace") or "it said nothing")
    found = parse_json(document)
    return str(found.get("state")) if isinstance(found, dict) else repr(found)
