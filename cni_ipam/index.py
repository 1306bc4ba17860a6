"""The index: one file that holds what the reservations' files say, so that a command need not read them all.

`DATADIR/.pycni/NETWORK/BOOT/index` answers which addresses an owner has, and which address is free next. It carries the
stamp of the directories that it describes (stamp.py). It is valid only while the directories have that stamp.

    header   format, stamp, numbers of buckets and blocks
    buckets  a hash table. An entry is the hash of a key and a number. A key is an owner (of this instance, of another
             one, or of the previous boot), and its number an address; or it is a block, and its number the block's
             index.
    blocks   one bit for each of BLOCK_SIZE addresses: 1 is taken. A block is added when its first address is taken.

IPv4 and IPv6 share one number space: an IPv4 address counts as ::ffff:a.b.c.d. Each part (header, bucket, block)
carries a checksum of its content and its offset. A part is read when it is first used, changed in memory, and written
in place at the end.
Must not: know the reservations' files, or decide when the index is valid.
"""

from cni_protocol.address import IP
from cni_protocol.light.standard import sha256, suppress
from cni_protocol.light.system import os

NAME = "index"
BLOCK_SIZE = 4096  # addresses
_FORMAT = "pycni-index-2"
_KEY, _ENTRY, _SUM = 16, 32, 8  # bytes
_LENGTH = 4  # bytes of the number at the beginning of a part: how many of its bytes are in use
_HEADER, _BUCKET, _BLOCK = 512, 1024, BLOCK_SIZE // 8 + _LENGTH + _SUM  # bytes
_LOAD = 8  # entries per bucket in a new file, on average; a bucket has room for 31
_MAPPED = 0xFFFF << 32  # ::ffff:0:0
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # O_NONBLOCK: opening a FIFO would wait


class IndexDamagedError(Exception):
    """A part's checksum is wrong: the index has to be rebuilt from the files."""


