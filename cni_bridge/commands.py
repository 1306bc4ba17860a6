"""The commands of the bridge plugin, step by step. Start reading here.

Modules that talk to the kernel are imported inside the commands, so that a configuration error is answered without
them.
"""

import sys

from cni_protocol.address import CIDR
from cni_protocol.attachment import Attachment
from cni_protocol.delegate import is_own, run_plugin
from cni_protocol.errors import (
    ALREADY_EXISTS,
    CHECK_FAILED,
    INVALID_CONFIG,
    NOT_AVAILABLE,
    NOT_AVAILABLE_LIMITED,
    CNIError,
)
from cni_protocol.light.standard import Any
from cni_protocol.request import Request
from cni_protocol.result import parse_result, result_to_json

from .config import BridgeConfig, normal_mac, parse_config, salvage_config
from .plan import LAYER_2, Plan, make_plan, make_result
from .refusals import translated
from .undo import Undo


@translated
def add(request: Request) -> dict[str, Any]:
    """ADD: connect a container to the bridge. Returns the result object. On failure all steps are undone.

    Raises CNIError: 4 and 7 for bad input, 100 when the kernel refuses, 102 when the interface exists already or a host
    port is taken, 11 for a lock that is not free in time, and any error of the IPAM plugin.
    """
    config = parse_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    from cni_kernel.kernel import Kernel

    from . import wiring
    from .locks import activity_lock, attachment_lock
    from .sandbox import open_inside, open_sandbox

    with (
        activity_lock(exclusive=False),
        attachment_lock(attachment.host_name),
        open_sandbox(request.netns) as namespace,
        Kernel() as host,
        open_inside(namespace) as inside,
    ):
        site = wiring.Site(host, inside, namespace, config, attachment)
        wiring.require_absent(site)
        with Undo() as undo:
            # cni-ipam needs no interface, so it is asked first: without an address nothing is made
            plan = _ask_ipam(config, request, undo) if is_own(config.ipam_type, request) else None
            bridge = wiring.connect(site, undo)
            plan = plan or _ask_ipam(config, request, undo)
            addresses = [entry.address for entry in plan.ips]
            _announce(config, request, addresses, undo)
            link = wiring.configure_container(site, plan, undo)
            interfaces = wiring.list_interfaces(site, bridge, link, request.netns)
            if config.wants_rules:
                from .sync import ensure_own_rules

                ensure_own_rules(config, attachment, addresses, mac=interfaces[2].mac, undo=undo)
            wiring.go_live(site, plan, link)
            interfaces += wiring.configure_host(host, config, plan)
            request.finish_uninterrupted()
    return result_to_json(make_result(plan, interfaces).after(config.previous), request.version)


@translated
def delete(request: Request) -> None:
    """DEL: remove all that ADD made. It continues after failures, and what is gone already is no failure.

    Raises CNIError: that of the step that failed, or 105 naming all failures when there are several.
    """
    config = salvage_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    from .locks import attachment_lock
    from .removal import do_all, remove_frame_rules, remove_packet_rules, remove_pair

    with attachment_lock(attachment.host_name):
        do_all(
            lambda: remove_packet_rules(config, attachment, attachment.owner.__eq__),
            lambda: remove_pair(request, config, attachment),
            # the MAC check goes after the interface, so that it holds as long as the container can send
            lambda: remove_frame_rules(config, attachment, attachment.owner.__eq__),
            # what keeps packets from it goes after its interface, too
            lambda: _withdraw(config, request),
            # last: an address must not be given out while it is still in use here
            lambda: run_plugin(config.ipam_type, "DEL", request) if config.ipam_type else None,
        )


