"""Copying a plugin out of a folder or out of a git checkout into a staging folder.

Of a checkout only what is committed is taken, by reading git's objects: no command that its own
configuration can name is run (hooks, filters, file watchers, transports).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .archive import write_entries
from .members import Entry, Limits, Roster

__all__ = ["copy_checkout", "copy_folder", "is_checkout"]

_CHUNK = 64 * 1024
_KINDS = {"120000": "is a symbolic link", "160000": "is a submodule"}


def is_checkout(folder: Path) -> bool:
    """Tell whether a folder is the top of a git working tree."""
    return os.path.lexists(folder / ".git")


# --- folders ------------------------------------------------------------------------------------


def copy_folder(folder: Path, staging: Path, limits: Limits) -> Roster:
    """Copy a plugin's folder; return what was admitted.

    Raises:
        MemberRefusedError: something in it is a link, a device, too large or badly named.
        ArchiveRefusedError: there is too much in it, or it cannot be read.
    """
    roster = Roster(folder.name or str(folder), limits)
    try:
        write_entries(_iter_folder(folder, "", roster), staging, roster)
    except OSError as error:
        raise roster.refusal(f"cannot be copied: {error.strerror} ({error.filename or staging})") from error
    return roster


def _iter_folder(folder: Path, prefix: str, roster: Roster) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda each: each.name)
    for entry in entries:
        name = prefix + entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield Entry(f"{name}/", is_folder=True, chunks=iter(()))
            yield from _iter_folder(folder / entry.name, f"{name}/", roster)
        elif stat.S_ISREG(mode):
            yield Entry(name, is_folder=False, chunks=_iter_file(folder / entry.name))
        else:
            what = "a symbolic link" if stat.S_ISLNK(mode) else "a device, pipe or socket"
            raise roster.member_refusal(name, f"is {what}")


def _iter_file(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


# --- git ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tracked:
    name: str
    object_id: str


def copy_checkout(folder: Path, staging: Path, limits: Limits, *, allow_dirty: bool = False) -> Roster:
    """Copy what is committed (``HEAD``) in a git checkout; return what was admitted.

    Args:
        folder: the top of the working tree.
        staging: an empty folder to write to.
        limits: how large it may be.
        allow_dirty: leave out changes that are not committed, instead of refusing them.

    Raises:
        MemberRefusedError: a file is a link or a submodule, too large or badly named.
        ArchiveRefusedError: git cannot read it, or there are changes that are not committed.
    """
    roster = Roster(folder.name or str(folder), limits)
    git = _Git(folder, roster)
    tracked = list(git.iter_tracked())
    write_entries(git.iter_entries(tracked), staging, roster)
    if not allow_dirty and (changed := git.find_change(tracked, staging)):
        raise roster.refusal(
            f"has changes that are not committed ({changed!a}); commit them,"
            " or add `--dirty` to install what is committed without them"
        )
    return roster


class _Git:
    """One working tree, read through git's object store."""

    def __init__(self, folder: Path, roster: Roster) -> None:
        self._folder = folder
        self._roster = roster
        program = shutil.which("git")
        if program is None:
            raise roster.refusal("is a git checkout, and git is not installed; install git, or add an archive of it")
        self._command = [
            program, "--no-pager", "--no-replace-objects", "--literal-pathspecs", "-C", str(folder),
            "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-c", "protocol.allow=never",
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._environment = kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}

    def iter_tracked(self) -> Iterator[_Tracked]:
        """Yield the files of HEAD."""
        listing = self._run("ls-tree", "-r", "-z", "--full-tree", "HEAD")
        for line in filter(None, listing.split(b"\0")):
            fields, _, path = line.partition(b"\t")
            mode, kind, object_id = fields.decode().split()
            name = self._decode(path)
            if kind != "blob" or mode in _KINDS:
                raise self._roster.member_refusal(name, _KINDS.get(mode, "is no file"))
            yield _Tracked(name, object_id)

    def iter_entries(self, tracked: list[_Tracked]) -> Iterator[Entry]:
        """Yield the files with their committed content."""
        with subprocess.Popen(  # noqa: S603  # a fixed program; names reach it as object ids only
            [*self._command, "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for each in tracked:
                    process.stdin.write(f"{each.object_id}\n".encode())
                    process.stdin.flush()
                    chunks = self._iter_object(process.stdout, each)
                    yield Entry(each.name, is_folder=False, chunks=chunks)
                    for _ in chunks:  # whatever its reader left
                        pass
            finally:
                process.kill()

    def _iter_object(self, output: IO[bytes], tracked: _Tracked) -> Iterator[bytes]:
        head = output.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise self._roster.member_refusal(tracked.name, "cannot be read by git")
        left = int(head[2])
        while left:
            chunk = output.read(min(left, _CHUNK))
            if not chunk:
                raise self._roster.member_refusal(tracked.name, "cannot be read by git")
            left -= len(chunk)
            yield chunk
        output.read(1)  # the line end after each object

    def find_change(self, tracked: list[_Tracked], staging: Path) -> str | None:
        """Return the name of one file that differs from what is committed, or is not committed at all."""
        committed = {each.name for each in tracked}
        for name in sorted(committed):
            if not _is_same(self._folder / name, staging / name):
                return name
        added = self._run("ls-files", "--cached", "--others", "--exclude-standard", "-z")
        return next(
            (name for path in added.split(b"\0") if path and (name := self._decode(path)) not in committed), None
        )

    def _run(self, *arguments: str) -> bytes:
        done = subprocess.run(  # noqa: S603  # a fixed program with fixed arguments
            [*self._command, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=self._environment,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[0] if lines else done.returncode
            raise self._roster.refusal(f"cannot be read by git: {reason}; mend it, or add a copy without `.git`")
        return done.stdout

    def _decode(self, path: bytes) -> str:
        try:
            return path.decode()
        except UnicodeDecodeError:
            raise self._roster.member_refusal(path.decode(errors="replace"), "has a name that is not UTF-8") from None


def _is_same(mine: Path, committed: Path) -> bool:
    """Tell whether a file of the working tree holds what is committed; what was left out is not compared."""
    if not committed.exists():
        return True
    try:
        found = mine.lstat()
        is_alike = stat.S_ISREG(found.st_mode) and found.st_size == committed.stat().st_size
        return is_alike and mine.read_bytes() == committed.read_bytes()
    except OSError:
        return False
