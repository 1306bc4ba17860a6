"""The commands of the address plugin. All but STATUS run under the network's lock.

Modules that only ADD needs are imported inside functions, so that DEL and GC do not load them.
"""

from __future__ import annotations

import sys

from cni_protocol.address import CIDR, IP
from cni_protocol.attachment import Attachment
from cni_protocol.errors import (
    ALREADY_EXISTS,
    CHECK_FAILED,
    INVALID_CONFIG,
    IO_FAILURE,
    NO_ADDRESS,
    NOT_AVAILABLE,
    CNIError,
)
from cni_protocol.light.standard import TYPE_CHECKING, Any
from cni_protocol.light.system import os
from cni_protocol.request import Request
from cni_protocol.result import DNS, IPConfig, Result, parse_result, result_to_json

from .data_dir import parse_data_dir
from .records import UNKNOWN
from .store import Store, open_store

if TYPE_CHECKING:
    from .config import IpamConfig
    from .host_addresses import HostAddresses
    from .index import Index
    from .ranges import RangeSet

_SHOWN_SETS = 8  # in messages


def add(request: Request) -> dict[str, Any]:
    """ADD: reserve one address of every range set, or none at all. Returns the result object.

    Raises CNIError: 101 when a range set has no free address; 102 when a requested address is taken, or the attachment
    has an address already; 5 when the store cannot be used, 7 for the configuration, 11 when the lock is not free.
    """
    from .config import parse_config

    config = parse_config(request)
    for warning in config.warnings:
        print(f"cni-ipam: {warning}", file=sys.stderr)
    dns = _read_dns(config.resolv_conf)
    requests = _match_requests(config)
    with open_store(config.data_dir, config.network, create=True) as store:
        assert store is not None
        addresses = _choose(config, requests, request, store)
        _reserve_all(addresses, request, store)
    ips = tuple(_ip_config(ip, pool) for ip, pool in zip(addresses, config.pools, strict=True))
    return result_to_json(Result(ips=ips, routes=config.routes, dns=dns), request.version)


def delete(request: Request) -> None:
    """DEL: release all addresses of the attachment, if it has any. Raises CNIError (codes 5, 7, 11)."""
    with open_store(parse_data_dir(request), request.name, create=False) as store:
        if store is None:
            return
        damaged = [ip for ip in _previous_addresses(request) if store.is_nobodys(ip)]
        _release_all(store, _addresses_of(request, store) + damaged)


def check(request: Request) -> None:
    """CHECK: raise CNIError (code 103) unless the attachment holds the addresses of ours that prevResult lists."""
    from .config import parse_config

    config = parse_config(request)
    expected = [ip for ip in _previous_addresses(request) if config.table.find(ip)]
    with open_store(config.data_dir, config.network, create=False) as store:
        held = set(_addresses_of(request, store)) if store is not None else set()
    missing = [ip for ip in expected if ip not in held]
    if missing or not held:
        what = ", ".join(map(str, missing)) or "any address"
        raise CNIError(
            CHECK_FAILED,
            f"container {request.container_id} interface {request.ifname} has no reservation of {what} in "
            f"{config.data_dir}/{config.network}; recreate the container",
        )


def status(request: Request) -> None:
    """STATUS: raise CNIError (code 50) when ADD would fail: a range set is exhausted, or the store cannot be used."""
    from .config import parse_config
    from .host_addresses import HostAddresses
    from .peek import peek

    config = parse_config(request)
    host = HostAddresses()
    try:
        exhausted, hint = peek(
            config.data_dir,
            config.network,
            lambda index: [str(pool) for pool in config.pools if not _find_unused(pool, None, host, index, tell=False)],
        )
    except CNIError as error:
        raise CNIError(NOT_AVAILABLE, error.msg) from None
    if exhausted:
        raise CNIError(NOT_AVAILABLE, f"no IP addresses available in range set: {'; '.join(exhausted)}{hint}")


def collect(request: Request) -> None:
    """GC: release every address of this instance whose attachment is not in the list of valid ones.

    Raises CNIError: 7 for a malformed list (then nothing is removed), 5 naming what could not be removed, 11.
    """
    from cni_protocol.valid_attachments import parse_valid_attachments

    valid = parse_valid_attachments(request)
    if valid is None:
        print("cni-ipam: GC without a list of valid attachments: nothing was removed", file=sys.stderr)
        return
    with open_store(parse_data_dir(request), request.name, create=False) as store:
        if store is None:
            return
        # host-local's older versions wrote the container id alone, so such an owner has no interface
        pairs = [
            (Attachment(request.name, *pair).owner, Attachment(request.name, pair[0], "").owner) for pair in valid.pairs
        ]
        staying = {owner for pair in pairs for owner in pair}
        owners = store.list_owners()
        known = {*owners.values(), *store.list_elsewhere().values()}
        # a reservation without an owner (a damaged file) may be that of a valid attachment that seems to have none
        complete = all(owner in known or any_interface in known for owner, any_interface in pairs)
        stale = [ip for ip, owner in owners.items() if owner not in staying and (complete or owner != UNKNOWN)]
        _release_all(store, stale)


def _addresses_of(request: Request, store: Store) -> list[IP]:
    """The addresses of the attachment: those that this instance gave it, or if none, those of other instances."""
    attachment = request.container_id, request.ifname
    return store.addresses_of(*attachment) or store.addresses_elsewhere(*attachment)


def _release_all(store: Store, addresses: list[IP]) -> None:
    """Release addresses, continuing after failures. Raises CNIError (code 5) naming those that were not released."""
    failures = []
    for ip in addresses:
        try:
            store.release(ip)
        except CNIError as error:
            failures.append(error.msg)
    if failures:
        raise CNIError(IO_FAILURE, "; ".join(failures))


