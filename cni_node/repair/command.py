"""`pycni repair`: puts back the rules, routes and sysctls of what runs, from what the runtime remembers of it.

A flush of the rule set removes NAT and host ports of running containers, and no runtime notices that.
Must not: make rules for containers that do not run, or change anything without --apply.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cni_bridge.attachment_rules import list_rules
from cni_bridge.config import BridgeConfig, parse_config
from cni_bridge.locks import attachment_lock
from cni_bridge.refusals import kernel_refusals
from cni_bridge.sync import ensure_rules, find_missing
from cni_bridge.verify import Expected, make_expected
from cni_kernel.expressions import Rules
from cni_kernel.kernel import Kernel
from cni_node.repair.ways import Wanted, is_running, repair_pod, repair_sysctls
from cni_node.results import DIRECTORY, PLUGIN, Cached, list_attachments
from cni_protocol.attachment import Attachment
from cni_protocol.errors import CNIError
from cni_protocol.request import parse_request


class Finding(NamedTuple):
    """What a running attachment lacks: whose it is, and in sentences what is missing."""

    attachment: Attachment
    missing: tuple[str, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `pycni repair`."""
    parser.add_argument("--apply", action="store_true", help="put it back; else it is only said what is missing")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, default=DIRECTORY, help=f"what the runtime remembers [{DIRECTORY}]"
    )


def run(options: argparse.Namespace) -> int:
    """Print the missing rules, with --apply also restore them. Returns 0 when nothing is missing (any more), else 1."""
    findings, problems = repair(options.results, apply=options.apply)
    others, more = _repair_others(options.results, apply=options.apply)
    for problem in dict.fromkeys([*problems, *more]):
        print(f"pycni: {problem}", file=sys.stderr)
    state = "put back" if options.apply else "missing"
    texts = [f"{_whose(finding.attachment)}: {what}" for finding in findings for what in finding.missing] + others
    for text in texts:
        print(f"{state}: {text}")
    if texts and not options.apply:
        print("pycni: nothing was changed; --apply puts it back", file=sys.stderr)
    return 1 if problems or more or (texts and not options.apply) else 0


def _whose(attachment: Attachment) -> str:
    return f"container {attachment.container_id} interface {attachment.ifname} of network {attachment.network}"


def _repair_others(directory: Path, *, apply: bool) -> tuple[list[str], list[str]]:
    """Routes, gateways and sysctls: what is missing or was put back, and in sentences what went wrong."""
    cached, problems = list_attachments(directory)
    pods, texts = [], []
    for entry in cached:
        attachment = Attachment(entry.network, entry.container_id, entry.ifname)
        try:
            pod = Wanted(attachment, entry.netns, *_parse(entry))
            texts += [f"{_whose(attachment)}: {what}" for what in repair_pod(pod, apply=apply)]
        except CNIError as error:
            problems.append(f"container {entry.container_id} of network {entry.network}: {error.msg}")
            continue
        if is_running(attachment):
            pods.append(pod)
    done, refused = repair_sysctls(pods, apply=apply)
    return texts + done, problems + refused


def repair(directory: Path, *, apply: bool) -> tuple[list[Finding], list[str]]:
    """Find rules that running attachments lack; with `apply` restore them. Returns these, and problems as sentences."""
    cached, problems = list_attachments(directory)
    findings = []
    for entry in cached:
        try:
            missing = tuple(_repair_one(entry, apply=apply))
        except CNIError as error:
            problems.append(f"container {entry.container_id} of network {entry.network}: {error.msg}")
            continue
        if missing:
            findings.append(Finding(Attachment(entry.network, entry.container_id, entry.ifname), missing))
    return findings, problems


def _repair_one(entry: Cached, *, apply: bool) -> Iterator[str]:
    """Repair one attachment under its lock, since a concurrent DEL would leave rules that we add. Raises CNIError."""
    attachment = Attachment(entry.network, entry.container_id, entry.ifname)
    with attachment_lock(attachment.host_name), kernel_refusals():
        with Kernel() as host:
            if host.find_link(attachment.host_name) is None:  # it does not run
                return
        for rules in wanted_rules(entry, attachment):
            missing = find_missing(rules)
            if missing and apply:
                ensure_rules(rules)
            yield from missing


def wanted_rules(entry: Cached, attachment: Attachment) -> list[Rules]:
    """The rules that ADD made. Raises CNIError."""
    config, expected = _parse(entry)
    mac = expected.container.mac if expected.container is not None else ""
    return list_rules(config, attachment, [ip.address for ip in expected.ips], mac)


def _parse(entry: Cached) -> tuple[BridgeConfig, Expected]:
    """The configuration of ADD, and what it made. Raises CNIError."""
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": entry.container_id,
        "CNI_NETNS": entry.netns or "/",
        "CNI_IFNAME": entry.ifname,
        "CNI_ARGS": entry.args,
        "CNI_PATH": f"/opt/cni/bin/{PLUGIN}",
    }
    config = parse_config(parse_request(env, json.dumps(entry.config).encode()))
    assert config.previous is not None
    return config, make_expected(config.previous, entry.ifname, [entry.netns])
