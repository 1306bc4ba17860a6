"""The list of checks. Each is a function that takes the facts and yields findings, independent of the others. Pure.

Must not: read anything.
"""

from collections.abc import Callable, Iterator

from cni_node.doctor import filter_checks, link_checks, node_checks, route_checks
from cni_node.doctor.facts import Facts, Finding

CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    link_checks.check_bridge,
    link_checks.check_gateway,
    link_checks.check_ports,
    link_checks.check_port_flags,
    link_checks.check_mtu,
    link_checks.check_duplicates,
    link_checks.check_foreign_addresses,
    link_checks.check_duplicate_detection,
    link_checks.check_overlay,
    link_checks.check_leftover_links,
    route_checks.check_forwarding,
    route_checks.check_router_advertisements,
    route_checks.check_bridge_filter,
    route_checks.check_ipv6_disabled,
    route_checks.check_reverse_path,
    route_checks.check_own_routes,
    route_checks.check_overlaps,
    route_checks.check_peer_routes,
    route_checks.check_neighbours,
    route_checks.check_neighbour_table,
    filter_checks.check_forward_policy,
    filter_checks.check_rules,
    filter_checks.check_mixed_filters,
    filter_checks.check_services,
    filter_checks.check_host_ports,
    filter_checks.check_connections,
    filter_checks.check_checksums,
    node_checks.check_configurations,
    node_checks.check_plugins,
    node_checks.check_rooms,
    node_checks.check_store,
    node_checks.check_unreserved,
    node_checks.check_pools,
    node_checks.check_namespaces,
    node_checks.check_agent,
    node_checks.check_routes_of_agent,
    node_checks.check_node_address,
    node_checks.check_stub_resolver,
    node_checks.check_policies,
)


def diagnose(facts: Facts) -> list[Finding]:
    """All findings once each, the worst first."""
    found = dict.fromkeys(finding for check in CHECKS for finding in check(facts))
    return sorted(found, key=lambda finding: finding[:3])
