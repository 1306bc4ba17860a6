"""Finding an element of a set of the packet filter by its key. Pure.

Must not: know what a key is for.
"""

from cni_node.why.values import FilterSet, SetElement


def find_element(found: FilterSet, key: bytes) -> SetElement | None:
    """The element that a key is in, be it by an interval; else what the rest gets, None without that."""
    for element in found.elements:
        if element.key == element.last:
            fits = element.key == key
        elif found.parts:
            fits = _is_within(element, key, found.parts)
        else:
            fits = element.key <= key <= element.last
        if fits:
            return element
    return found.other


def _is_within(element: SetElement, key: bytes, parts: tuple[int, ...]) -> bool:
    """Each part of the key between those of the interval; a part takes whole words."""
    start = 0
    for size in parts:
        end = start + size
        if not element.key[start:end] <= key[start:end] <= element.last[start:end]:
            return False
        start += (size + 3) & ~3
    return True
