"""A strict reader of tar archives: regular files and folders, in the formats that today's programs write.

The standard library's reader forgives: it ends quietly at a broken header, follows sizes and names that
extended headers put over the real ones, and takes extended headers of any size into memory. Here
everything that is not plain is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from .members import Entry, Roster

__all__ = ["iter_tar"]

Read = Callable[[int], bytes]
"""Returns as many bytes as asked for, fewer only at the end."""

_BLOCK = 512
_CHUNK = 64 * 1024
_MAX_EXTENSION = 64 * 1024
_MAX_PADDING = 1024 * 1024
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_FILE, _FOLDER, _LONG_NAME, _EXTENDED, _GLOBAL = b"0", b"5", b"L", b"x", b"g"
_KINDS = {
    b"1": "is a hard link",
    b"2": "is a symbolic link",
    b"3": "is a character device",
    b"4": "is a block device",
    b"6": "is a named pipe",
    b"K": "is a link with a long target",
    b"S": "is a sparse file",
    b"X": "has extended headers of an old kind",
}
#: What extended headers may say: names, and what is ignored here. Sizes, links and sparse maps are not among them.
_IGNORED = re.compile(r"mtime|atime|ctime|uid|gid|uname|gname|comment|SCHILY\.[\w.]+|LIBARCHIVE\.[\w.\-:]+")
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")


def iter_tar(read: Read, roster: Roster) -> Iterator[Entry]:
    """Yield the members of an uncompressed tar stream.

    Raises:
        MemberRefusedError: a member is neither a file nor a folder, or its header plays tricks.
        ArchiveRefusedError: it is no tar, ends early or goes on after its end.
    """
    long_name: str | None = None
    while (header := _read_block(read, roster)).strip(b"\0"):
        name, kind, size = _parse(header, roster)
        if kind in (_LONG_NAME, _EXTENDED, _GLOBAL):
            if long_name is not None:
                raise roster.member_refusal(name, "has two names")
            long_name = _read_extension(read, roster, name, kind, size)
            continue
        entry_name, long_name = long_name or name, None
        yield from _read_member(read, roster, entry_name, kind, size)
    if long_name is not None:
        raise roster.refusal("ends in the middle")
    _check_end(read, roster)


def _read_member(read: Read, roster: Roster, name: str, kind: bytes, size: int) -> Iterator[Entry]:
    if kind == _FOLDER:
        if size:
            raise roster.member_refusal(name, "is a folder with content")
        yield Entry(name, is_folder=True, chunks=iter(()))
        return
    if kind != _FILE:
        raise roster.member_refusal(name, _KINDS.get(kind, f"is of an unknown kind ({kind!r})"))
    if name.endswith("/"):
        raise roster.member_refusal(name, "is a file that is named like a folder")
    chunks = _iter_chunks(read, roster, size)
    yield Entry(name, is_folder=False, chunks=chunks)
    for _ in chunks:  # whatever its reader left
        pass


def _iter_chunks(read: Read, roster: Roster, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = read(min(left, _CHUNK))
        if not chunk:
            raise roster.refusal("ends in the middle")
        left -= len(chunk)
        yield chunk
    padding = -size % _BLOCK
    if len(read(padding)) != padding:
        raise roster.refusal("ends in the middle")


# --- headers ------------------------------------------------------------------------------------


def _read_block(read: Read, roster: Roster) -> bytes:
    block = read(_BLOCK)
    if len(block) != _BLOCK:
        raise roster.refusal("ends in the middle")
    return block


def _parse(header: bytes, roster: Roster) -> tuple[str, bytes, int]:
    """Return name, kind and size."""
    if header[257:265] not in (_POSIX, _GNU):
        raise roster.refusal("is no tar archive of a kind that is read here")
    unsummed = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156], roster) != sum(unsummed):
        raise roster.refusal("has a damaged header")
    name = _text(header[:100], roster)
    prefix = _text(header[345:500], roster) if header[257:265] == _POSIX else ""
    kind = header[156:157]
    full = f"{prefix}/{name}" if prefix else name
    return full, _FILE if kind == b"\0" else kind, _number(header[124:136], roster)


def _number(field: bytes, roster: Roster) -> int:
    digits = field.rstrip(b" \0").lstrip(b" ")
    if not re.fullmatch(rb"[0-7]{0,12}", digits):
        raise roster.refusal("has a damaged header")
    return int(digits or b"0", 8)


def _text(field: bytes, roster: Roster) -> str:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        raise roster.member_refusal(text.decode(errors="replace"), "has something hidden behind its name")
    return _decode(text, roster)


def _decode(text: bytes, roster: Roster) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise roster.member_refusal(text.decode(errors="replace"), "has a name that is not UTF-8") from None


# --- extended headers ---------------------------------------------------------------------------


def _read_extension(read: Read, roster: Roster, name: str, kind: bytes, size: int) -> str | None:
    """Read a header that belongs to the next member, or to all; return the name in it, if there is one."""
    if not 0 < size <= _MAX_EXTENSION:
        raise roster.member_refusal(name, "has an extended header of an odd size")
    roster.count(name, _BLOCK + size, size)
    content = b"".join(_iter_chunks(read, roster, size))
    if kind == _LONG_NAME:
        return _text(content, roster)
    found = _parse_records(content, roster, name)
    if kind == _GLOBAL and "path" in found:
        raise roster.member_refusal(name, "gives all members one name")
    return found.get("path")


def _parse_records(content: bytes, roster: Roster, name: str) -> dict[str, str]:
    """Return the records ``length key=value`` of a pax header; only names matter, most others are refused."""
    found: dict[str, str] = {}
    while content:
        match = _RECORD.match(content)
        length = int(match[1]) if match else 0
        if match is None or length <= match.end() or content[length - 1 : length] != b"\n":
            raise roster.member_refusal(name, "has a damaged extended header")
        key = match[2].decode(errors="replace")
        if key in found or not (key == "path" or _IGNORED.fullmatch(key)):
            raise roster.member_refusal(name, f"has an extended header that changes it ({key!a})")
        found[key] = _decode(content[match.end() : length - 1], roster) if key == "path" else ""
        content = content[length:]
    return found


def _check_end(read: Read, roster: Roster) -> None:
    """Check that nothing but zeros follows the first block of zeros."""
    padding = 0
    while chunk := read(_CHUNK):
        padding += len(chunk)
        if padding > _MAX_PADDING or chunk.strip(b"\0"):
            raise roster.refusal("has bytes after its end")
