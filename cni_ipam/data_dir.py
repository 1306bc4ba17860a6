"""The directory of the reservations (ipam.dataDir). DEL and GC read no other key, so they work with a broken rest.

Must not: touch the store.
"""

from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.fields import Fields
from cni_protocol.request import Request

DEFAULT_DATA_DIR = "/var/lib/cni/networks"


def parse_data_dir(request: Request) -> str:
    """The data directory that a request's configuration names, or the default. Raises CNIError (code 7)."""
    problems: list[str] = []
    data_dir = read_data_dir(Fields(request.config, "", problems).object("ipam"))
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid IPAM configuration: " + "; ".join(problems))
    return data_dir


def read_data_dir(ipam: Fields) -> str:
    """The data directory that an ipam object names, or the default. Problems are noted in the object."""
    data_dir = ipam.text("dataDir") or DEFAULT_DATA_DIR
    if not data_dir.startswith("/"):
        ipam.problem("dataDir", f"{data_dir!r} must be an absolute path")
    return data_dir