class Index:
    """An index: empty and in memory, until `read` opens a file or `write` makes one.

    Once it has a file, every method that answers or changes something raises IndexDamagedError and OSError.
    """

    def __init__(self, expected: int = 0) -> None:
        """Make an empty index in memory, with buckets for `expected` addresses."""
        self._buckets = max(1, -(-expected // _LOAD))
        self._blocks = 0
        self._file = -1
        self._parts: dict[int, bytearray] = {}  # by their offset in the file
        self._offsets: dict[int, int] = {}  # the offsets of the blocks that were looked up so far
        self._changed: set[int] = set()

    def read(self, directory: int, stamp: str, mode: int) -> bool:
        """Open the index in a directory; `mode` is os.O_RDWR or O_RDONLY. False unless it has this stamp."""
        try:
            self._file = os.open(NAME, mode | _FLAGS, dir_fd=directory)
            written, buckets, blocks = bytes(self._part(0)).decode().rsplit(" ", 2)
            self._buckets, self._blocks = int(buckets), int(blocks)
        except (OSError, ValueError, IndexDamagedError):
            return False
        return written == f"{_FORMAT} {stamp}"

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def find(self, owner: str) -> list[IP]:
        """The addresses that this instance gave an owner."""
        return [_to_ip(number) for number in self._find(_key("now", owner))]

    def find_previous(self, owner: str) -> list[IP]:
        """The addresses that an owner had in the previous boot."""
        return [_to_ip(number) for number in self._find(_key("previous", owner))]

    def find_elsewhere(self, owner: str) -> list[IP]:
        """The addresses that other instances of this boot gave an owner."""
        return [_to_ip(number) for number in self._find(_key("elsewhere", owner))]

    def has_foreign(self) -> bool:
        """Whether some addresses are reserved by other hosts."""
        return bool(self._find(_key("foreign", "")))

    def is_taken(self, ip: IP) -> bool:
        """Whether an address is taken, by anybody."""
        return self.find_free(ip, ip) is None

    def find_free(self, first: IP, last: IP) -> IP | None:
        """The lowest free address from `first` to `last` inclusive, None when all are taken."""
        low, high = _to_number(first), _to_number(last)
        while low <= high:
            offset = self._find_block(low)
            if offset < 0:
                return _to_ip(low)
            free = ~int.from_bytes(self._part(offset), "little") >> low % BLOCK_SIZE
            step = (free & -free).bit_length() - 1  # the lowest bit that is set
            if low % BLOCK_SIZE + step < BLOCK_SIZE:
                return _to_ip(low + step) if low + step <= high else None
            low += BLOCK_SIZE - low % BLOCK_SIZE
        return None

    def add(self, ip: IP, owner: str) -> None:
        """Mark an address as taken by an owner, or with an empty owner by someone unknown."""
        number = _to_number(ip)
        offset = self._find_block(number)
        if offset < 0:
            offset = self._offset_of_block(self._blocks)
            self._put(_block_key(number // BLOCK_SIZE), self._blocks)
            self._blocks += 1
            self._offsets[number // BLOCK_SIZE] = offset
            self._parts[offset] = bytearray(BLOCK_SIZE // 8)
        self._set_bit(offset, number, taken=True)
        if owner:
            self._put(_key("now", owner), number)

    def add_elsewhere(self, ip: IP, owner: str) -> None:
        """Mark an address as taken by an owner, who got it from another instance of this boot."""
        self.add(ip, "")
        self._put(_key("elsewhere", owner), _to_number(ip))

    def add_foreign(self, ip: IP) -> None:
        """Mark an address as taken by another host."""
        self.add(ip, "")
        self._put(_key("foreign", ""), 1)

    def add_previous(self, ip: IP, owner: str) -> None:
        """Note that an owner had an address in the previous boot."""
        self._put(_key("previous", owner), _to_number(ip))

    def remove(self, ip: IP, owner: str) -> None:
        """Mark an address as free. `owner` is whose it was, or empty."""
        number = _to_number(ip)
        offset = self._find_block(number)
        if offset >= 0:
            self._set_bit(offset, number, taken=False)
        if owner:
            self._drop(_key("now", owner), number)

    def remove_elsewhere(self, ip: IP, owner: str) -> None:
        """Mark an address as free that an owner had from another instance of this boot."""
        self.remove(ip, "")
        self._drop(_key("elsewhere", owner), _to_number(ip))

    def says_the_same(self, made: "Index") -> bool:
        """Whether this index has exactly the entries and addresses of `made`, one in memory."""
        blocks = {_block_key(block) for block in made._offsets}
        with suppress(IndexDamagedError, OSError):
            return self._entries_but(blocks) == made._entries_but(blocks) and all(
                self._part(self._find_block(block * BLOCK_SIZE)) == made._part(offset)
                for block, offset in made._offsets.items()
            )
        return False

    def write(self, directory: int) -> None:
        """Write the changed parts, or all parts to a new file. Raises OSError.

        It is valid only after `sign`.
        """
        if any(len(part) > self._size(offset) - _LENGTH - _SUM for offset, part in self._parts.items()):
            raise OSError("a bucket has no room left: the next one to make an index makes more of them")
        if self._file >= 0:
            for offset in self._changed:
                self._write_at(offset, self._pack(offset))
        else:
            with suppress(FileNotFoundError):
                os.unlink(NAME, dir_fd=directory)
            offsets = [_HEADER + i * _BUCKET for i in range(self._buckets)]
            offsets += [self._offset_of_block(i) for i in range(self._blocks)]
            content = b"".join([self._pack(offset) for offset in offsets])
            self._file = os.open(NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=directory)
            self._write_at(_HEADER, content)
        self._changed.clear()

    def sign(self, stamp: str) -> None:
        """Write the header with this stamp: the index is valid for directories with it. Raises OSError."""
        self._parts[0] = bytearray(f"{_FORMAT} {stamp} {self._buckets} {self._blocks}".encode())
        self._write_at(0, self._pack(0))

    # The hash table

    def _find(self, key: bytes) -> list[int]:
        part = self._part(self._offset_of_bucket(key))
        found = []
        at = part.find(key)
        while at >= 0:
            if at % _ENTRY == 0:
                found.append(int.from_bytes(part[at + _KEY : at + _ENTRY], "big"))
            at = part.find(key, at + 1)
        return found

    def _put(self, key: bytes, number: int) -> None:
        if number not in self._find(key):
            offset = self._offset_of_bucket(key)
            self._part(offset).extend(key + number.to_bytes(_ENTRY - _KEY, "big"))
            self._changed.add(offset)

    def _drop(self, key: bytes, number: int) -> None:
        offset = self._offset_of_bucket(key)
        part = self._part(offset)
        entries = [part[at : at + _ENTRY] for at in range(0, len(part), _ENTRY)]
        gone = key + number.to_bytes(_ENTRY - _KEY, "big")
        part[:] = b"".join([entry for entry in entries if entry != gone])
        self._changed.add(offset)

    def _entries_but(self, keys: set[bytes]) -> set[bytes]:
        found = set()
        for bucket in range(self._buckets):
            part = self._part(_HEADER + bucket * _BUCKET)
            found |= {bytes(part[at : at + _ENTRY]) for at in range(0, len(part), _ENTRY)}
        return {entry for entry in found if entry[:_KEY] not in keys}

    # The blocks

    def _find_block(self, number: int) -> int:
        """The offset of the block that has an address's bit; negative without one: none of its addresses is taken."""
        block = number // BLOCK_SIZE
        if block not in self._offsets:
            for index in self._find(_block_key(block)):
                self._offsets[block] = self._offset_of_block(index)
        return self._offsets.get(block, -1)

    def _set_bit(self, offset: int, number: int, *, taken: bool) -> None:
        part = self._part(offset)
        byte, bit = divmod(number % BLOCK_SIZE, 8)
        part[byte] = part[byte] | 1 << bit if taken else part[byte] & ~(1 << bit)
        self._changed.add(offset)

    # The file

    def _offset_of_bucket(self, key: bytes) -> int:
        return _HEADER + int.from_bytes(key[:4], "big") % self._buckets * _BUCKET

    def _offset_of_block(self, index: int) -> int:
        return _HEADER + self._buckets * _BUCKET + index * _BLOCK

    def _size(self, offset: int) -> int:
        if offset == 0:
            return _HEADER
        return _BUCKET if offset < self._offset_of_block(0) else _BLOCK

    def _part(self, offset: int) -> bytearray:
        part = self._parts.get(offset)
        if part is None:
            part = self._parts[offset] = bytearray() if self._file < 0 else self._unpack(offset)
        return part

    def _unpack(self, offset: int) -> bytearray:
        size = self._size(offset)
        data = os.pread(self._file, size, offset)
        length = int.from_bytes(data[:_LENGTH], "little")
        if len(data) != size or data[-_SUM:] != _sum(offset, data[:-_SUM]):
            raise IndexDamagedError
        return bytearray(data[_LENGTH : _LENGTH + length])

    def _pack(self, offset: int) -> bytes:
        part = self._part(offset)
        data = len(part).to_bytes(_LENGTH, "little") + part
        data = data.ljust(self._size(offset) - _SUM, b"\0")
        return data + _sum(offset, data)

    def _write_at(self, offset: int, data: bytes) -> None:
        if os.pwrite(self._file, data, offset) != len(data):
            raise OSError("no room left for the index")


def _sum(offset: int, data: bytes) -> bytes:
    return sha256(offset.to_bytes(8, "big") + data).digest()[:_SUM]


def _key(kind: str, text: str) -> bytes:
    return sha256(f"{kind} {text}".encode()).digest()[:_KEY]


def _block_key(block: int) -> bytes:
    return _key("block", str(block))


def _to_number(ip: IP) -> int:
    return ip.value | _MAPPED if ip.version == 4 else ip.value


def _to_ip(number: int) -> IP:
    return IP(4, number & 0xFFFFFFFF) if number >> 32 == 0xFFFF else IP(6, number)
