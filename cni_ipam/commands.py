"""The commands of the address plugin: one lock around each that changes something."""

import os
import sys

from cni_protocol.address import CIDR, IP
from cni_protocol.errors import (
    ALREADY_EXISTS,
    CHECK_FAILED,
    INVALID_CONFIG,
    IO_FAILURE,
    NO_ADDRESS,
    NOT_AVAILABLE,
    CNIError,
)
from cni_protocol.light.standard import Any
from cni_protocol.request import Request
from cni_protocol.result import DNS, IPConfig, Result, parse_result, result_to_json
from cni_protocol.valid_attachments import parse_valid_attachments

from .config import IpamConfig, parse_config, parse_data_dir
from .ranges import RangeSet, find_next
from .records import make_label
from .resolvconf import parse_resolv_conf
from .store import UNKNOWN, Store, open_store


def add(request: Request) -> dict[str, Any]:
    """Reserve one address out of every range set, all or none. Returns the result object.

    Raises CNIError: 101 for an exhausted set, 102 for an address or an attachment that has one already, 5, 7, 11.
    """
    config = parse_config(request)
    dns = _read_dns(config.resolv_conf)
    requests = _match_requests(config)
    with open_store(config.data_dir, config.network, create=True) as store:
        assert store is not None
        addresses = _choose(config.pools, requests, request, store)
        _reserve_all(addresses, request, store)
    ips = tuple(_ip_config(ip, pool) for ip, pool in zip(addresses, config.pools, strict=True))
    return result_to_json(Result(ips=ips, routes=config.routes, dns=dns), request.version)


def delete(request: Request) -> None:
    """Give back all addresses of the attachment; none is fine. Raises CNIError (codes 5, 7, 11)."""
    with open_store(parse_data_dir(request), request.name, create=False) as store:
        if store is None:
            return
        damaged = [ip for ip in _previous_addresses(request) if store.is_nobodys(ip)]
        _release_all(store, store.addresses_of(request.container_id, request.ifname) + damaged)


def check(request: Request) -> None:
    """Raise CNIError (code 103) unless the attachment holds the addresses that prevResult lists."""
    config = parse_config(request)
    expected = [ip for ip in _previous_addresses(request) if any(pool.find_range(ip) for pool in config.pools)]
    with open_store(config.data_dir, config.network, create=False) as store:
        held = store.addresses_of(request.container_id, request.ifname) if store is not None else []
    missing = [ip for ip in expected if ip not in held]
    if missing or not held:
        what = ", ".join(map(str, missing)) or "any address"
        raise CNIError(
            CHECK_FAILED,
            f"container {request.container_id} interface {request.ifname} has no reservation of {what} in "
            f"{config.data_dir}/{config.network}; recreate the container",
        )


def status(request: Request) -> None:
    """Raise CNIError (code 50) when ADD could not work: an exhausted range set, an unusable store. Changes nothing."""
    from .peek import peek

    config = parse_config(request)
    try:
        exhausted = peek(
            config.data_dir,
            config.network,
            lambda index: [str(pool) for pool in config.pools if find_next(pool, index.find_free, None) is None],
        )
    except CNIError as error:
        raise CNIError(NOT_AVAILABLE, error.msg) from None
    if exhausted:
        raise CNIError(NOT_AVAILABLE, f"no IP addresses available in range set: {'; '.join(exhausted)}")


def collect(request: Request) -> None:
    """GC: give back every address whose attachment is not in the valid list; all others stay as they are.

    Raises CNIError: 7 for a malformed list (then nothing is removed), 5 naming what could not be removed, 11.
    """
    valid = parse_valid_attachments(request)
    if valid is None:
        print("cni-ipam: GC without a list of valid attachments: nothing was removed", file=sys.stderr)
        return
    with open_store(parse_data_dir(request), request.name, create=False) as store:
        if store is None:
            return
        labels = {make_label(*pair) for pair in valid.pairs} | {make_label(pair[0], "") for pair in valid.pairs}
        owners = store.list_owners()
        known = set(owners.values())
        # a reservation that says not whose it is may be that of a valid attachment which has no other
        complete = all(known & {make_label(*pair), make_label(pair[0], "")} for pair in valid.pairs)
        stale = [ip for ip, label in owners.items() if label not in labels and (complete or label != UNKNOWN)]
        _release_all(store, stale)


