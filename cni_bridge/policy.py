"""Tells the node's agent of pods, before they can send a packet and before their addresses are free (docs/policy.md).

Where policies are required and no agent has them in force, the pod starts, and is held back: nothing passes.
Must not: fail an ADD because nobody answers, or wait for longer than a second.
"""

import sys
import time

from cni_kernel.errors import KernelError
from cni_protocol.address import CIDR
from cni_protocol.errors import TRY_AGAIN_LATER, CNIError
from cni_protocol.light.json_text import parse_json, write_json
from cni_protocol.light.standard import Any, Sequence, socket
from cni_protocol.request import Request

BOUND = 1.0  # seconds in all
_LARGEST = 1 << 12  # bytes of an answer; it has a hundred
_SAFE_STATES = ("in force", "pending")  # "off" is what an agent says that does not care for policies
_GONE = "gone"
_NO_POD = "-"  # instead of a namespace, for what is no pod of Kubernetes; no namespace has this name


def announce_pod(path: str, request: Request, addresses: Sequence[CIDR], *, required: bool) -> None:
    """Tell the agent behind a socket of a pod with these addresses; or of a container that is no pod of Kubernetes.

    That is kept from the policies of a pod that had its address, and went without a word: by a DEL without prevResult,
    or a GC. Where no agent answers, this takes its address out of the table.

    Where the policies are not in force afterwards, a warning on stderr says so; where they are `required`, nothing
    passes to or from the pod until an agent has them in force. Raises CNIError (code 11) where they are required of an
    agent that does not care for policies; KernelError.
    """
    if not addresses:
        return
    pod = _describe(request, addresses)
    state = _tell(path, pod)
    if state in _SAFE_STATES or (state == "off" and not required):
        return
    if pod["namespace"] == _NO_POD:
        from .hold_back import let_go

        try:
            let_go([address.ip for address in addresses])
        except KernelError as error:
            print(f"cni-bridge: warning: what is left of a pod that had its address: {error}", file=sys.stderr)
        return
    full_name = f"{pod['namespace']}/{pod['name']}"
    if state == "off":
        raise CNIError(
            TRY_AGAIN_LATER,
            f"policies of pod {full_name} are required and not in force: the agent at {path} runs with --policies off",
        )
    if required:
        from .hold_back import hold_back

        hold_back([address.ip for address in addresses])
        print(f"cni-bridge: warning: pod {full_name} is held back, nothing passes: {state}", file=sys.stderr)
        return
    print(f"cni-bridge: warning: policies of pod {full_name} may come late: {state}", file=sys.stderr)


def withdraw_pod(path: str, request: Request, addresses: Sequence[CIDR]) -> None:
    """Have nothing in the table of policies that is about a pod with these addresses: they are about to be free.

    The agent takes it away; where none answers, it is taken away here. Raises KernelError.
    """
    if not addresses:
        return
    pod = _describe(request, addresses)
    if _tell(path, {**pod, "gone": True}) != _GONE and pod["namespace"] != _NO_POD:
        from .hold_back import let_go

        let_go([address.ip for address in addresses])


def _describe(request: Request, addresses: Sequence[CIDR]) -> dict[str, Any]:
    """A pod, or what is none, as the agent is told of it."""
    name, namespace = request.args.get("K8S_POD_NAME", ""), request.args.get("K8S_POD_NAMESPACE", "")
    if not name or not namespace:
        name, namespace = request.container_id, _NO_POD
    texts = [str(address.ip) for address in addresses]
    return {
        "namespace": namespace,
        "name": name,
        "uid": request.args.get("K8S_POD_UID", ""),
        "addresses": texts,
        "containerId": request.container_id,
        "ifname": request.ifname,
    }


def _tell(path: str, pod: dict[str, Any]) -> str:
    """What the agent answers, or why not, in words."""
    try:
        return _ask(path, write_json(pod).encode())
    except (OSError, ValueError) as error:
        return f"the agent at {path} does not answer: {error}"


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
