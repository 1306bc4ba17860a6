"""ADD, DEL and CHECK of the address plugin: one lock around the whole command."""

import os
from typing import Any

from cni_protocol.address import CIDR, IP
from cni_protocol.errors import ALREADY_EXISTS, CHECK_FAILED, INVALID_CONFIG, IO_FAILURE, NO_ADDRESS, CNIError
from cni_protocol.request import Request
from cni_protocol.result import DNS, IPConfig, Result, parse_result, result_to_json

from .config import IpamConfig, parse_config, parse_data_dir
from .ranges import RangeSet, find_next
from .resolvconf import parse_resolv_conf
from .store import Owner, Store, open_store


def add(request: Request) -> dict[str, Any]:
    """Reserve one address out of every range set, all or none. Returns the result object.

    Raises CNIError: 101 for an exhausted set, 102 for an address or an attachment that has one already, 5, 7, 11.
    """
    config = parse_config(request)
    dns = _read_dns(config.resolv_conf)
    requests = _match_requests(config)
    owner = Owner(request.container_id, request.ifname)
    with open_store(config.data_dir, config.network, create=True) as store:
        assert store is not None
        addresses = _choose(config.pools, requests, owner, store)
        _reserve_all(addresses, owner, store)
    ips = tuple(_ip_config(ip, pool) for ip, pool in zip(addresses, config.pools, strict=True))
    return result_to_json(Result(ips=ips, routes=config.routes, dns=dns), request.version)


def delete(request: Request) -> None:
    """Give back all addresses of the attachment; none is fine. Raises CNIError (codes 5, 7, 11)."""
    owner = Owner(request.container_id, request.ifname)
    failures = []
    with open_store(parse_data_dir(request), request.name, create=False) as store:
        if store is None:
            return
        for ip in _addresses_of(owner, store):
            try:
                store.release(ip)
            except CNIError as error:
                failures.append(error.msg)
    if failures:
        raise CNIError(IO_FAILURE, "; ".join(failures))


def check(request: Request) -> None:
    """Raise CNIError (code 103) unless the attachment holds the addresses that prevResult lists."""
    config = parse_config(request)
    owner = Owner(request.container_id, request.ifname)
    previous = parse_result(request.config.get("prevResult") or {}, request.version, "prevResult")
    expected = [ip.address.ip for ip in previous.ips if any(pool.find_range(ip.address.ip) for pool in config.pools)]
    with open_store(config.data_dir, config.network, create=False) as store:
        held = _addresses_of(owner, store) if store is not None else []
    missing = [ip for ip in expected if ip not in held]
    if missing or not held:
        what = ", ".join(map(str, missing)) or "any address"
        where = f"{config.data_dir}/{config.network}"
        raise CNIError(CHECK_FAILED, f"{owner} has no reservation of {what} in {where}; recreate the container")


def _addresses_of(owner: Owner, store: Store) -> list[IP]:
    return [ip for ip, holder in store.list_reservations().items() if holder.covers(owner)]


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


def _choose(pools: tuple[RangeSet, ...], requests: dict[int, IP], owner: Owner, store: Store) -> list[IP]:
    """An address that is free out of every range set. Raises CNIError (codes 101, 102)."""
    reservations = store.list_reservations()
    for ip, holder in reservations.items():
        if holder.covers(owner) and any(pool.find_range(ip) for pool in pools):
            raise CNIError(
                ALREADY_EXISTS,
                f"{owner} holds {ip} already ({store.file_of(ip)}); an attachment gets one address of a range set: "
                "send DEL before another ADD",
            )
    chosen = []
    for index, pool in enumerate(pools):
        choice = requests.get(index) or find_next(pool, reservations, store.find_last(index))
        if choice is None:
            raise CNIError(NO_ADDRESS, f"no IP addresses available in range set: {pool}")
        if choice in reservations:
            raise CNIError(
                ALREADY_EXISTS,
                f"requested address {choice} is held by {reservations[choice]} ({store.file_of(choice)}); ask for "
                "another one, or delete that container",
            )
        chosen.append(choice)
    return chosen


def _reserve_all(addresses: list[IP], owner: Owner, store: Store) -> None:
    """Reserve all addresses, or none when one cannot be written. Raises CNIError (codes 5, 102)."""
    reserved: list[IP] = []
    try:
        for index, ip in enumerate(addresses):
            if not store.reserve(ip, owner):
                raise CNIError(ALREADY_EXISTS, f"{store.file_of(ip)} came into being under our lock; try again")
            reserved.append(ip)
            store.set_last(index, ip)
    except BaseException:
        for ip in reserved:
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
