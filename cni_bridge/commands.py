"""The commands of the bridge plugin: the story.

The rooms that talk to the kernel bring pyroute2's messages along, so they are imported where a command first needs
them: a configuration error is answered without them.
"""

import sys

from cni_protocol.attachments import parse_valid_attachments
from cni_protocol.delegate import is_own, run_plugin
from cni_protocol.errors import (
    ALREADY_EXISTS,
    CHECK_FAILED,
    INCOMPLETE_DELETE,
    INVALID_CONFIG,
    NOT_AVAILABLE,
    NOT_AVAILABLE_LIMITED,
    CNIError,
)
from cni_protocol.lean import Any, Callable
from cni_protocol.plugin import keep_result
from cni_protocol.request import Request
from cni_protocol.result import parse_result, result_to_json

from .attachment import Attachment
from .config import BridgeConfig, parse_config, salvage_config
from .filters import list_filters, sample_filters
from .plan import LAYER_2, Plan, make_plan, make_result
from .rules import BRIDGE, INET
from .undo import Undo
from .verify import find_differences, make_expected


def add(request: Request) -> dict[str, Any]:
    """Connect a container to the bridge. Returns the result object; a failure is undone in full.

    Raises CNIError: 4 and 7 for bad input, 100 for what the kernel refuses, 102 when the interface is there already or
    a host port is taken, and whatever the IPAM plugin reports.
    """
    config = parse_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    from . import ruleset, wiring
    from .kernel import Kernel
    from .namespace import activity_lock, attachment_lock, open_namespace

    with (
        activity_lock(exclusive=False),
        attachment_lock(attachment.host_name),
        open_namespace(request.netns) as namespace,
        Kernel() as host,
        wiring.open_inside(namespace) as inside,
    ):
        wiring.require_absent(host, inside, attachment)
        with Undo() as undo:
            # our own address plugin does not look at the interface, so without an address none is made
            plan = _ask_ipam(config, request, undo) if is_own(config.ipam_type, request) else None
            wiring.connect(host, namespace, config, attachment, undo)
            plan = plan or _ask_ipam(config, request, undo)
            link = wiring.configure_container(inside, namespace, config, plan, request.ifname)
            interfaces = wiring.list_interfaces(host, link, config, attachment, request.netns)
            addresses = [entry.address for entry in plan.ips]
            undo.on_failure(ruleset.delete_own_rules, attachment.owner)
            for rules in list_filters(config, attachment, addresses, interfaces[2].mac):
                ruleset.ensure_rules(rules)
            wiring.go_live(host, inside, config, plan, attachment.host_name, link)
            interfaces += wiring.configure_host(host, config, plan)
            keep_result()
    return result_to_json(make_result(plan, interfaces).after(config.previous), request.version)


def delete(request: Request) -> None:
    """Remove all that ADD made, every step of it that can be done; what is gone already is fine.

    Raises CNIError: that of the one step that failed, or 105 naming everything that could not be removed.
    """
    config = salvage_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    from .namespace import attachment_lock

    with attachment_lock(attachment.host_name):
        steps: list[Callable[[], object]] = [
            lambda: _delete_rules(config, INET, attachment.owner, attachment.owner.__eq__, at_end=True),
            lambda: _disconnect(request, config, attachment),
            # what holds the container to its MAC goes after its interface
            lambda: _delete_rules(config, BRIDGE, attachment.owner, attachment.owner.__eq__, at_end=True),
        ]
        if config.ipam_type:  # last: an address must not be given out while it is still in use here
            steps.append(lambda: run_plugin(config.ipam_type, "DEL", request))
        _do_all(steps)


def check(request: Request) -> None:
    """Compare the attachment with prevResult. Raises CNIError: 103 naming every difference, or the IPAM plugin's."""
    config = parse_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    if config.previous is None:
        raise CNIError(INVALID_CONFIG, "prevResult: is missing; CHECK needs the result of ADD")
    if config.ipam_type:
        run_plugin(config.ipam_type, "CHECK", request)
    expected = make_expected(config.previous, request.ifname, request.netns)
    from . import ruleset, wiring
    from .kernel import Kernel
    from .namespace import open_namespace

    with open_namespace(request.netns) as namespace, Kernel() as host, wiring.open_inside(namespace) as inside:
        addresses = [entry.address for entry in expected.ips]
        mac = expected.container.mac if expected.container is not None else ""
        filters = list_filters(config, attachment, addresses, mac)
        missing = [difference for rules in filters for difference in ruleset.find_missing(rules)]
        observed = wiring.observe(host, inside, config, attachment, missing)
    differences = find_differences(config, attachment, expected, observed)
    if differences:
        raise CNIError(CHECK_FAILED, "; ".join(differences))


