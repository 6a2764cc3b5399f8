"""Zip archives as torch.save writes them: stored members only, every length checked.

Sizes come from the central directory, since torch's writer leaves them out of the local headers.
Nothing is decompressed, so a file can never stand for more bytes than it has.
Format: PKWARE APPNOTE, with its zip64 extension.
"""

from __future__ import annotations

import struct
import zlib

from .source import Source, shown

__all__ = ["Member", "read_zip"]

_MAX_MEMBERS = 100_000
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1


class Member:
    """One file of an archive: its name, and its bytes as a view."""

    __slots__ = ("_checked", "crc", "data", "name")

    def __init__(self, name: str, crc: int, data: memoryview) -> None:
        self.name = name
        self.crc = crc
        self.data = data
        self._checked = False

    def verified(self, source: Source) -> memoryview:
        """`data`, after its checksum was compared (once).

        Raises:
            CheckpointError: the data is not what was written.
        """
        if not self._checked and zlib.crc32(self.data) != self.crc:
            source.fail("its checksum is wrong: the file is damaged", f"member {shown(self.name)}")
        self._checked = True
        return self.data


def _end_record(source: Source) -> tuple[int, int, int]:
    """(members, size of the central directory, its offset)."""
    data = source.data
    # Only at the very end: an archive comment would allow two readings of one file.
    at = len(data) - _END.size
    if at < 0 or bytes(data[at : at + 4]) != b"PK\x05\x06":
        source.fail("the zip directory is missing at the end of the file (truncated?)")
    _, disk, first, here, count, size, offset, comment = _END.unpack_from(data, at)
    if disk or first or here != count or comment:
        source.fail("a zip archive of several parts or with a comment", "zip directory")
    locator = at - _END64_LOCATOR.size
    if locator >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
        # torch writes the zip64 records whether they are needed or not.
        _, disk, at64, disks = _END64_LOCATOR.unpack_from(data, locator)
        if disk or disks > 1 or at64 + _END64.size != locator:
            source.fail("the zip64 directory is malformed", "zip directory")
        magic, _, _, _, disk, first, here, *wide = _END64.unpack_from(data, at64)
        if magic != b"PK\x06\x06" or disk or first or here != wide[0]:
            source.fail("the zip64 directory is malformed", "zip directory")
        narrow = ((count, 0xFFFF), (size, 0xFFFFFFFF), (offset, 0xFFFFFFFF))
        for (value, placeholder), value64 in zip(narrow, wide, strict=True):
            if value not in (placeholder, value64):
                source.fail("the zip and zip64 directories do not agree", "zip directory")
        count, size, offset = wide
        at = at64
    elif count == 0xFFFF or size == 0xFFFFFFFF or offset == 0xFFFFFFFF:
        source.fail("the zip64 directory is missing", "zip directory")
    if offset + size != at:
        source.fail(
            f"the zip directory ({size} bytes at {offset}) does not end where it should ({at})",
            "zip directory",
        )
    if count > _MAX_MEMBERS:
        source.fail(f"{count} members, more than {_MAX_MEMBERS}", "zip directory")
    return count, size, offset


def _zip64(source: Source, extra: memoryview, values: list[int], place: str) -> list[int]:
    """Replace 0xFFFFFFFF placeholders by the values of the zip64 extra field."""
    pos = 0
    while pos + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, pos)
        pos += 4
        if tag == 1:
            field = extra[pos : pos + size]
            out, at = [], 0
            for value in values:
                if value == 0xFFFFFFFF:
                    if at + 8 > len(field):
                        source.fail("a zip64 field that is too short", place)
                    value = int.from_bytes(field[at : at + 8], "little")
                    at += 8
                out.append(value)
            return out
        pos += size
    if 0xFFFFFFFF in values:
        source.fail("a zip64 field is missing", place)
    return values


def read_zip(source: Source) -> dict[str, Member]:
    """List the members of an archive: name -> bytes.

    Raises:
        CheckpointError: the archive is malformed, compressed or encrypted, has two members of one
            name, members that overlap, or names that leave a folder.
    """
    data = source.data
    count, size, offset = _end_record(source)
    pos, end = offset, offset + size
    spans: list[tuple[int, int, str]] = []
    members: dict[str, Member] = {}
    for index in range(count):
        place = f"zip entry {index}"
        if pos + _CENTRAL.size > end:
            source.fail("the zip directory is too short", place)
        head = _CENTRAL.unpack_from(data, pos)
        magic, flags, method, crc, packed, full = head[0], head[3], head[4], *head[7:10]
        name_size, extra_size, comment_size, start = head[10], head[11], head[12], head[16]
        pos += _CENTRAL.size
        if magic != b"PK\x01\x02" or pos + name_size + extra_size + comment_size > end:
            source.fail("a malformed zip directory", place)
        raw_name = bytes(data[pos : pos + name_size])
        extra = data[pos + name_size : pos + name_size + extra_size]
        pos += name_size + extra_size + comment_size
        try:
            name = raw_name.decode("ascii")
        except UnicodeDecodeError:
            source.fail("a member name that is not ASCII", place)
        place = f"member {shown(name)}"
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            source.fail("a member name that leaves the archive", place)
        if name in members:
            source.fail("two members of one name", place)
        full, packed, start = _zip64(source, extra, [full, packed, start], place)
        if flags & _ENCRYPTED or method != 0 or packed != full:
            source.fail("a compressed or encrypted member; torch stores them plainly", place)
        if start + _LOCAL.size > offset:
            source.fail("begins outside of the archive", place)
        local = _LOCAL.unpack_from(data, start)
        body = start + _LOCAL.size + local[9] + local[10]
        local_name = bytes(data[start + _LOCAL.size : start + _LOCAL.size + local[9]])
        if local[0] != b"PK\x03\x04" or local_name != raw_name or local[3] != 0:
            source.fail("its local header does not agree with the zip directory", place)
        if body + full > offset:
            source.fail(f"needs {full} bytes, {max(0, offset - body)} are there", place)
        spans.append((start, body + full, name))
        members[name] = Member(name, crc, data[body : body + full])
    if pos != end:
        source.fail(f"{end - pos} bytes too many", "zip directory")
    spans.sort()
    if spans and spans[0][0] != 0:
        source.fail(f"{spans[0][0]} bytes before the first member", "zip archive")
    for (_, before, first), (start, _, second) in zip(spans, spans[1:], strict=False):
        if start < before:
            source.fail(f"overlaps {shown(first)}", f"member {shown(second)}")
    return members
