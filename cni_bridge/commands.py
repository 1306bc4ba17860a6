"""ADD, DEL and CHECK of the bridge plugin: the story.

The rooms that talk to the kernel bring pyroute2's messages along, so they are imported where a command first needs
them: a configuration error is answered without them.
"""

from collections.abc import Callable
from typing import Any

from cni_protocol.delegate import run_plugin
from cni_protocol.errors import CHECK_FAILED, INCOMPLETE_DELETE, INVALID_CONFIG, CNIError
from cni_protocol.request import Request
from cni_protocol.result import parse_result, result_to_json

from .config import BridgeConfig, parse_config, salvage_config
from .plan import LAYER_2, Attachment, Plan, make_plan, make_result
from .undo import Undo
from .verify import find_differences, make_expected


def add(request: Request) -> dict[str, Any]:
    """Connect a container to the bridge. Returns the result object; a failure is undone in full.

    Raises CNIError: 4 and 7 for bad input, 100 for what the kernel refuses, 102 when the interface is there already,
    and whatever the IPAM plugin reports.
    """
    config = parse_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    from . import masquerade, wiring
    from .kernel import Kernel
    from .namespace import open_namespace

    with open_namespace(request.netns) as namespace, Kernel() as host, wiring.open_inside(namespace) as inside:
        wiring.require_absent(host, inside, attachment)
        with Undo() as undo:
            wiring.connect(host, namespace, config, attachment, undo)
            plan = _ask_ipam(config, request, undo)
            wiring.configure_container(inside, namespace, plan, attachment.ifname)
            if plan.masqueraded:
                undo.on_failure(masquerade.delete_masquerade, attachment)
                masquerade.ensure_masquerade(attachment, plan.masqueraded)
            interfaces = wiring.list_interfaces(host, inside, config, attachment, request.netns)
            wiring.go_live(host, namespace, plan, attachment, interfaces[-1].mac)
            wiring.configure_gateway(host, config, plan)
    return result_to_json(make_result(plan, interfaces).after(config.previous), request.version)


def delete(request: Request) -> None:
    """Remove all that ADD made, every step of it that can be done; what is gone already is fine.

    Raises CNIError (code 105) naming everything that could not be removed.
    """
    config = salvage_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    steps: list[Callable[[], object]] = [
        lambda: _disconnect(request, config, attachment),
        lambda: _unmasquerade(config, attachment),
    ]
    if config.ipam_type:  # last: an address must not be given out while it is still in use here
        steps.append(lambda: run_plugin(config.ipam_type, "DEL", request))
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


def check(request: Request) -> None:
    """Compare the attachment with prevResult. Raises CNIError: 103 naming every difference, or the IPAM plugin's."""
    config = parse_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    if config.previous is None:
        raise CNIError(INVALID_CONFIG, "prevResult: is missing; CHECK needs the result of ADD")
    if config.ipam_type:
        run_plugin(config.ipam_type, "CHECK", request)
    expected = make_expected(config.previous, request.ifname, request.netns)
    from . import masquerade, wiring
    from .kernel import Kernel
    from .namespace import open_namespace

    with open_namespace(request.netns) as namespace, Kernel() as host, wiring.open_inside(namespace) as inside:
        addresses = [entry.address for entry in expected.ips]
        missing_rules = masquerade.find_missing(attachment, addresses) if config.ip_masq and addresses else []
        observed = wiring.observe(host, inside, config, attachment, missing_rules)
    differences = find_differences(config, attachment, expected, observed)
    if differences:
        raise CNIError(CHECK_FAILED, "; ".join(differences))


def _ask_ipam(config: BridgeConfig, request: Request, undo: Undo) -> Plan:
    """What the IPAM plugin gives out, as a plan. Also a failed IPAM ADD is followed by its DEL (SPEC.md, section 4)."""
    if not config.ipam_type:
        return LAYER_2
    undo.on_failure(run_plugin, config.ipam_type, "DEL", request)
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


def _unmasquerade(config: BridgeConfig, attachment: Attachment) -> None:
    """Without ipMasq too: it may have been on when the container was added. Then a kernel without nftables is fine."""
    from .masquerade import delete_masquerade

    try:
        delete_masquerade(attachment)
    except CNIError:
        if config.ip_masq:
            raise