def status(request: Request) -> None:
    """Raise CNIError when ADD could not work: 50, 51 where running containers suffer too. Changes nothing."""
    config = parse_config(request)
    from .status import require_ready

    require_ready(config, sample_filters(config))
    if config.ipam_type:
        try:
            run_plugin(config.ipam_type, "STATUS", request)
        except CNIError as error:
            code = error.code if error.code in (NOT_AVAILABLE, NOT_AVAILABLE_LIMITED) else NOT_AVAILABLE
            raise CNIError(code, error.msg, error.details) from None


def collect(request: Request) -> None:
    """GC: remove host interfaces and rules of attachments that are not in the valid list, and have IPAM do the same.

    Raises CNIError: 7 for a malformed list (then nothing is removed), else as delete.
    """
    valid = parse_valid_attachments(request)
    config = salvage_config(request)
    network = Attachment(request.name, "", "")
    steps: list[Callable[[], object]] = []
    if valid is None:
        print("cni-bridge: GC without a list of valid attachments: nothing was removed", file=sys.stderr)
    else:
        owners = {Attachment(request.name, container_id, ifname).owner for container_id, ifname in valid.pairs}
        steps = [
            lambda: _disconnect_stale(network, lambda owner: owner not in owners),
            lambda: _delete_rules(config, INET, network.owner_prefix, lambda owner: owner not in owners),
            lambda: _delete_rules(config, BRIDGE, network.owner_prefix, lambda owner: owner not in owners),
        ]
    if config.ipam_type:
        steps.append(lambda: run_plugin(config.ipam_type, "GC", request))
    from .namespace import activity_lock

    with activity_lock(exclusive=True):
        _do_all(steps)


def _ask_ipam(config: BridgeConfig, request: Request, undo: Undo) -> Plan:
    """What the IPAM plugin gives out, as a plan. Also a failed IPAM ADD is followed by its DEL (SPEC.md, section 4)."""
    if not config.ipam_type:
        return LAYER_2
    undo.on_failure(run_plugin, config.ipam_type, "DEL", request)
    try:
        document = run_plugin(config.ipam_type, "ADD", request)
    except CNIError as error:
        if error.code != ALREADY_EXISTS:
            raise
        # What holds the address is an ADD of this very attachment that died: neither end of its pair was there.
        run_plugin(config.ipam_type, "DEL", request)
        document = run_plugin(config.ipam_type, "ADD", request)
    return make_plan(config, parse_result(document, request.version, f"result of {config.ipam_type}"))


def _disconnect(request: Request, config: BridgeConfig, attachment: Attachment) -> None:
    from .kernel import Kernel
    from .namespace import find_namespace
    from .wiring import disconnect

    with Kernel() as host:
        namespace = find_namespace(request.netns)
        if namespace is None:
            disconnect(host, None, config, attachment)
        else:
            with namespace:
                disconnect(host, namespace, config, attachment)


def _disconnect_stale(network: Attachment, is_stale: Callable[[str], bool]) -> None:
    from .kernel import Kernel
    from .wiring import disconnect_stale

    with Kernel() as host:
        disconnect_stale(host, network, is_stale)


def _delete_rules(
    config: BridgeConfig, family: int, mark: str, is_stale: Callable[[str], bool], *, at_end: bool = False
) -> None:
    """Without ipMasq and the like too: it may have been on at ADD. Then a kernel without nftables is fine."""
    from .kernel import Kernel
    from .ruleset import delete_rules, has_loopback_targets, list_loopback_targets
    from .wiring import close_loopback

    network = Attachment(config.network, "", "")
    try:
        if delete_rules(family, mark, is_stale, at_end=at_end) and not has_loopback_targets(network.owner_prefix):
            with Kernel() as host:
                close_loopback(host, config, list_loopback_targets)
    except CNIError:
        if sample_filters(config):
            raise


def _do_all(steps: list[Callable[[], object]]) -> None:
    """Do every step, also after one that failed; then raise what failed."""
    failures = []
    for step in steps:
        try:
            step()
        except CNIError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise CNIError(INCOMPLETE_DELETE, "; ".join(error.msg for error in failures))
