"""The one importer of pyroute2: its netlink message classes, and nothing else of it.

`import pyroute2` loads some 370 modules (asyncio, ssl, sqlite3, ...) and takes longer than a whole ADD, and so does
any of its submodules, since the package's `__init__` runs first. A plugin is one short process per call, so this
module puts empty packages of the same names in place first; the message classes below them need no more than that.
Whoever has imported the real pyroute2 before keeps it.

Must not: open a socket, or know what a message is for.
"""

import importlib.util
import sys
from types import ModuleType


def _bare_package(name: str) -> None:
    """Put the package `name` into sys.modules without running its `__init__`."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"no module named {name!r}", name=name)
    module = ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = module


def _without_sockets(name: str) -> None:
    """Put a stand-in for the socket module that nftsocket subclasses (it pulls in asyncio) into sys.modules."""
    module = ModuleType(name)
    module.NetlinkSocket = module.AsyncNetlinkSocket = object  # type: ignore[attr-defined]
    sys.modules[name] = module


if "pyroute2" not in sys.modules:
    _bare_package("pyroute2")
    _without_sockets("pyroute2.netlink.nlsocket")

from pyroute2.netlink.nfnetlink.nftsocket import (
    nft_chain_msg,
    nft_gen_msg,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = [
    "ifaddrmsg",
    "ifinfmsg",
    "nft_chain_msg",
    "nft_gen_msg",
    "nft_rule_msg",
    "nft_set_elem_list_msg",
    "nft_set_msg",
    "nft_table_msg",
    "rtmsg",
]
