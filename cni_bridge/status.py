"""STATUS: whether ADD could work, found out without changing anything. Source: SPEC.md, section "STATUS"."""

import sys
import time

from cni_kernel import sysctl
from cni_kernel.errors import KernelError
from cni_kernel.expressions import Rules
from cni_kernel.kernel import Kernel
from cni_protocol.address import LINK_LOCAL6
from cni_protocol.errors import NOT_AVAILABLE, NOT_AVAILABLE_LIMITED, CNIError
from cni_protocol.light.standard import socket

from .bridge import find_bridge, warn
from .config import BridgeConfig
from .overlap import find_overlaps
from .plan import gateway_interface
from .refusals import as_cni_error
from .sync import probe_rules

AGENT_BOUND = 2.0  # seconds for the agent to come back
_AGENT_POLL = 0.1


def require_ready(config: BridgeConfig, trial: list[Rules]) -> None:
    """Raise CNIError when the host could not serve an ADD; `trial` are rules as an ADD would set them.

    Code 50 where a part of the kernel is missing or the bridge's name is taken, 51 where running containers suffer too:
    the bridge is there and down, forwarding was switched off under its gateway addresses, bridge netfilter is off and
    required, or the node's agent is needed and does not answer.
    """
    with Kernel() as host:
        try:
            bridge = host.find_link(config.bridge)
            if bridge is None:
                host.probe_kind("bridge")
            elif bridge.kind != "bridge":
                find_bridge(host, config.bridge)
            host.probe_kind("veth")
            for rules in trial:
                probe_rules(rules)
        except KernelError as error:
            raise CNIError(NOT_AVAILABLE, as_cni_error(error).msg) from None
        except CNIError as error:
            raise CNIError(NOT_AVAILABLE, error.msg) from None
        if bridge is None:
            _require_working(config, True, set())
            return
        gateway = host.find_link(gateway_interface(config))
        addresses = [entry.cidr for entry in host.list_addresses(gateway)] if gateway is not None else []
        addresses = [cidr for cidr in addresses if cidr.ip not in LINK_LOCAL6]
        versions = {cidr.version for cidr in addresses}
        if gateway is not None and config.is_gateway:
            warn(find_overlaps(host, [bridge, gateway], addresses))
        _require_working(config, bridge.up, versions)


def _require_working(config: BridgeConfig, up: bool, versions: set[int]) -> None:
    problems = []
    if config.agent and not _answers(config.agent):
        problems.append(
            f"the node's agent does not answer at {config.agent}: nobody follows the cluster here (`pycni agent`)"
        )
    if not up:
        problems.append(f"bridge {config.bridge} is down (`ip link set {config.bridge} up`)")
    if config.is_gateway:
        problems += _bridge_filter_problems(config, versions)
        off = sorted(version for version in versions if not sysctl.is_forwarding(version))
        problems += [
            f"forwarding of IPv{version} is off, and bridge {config.bridge} is a gateway "
            f"(`sysctl -w {sysctl.forwarding_key(version)}=1`)"
            for version in off
        ]
    if problems:
        raise CNIError(NOT_AVAILABLE_LIMITED, "; ".join(problems))


def _answers(path: str) -> bool:
    """Whether somebody listens on a socket, or comes to do so: an agent that is updated is away for a moment."""
    deadline = time.monotonic() + AGENT_BOUND
    while True:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            caller.connect(path)
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
        finally:
            caller.close()
        time.sleep(_AGENT_POLL)


def _bridge_filter_problems(config: BridgeConfig, versions: set[int]) -> list[str]:
    """What keeps services from pods of one node among each other; only said on stderr unless it is required.

    What a pod sends to a service address is translated by the packet filter, and the answer of a pod on the same bridge
    goes back across the bridge: untranslated, unless bridged packets pass the packet filter too
    (net.bridge.bridge-nf-call-iptables, Documentation/networking/ip-sysctl in the kernel).
    """
    off = sorted(version for version in versions or {4} if not sysctl.filters_bridged(version))
    problems = [
        f"bridged IPv{version} packets pass no packet filter: services between pods of this node do not answer "
        f"(`modprobe br_netfilter; sysctl -w {sysctl.bridged_key(version)}=1`)"
        for version in off
    ]
    if config.require_filter:
        return problems
    for problem in problems:
        print(f"cni-bridge: {problem}", file=sys.stderr)
    return []
