"""Unpacking archives: what is inside is read as a stream, checked, and written to one staging folder.

``zip``, ``tar``, ``tar.gz``, ``tar.bz2`` and ``tar.xz`` are told apart by their content, not by their name.
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from .members import Entry, Limits, Roster
from .tar import iter_tar
from .zip import iter_zip

__all__ = ["unpack", "write_entries"]

_CHUNK = 64 * 1024
_XZ_MEMORY = 128 * 1024 * 1024
"""What unpacking `xz -9` takes, and some."""


def unpack(file: Path, staging: Path, limits: Limits) -> Roster:
    """Unpack an archive into an empty folder; return what was admitted.

    Nothing is written outside ``staging``. After an error it may hold a part of the archive.

    Raises:
        MemberRefusedError: one member is not acceptable; it is named, with the reason.
        ArchiveRefusedError: the archive as a whole is not.
    """
    source = file.name
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        roster = Roster(source, limits, packed_bytes=size)
        if size > limits.total_bytes:
            raise roster.refusal(f"is larger than {limits.total_bytes:,} bytes")
        with _translated(roster):
            write_entries(_iter_entries(stream, roster), staging, roster)
    return roster


def write_entries(entries: Iterable[Entry], staging: Path, roster: Roster) -> None:
    """Write members into a folder that nobody else writes to; each is admitted first, and counted as it is read.

    Raises:
        MemberRefusedError: one is not acceptable.
        ArchiveRefusedError: there are too many.
    """
    for entry in entries:
        parts = roster.admit(entry.name, is_folder=entry.is_folder)
        if parts is None:
            for _ in _counted(entry, roster):
                pass
        elif entry.is_folder:
            staging.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        else:
            path = staging.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _counted(entry, roster))
    roster.check_complete()


def _counted(entry: Entry, roster: Roster) -> Iterator[bytes]:
    written = 0
    for chunk in entry.chunks:
        written += len(chunk)
        roster.count(entry.name, len(chunk), written)
        yield chunk


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that is not there yet, readable by all as code is, and on disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o644), "wb") as target:
        for chunk in chunks:
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())


@contextmanager
def _translated(roster: Roster) -> Iterator[None]:
    """Say of a damaged archive that it is one, in whatever way its decoder puts it."""
    try:
        yield
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
        EOFError, NotImplementedError, RuntimeError, UnicodeError, ValueError,
    ) as error:  # fmt: skip
        raise roster.refusal(f"is damaged: {error}") from error


def _iter_entries(stream: IO[bytes], roster: Roster) -> Iterator[Entry]:
    head = stream.read(512)
    stream.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return iter_zip(stream, roster)
    if head.startswith(b"\x1f\x8b"):
        return iter_tar(_Unpacked(stream, _Gunzip(), roster).read, roster)
    if head.startswith(b"BZh"):
        return iter_tar(_Unpacked(stream, bz2.BZ2Decompressor(), roster).read, roster)
    if head.startswith(b"\xfd7zXZ\x00"):
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        return iter_tar(_Unpacked(stream, decoder, roster).read, roster)
    if head[257:262] == b"ustar":
        return iter_tar(stream.read, roster)
    raise roster.refusal("is neither a zip nor a tar archive (plain, or packed by gzip, bzip2 or xz)")


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """A gzip decoder with the face of those for bzip2 and xz."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._is_full and not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self._is_full = len(found) == max_length and not self._inner.eof
        return found


class _Unpacked:
    """A packed stream, unpacked as far as it is read; one stream only, with nothing after it."""

    def __init__(self, stream: IO[bytes], decoder: _Decoder, roster: Roster) -> None:
        self._stream = stream
        self._decoder = decoder
        self._roster = roster
        self._total = 0

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        found = bytearray()
        while len(found) < size and not self._decoder.eof:
            found += self._step(size - len(found))
        if self._decoder.eof and (self._decoder.unused_data or self._stream.read(1)):
            raise self._roster.refusal("has bytes after its end")
        self._total += len(found)
        if self._roster.is_bomb(self._total):
            raise self._roster.refusal(f"unpacks to more than {self._roster.limits.ratio} times its size")
        return bytes(found)

    def _step(self, size: int) -> bytes:
        packed = self._stream.read(_CHUNK) if self._decoder.needs_input else b""
        if not packed and self._decoder.needs_input:
            raise self._roster.refusal("ends in the middle")
        return self._decoder.decompress(packed, size)
