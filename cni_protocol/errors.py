"""The error codes of the CNI specification, pycni's own codes from 100 on, and the exception that carries a code.

Source: SPEC.md, section "Error".
"""

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
NOT_AVAILABLE_LIMITED = 51

# SPEC.md leaves 100 and above to the plugins.
KERNEL_REFUSED = 100
NO_ADDRESS = 101
ALREADY_EXISTS = 102
CHECK_FAILED = 103
DELEGATE_FAILED = 104
INCOMPLETE_DELETE = 105
INTERNAL = 199

# What the state of the node decides, and what looks at that.
OF_THE_NODE = (NOT_AVAILABLE, NOT_AVAILABLE_LIMITED, KERNEL_REFUSED, NO_ADDRESS, CHECK_FAILED)
DIAGNOSIS = "pycni doctor on this node tells more"


class CNIError(Exception):
    """A failure as it is reported to the runtime.

    `code` is one of the numbers above. `msg` is one sentence for the operator: what was found, what was expected, what
    to change. `details` is longer text, possibly empty.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


class Interrupted(BaseException):
    """The process got SIGTERM or SIGINT: it undoes what it has begun, then it ends.

    This is not an Exception, so that `except Exception` does not catch it.
    """
