"""The container's network namespace, as CNI_NETNS names it. Source: SPEC.md, section "Parameters"."""

from cni_kernel.errors import KernelError
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import Namespace, open_namespace
from cni_protocol.errors import INVALID_ENVIRONMENT, CNIError


def open_sandbox(path: str) -> Namespace:
    """Open the namespace at a path. Raises CNIError (code 4) when there is none, or it is the host's own."""
    try:
        namespace = open_namespace(path)
    except KernelError as error:
        raise CNIError(INVALID_ENVIRONMENT, f"CNI_NETNS={path} {error.reason}") from None
    if namespace.is_own():
        with namespace:
            raise CNIError(INVALID_ENVIRONMENT, f"CNI_NETNS={path} is the network namespace of the host itself")
    return namespace


def find_sandbox(path: str) -> Namespace | None:
    """Open the namespace at a path. None when it does not exist (any more): DEL continues without it."""
    try:
        return open_sandbox(path) if path else None
    except CNIError:
        return None


def open_inside(namespace: Namespace) -> Kernel:
    """A Kernel for the container's namespace. Raises KernelError."""
    with namespace.entered():
        return Kernel()
