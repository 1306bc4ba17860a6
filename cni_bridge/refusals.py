"""The one translation of KernelError to CNIError: how the runtime is told that the kernel refused.

Must not: decide whether a refusal matters; that is done on KernelError.errno where it happens.
"""

import errno

from cni_kernel.errors import KernelError
from cni_protocol.errors import KERNEL_REFUSED, CNIError
from cni_protocol.light.standard import Any, Callable, Iterator, contextmanager
from cni_protocol.request import Request

_LACKING = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT}
_RULES_LACKING = {*_LACKING, errno.ENOENT, errno.EINVAL}  # nf_tables: the module of an expression is missing
_REMEDIES = {
    errno.EPERM: "run the plugin as root",
    errno.EEXIST: "something of that name is there already; send DEL, or remove it",
    errno.ENETUNREACH: "the gateway is on no network of the interface; correct routes and gateway in ipam",
    errno.EINVAL: "the kernel takes no such value; correct the configuration",
}

Command = Callable[[Request], Any]


def as_cni_error(error: KernelError) -> CNIError:
    """CNIError (code 100) with the request, the kernel's reason, and a remedy if one is known."""
    remedy = _REMEDIES.get(error.errno, "")
    if error.errno in (_RULES_LACKING if "nf_tables" in error.parts else _LACKING):
        remedy = f"this kernel lacks it (modules {error.parts})"
    return CNIError(KERNEL_REFUSED, str(error) + (f"; {remedy}" if remedy else ""))


@contextmanager
def kernel_refusals() -> Iterator[None]:
    """Turn a KernelError of the block into CNIError (code 100)."""
    try:
        yield
    except KernelError as error:
        raise as_cni_error(error) from None


def translated(command: Command) -> Command:
    """Decorate a command: a KernelError is raised as CNIError (code 100)."""

    def run(request: Request) -> Any:
        with kernel_refusals():
            return command(request)

    return run
