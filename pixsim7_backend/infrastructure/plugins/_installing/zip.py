"""A strict reader of zip archives: every byte belongs to one member, and both directories agree.

The standard library reads the members; what two programs could read differently (overlapping or hidden
members, a second name, bytes before the first or after the last) is refused before.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from .members import Entry, Roster

__all__ = ["iter_zip"]

_CHUNK = 64 * 1024
_END = b"PK\x05\x06"
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_TAIL = struct.Struct("<4s4H2IH")
_ENCRYPTED, _DESCRIBED_LATER, _PATCHED, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x20, 0x40, 0x800, 0x2000
#: Sizes of the record that may follow a member: with and without signature, with sizes of 4 and of 8 bytes.
_DESCRIPTORS = frozenset({12, 16, 20, 24})
_SECOND_NAME = 0x7075


@dataclass(frozen=True, slots=True)
class _End:
    """What the last record says."""

    members: int
    directory_at: int
    at: int


def iter_zip(stream: IO[bytes], roster: Roster) -> Iterator[Entry]:
    """Yield the members of a zip archive, in the order of their content.

    Raises:
        MemberRefusedError: a member is neither a file nor a folder, is encrypted, or overlaps another.
        ArchiveRefusedError: it is no zip, or holds bytes that belong to no member.
    """
    end = _read_end(stream, roster)
    if end.members > roster.limits.members:
        raise roster.refusal(f"has more than {roster.limits.members} members")
    _check_directory(stream, end, roster)
    with zipfile.ZipFile(stream) as archive:
        members = sorted(archive.infolist(), key=lambda each: each.header_offset)
        if archive.start_dir != end.directory_at:
            raise roster.refusal("has a directory that contradicts itself")
        for member in members:
            _check_member(member, roster)
        _check_layout(stream, members, end, roster)
        for member in members:
            yield from _read_member(archive, member)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[Entry]:
    name = member.orig_filename
    if name.endswith("/"):
        yield Entry(name, is_folder=True, chunks=iter(()))
        return
    with archive.open(member) as content:
        yield Entry(name, is_folder=False, chunks=iter(lambda: content.read(_CHUNK), b""))


def _read_end(stream: IO[bytes], roster: Roster) -> _End:
    """Find the one last record, at the very end but for its comment."""
    size = stream.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL.size - 0xFFFF)
    stream.seek(start)
    tail = stream.read()
    at = len(tail) - _TAIL.size
    if not tail.startswith(_END, max(at, 0)):
        at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _TAIL.size:
        raise roster.refusal("is no complete zip archive, or has bytes after its end")
    _, disk, first_disk, here, members, length, offset, comment = _TAIL.unpack_from(tail, at)
    if at + _TAIL.size + comment != len(tail):
        raise roster.refusal("has bytes after its end")
    if disk or first_disk or here != members:
        raise roster.refusal("is one part of several")
    if 0xFFFF in (here, members) or 0xFFFFFFFF in (length, offset):
        raise roster.refusal("is a ZIP64 archive, which a plugin is too small for")
    if offset + length != start + at:
        raise roster.refusal("has bytes that belong to no member")
    return _End(members, offset, start + at)


def _check_directory(stream: IO[bytes], end: _End, roster: Roster) -> None:
    """Check that the directory has as many members as the end says, before all of them are taken into memory."""
    at = end.directory_at
    for _ in range(end.members):
        stream.seek(at)
        header = stream.read(_CENTRAL.size)
        if len(header) != _CENTRAL.size or header[:4] != b"PK\x01\x02":
            raise roster.refusal("has a directory that contradicts itself")
        at += _CENTRAL.size + sum(_CENTRAL.unpack(header)[10:13])  # name, extra field and comment
    if at != end.at:
        raise roster.refusal("has a directory that contradicts itself")


def _check_member(member: zipfile.ZipInfo, roster: Roster) -> None:
    name, flags = member.orig_filename, member.flag_bits
    mode = member.external_attr >> 16
    if flags & (_ENCRYPTED | _STRONG | _MASKED):
        raise roster.member_refusal(name, "is encrypted")
    if flags & _PATCHED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise roster.member_refusal(name, "is compressed by a method that is not read here")
    if stat.S_ISLNK(mode):
        raise roster.member_refusal(name, "is a symbolic link")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise roster.member_refusal(name, "is a device, pipe or socket")
    if stat.S_ISDIR(mode) and not name.endswith("/"):
        raise roster.member_refusal(name, "is a folder that is named like a file")
    if name.endswith("/") and (stat.S_ISREG(mode) or member.file_size):
        raise roster.member_refusal(name, "is a file that is named like a folder")
    if not name.isascii() and not flags & _UTF8:
        raise roster.member_refusal(name, "has a name that is not UTF-8")
    if _SECOND_NAME in _extra_kinds(member.extra):
        raise roster.member_refusal(name, "has two names")


def _extra_kinds(extra: bytes) -> Iterator[int]:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        yield kind
        extra = extra[4 + length :]


def _check_layout(stream: IO[bytes], members: list[zipfile.ZipInfo], end: _End, roster: Roster) -> None:
    """Check that the members lie one after the other, from the first byte to the directory."""
    expected = frozenset({0})
    for member in members:
        name = member.orig_filename
        if member.header_offset not in expected:
            what = "overlaps another member" if member.header_offset < max(expected) else "lies behind hidden bytes"
            raise roster.member_refusal(name, what)
        content_end = _read_content_end(stream, member, roster)
        later = _DESCRIPTORS if member.flag_bits & _DESCRIBED_LATER else frozenset({0})
        expected = frozenset(content_end + each for each in later)
    if end.directory_at not in expected:
        raise roster.refusal("has bytes that belong to no member")


def _read_content_end(stream: IO[bytes], member: zipfile.ZipInfo, roster: Roster) -> int:
    """Return where a member's content ends; its own header must say what the directory says."""
    stream.seek(member.header_offset)
    header = stream.read(_LOCAL.size)
    if len(header) != _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise roster.member_refusal(member.orig_filename, "has a damaged header")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
    name = stream.read(name_length)
    if name != member.orig_filename.encode("utf-8" if flags & _UTF8 else "cp437", errors="replace"):
        raise roster.member_refusal(member.orig_filename, "has two names")
    says_later = flags & _DESCRIBED_LATER and (crc, packed, size) == (0, 0, 0)
    is_same = says_later or (crc, packed, size) == (member.CRC, member.compress_size, member.file_size)
    if (flags, method) != (member.flag_bits, member.compress_type) or not is_same:
        raise roster.member_refusal(member.orig_filename, "has two headers that differ")
    if _SECOND_NAME in _extra_kinds(stream.read(extra_length)):
        raise roster.member_refusal(member.orig_filename, "has two names")
    length: int = _LOCAL.size + name_length + extra_length + member.compress_size
    return member.header_offset + length