@translated
def check(request: Request) -> None:
    """CHECK: compare the attachment with prevResult. Raises CNIError: 103 naming all differences, or IPAM's error."""
    config = parse_config(request)
    attachment = Attachment(request.name, request.container_id, request.ifname)
    if config.previous is None:
        raise CNIError(INVALID_CONFIG, "prevResult: is missing; CHECK needs the result of ADD")
    if config.ipam_type:
        run_plugin(config.ipam_type, "CHECK", request)
    from cni_kernel.kernel import Kernel

    from . import sync
    from .attachment_rules import list_rules
    from .observation import observe
    from .sandbox import open_inside, open_sandbox
    from .verify import find_differences, make_expected
    from .wiring import Site

    with open_sandbox(request.netns) as namespace, Kernel() as host, open_inside(namespace) as inside:
        sandboxes = [entry.sandbox for entry in config.previous.interfaces if namespace.is_at(entry.sandbox)]
        expected = make_expected(config.previous, request.ifname, sandboxes)
        addresses = [entry.address for entry in expected.ips]
        mac = normal_mac(expected.container.mac) if expected.container is not None else ""
        wanted = list_rules(config, attachment, addresses, mac)
        missing = [difference for rules in wanted for difference in sync.find_missing(rules)]
        observed = observe(Site(host, inside, namespace, config, attachment), missing)
    differences = find_differences(config, attachment, expected, observed)
    if differences:
        raise CNIError(CHECK_FAILED, "; ".join(differences))


@translated
def status(request: Request) -> None:
    """STATUS: raise CNIError when ADD would fail: 50, or 51 when running containers are affected too."""
    config = parse_config(request)
    from .attachment_rules import sample_rules
    from .status import require_ready

    require_ready(config, sample_rules(config))
    if config.ipam_type:
        try:
            run_plugin(config.ipam_type, "STATUS", request)
        except CNIError as error:
            code = error.code if error.code in (NOT_AVAILABLE, NOT_AVAILABLE_LIMITED) else NOT_AVAILABLE
            raise CNIError(code, error.msg, error.details) from None


@translated
def collect(request: Request) -> None:
    """GC: remove host interfaces and rules of attachments that are not in the list of valid ones; then run GC of IPAM.

    Raises CNIError: 7 for a malformed list (then nothing is removed), otherwise as delete does.
    """
    from cni_protocol.valid_attachments import parse_valid_attachments

    valid = parse_valid_attachments(request)
    config = salvage_config(request)
    network = Attachment(request.name, "", "")
    from .locks import activity_lock
    from .removal import do_all, remove_frame_rules, remove_packet_rules, remove_stale_pairs

    with activity_lock(exclusive=True):
        steps = []
        if valid is None:
            print("cni-bridge: GC without a list of valid attachments: nothing was removed", file=sys.stderr)
        else:
            owners = {Attachment(request.name, container_id, ifname).owner for container_id, ifname in valid.pairs}

            def is_stale(owner: str) -> bool:
                return owner.startswith(network.owner_prefix) and owner not in owners

            steps = [
                lambda: remove_stale_pairs(is_stale),
                lambda: remove_packet_rules(config, network, is_stale),
                lambda: remove_frame_rules(config, network, is_stale),
            ]
        do_all(*steps, lambda: run_plugin(config.ipam_type, "GC", request) if config.ipam_type else None)


def _announce(config: BridgeConfig, request: Request, addresses: list[CIDR], undo: Undo) -> None:
    """While the container's end is down: nothing passes before its policies are in force."""
    if config.agent:
        from .policy import announce_pod, withdraw_pod

        undo.on_failure(withdraw_pod, config.agent, request, addresses)
        announce_pod(config.agent, request, addresses, required=config.require_policies)


def _withdraw(config: BridgeConfig, request: Request) -> None:
    """The addresses are about to be another pod's."""
    if config.agent and config.previous is not None:
        from .policy import withdraw_pod

        withdraw_pod(config.agent, request, [entry.address for entry in config.previous.ips])


def _ask_ipam(config: BridgeConfig, request: Request, undo: Undo) -> Plan:
    """Run the IPAM plugin's ADD, and plan with its result. Its DEL follows on failure, also its own (SPEC.md, 4)."""
    if not config.ipam_type:
        return LAYER_2._replace(dns=config.dns) if config.dns else LAYER_2
    undo.on_failure(run_plugin, config.ipam_type, "DEL", request)
    try:
        document = run_plugin(config.ipam_type, "ADD", request)
    except CNIError as error:
        if error.code != ALREADY_EXISTS:
            raise
        # An earlier ADD of this attachment died and left the reservation: neither end of the pair exists.
        run_plugin(config.ipam_type, "DEL", request)
        document = run_plugin(config.ipam_type, "ADD", request)
    return make_plan(config, parse_result(document, request.version, f"result of {config.ipam_type}"))
