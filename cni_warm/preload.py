"""All that a call may import, imported: the plugins, and what they import late."""

import difflib
import json
import traceback

import cni_bridge.__main__
import cni_ipam.__main__
from cni_bridge import locks, removal, sandbox, status, sync, wiring
from cni_ipam import config, host_addresses, peek, recovery, resolvconf
from cni_kernel import conntrack, kernel, namespace, vlans
from cni_protocol.light import libc

PLUGINS = {"cni-bridge": cni_bridge.__main__.main, "cni-ipam": cni_ipam.__main__.main}

__all__ = [
    "PLUGINS",
    "config",
    "conntrack",
    "difflib",
    "host_addresses",
    "json",
    "kernel",
    "libc",
    "locks",
    "namespace",
    "peek",
    "recovery",
    "removal",
    "resolvconf",
    "sandbox",
    "status",
    "sync",
    "traceback",
    "vlans",
    "wiring",
]
