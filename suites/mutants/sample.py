"""The sample: how many places of each package, and which. Pure."""

from collections.abc import Mapping

from suites.mutants.places import Place, find_places


def draw(sources: Mapping[str, str], count: int, seed: int) -> list[Place]:
    """So many places, in proportion to how many a package has, one of each at least; the same ones for the same seed.

    A change of the code changes the sample little: what is still there keeps its rank.
    """
    places: dict[str, list[Place]] = {}
    for file, source in sources.items():
        places.setdefault(file.partition("/")[0], []).extend(find_places(source, file))
    shares = _share({package: len(its) for package, its in places.items() if its}, count)
    chosen = []
    for package, share in shares.items():
        chosen += sorted(places[package], key=lambda place: place.rank(seed))[:share]
    return sorted(chosen)


def _share(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Shares that add up to the count (or to all there is), each in proportion to a size: by largest remainder."""
    whole = sum(sizes.values())
    count = min(max(count, len(sizes)), whole)
    shares = {name: max(1, count * size // whole) for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: count * sizes[name] % whole, reverse=True)
    while sum(shares.values()) < count:
        name = by_remainder.pop(0)
        shares[name] += 1
        by_remainder.append(name)
    return shares