def _release_all(store: Store, addresses: list[IP]) -> None:
    """Release every address that can be; then raise CNIError (code 5) naming those that could not."""
    failures = []
    for ip in addresses:
        try:
            store.release(ip)
        except CNIError as error:
            failures.append(error.msg)
    if failures:
        raise CNIError(IO_FAILURE, "; ".join(failures))


def _previous_addresses(request: Request) -> list[IP]:
    """The addresses in prevResult, none when there is none or (on DEL) when it cannot be read."""
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
    """The requested addresses by the index of their range set. Raises CNIError (code 7)."""
    matched: dict[int, IP] = {}
    for ip in config.requested:
        index = next((i for i, pool in enumerate(config.pools) if pool.find_range(ip)), None)
        if index is None:
            sets = "; ".join(map(str, config.pools))
            raise CNIError(INVALID_CONFIG, f"requested address {ip} is in none of the range sets ({sets})")
        if matched.get(index, ip) != ip:
            raise CNIError(INVALID_CONFIG, f"{matched[index]} and {ip} are requested of one range set; it gives one")
        entry = config.pools[index].find_range(ip)
        if entry is not None and ip == entry.gateway:
            raise CNIError(INVALID_CONFIG, f"requested address {ip} is the gateway of {entry.subnet}")
        matched[index] = ip
    return matched


def _choose(pools: tuple[RangeSet, ...], requests: dict[int, IP], request: Request, store: Store) -> list[IP]:
    """An address that is free out of every range set. Raises CNIError (codes 101, 102)."""
    for ip in store.addresses_of(request.container_id, request.ifname):
        if any(pool.find_range(ip) for pool in pools):
            raise CNIError(
                ALREADY_EXISTS,
                f"{ip} is held by {store.describe(ip)} already; an attachment gets one address of a range set: send "
                "DEL before another ADD",
            )
    before = store.list_previous(request.container_id, request.ifname)
    chosen = []
    for index, pool in enumerate(pools):
        again = next((ip for ip in before if pool.can_give(ip) and not store.is_taken(ip)), None)
        choice = requests.get(index) or again or find_next(pool, store.find_free, store.find_last(index))
        if choice is None:
            raise CNIError(NO_ADDRESS, f"no IP addresses available in range set: {pool}")
        if store.is_taken(choice):
            raise CNIError(
                ALREADY_EXISTS,
                f"requested address {choice} is held by {store.describe(choice)}; ask for another one, or delete that "
                "container",
            )
        chosen.append(choice)
    return chosen


def _reserve_all(addresses: list[IP], request: Request, store: Store) -> None:
    """Reserve all addresses, or none when one cannot be written. Raises CNIError (codes 5, 102)."""
    tried: list[IP] = []
    try:
        for index, ip in enumerate(addresses):
            tried.append(ip)
            if not store.reserve(ip, request.container_id, request.ifname):
                tried.remove(ip)
                raise CNIError(ALREADY_EXISTS, f"{store.file_of(ip)} came into being under our lock; try again")
            store.set_last(index, ip)
        request.finish_uninterrupted()
    except BaseException:
        for ip in tried:
            store.release(ip)
        raise


def _ip_config(ip: IP, pool: RangeSet) -> IPConfig:
    """An address with the prefix and the gateway of the range that it is from."""
    home = next(entry for entry in pool.ranges if ip in entry)
    return IPConfig(CIDR(ip, home.subnet.prefix), home.gateway)


def _read_dns(path: str) -> DNS:
    """The DNS settings of a resolv.conf, none without a path. Raises CNIError (code 5)."""
    if not path:
        return DNS()
    if os.path.exists(path) and not os.path.isfile(path):  # a FIFO or a device could be read for ever
        raise CNIError(IO_FAILURE, f"ipam.resolvConf: {path} cannot be read: it is no regular file")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_resolv_conf(file.read())
    except (OSError, ValueError) as error:
        raise CNIError(IO_FAILURE, f"ipam.resolvConf: {path} cannot be read: {error}") from None
