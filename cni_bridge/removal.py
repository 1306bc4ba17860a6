"""Removing veth pairs and rules for DEL and GC, continuing after failures.

Must not: fail when something is gone already; remove anything that has another owner.
"""

from cni_kernel.departure import remove_link
from cni_kernel.errors import KernelError, asking
from cni_kernel.kernel import Kernel
from cni_kernel.namespace import Namespace
from cni_kernel.nft_presence import BRIDGE, INET, PARTS, close_socket, has_table, open_descriptors
from cni_kernel.values import Link
from cni_protocol.attachment import Attachment, spelt_anew
from cni_protocol.errors import INCOMPLETE_DELETE, KERNEL_REFUSED, CNIError
from cni_protocol.light.standard import Callable
from cni_protocol.request import Request

from .config import BridgeConfig
from .refusals import as_cni_error
from .sandbox import find_sandbox, open_inside

_COMMAS = 2  # at least, in an owner
IsStale = Callable[[str], bool]  # gets an owner, returns whether what belongs to it is to be removed


def do_all(*steps: Callable[[], object]) -> None:
    """Run all steps, also after a failure. Raises CNIError: that of the only failure, or 105 naming all failures."""
    failures = []
    for step in steps:
        try:
            step()
        except CNIError as error:
            failures.append(error)
        except KernelError as error:
            failures.append(as_cni_error(error))
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise CNIError(INCOMPLETE_DELETE, "; ".join(error.msg for error in failures))


def remove_pair(request: Request, config: BridgeConfig, attachment: Attachment) -> None:
    """Remove the veth pair of an attachment, also when its sandbox is gone. Raises KernelError."""
    with Kernel() as host:
        namespace = find_sandbox(request.netns)
        if namespace is None:
            disconnect(host, None, config, attachment)
        else:
            with namespace:
                disconnect(host, namespace, config, attachment)


def disconnect(host: Kernel, namespace: Namespace | None, config: BridgeConfig, attachment: Attachment) -> None:
    """Remove the veth pair of an attachment, if it exists.

    It is found even if its host end was renamed, or if the reference made it. If the container's interface is connected
    to another bridge, it belongs to another plugin and stays. An interface whose other end is not in this container
    stays, whatever index the container's has. Raises KernelError.
    """
    port = find_port(host, attachment)
    if port is not None:
        remove_link(port, open_descriptors())
    if namespace is None or port is not None:  # the container's end goes with the host's
        return
    with open_inside(namespace) as inside:
        link = inside.find_link(attachment.ifname)
        if link is None or link.kind != "veth":
            return
        port, bridge = host.find_link_at(link.peer), host.find_link(config.bridge)
        if port is None or port.alias or (port.kind, port.peer) != ("veth", link.ifindex):
            return  # an interface with an alias belongs to another attachment
        if port.master != (bridge.ifindex if bridge is not None else 0):
            return
        from cni_kernel.peers import leads_into  # here, since seldom anything gets this far

        if leads_into(port, namespace.descriptor):  # what is in a container chooses its indexes
            remove_link(port, open_descriptors())


def find_port(host: Kernel, attachment: Attachment) -> Link | None:
    """The host's end of an attachment's pair, found by its name or (after a renaming) its alias. None when it is gone.

    An interface with that name but another owner's alias is not taken for it. An alias that is no owner is somebody's
    note, and claims nothing. Raises KernelError.
    """
    link = host.find_link(attachment.host_name)
    if link is not None and link.kind == "veth":
        alias = spelt_anew(link.alias)
        if alias == attachment.owner or alias.count(",") < _COMMAS:
            return link
    ports = (link for link in host.list_links() if link.kind == "veth" and spelt_anew(link.alias) == attachment.owner)
    return next(ports, None)


def remove_stale_pairs(is_stale: IsStale) -> None:
    """Remove the host's ends of all stale attachments, continuing after failures.

    The alias says whose an end is. One with another alias stays: it may be an attachment of another network, whose
    names GC is not given. DEL finds it by its name.
    Raises CNIError (code 100) naming those that could not be removed, and KernelError when links cannot be listed.
    """
    with Kernel() as host:
        stale = [link for link in host.list_links() if link.kind == "veth" and is_stale(spelt_anew(link.alias))]
    if not stale:
        return
    from cni_kernel.link_groups import delete_links  # here, since GC seldom finds anything to remove

    failures = [as_cni_error(error).msg for error in delete_links(stale)]
    if failures:
        raise CNIError(KERNEL_REFUSED, "; ".join(failures))


def remove_packet_rules(config: BridgeConfig, whose: Attachment, is_stale: IsStale) -> None:
    """Remove NAT and port mappings of the stale owners; `whose` has their hint. Raises KernelError.

    The first of a command's steps on the packet filter.
    """
    close_socket()  # of a command before this one in the same process
    _remove_rules(config, INET, whose.hint, is_stale)


def remove_frame_rules(config: BridgeConfig, whose: Attachment, is_stale: IsStale) -> None:
    """Remove the MAC checks of stale owners; `whose.hint` is a text in all of them. Raises KernelError."""
    _remove_rules(config, BRIDGE, whose.hint, is_stale)


def _remove_rules(config: BridgeConfig, family: int, hint: str, is_stale: IsStale) -> None:
    """Without ipMasq and the like too: it may have been on at ADD. Then a kernel without nftables is fine."""
    try:
        with asking("packet filter rules cannot be removed", PARTS):
            there = has_table(family)
        if there:
            from .sync import delete_rules  # all that knows rules

            delete_rules(family, hint, is_stale, at_end=True)
    except KernelError:
        if config.wants_rules:
            raise
