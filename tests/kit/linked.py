"""What install/link.py wrote for a command of an installation."""

import marshal
import re
from importlib.util import source_hash
from pathlib import Path
from types import CodeType
from typing import NamedTuple

_PLACE = re.compile(r'^sys\.path\.insert\(0, "(.*)"\)$', re.MULTILINE)


class Linked(NamedTuple):
    """The modules of a file: those that each call runs, in their order, and those that wait until they are needed."""

    always: dict[str, CodeType]
    late: dict[str, CodeType]


def code_of(bin_dir: str) -> str:
    """The directory with the code of an installation."""
    found = _PLACE.search(Path(bin_dir, "cni-bridge").read_text())
    assert found, f"{bin_dir}/cni-bridge is none of install.sh's"
    return found[1]


def linked_file(bin_dir: str, executable: str, command: str) -> Path:
    """Where the file of a command is."""
    return Path(code_of(bin_dir), "linked", f"{executable}.{command}")


def read_linked(path: Path) -> Linked:
    """What is in a file, every piece of it as its digest says."""
    data = path.read_bytes()
    size = int.from_bytes(data[8:12], "little")
    first, rest = data[12 : 12 + size], data[12 + size :]
    assert data[:8] == source_hash(first)
    pieces = []
    for digest, length in marshal.loads(first)[1]:
        piece, rest = rest[:length], rest[length:]
        assert source_hash(piece) == digest
        pieces.append(marshal.loads(piece))
    assert rest == b""
    always = {name: code for piece in pieces[:-1] for name, _, code in piece}
    return Linked(always, {name: marshal.loads(code) for name, (_, code) in pieces[-1].items()})
