"""STATUS: finding out whether ADD would work, without changing anything. Source: SPEC.md, section "STATUS"."""

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

AGENT_BOUND = 2.0  # seconds to wait for an agent that is being restarted
_AGENT_POLL = 0.1


def require_ready(config: BridgeConfig, trial: list[Rules]) -> None:
    """Raise CNIError when an ADD would fail on this host. `trial` are example rules to try.

    Code 50: the kernel lacks a part, or another interface has the bridge's name. Code 51, which affects running
    containers too: the bridge is down, forwarding is off although the bridge has gateway addresses, bridge netfilter is
    required and off, or the network needs the node's agent and that does not answer.
    """
    with Kernel() as host:
        try:
            bridge = find_bridge(host, config.bridge)
            if bridge is None:
                host.probe_kind("bridge")
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
    """Whether a program listens on a socket within AGENT_BOUND seconds: an agent that is updated restarts."""
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
    """Problems that break services between pods of one node. Without requireBridgeNetfilter they are only printed.

    A packet to a service address is translated in the packet filter. The answer of a pod on the same bridge crosses the
    bridge only, so it is translated back only if bridged packets pass the packet filter too
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
