"""The directory of a zip archive, read by hand because every number in it may be a lie.

Owns the container: where each entry's bytes lie. Entries are stored as they are; compressed or encrypted ones, ones
that overlap, and names that lead out of the archive are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .files import File
from .header import BadFile, short

MAX_DIRECTORY_BYTES = 2**25  # some 300 000 entries
_END, _END64, _LOCATOR, _CENTRAL, _LOCAL = 0x06054B50, 0x06064B50, 0x07064B50, 0x02014B50, 0x04034B50
_FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class ZipEntry:
    """One entry.

    Attributes:
        start: Byte of the file at which its data begin.
        size: Bytes.
        crc: Checksum that the directory gives.
    """

    start: int
    size: int
    crc: int


def read_zip(file: File, start: int, stop: int) -> dict[str, ZipEntry]:
    """Entries by name of an archive that fills a part of a file.

    Args:
        file: The file.
        start: Its first byte.
        stop: Behind its last byte.

    Raises:
        BadFile: If it is no whole archive of stored entries.
    """
    begin, size, n_entries = _directory(file, start, stop)
    if size > MAX_DIRECTORY_BYTES:
        raise BadFile(f"its directory has {size} bytes; at most {MAX_DIRECTORY_BYTES} are read")
    if begin < start or begin + size > stop:
        raise BadFile("it is corrupt: its directory lies outside the archive")
    entries: dict[str, ZipEntry] = {}
    for name, length, local, crc in _central(file.read(size, begin)):
        if name in entries:
            raise BadFile(f"it is corrupt: it has two entries {short(name)}")
        entries[name] = ZipEntry(_data_start(file, start + local, begin, name), length, crc)
    if len(entries) != n_entries:
        raise BadFile(f"it is corrupt: its directory lists {len(entries)} entries and announces {n_entries}")
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        if entry.start < end or entry.start + entry.size > begin:
            raise BadFile(f"it is corrupt: entry {short(name)} overlaps another or leaves the archive")
        end = entry.start + entry.size
    return entries


def _directory(file: File, start: int, stop: int) -> tuple[int, int, int]:
    """Where the directory begins, its size, and the number of its entries, from the record at the archive's end."""
    if stop - start < 22:
        raise BadFile(f"it is cut short: {stop - start} bytes are no archive")
    signature, *_, n_entries, size, begin, comment = struct.unpack("<4s4H2LH", file.read(22, stop - 22))
    if signature != struct.pack("<L", _END) or comment:
        raise BadFile("it is truncated or corrupt: its end holds no directory")
    if _FULL in (size, begin) or n_entries == 0xFFFF:
        if stop - start < 22 + 20 + 56:
            raise BadFile("it is corrupt: its directory is missing")
        signature64, _, at, _ = struct.unpack("<LLQL", file.read(20, stop - 42))
        if signature64 != _LOCATOR or not 0 <= at <= stop - start - 98:
            raise BadFile("it is corrupt: its directory is missing")
        end = struct.unpack("<LQ2H2L4Q", file.read(56, start + at))
        if end[0] != _END64:
            raise BadFile("it is corrupt: its directory is missing")
        n_entries, size, begin = end[-3:]
    return start + begin, size, n_entries


def _central(data: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Name, size, place of the local header, and checksum of each entry."""
    at = 0
    while at < len(data):
        if len(data) - at < 46:
            raise BadFile("it is corrupt: its directory ends in the middle")
        fields = struct.unpack_from("<L6H3L5H2L", data, at)
        signature, flags, method, crc, packed, size = fields[0], fields[3], fields[4], *fields[7:10]
        n_name, n_extra, n_comment, local = fields[10], fields[11], fields[12], fields[16]
        stop = at + 46 + n_name + n_extra + n_comment
        if signature != _CENTRAL or stop > len(data):
            raise BadFile("it is corrupt: its directory ends in the middle")
        raw, extra = data[at + 46 : at + 46 + n_name], data[at + 46 + n_name : at + 46 + n_name + n_extra]
        name = raw.decode("utf-8", "replace")
        if method != 0 or flags & 1:
            kind = "encrypted" if flags & 1 else "compressed"
            raise BadFile(f"entry {short(name)} is {kind}; torch stores entries as they are")
        size, packed, local = _wide(extra, (size, packed, local))
        if size != packed:
            raise BadFile(f"it is corrupt: entry {short(name)} has two sizes, {size} and {packed}")
        if not name or "\\" in name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise BadFile(f"entry {short(name)} leads out of the archive")
        yield name, size, local, crc
        at = stop


def _wide(extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, ...]:
    """Numbers of 64 bits take the places of those that do not fit into 32."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
    found = []
    for number in numbers:
        if number == _FULL and len(wide) >= 8:
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(number)
    return tuple(found)


def _data_start(file: File, local: int, limit: int, name: str) -> int:
    if local < 0 or local + 30 > limit:
        raise BadFile(f"it is corrupt: entry {short(name)} lies outside the archive")
    head = file.read(min(30 + 64, limit - local), local)
    fields = struct.unpack_from("<L5H3L2H", head)
    n_name, n_extra = fields[9], fields[10]
    raw = head[30 : 30 + n_name] if 30 + n_name <= len(head) else file.read(n_name, local + 30)
    if fields[0] != _LOCAL or raw.decode("utf-8", "replace") != name:
        raise BadFile(f"it is corrupt: entry {short(name)} is not where its directory places it")
    return local + 30 + n_name + n_extra
