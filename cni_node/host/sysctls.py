"""The sysctls that a node needs: forwarding, and passing bridged packets through the packet filter.

The kernel announces no changes of most sysctls, so they are polled; reading one takes some 10 us.
Must not: set sysctls of single interfaces (the code that creates an interface does), but for the uplinks' accept_ra,
which forwarding changes the meaning of.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.uplinks import keep_listening

ROOT = Path("/proc/sys")
FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
BRIDGED = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
MODULE = "br_netfilter"
NETFILTER = (
    "there is no bridge netfilter, so what pods of one node send each other through a service address may come back "
    "untranslated; load the module br_netfilter on the machine itself"
)
_BYTES = 64  # more than any value that is read here


class Outcome(NamedTuple):
    """The sysctls that were set, and those that could not be set, in words."""

    done: list[str]
    problems: list[str]


def wanted_sysctls(versions: Iterable[int]) -> dict[str, str]:
    """The sysctls that a node needs, with their values; `versions` are the IP versions of its pods."""
    versions = sorted(set(versions))
    found = {FORWARDING[version]: "1" for version in versions}
    # bridge netfilter for IPv4 in any case: kube-proxy and others need it
    return {**found, **{BRIDGED[version]: "1" for version in sorted({4, *versions})}} if versions else {}


def ensure_sysctls(wanted: Mapping[str, str]) -> Outcome:
    """Set sysctls that have other values. If the kernel has no bridge netfilter, that is one problem."""
    outcome = Outcome([], [])
    for name, value in wanted.items():
        found = read_sysctl(name)
        if found == value:
            continue
        if found is None and name in BRIDGED.values():
            if NETFILTER not in outcome.problems:
                outcome.problems.append(NETFILTER)
            continue
        key = name.replace("/", ".")
        if name == FORWARDING[6]:
            _keep_listening(outcome)
        try:
            (ROOT / name).write_text(value)
            outcome.done.append(f"sysctl {key} set to {value}, which was {found}")
        except OSError as error:
            outcome.problems.append(
                f"sysctl {key} cannot be set to {value} ({error.strerror}); set it on the machine itself"
            )
    return outcome


def _keep_listening(outcome: Outcome) -> None:
    """Forwarding makes the host's uplinks deaf to routers, its own default route perhaps with them."""
    heard: list[str] = []
    try:
        with Kernel() as kernel:
            keep_listening(kernel, heard.append)
    except KernelError as error:
        outcome.problems.append(str(error))
    outcome.done.extend(f"sysctl net.ipv6.conf.{name}.accept_ra set to 2, which was 1" for name in heard)


def load_module() -> None:
    """Try to load the module of bridge netfilter. A failure is reported by ensure_sysctls, which needs it."""
    if (ROOT / "net/bridge").is_dir():
        return
    try:
        pid = os.posix_spawnp("modprobe", ["modprobe", "-q", MODULE], os.environ)
    except OSError:
        return
    os.waitpid(pid, 0)


def read_sysctl(name: str) -> str | None:
    """The value of a sysctl by its path; None where there is none, or it cannot be read."""
    try:
        file = os.open(f"{ROOT}/{name}", os.O_RDONLY)  # half of what open() takes: it is done all the time
    except OSError:
        return None
    try:
        return os.read(file, _BYTES).strip().decode()
    except OSError:
        return None
    finally:
        os.close(file)