def _previous_addresses(request: Request) -> list[IP]:
    """The addresses in prevResult; none without one. On DEL an invalid prevResult counts as none, else it raises."""
    document = request.config.get("prevResult")
    if document is None:
        return []
    try:
        return [entry.address.ip for entry in parse_result(document, request.version, "prevResult").ips]
    except CNIError:
        if request.command == "DEL":
            return []
        raise


def _match_requests(config: IpamConfig) -> dict[int, IP]:
    """The requested addresses, by the index of the range set that each is in. Raises CNIError (code 7)."""
    matched: dict[int, IP] = {}
    for ip in config.requested:
        place = config.table.find(ip)
        if place is None:
            sets = "; ".join(map(str, config.pools[:_SHOWN_SETS]))
            raise CNIError(INVALID_CONFIG, f"requested address {ip} is in none of the range sets ({sets})")
        if matched.get(place.pool, ip) != ip:
            raise CNIError(
                INVALID_CONFIG, f"{matched[place.pool]} and {ip} are requested of one range set; it gives one"
            )
        if ip == place.entry.gateway:
            raise CNIError(INVALID_CONFIG, f"requested address {ip} is the gateway of {place.entry.subnet}")
        if not place.entry.gives(ip):
            raise CNIError(INVALID_CONFIG, f"requested address {ip} is excluded, or the gateway of another range")
        matched[place.pool] = ip
    return matched


def _choose(config: IpamConfig, requests: dict[int, IP], request: Request, store: Store) -> list[IP]:
    """Choose a free address of every range set: the requested one, or that of the previous boot, or the next one.

    Raises CNIError (codes 101, 102).
    """
    for ip in store.addresses_of(request.container_id, request.ifname):
        if config.table.find(ip):
            raise CNIError(
                ALREADY_EXISTS,
                f"{ip} is held by {store.describe(ip)} already; an attachment gets one address of a range set: send "
                "DEL before another ADD",
            )
    from .host_addresses import HostAddresses

    host = HostAddresses()
    before: dict[int, IP] = {}
    for ip in store.list_previous(request.container_id, request.ifname):
        place = config.table.find(ip)
        if place is not None and place.entry.gives(ip) and not store.is_taken(ip) and ip not in host:
            before.setdefault(place.pool, ip)
    chosen = []
    for index, pool in enumerate(config.pools):
        if index in requests:
            _check_free(requests[index], host, store)
        choice = requests.get(index) or before.get(index) or _find_unused(pool, store.find_last(index), host, store)
        if choice is None and store.refresh():
            choice = _find_unused(pool, store.find_last(index), host, store)
        if choice is None:
            raise CNIError(NO_ADDRESS, f"no IP addresses available in range set: {pool}{store.explain_taken()}")
        chosen.append(choice)
    return chosen


def _check_free(ip: IP, host: HostAddresses, store: Store) -> None:
    """Raise CNIError (code 102) when a requested address is reserved, or the host has it."""
    if store.is_taken(ip):
        raise CNIError(
            ALREADY_EXISTS,
            f"requested address {ip} is held by {store.describe(ip)}; ask for another one, or delete that container",
        )
    if ip in host:
        raise CNIError(
            ALREADY_EXISTS, f"requested address {ip} is that of an interface of this host; ask for another one"
        )


def _find_unused(
    pool: RangeSet, last: IP | None, host: HostAddresses, store: Store | Index, *, tell: bool = True
) -> IP | None:
    """The next free address after `last` that the host does not have itself. None when there is none.

    With `tell` those that the host has are named on stderr.
    """
    from .ranges import find_next

    tried: set[IP] = set()
    while (choice := find_next(pool, store.find_free, last)) not in tried and choice is not None:
        if choice not in host:
            return choice
        if tell:
            print(f"cni-ipam: {choice} is that of an interface of this host: not given out", file=sys.stderr)
        tried.add(choice)
        last = choice
    return None


def _reserve_all(addresses: list[IP], request: Request, store: Store) -> None:
    """Reserve all addresses. When one fails, release the others and raise CNIError (code 5 or 102)."""
    tried: list[IP] = []
    try:
        for index, ip in enumerate(addresses):
            tried.append(ip)
            if not store.reserve(ip, request.container_id, request.ifname):
                tried.remove(ip)
                raise CNIError(
                    ALREADY_EXISTS, f"{store.file_of(ip)} was created meanwhile, without the lock; try again"
                )
            store.set_last(index, ip)
        request.finish_uninterrupted()
    except BaseException:
        for ip in tried:
            store.release(ip)
        raise


def _ip_config(ip: IP, pool: RangeSet) -> IPConfig:
    """An address with the prefix length and the gateway of its range."""
    home = next(entry for entry in pool.ranges if ip in entry)
    return IPConfig(CIDR(ip, home.subnet.prefix), home.gateway)


def _read_dns(path: str) -> DNS:
    """The DNS settings in a resolv.conf file; empty ones when the path is empty. Raises CNIError (code 5)."""
    if not path:
        return DNS()
    from .resolvconf import parse_resolv_conf

    if os.path.exists(path) and not os.path.isfile(path):  # reading a FIFO or a device might never end
        raise CNIError(IO_FAILURE, f"ipam.resolvConf: {path} cannot be read: it is no regular file")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_resolv_conf(file.read())
    except (OSError, ValueError) as error:
        raise CNIError(IO_FAILURE, f"ipam.resolvConf: {path} cannot be read: {error}") from None
