"""What may be a member of a plugin that somebody hands over: names, kinds and sizes. Pure.

Whatever is odd is refused, never repaired: a name that has to be mended before it can be written is a
name that two programs understand differently.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from pixsim7_backend.infrastructure.plugins.errors.installing import ArchiveRefusedError, MemberRefusedError

__all__ = ["Entry", "Limits", "Roster", "find_name_problem"]

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a plugin may be; checked against what is read, not against what headers claim."""

    total_bytes: int = 64 * 1024 * 1024
    """All files together, unpacked."""
    file_bytes: int = 16 * 1024 * 1024
    """One file."""
    members: int = 4_000
    """Files and folders."""
    ratio: int = 100
    """Unpacked size over packed size, once more than a MiB has been unpacked."""
    depth: int = 16
    """Names in one path."""
    name_bytes: int = 200
    """One name in a path, in UTF-8."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as its container gives it; the chunks of a file can be read once, before the next entry."""

    name: str
    is_folder: bool
    chunks: Iterator[bytes]


_FREE_OF_RATIO = 1024 * 1024
_VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", ".pijul", "_darcs", "cvs", "_svn", "git~1"})
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{each}{n}" for each in ("com", "lpt") for n in range(10))})
_NATIVE = re.compile(r".*\.(?:so(?:\.[0-9]+)*|pyd|dll|dylib)")
_SITE = re.compile(r".*\.(?:pth|egg-link)")
_COMPILED = (".pyc", ".pyo")
#: Control, format (bidirectional marks, zero-width), surrogates, private use, unassigned, line and paragraph ends.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Letters and marks that show nothing, or a blank: fillers, variation selectors, the grapheme joiner.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def find_name_problem(name: str, limits: Limits) -> str | None:
    """Say why a member's name (with ``/`` between its parts) is refused, or return None."""
    if not name:
        return "has no name"
    if name.startswith(("/", "~")):
        return "is an absolute name"
    if "\\" in name:
        return "has a backslash in its name"
    if ":" in name:
        return "has a drive letter or a stream in its name"
    if problem := _find_unseen(name):
        return problem
    parts = name.split("/")
    if len(parts) > limits.depth:
        return f"is nested deeper than {limits.depth} folders"
    return next((problem for part in parts if (problem := _find_part_problem(part, limits))), None)


def _find_unseen(name: str) -> str | None:
    for char in name:
        if unicodedata.category(char) in _UNSEEN or _BLANK.match(char) or (char.isspace() and char != " "):
            what = "control" if unicodedata.category(char) == "Cc" else "bidirectional, invisible or unassigned"
            return f"has a {what} character in its name (U+{ord(char):04X})"
    return None


def _find_part_problem(part: str, limits: Limits) -> str | None:
    folded = unicodedata.normalize("NFKC", part).casefold()
    if part == "..":
        return "leads out of the plugin's folder by `..`"
    if part in ("", ".") or "/" in folded or "\\" in folded or folded.strip(". ") == "":
        return "has a part in its name that means nothing"
    if len(part.encode()) > limits.name_bytes:
        return f"has a name longer than {limits.name_bytes} bytes"
    if part != part.rstrip(". ") or part != part.lstrip(" "):
        return "has a blank or a dot at the edge of its name, which some systems drop"
    if folded.partition(".")[0].rstrip() in _RESERVED:
        return "has a name that is a device on some systems"
    if folded in _VERSION_CONTROL:
        return "is a folder of a version control system"
    return None


def _find_kind_problem(last: str) -> str | None:
    folded = unicodedata.normalize("NFKC", last).casefold()
    if _SITE.fullmatch(folded):
        return "is a path file, which Python would run at every start"
    if _NATIVE.fullmatch(folded):
        return "is compiled native code"
    return None


