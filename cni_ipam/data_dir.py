"""Where the reservations are: all that DEL and GC need of a configuration, whose rest may be broken by then.

Must not: touch the store.
"""

from cni_protocol.errors import INVALID_CONFIG, CNIError
from cni_protocol.fields import Fields
from cni_protocol.request import Request

DEFAULT_DATA_DIR = "/var/lib/cni/networks"


def parse_data_dir(request: Request) -> str:
    """The directory that a configuration names. Raises CNIError (code 7)."""
    problems: list[str] = []
    data_dir = read_data_dir(Fields(request.config, "", problems).object("ipam"))
    if problems:
        raise CNIError(INVALID_CONFIG, "invalid IPAM configuration: " + "; ".join(problems))
    return data_dir


def read_data_dir(ipam: Fields) -> str:
    """The directory that an ipam object names; problems go to the object."""
    data_dir = ipam.text("dataDir") or DEFAULT_DATA_DIR
    if not data_dir.startswith("/"):
        ipam.problem("dataDir", f"{data_dir!r} must be an absolute path")
    return data_dir
