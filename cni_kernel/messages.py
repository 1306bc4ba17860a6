"""The one importer of pyroute2: its netlink message classes, and nothing else of it.

What every ADD sends is encoded in attributes.py; pyroute2 is for what only some networks have (VLANs, overlays).
`import pyroute2` loads some 370 modules (asyncio, ssl, sqlite3, ...), and so does any of its submodules, since the
package's `__init__` runs first. So this module puts an empty package of the same name in place first; the message
classes below it need no more than that. Whoever has imported the real pyroute2 before keeps it.

Must not: open a socket, or know what a message is for.
"""

import importlib.util
import sys
from types import ModuleType

from cni_protocol.light.standard import Any


def _bare_package(name: str) -> None:
    """Put the package `name` into sys.modules without running its `__init__`."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"no module named {name!r}", name=name)
    module = ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[name] = module


if "pyroute2" not in sys.modules:
    _bare_package("pyroute2")

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

__all__ = ["HEADER_BYTES", "body_of", "ifinfmsg", "ndmsg"]

HEADER_BYTES = 16  # of struct nlmsghdr


def body_of(message: Any) -> bytes:
    """The encoded body (without the netlink header) of a message."""
    message.encode()
    return bytes(message.data[HEADER_BYTES:])
