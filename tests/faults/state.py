"""What stands on a host, told by `ip -j`, `nft -j` and find(1), and what of it should not be there."""

import json
from typing import Any, NamedTuple

from tests.faults.subjects import DATA_DIR
from tests.kit.host import Host

CONTAINER, NEIGHBOUR, LATECOMER = "c1", "n1", "n2"
_BRIDGE = "cni0"
_MARK = "----"
_LOOK = f"""
ip -j address; echo; echo {_MARK}
[ ! -e /run/netns/{CONTAINER} ] || ip -n {CONTAINER} -j address; echo; echo {_MARK}
nft -j list ruleset; echo {_MARK}
find {DATA_DIR} -type f -printf '%P\\n'
"""
_OUR_TABLE = "pycni"


class State(NamedTuple):
    """Interfaces of the host and of the container with their addresses, packet filter objects, reservation files."""

    links: dict[str, tuple[str, ...]]
    inside: dict[str, tuple[str, ...]]
    rules: tuple[str, ...]
    files: tuple[str, ...]


def look(host: Host) -> State:
    """What stands on a host."""
    links, inside, rules, files = host.run("sh", "-c", _LOOK).stdout.split(f"{_MARK}\n")
    return State(
        _links(json.loads(links)),
        _links(json.loads(inside or "[]")) if inside.strip() else {},
        tuple(sorted(filter(None, map(_rule, json.loads(rules)["nftables"])))),
        tuple(sorted(name for name in files.split("\n") if name and not _is_permanent(name))),
    )


def leftovers(before: State, after: State, *, with_bridge: bool) -> list[str]:
    """What is there after that was not there before, and what is missing. `with_bridge`: a new bridge is one too."""
    found = []
    for title, old, new in (("host", before.links, after.links), ("container", before.inside, after.inside)):
        for name in sorted({*old, *new}):
            if name == _BRIDGE and not with_bridge:
                continue
            if old.get(name) != new.get(name):
                found.append(f"{title}: interface {name} {_text(old.get(name))} -> {_text(new.get(name))}")
    for title, was, became in (("rule", before.rules, after.rules), ("file", before.files, after.files)):
        found += [f"{title} left: {name}" for name in became if name not in was]
        found += [f"{title} lost: {name}" for name in was if name not in became]
    return found


def _links(entries: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Names with addresses, those of the link-local scope left out, which the kernel gives by itself."""
    return {
        entry["ifname"]: tuple(sorted(a["local"] for a in entry["addr_info"] if a["scope"] != "link"))
        for entry in entries
        if entry and entry["ifname"] != "lo"
    }


def _rule(entry: dict[str, Any]) -> str:
    """An object of the packet filter; "" for what is no more than the place of others (in iptables' tables)."""
    ((kind, body),) = entry.items()
    if kind == "metainfo":
        return ""
    ours = _OUR_TABLE in (body.get("table"), body.get("name"))
    if kind == "table" or (kind == "chain" and "hook" in body):
        return f"{kind} {body['name']}" if ours else ""
    elements = body.get("elem", []) if isinstance(body, dict) else []
    rest = {key: value for key, value in body.items() if key not in ("handle", "elem")}
    return json.dumps([kind, rest, sorted(map(json.dumps, elements))], sort_keys=True)


def _is_permanent(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base in ("lock", "index", "origin") or base.startswith("last_reserved_ip.")


def _text(addresses: tuple[str, ...] | None) -> str:
    return "absent" if addresses is None else f"with {', '.join(addresses) or 'no address'}"