class Roster:
    """The members admitted so far; every file and every chunk passes here before anything is written.

    ``packed_bytes`` is the size of the archive, None where nothing is packed. ``left_out`` are compiled
    files beside their source, which Python makes anew: a stale or forged one would run instead of it.
    """

    def __init__(self, source: str, limits: Limits, *, packed_bytes: int | None = None) -> None:
        self.source = source
        self.limits = limits
        self.left_out: list[str] = []
        self.total = 0
        self._packed = packed_bytes
        self._seen: set[Parts] = set()
        self._spelled: dict[Parts, Parts] = {}
        self._files: set[Parts] = set()
        self._parents: set[Parts] = set()
        self._compiled: list[tuple[str, Parts]] = []
        self._count = 0

    def admit(self, name: str, *, is_folder: bool) -> Parts | None:
        """Return the parts of the path at which to write a member, None where it is left out.

        Raises:
            MemberRefusedError: its name, kind or place is not acceptable.
            ArchiveRefusedError: there are too many.
        """
        self._count += 1
        if self._count > self.limits.members:
            raise self.refusal(f"has more than {self.limits.members} members")
        plain = name.removesuffix("/") if is_folder else name
        plain = plain.removeprefix("./")  # how `tar -c .` writes every name
        if is_folder and plain in ("", "."):
            return None
        if problem := find_name_problem(plain, self.limits):
            raise self.member_refusal(name, problem)
        parts = tuple(plain.split("/"))
        self._place(name, parts, is_folder=is_folder)
        return None if self._is_left_out(name, parts, is_folder=is_folder) else parts

    def count(self, member: str, size: int, written: int) -> None:
        """Note ``size`` more bytes of a member, ``written`` in all of it.

        Raises:
            MemberRefusedError: it, or everything together, is too large, or grows too much.
        """
        self.total += size
        limits = self.limits
        if written > limits.file_bytes:
            raise self.member_refusal(member, f"is larger than {limits.file_bytes:,} bytes")
        if self.total > limits.total_bytes:
            raise self.member_refusal(member, f"makes it larger than {limits.total_bytes:,} bytes in all")
        if self.is_bomb(self.total):
            raise self.member_refusal(member, f"makes it unpack to more than {limits.ratio} times its size")

    def is_bomb(self, unpacked: int) -> bool:
        """Tell whether so many bytes are too many for the size of the archive."""
        return (
            self._packed is not None
            and unpacked > _FREE_OF_RATIO
            and unpacked > self.limits.ratio * max(self._packed, 1)
        )

    def check_complete(self) -> None:
        """Check what only the whole shows: compiled files have their source beside them.

        Raises:
            MemberRefusedError: one has not.
        """
        for name, parts in self._compiled:
            if not any(source in self._files for source in _sources_of(parts)):
                raise self.member_refusal(name, "is compiled code without its source")
            self.left_out.append(name)

    def member_refusal(self, member: str, reason: str) -> MemberRefusedError:
        """Return the error that names the member and the reason."""
        return MemberRefusedError(source=self.source, member=member, reason=reason)

    def refusal(self, reason: str) -> ArchiveRefusedError:
        """Return the error that refuses everything for a reason."""
        return ArchiveRefusedError(source=self.source, reason=reason)

    def _place(self, name: str, parts: Parts, *, is_folder: bool) -> None:
        for depth in range(1, len(parts) + 1):
            path = parts[:depth]
            spelled = self._spelled.setdefault(tuple(map(_fold, path)), path)
            if spelled != path:
                other = "/".join(spelled)
                raise self.member_refusal(name, f"is the same name as {other!a} on some systems")
            if depth < len(parts) and path in self._files:
                raise self.member_refusal(name, f"lies in {'/'.join(path)!r}, which is a file")
        if parts in self._seen or (not is_folder and parts in self._parents):
            raise self.member_refusal(name, "is there twice")
        self._seen.add(parts)
        self._parents.update(parts[:depth] for depth in range(1, len(parts)))
        if not is_folder:
            self._files.add(parts)

    def _is_left_out(self, name: str, parts: Parts, *, is_folder: bool) -> bool:
        if is_folder:
            return parts[-1] == "__pycache__"
        if problem := _find_kind_problem(parts[-1]):
            raise self.member_refusal(name, problem)
        if _fold(parts[-1]).endswith(_COMPILED):
            self._compiled.append((name, parts))
            return True
        return False


def _fold(part: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold())


def _sources_of(parts: Parts) -> Iterator[Parts]:
    """Yield where the source of a compiled file may be."""
    *folders, last = parts
    yield (*folders, last[:-1])
    if folders and folders[-1] == "__pycache__":
        yield (*folders[:-1], last.partition(".")[0] + ".py")
