"""Imports all modules that a call may need: the plugins, and the modules that they import inside functions."""

import difflib
import json
import traceback

import cni_bridge.__main__
import cni_ipam.__main__
from cni_bridge import claims, locks, policy, removal, sandbox, status, sync, waiting_ports, wiring
from cni_ipam import config, host_addresses, peek, recovery, resolvconf
from cni_kernel import conntrack, kernel, link_groups, namespace, vlans
from cni_protocol.light import libc

PLUGINS = {"cni-bridge": cni_bridge.__main__.main, "cni-ipam": cni_ipam.__main__.main}

__all__ = [
    "PLUGINS",
    "claims",
    "config",
    "conntrack",
    "difflib",
    "host_addresses",
    "json",
    "kernel",
    "libc",
    "link_groups",
    "locks",
    "namespace",
    "peek",
    "policy",
    "recovery",
    "removal",
    "resolvconf",
    "sandbox",
    "status",
    "sync",
    "traceback",
    "vlans",
    "waiting_ports",
    "wiring",
]
